//! Gateway facts: on which bridges and VLANs the switch itself is a station, and what of a destination
//! becomes. Compiled from what is declared; the pipeline reads them by filtering identifier.

use super::ecmp::Group;
use super::making::{self, Made};
use super::model::Model;
use super::numbers::Numbers;
use super::routes::Routes;
use crate::table::lpm::Lpm;
use crate::wire::hop::V4_MAPPED;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU16;
use std::sync::Arc;
use switch_api::{Mac, Name, Prefix, RouterAdvert, Vid};

/// An address of the switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Own {
    /// The address; IPv4 is IPv4-mapped.
    pub ip: u128,
    /// Bits of its network, counted over all 128.
    pub len: u8,
}

impl Own {
    /// Its network: the address without what tells hosts apart.
    pub fn network(&self) -> u128 {
        self.ip & mask(self.len)
    }

    /// Whether `ip` is in its network.
    pub fn covers(&self, ip: u128) -> bool {
        (self.ip ^ ip) & mask(self.len) == 0
    }
}

/// The switch as a station on one bridge and VLAN.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gateway {
    /// Its MAC, low 48 bits.
    pub mac: u64,
    /// Number of its routing table.
    pub vrf: u16,
    /// Its addresses as declared.
    pub addresses: Box<[Own]>,
    /// Its IPv6 link-local address, made of the MAC (RFC 4291, appendix A).
    pub link_local: u128,
    /// What it says of itself to hosts, if it does.
    pub advert: Option<RouterAdvert>,
    /// Addresses of translation that lie in its networks, in order: it answers for them.
    pub stands_for: Box<[u128]>,
    /// It answers for stations that it knows: [`switch_api::Bridge::neigh_suppress`].
    pub suppress: bool,
    /// It answers for what it has a route to: [`switch_api::Bridge::neigh_proxy`].
    pub proxy: bool,
    /// The node's kernel is the station, on a NIC that it shares: it answers, and knows its neighbours.
    pub is_kernels: bool,
}

impl Gateway {
    /// Whether it answers to `ip`.
    #[inline]
    pub fn owns(&self, ip: u128) -> bool {
        self.addresses.iter().any(|own| own.ip == ip) || ip == self.link_local && self.speaks_v6()
    }

    /// Whether it answers ARP and neighbour discovery for `ip` as for its own.
    pub fn answers_for(&self, ip: u128) -> bool {
        self.owns(ip) || self.stands_for.binary_search(&ip).is_ok()
    }

    /// The address to speak to `ip` with: of the same network if there is one, else the first of the same
    /// version.
    pub fn speaks_as(&self, ip: u128) -> Option<u128> {
        if is_link_local(ip) {
            return Some(self.link_local);
        }
        let same_version = |own: &&Own| is_v4(own.ip) == is_v4(ip);
        let own = self.addresses.iter().filter(same_version);
        own.clone().find(|own| own.covers(ip)).or_else(|| own.clone().next()).map(|own| own.ip)
    }

    /// Whether it has an IPv6 address, and so a link-local one.
    pub fn speaks_v6(&self) -> bool {
        self.addresses.iter().any(|own| !is_v4(own.ip))
    }

    /// Whether `ip` lies in one of its networks.
    pub fn covers(&self, ip: u128) -> bool {
        self.addresses.iter().any(|own| own.covers(ip)) || is_link_local(ip) && self.speaks_v6()
    }
}

/// What becomes of a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// It is the switch itself.
    Local,
    /// Everybody in a network: directed broadcast, which is off (RFC 2644).
    Broadcast,
    /// A neighbour on this bridge and VLAN.
    Link(u16),
    /// A next hop of this group.
    Via(u16),
    /// The node's kernel, a station on this bridge and VLAN.
    Kernel(u16),
    /// Dropped in silence.
    Blackhole,
    /// Dropped: there is no way.
    Unreachable,
    /// Dropped: it is forbidden.
    Prohibit,
}

/// [`Entry::mtu`] where a route says nothing.
pub const NO_MTU: u16 = u16::MAX;

/// What a routing table says of a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What becomes of it.
    pub action: Action,
    /// Longest packet, bytes, IP header included; [`NO_MTU`]: as long as its way out allows.
    pub mtu: u16,
    /// Where it is counted what goes this way.
    pub counter: Option<NonZeroU16>,
}

// Eight to a cache line: every packet's is read.
const _: () = assert!(size_of::<Entry>() == 8);

impl From<Action> for Entry {
    fn from(action: Action) -> Self {
        Self { action, mtu: NO_MTU, counter: None }
    }
}

/// A routing table (VRF).
#[derive(Clone, Debug, Default)]
pub struct Table {
    pub(super) v4: Lpm,
    pub(super) v6: Lpm,
}

/// All that routing reads of a snapshot, beside what stands with each filtering identifier.
#[derive(Clone, Debug, Default)]
pub struct Routing {
    /// By number.
    pub tables: Box<[Table]>,
    pub(super) numbers: Arc<Numbers>,
    pub(super) made: Arc<Made>,
}

impl Routing {
    /// What becomes of `ip` in table `vrf`; none if there is no route.
    #[inline]
    pub fn find(&self, vrf: u16, ip: u128) -> Option<Entry> {
        let table = self.tables.get(usize::from(vrf))?;
        let value = if is_v4(ip) { table.v4.find_v4(ip as u32) } else { table.v6.find(ip) };
        self.entry(value)
    }

    /// Looks up the addresses of a batch, each in its table, at once; for [`Routing::entry`].
    #[inline]
    pub fn find_each(&self, values: &mut [u32], ask: impl Fn(usize) -> (u16, u128)) {
        values.fill(crate::table::lpm::NO_ROUTE);
        // Every gateway's table is there, unless there is none at all.
        let Some(first) = self.tables.first() else { return };
        crate::table::lpm::find_each(values, |n| {
            let (vrf, ip) = ask(n);
            let table = self.tables.get(usize::from(vrf)).unwrap_or(first);
            if is_v4(ip) { (&table.v4, ip << 96) } else { (&table.v6, ip) }
        });
    }

    /// What a value that was looked up stands for; none if there is no route.
    #[inline]
    pub fn entry(&self, value: u32) -> Option<Entry> {
        self.numbers.entries.get((value as usize).wrapping_sub(1)).copied()
    }

    /// That numbers are held by as many routes as have them.
    #[cfg(test)]
    pub(super) fn check_uses(&self) {
        self.made.check_uses(self);
    }

    /// Next hops by number.
    #[inline]
    pub fn group(&self, group: u16) -> Option<&Group> {
        self.numbers.groups.get(usize::from(group))
    }
}

/// Both default routes.
pub const EVERYWHERE: [Prefix; 2] = [
    Prefix { address: IpAddr::V4(Ipv4Addr::UNSPECIFIED), len: 0 },
    Prefix { address: IpAddr::V6(Ipv6Addr::UNSPECIFIED), len: 0 },
];

/// Gateways by filtering identifier, and the routing tables: those of `before`, changed by what is different.
pub fn compile(model: &Model, before: &Routing) -> (BTreeMap<u16, Arc<Gateway>>, Routing) {
    if model.addresses.is_empty() {
        return Default::default();
    }
    let vrfs = number_vrfs(model);
    let mut gateways: BTreeMap<u16, Gateway> = BTreeMap::new();
    for address in &model.addresses {
        let Some(bridge) = model.bridges.get(&address.bridge) else { continue };
        let Some(fid) = model.fids.get(&(bridge.id, address.vid)).copied() else { continue };
        let vrf = vrfs.get(&bridge.object.vrf).copied().unwrap_or(0);
        let mac = mac_of(model, &bridge.object).to_u64();
        let gateway = gateways.entry(fid).or_insert_with(|| Gateway {
            mac,
            vrf,
            addresses: Box::default(),
            link_local: link_local(mac),
            advert: bridge.object.router_advert,
            stands_for: Box::default(),
            suppress: bridge.object.neigh_suppress,
            proxy: bridge.object.neigh_proxy,
            is_kernels: false,
        });
        gateway.addresses = gateway.addresses.iter().copied().chain([own(address.address)]).collect();
    }
    for (vrf, number) in &vrfs {
        let here = model.ways_out(vrf);
        gateways.extend(here.iter().filter_map(|way| Some((way.fid, model.gateway_of(way, *number)?))));
    }
    for bridge in model.bridges.values() {
        let nat: Vec<u128> = model.nat_ips(&bridge.object.vrf).into_iter().map(to_bits).collect();
        if nat.is_empty() {
            continue;
        }
        for (_, fid) in model.fids.range((bridge.id, Vid::MIN)..=(bridge.id, Vid::MAX)) {
            let Some(gateway) = gateways.get_mut(fid) else { continue };
            let here = nat.iter().copied().filter(|ip| gateway.covers(*ip) && !gateway.owns(*ip));
            gateway.stands_for = here.collect();
            gateway.stands_for.sort_unstable();
        }
    }
    let gateways = gateways.into_iter().map(|(fid, gateway)| (fid, Arc::new(gateway))).collect();
    (gateways, making::tables(model, before))
}

/// The routing tables alone, for other declared `routes` where nothing else is different.
pub fn compile_routes(model: &Model, routes: &Routes, before: &Routing) -> Routing {
    match model.addresses.is_empty() {
        true => Routing::default(),
        false => making::tables_with(model, routes, before),
    }
}

/// Numbers of routing tables.
pub(super) fn number_vrfs(model: &Model) -> BTreeMap<&Name, u16> {
    let names: std::collections::BTreeSet<_> =
        model.bridges.values().map(|bridge| &bridge.object.vrf).collect();
    names.into_iter().zip(0..).collect()
}

/// A bridge's MAC: declared, or made of the node's seed and the bridge's name, so that it is the same after
/// every restart and another on every node. Locally administered, unicast.
pub fn mac_of(model: &Model, bridge: &switch_api::Bridge) -> Mac {
    bridge.mac.unwrap_or_else(|| {
        // FNV-1a: short, and nobody gains anything by choosing a name.
        let start = 0xcbf2_9ce4_8422_2325 ^ model.seed;
        let hash = bridge
            .name
            .as_str()
            .bytes()
            .fold(start, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
        Mac::from_u64((hash ^ hash >> 48) & 0xfcff_ffff_ffff | 0x0200_0000_0000)
    })
}

/// fe80::/64 and the MAC as a modified EUI-64.
pub fn link_local(mac: u64) -> u128 {
    let mac = u128::from(mac ^ 0x0200_0000_0000);
    0xfe80 << 112 | (mac >> 24) << 40 | 0xff_fe00_0000 | mac & 0xff_ffff
}

/// An address as 128 bits.
pub fn to_bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => V4_MAPPED | u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// The reverse of [`to_bits`].
pub fn from_bits(ip: u128) -> IpAddr {
    if is_v4(ip) { IpAddr::V4((ip as u32).into()) } else { IpAddr::V6(ip.into()) }
}

/// Whether 128 bits are an IPv4 address.
#[inline(always)]
pub fn is_v4(ip: u128) -> bool {
    ip >> 32 == 0xffff
}

/// fe80::/10.
#[inline(always)]
pub fn is_link_local(ip: u128) -> bool {
    ip >> 118 == 0xfe80 >> 6
}

pub(super) fn own(prefix: Prefix) -> Own {
    Own { ip: to_bits(prefix.address), len: 128 - prefix.bits() + prefix.len }
}

fn mask(len: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0)
}

#[cfg(not(loom))]
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_local_addresses_are_made_as_the_rfc_makes_them() {
        let expected: std::net::Ipv6Addr = "fe80::3456:78ff:fe9a:bcde".parse().unwrap();
        assert_eq!(link_local(0x3656_789a_bcde), expected.to_bits());
    }

    #[test]
    fn derived_macs_are_stable_unicast_and_apart() {
        let (one, other) = (Model { seed: 1, ..Model::default() }, Model { seed: 2, ..Model::default() });
        let bridge = |name: &str| switch_api::Bridge::new(name.parse().unwrap());
        let mac = mac_of(&one, &bridge("br0"));
        assert!(!mac.is_group() && mac.0[0] & 2 == 2);
        assert_eq!(mac, mac_of(&one, &bridge("br0")));
        assert_ne!(mac, mac_of(&one, &bridge("br1")));
        assert_ne!(mac, mac_of(&other, &bridge("br0")));
    }

    #[test]
    fn addresses_survive_their_128_bits() {
        for text in ["10.0.0.1", "255.255.255.255", "::", "fe80::1", "2001:db8::9"] {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!(from_bits(to_bits(address)), address);
        }
        assert!(
            is_link_local(to_bits("febf::1".parse().unwrap()))
                && !is_link_local(to_bits("fec0::".parse().unwrap()))
        );
    }
}
