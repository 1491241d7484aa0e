//! `switch-ctl bridge`.

use crate::fdb::parse_vid;
use crate::output::Output;
use crate::port::Switch;
use clap::{Args, Subcommand, ValueEnum};
use switch_api::{
    AddressDelete, ApiError, Bridge, BridgeAddress, BridgeStatus, ByName, Client, Code, Done, Mac, Name,
    Nothing, Owner, Prefix, Request, ReversePath, RouterAdvert, Vid,
};

/// What can be done with bridges.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Lists bridges.
    #[command(after_help = "Example:\n  switch-ctl bridge list")]
    List,
    /// Adds a bridge.
    #[command(after_help = "\
Examples:
  switch-ctl bridge add br1 --ageing-s 60
  switch-ctl bridge add wan --vrf red --reverse-path strict")]
    Add {
        /// Its name.
        name: Name,
        #[command(flatten)]
        settings: Settings,
    },
    /// Changes a bridge; what is not named stays.
    #[command(after_help = "\
Examples:
  switch-ctl bridge set br0 --neigh-suppress on --mss-clamp on
  switch-ctl bridge set br0 --ageing-s 300 --neigh-suppress off")]
    Set {
        /// The bridge.
        name: Name,
        #[command(flatten)]
        settings: Settings,
    },
    /// Removes a bridge without ports.
    #[command(after_help = "\
Examples:
  switch-ctl bridge add br1
  switch-ctl bridge delete br1")]
    Delete {
        /// The bridge.
        name: Name,
    },
    /// Gateway addresses: with one, the switch routes for the bridge.
    #[command(subcommand)]
    Address(Address),
}

/// What can be set.
#[derive(Debug, Args)]
pub struct Settings {
    /// Seconds after which a MAC nobody heard from is forgotten [default: 300].
    #[arg(long)]
    ageing_s: Option<u32>,
    /// The switch's own MAC on the bridge [default: derived from the bridge's name and the node].
    #[arg(long)]
    mac: Option<Mac>,
    /// The routing table its gateways belong to [default: main].
    #[arg(long)]
    vrf: Option<Name>,
    /// Lower the largest segment (MSS) that routed TCP connections offer to what the MTUs of both ports carry [default:
    /// off].
    #[arg(long)]
    mss_clamp: Option<Switch>,
    /// Whether a packet to be routed must have come the way that leads back to its sender: by this bridge and VLAN
    /// (strict), or there is a way at all (loose) [default: off].
    #[arg(long)]
    reverse_path: Option<Check>,
    /// Send router advertisements, by which hosts learn the switch as their IPv6 router and make addresses for themselves
    /// (SLAAC), at most so many seconds apart, 4 to 1800; or "off" [default: off].
    #[arg(long, value_name = "SECONDS|off", value_parser = parse_interval)]
    router_advert: Option<Interval>,
    /// Answer ARP and neighbour solicitations for stations that are known, instead of flooding them; the bridge needs an address
    /// [default: off].
    #[arg(long)]
    neigh_suppress: Option<Switch>,
    /// Answer ARP and neighbour solicitations for whatever there is a route to elsewhere, as a router that hosts need not know of
    /// (proxy ARP); the bridge needs an address [default: off].
    #[arg(long)]
    neigh_proxy: Option<Switch>,
}

/// Seconds; none: off.
#[derive(Clone, Copy, Debug)]
struct Interval(Option<u16>);

fn parse_interval(text: &str) -> Result<Interval, String> {
    match text {
        "off" => Ok(Interval(None)),
        seconds => seconds.parse().map(|s| Interval(Some(s))).map_err(|_| "seconds, or \"off\"".to_owned()),
    }
}

/// How strictly.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Check {
    Off,
    Strict,
    Loose,
}

impl From<Check> for ReversePath {
    fn from(check: Check) -> Self {
        match check {
            Check::Off => Self::Off,
            Check::Strict => Self::Strict,
            Check::Loose => Self::Loose,
        }
    }
}

impl Settings {
    fn apply(&self, bridge: Bridge) -> Bridge {
        Bridge {
            ageing_s: self.ageing_s.unwrap_or(bridge.ageing_s),
            mac: self.mac.or(bridge.mac),
            vrf: self.vrf.clone().unwrap_or(bridge.vrf),
            mss_clamp: self.mss_clamp.map_or(bridge.mss_clamp, bool::from),
            reverse_path: self.reverse_path.map_or(bridge.reverse_path, ReversePath::from),
            neigh_suppress: self.neigh_suppress.map_or(bridge.neigh_suppress, bool::from),
            neigh_proxy: self.neigh_proxy.map_or(bridge.neigh_proxy, bool::from),
            router_advert: match self.router_advert {
                None => bridge.router_advert,
                Some(Interval(None)) => None,
                Some(Interval(Some(interval_s))) => {
                    Some(RouterAdvert { interval_s, ..bridge.router_advert.unwrap_or_default() })
                }
            },
            ..bridge
        }
    }
}

/// What can be done with gateway addresses.
#[derive(Debug, Subcommand)]
pub enum Address {
    /// Gives the bridge an address and its network, like 10.1.0.1/24 or fd00:1::1/64.
    #[command(after_help = "\
Examples:
  switch-ctl bridge address add br0 10.68.0.1/24 --vid 30
  switch-ctl bridge address add br0 fd66::1/64")]
    Add(Which),
    /// Takes it away.
    #[command(after_help = "Example:\n  switch-ctl bridge address delete br0 10.67.0.1/24 --vid 20")]
    Delete(Which),
}

/// Which address.
#[derive(Debug, Args)]
pub struct Which {
    /// The bridge.
    bridge: Name,
    /// The address with its network's length.
    address: Prefix,
    /// The VLAN it lives in.
    #[arg(long, default_value = "1", value_parser = parse_vid)]
    vid: Vid,
}

pub fn run(verb: &Verb, client: &mut Client, output: &Output) -> Result<(), ApiError> {
    let (request, what) = match verb {
        Verb::List => {
            let bridges: Vec<BridgeStatus> = client.call(&Request::BridgeList(Nothing {}))?;
            output.answer(&bridges, |bridges| list(bridges, output));
            return Ok(());
        }
        Verb::Add { name, settings } => {
            let bridge = settings.apply(Bridge { owner: Owner::Operator, ..Bridge::new(name.clone()) });
            (Request::BridgeAdd(bridge), format!("bridge {name} is there"))
        }
        Verb::Set { name, settings } => {
            let bridge = settings.apply(present(name, client)?);
            (Request::BridgeSet(bridge), format!("bridge {name} is changed"))
        }
        Verb::Delete { name } => {
            (Request::BridgeDelete(ByName { name: name.clone() }), format!("bridge {name} is gone"))
        }
        Verb::Address(Address::Add(Which { bridge, address, vid })) => {
            let gateway = BridgeAddress {
                bridge: bridge.clone(),
                address: *address,
                vid: *vid,
                owner: Owner::Operator,
            };
            (Request::AddressAdd(gateway), format!("bridge {bridge} has the address {address}"))
        }
        Verb::Address(Address::Delete(Which { bridge, address, vid })) => {
            let gateway = AddressDelete { bridge: bridge.clone(), address: *address, vid: *vid };
            (Request::AddressDelete(gateway), format!("bridge {bridge} has no address {address} any more"))
        }
    };
    let done: Done = client.call(&request)?;
    output.done(&done, &what);
    Ok(())
}

/// A bridge as it is declared now.
fn present(name: &Name, client: &mut Client) -> Result<Bridge, ApiError> {
    let bridges: Vec<BridgeStatus> = client.call(&Request::BridgeList(Nothing {}))?;
    let found = bridges.into_iter().map(|status| status.bridge).find(|bridge| bridge.name == *name);
    found.ok_or_else(|| {
        ApiError::new(Code::NotFound, format!("there is no bridge named {name}"))
            .field("name")
            .hint("`switch-ctl bridge list` shows those there are")
    })
}

fn list(bridges: &[BridgeStatus], output: &Output) -> String {
    if bridges.is_empty() {
        return "no bridges: `switch-ctl bridge add br0` makes one".into();
    }
    let mut table = output.table(&[
        "BRIDGE", "OWNER", "AGEING", "VLANS", "MACS", "VRF", "OWN MAC", "GATEWAYS", "ROUTING", "PORTS",
    ]);
    for status in bridges {
        let ports: Vec<_> = status.ports.iter().map(Name::as_str).collect();
        let gateways: Vec<_> = status.addresses.iter().map(gateway).collect();
        table.add_row(vec![
            status.bridge.name.to_string(),
            status.bridge.owner.to_string(),
            format!("{} s", status.bridge.ageing_s),
            status.vlans.to_string(),
            status.macs.to_string(),
            status.bridge.vrf.to_string(),
            status.mac.to_string(),
            gateways.join(" "),
            options(&status.bridge).join(" "),
            ports.join(" "),
        ]);
    }
    table.to_string()
}

/// What is other than usual about routing.
fn options(bridge: &Bridge) -> Vec<&'static str> {
    let check = match bridge.reverse_path {
        ReversePath::Off => None,
        ReversePath::Strict => Some("reverse-path=strict"),
        ReversePath::Loose => Some("reverse-path=loose"),
    };
    let advert = bridge.router_advert.map(|_| "router-advert");
    let suppress = bridge.neigh_suppress.then_some("neigh-suppress");
    let proxy = bridge.neigh_proxy.then_some("neigh-proxy");
    let clamp = bridge.mss_clamp.then_some("mss-clamp");
    [clamp, check, advert, suppress, proxy].into_iter().flatten().collect()
}

fn gateway(address: &BridgeAddress) -> String {
    match address.vid {
        Vid::DEFAULT => address.address.to_string(),
        vid => format!("{}@{vid}", address.address),
    }
}
