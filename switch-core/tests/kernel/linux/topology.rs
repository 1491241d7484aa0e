//! What both worlds are made of: links with a gateway address or several, stations on them, routes. As text, so that a
//! find can be kept and read.

use super::dice::Dice;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use switch_api::{Prefix, RouteKind};

/// A bridge of the switch, a device of Linux.
#[derive(Clone, Debug)]
pub struct Link {
    /// Of all that is on it.
    pub mtu: u16,
    /// The router's.
    pub addresses: Vec<Prefix>,
    /// Each of another station; they answer when they are asked for.
    pub stations: Vec<IpAddr>,
}

/// A route that is declared.
#[derive(Clone, Debug)]
pub struct Entry {
    /// To where.
    pub prefix: Prefix,
    /// What becomes of packets.
    pub kind: RouteKind,
    /// The next hop.
    pub via: Option<IpAddr>,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Topology {
    /// By number.
    pub links: Vec<Link>,
    /// In no order.
    pub routes: Vec<Entry>,
}

/// The router's own MAC on a link.
pub fn router(link: usize) -> [u8; 6] {
    [2, 0, 0, 0, link as u8, 0xfe]
}

/// The MAC of a link's station.
pub fn station(link: usize, n: usize) -> [u8; 6] {
    [2, 0, 0, 1, link as u8, n as u8]
}

/// The router's link-local address on a link, made of its MAC (RFC 4291, appendix A).
pub fn link_local(link: usize) -> Ipv6Addr {
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0xff, 0xfe00, (link << 8 | 0xfe) as u16)
}

impl Topology {
    /// A random one: three links, of which the first has room for everything.
    pub fn random(dice: &mut Dice) -> Self {
        let mut links = Vec::new();
        for n in 0..3u8 {
            let len = if n == 0 { 24 } else { *dice.one(&[24, 16, 29, 30, 31]) };
            let (own, other) = match len {
                31 => (0, 1),
                30 => (1, 2),
                _ => (dice.below(3) as u8 + 1, dice.below(3) as u8 + 4),
            };
            let v4 = |host| IpAddr::from([10, n, 0, host]);
            let mut addresses = vec![Prefix { address: v4(own), len }];
            let mut stations = vec![v4(other)];
            let len = if n == 0 { 64 } else { *dice.one(&[64, 64, 112, 127]) };
            let v6 = |host| IpAddr::from(Ipv6Addr::new(0xfd00, n.into(), 0, 0, 0, 0, 0, host));
            let (own, other) = if len == 127 { (0, 1) } else { (1, 5) };
            addresses.push(Prefix { address: v6(own), len });
            stations.push(v6(other));
            stations.push(IpAddr::from(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, n.into(), 5)));
            links.push(Link { mtu: *dice.one(&[1500, 1500, 1400, 1280]), addresses, stations });
        }
        let mut topology = Self { links, routes: Vec::new() };
        for _ in 0..6 + dice.below(4) {
            topology.route_randomly(dice);
        }
        topology
    }

    fn route_randomly(&mut self, dice: &mut Dice) {
        let v6 = dice.chance(50);
        let len = match v6 {
            false => *dice.one(&[0, 8, 8, 16, 24, 32]),
            true => *dice.one(&[0, 16, 32, 48, 128]),
        };
        // Networks elsewhere, and now and then hosts of a link or everything.
        let address = match (v6, dice.chance(15)) {
            (false, true) => IpAddr::from([10, dice.below(3) as u8, 0, dice.below(8) as u8]),
            (false, false) => IpAddr::from([96 + dice.below(4) as u8, dice.below(3) as u8, 0, 9]),
            (true, true) => IpAddr::from([0xfd00, dice.below(3) as u16, 0, 0, 0, 0, 0, dice.below(8) as u16]),
            (true, false) => {
                IpAddr::from([0xfc00 + dice.below(4) as u16, dice.below(3) as u16, 0, 0, 0, 0, 0, 9])
            }
        };
        let prefix = Prefix { address, len }.network();
        let kinds = [
            RouteKind::Via,
            RouteKind::Via,
            RouteKind::Blackhole,
            RouteKind::Unreachable,
            RouteKind::Prohibit,
        ];
        let kind = *dice.one(&kinds);
        // Linux has a metric where the switch has an order: what a gateway makes of its network comes first.
        let is_own = self.links.iter().flat_map(|link| &link.addresses).any(|own| {
            own.network() == prefix
                || own.address == prefix.address
                || Prefix::host(own.last()) == prefix
                || Prefix::host(own.network().address) == prefix
        });
        if is_own || self.routes.iter().any(|route| route.prefix == prefix) {
            return;
        }
        let neighbour = |ip: &IpAddr| ip.is_ipv6() == v6 && !is_link_local(*ip);
        let near: Vec<IpAddr> =
            self.links.iter().flat_map(|link| &link.stations).copied().filter(neighbour).collect();
        let via = (kind == RouteKind::Via).then(|| *dice.one(&near));
        self.routes.push(Entry { prefix, kind, via });
    }

    /// Reads what [`fmt::Display`] writes, and the packets among it: each with its link.
    pub fn read(text: &str) -> (Self, Vec<(usize, Vec<u8>)>) {
        let (mut topology, mut packets) = (Self::default(), Vec::new());
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words[..] {
                ["link", mtu, ref rest @ ..] => {
                    let own = rest.iter().take_while(|word| word.contains('/'));
                    let stations = rest.iter().filter(|word| !word.contains('/'));
                    topology.links.push(Link {
                        mtu: mtu.parse().unwrap(),
                        addresses: own.map(|word| word.parse().unwrap()).collect(),
                        stations: stations.map(|word| word.parse().unwrap()).collect(),
                    });
                }
                ["route", kind, prefix, ref via @ ..] => topology.routes.push(Entry {
                    prefix: prefix.parse().unwrap(),
                    kind: match kind {
                        "blackhole" => RouteKind::Blackhole,
                        "unreachable" => RouteKind::Unreachable,
                        "prohibit" => RouteKind::Prohibit,
                        _ => RouteKind::Via,
                    },
                    via: via.first().map(|via| via.parse().unwrap()),
                }),
                ["packet", link, hex] => {
                    let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
                    packets.push((link.parse().unwrap(), (0..hex.len()).step_by(2).map(byte).collect()));
                }
                _ => panic!("{line}"),
            }
        }
        (topology, packets)
    }

    /// The station that answers for an address on a link.
    pub fn answers(&self, link: usize, ip: IpAddr) -> Option<[u8; 6]> {
        let place = self.links[link].stations.iter().position(|station| *station == ip)?;
        Some(station(link, place))
    }

    /// Whether an address is one of the router's.
    pub fn is_router(&self, ip: IpAddr) -> bool {
        let own = |(n, link): (usize, &Link)| {
            link.addresses.iter().any(|own| own.address == ip) || ip == IpAddr::from(link_local(n))
        };
        self.links.iter().enumerate().any(own)
    }
}

impl fmt::Display for Topology {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        for link in &self.links {
            write!(f, "link {}", link.mtu)?;
            link.addresses.iter().try_for_each(|own| write!(f, " {own}"))?;
            link.stations.iter().try_for_each(|ip| write!(f, " {ip}"))?;
            writeln!(f)?;
        }
        for route in &self.routes {
            write!(f, "route {} {}", format!("{:?}", route.kind).to_lowercase(), route.prefix)?;
            route.via.iter().try_for_each(|via| write!(f, " {via}"))?;
            writeln!(f)?;
        }
        Ok(())
    }
}

/// fe80::/10.
pub fn is_link_local(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.segments()[0] & 0xffc0 == 0xfe80)
}
