//! What routing needs: a bridge's gateway addresses, the neighbours behind it, and routes to elsewhere.

use crate::{Mac, Name, Owner, Prefix, Vid};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// A gateway: the switch's own address on a bridge, and the network that is reached there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BridgeAddress {
    /// The bridge.
    pub bridge: Name,
    /// The address with its network's length.
    pub address: Prefix,
    /// The VLAN it lives in.
    #[serde(default = "default_vid")]
    pub vid: Vid,
    /// Who declared it.
    #[serde(default)]
    pub owner: Owner,
}

/// See [`crate::Request::AddressDelete`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddressDelete {
    /// The bridge.
    pub bridge: Name,
    /// The address as it was given.
    pub address: Prefix,
    /// The VLAN it lives in.
    #[serde(default = "default_vid")]
    pub vid: Vid,
}

/// A neighbour that was declared: never asked for, never forgotten.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StaticNeighbour {
    /// Its address.
    pub address: IpAddr,
    /// Its station.
    pub mac: Mac,
    /// The bridge it lives on.
    pub bridge: Name,
    /// The VLAN it lives in.
    #[serde(default = "default_vid")]
    pub vid: Vid,
    /// Who declared it.
    #[serde(default, skip_serializing_if = "Owner::is_operator")]
    pub owner: Owner,
}

/// See [`crate::Request::NeighDelete`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NeighDelete {
    /// Its address.
    pub address: IpAddr,
    /// The bridge it lives on.
    pub bridge: Name,
    /// The VLAN it lives in.
    #[serde(default = "default_vid")]
    pub vid: Vid,
}

/// Which neighbours are meant; what is absent does not narrow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NeighFilter {
    /// Only those of this bridge.
    pub bridge: Option<Name>,
}

/// How sure the switch is of a neighbour (after RFC 4861 §7.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NeighState {
    /// Asked for, no answer yet.
    Incomplete,
    /// It answered not long ago.
    Reachable,
    /// It has not been heard from for a while; it is used, and asked again when it is.
    Stale,
    /// It did not answer.
    Failed,
    /// Declared.
    Static,
}

/// One neighbour in the answer to [`crate::Request::NeighList`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NeighEntry {
    /// Its address.
    pub address: IpAddr,
    /// Its bridge.
    pub bridge: Name,
    /// Its VLAN.
    pub vid: Vid,
    /// Its station; none while nobody answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
    /// How sure that is.
    pub state: NeighState,
    /// Seconds since it was last heard from, or asked for.
    pub age_s: u32,
    /// Who declared it; none: it was learned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,
}

/// A route to a network that is not a gateway's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// The network; no bits behind its length.
    pub prefix: Prefix,
    /// The routing table.
    #[serde(default = "Name::main", skip_serializing_if = "Name::is_main")]
    pub vrf: Name,
    /// Of several routes to one network the one with the lowest is used.
    #[serde(default)]
    pub metric: u32,
    /// What becomes of packets.
    #[serde(default)]
    pub kind: RouteKind,
    /// Next hops; several share the flows by weight.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub via: Vec<NextHop>,
    /// Longest packet that goes this way, bytes, IP header included: 68 (RFC 791) or 1 280 (RFC 8200 §5) to 65 535. Without
    /// one it is the MTU of the port by which it leaves; with one, the smaller of both. Only with next hops.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
    /// What goes this way is counted: see [`crate::Request::RouteStats`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub count: bool,
    /// Who declared it.
    #[serde(default)]
    pub owner: Owner,
}

impl Route {
    /// One of the main table with metric 0, an operator's, without anything that need not be said.
    pub fn new(prefix: Prefix, kind: RouteKind, via: Vec<NextHop>) -> Self {
        Self {
            prefix,
            vrf: Name::main(),
            metric: 0,
            kind,
            via,
            mtu: None,
            count: false,
            owner: Owner::default(),
        }
    }
}

/// What becomes of packets that a route is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RouteKind {
    /// They go to a next hop.
    #[default]
    Via,
    /// They are dropped and nobody is told.
    Blackhole,
    /// They are dropped; the sender is told that there is no way.
    Unreachable,
    /// They are dropped; the sender is told that it is forbidden.
    Prohibit,
}

/// A router that is a neighbour.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NextHop {
    /// Its address.
    pub address: IpAddr,
    /// The bridge it is on; without one it is the one whose network the address is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bridge: Option<Name>,
    /// The VLAN it is in; only with a bridge.
    #[serde(default = "default_vid")]
    pub vid: Vid,
    /// Its share of the flows, 1 to 256.
    #[serde(default = "one")]
    pub weight: u16,
}

fn one() -> u16 {
    1
}

/// See [`crate::Request::RouteDelete`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteDelete {
    /// The network.
    pub prefix: Prefix,
    /// The routing table.
    #[serde(default = "Name::main", skip_serializing_if = "Name::is_main")]
    pub vrf: Name,
    /// Only the route with this metric; without it, all to this network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<u32>,
}

/// See [`crate::Request::RouteApply`]: one change, all of it or nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RouteApply {
    /// Removed first; each must be there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub delete: Vec<RouteDelete>,
    /// Put in place of the route to the same network with the same metric, if there is one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub replace: Vec<Route>,
    /// Added; there must be none to the same network with the same metric.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub add: Vec<Route>,
}

/// Routes in one answer unless fewer are asked for: 6 MB of text.
pub const ROUTE_PAGE_MAX: u32 = 16_384;

/// Which routes are meant; what is absent does not narrow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RouteFilter {
    /// Only those of this table.
    pub vrf: Option<Name>,
    /// Only those behind this one, in the order of the list: where the last answer ended.
    pub after: Option<RoutePlace>,
    /// So many, and what else there is to the last one's network; 0: [`ROUTE_PAGE_MAX`], which is the most as well.
    pub limit: u32,
}

/// A place in the list of routes, which is ordered by table, then by network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoutePlace {
    /// The table.
    #[serde(default = "Name::main", skip_serializing_if = "Name::is_main")]
    pub vrf: Name,
    /// The network.
    pub prefix: Prefix,
}

/// See [`crate::Request::RouteGet`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteGet {
    /// The destination.
    pub address: IpAddr,
    /// The routing table.
    #[serde(default = "Name::main", skip_serializing_if = "Name::is_main")]
    pub vrf: Name,
}

/// One route in the answer to [`crate::Request::RouteList`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteStatus {
    /// As declared; a gateway's network as if it had been.
    pub route: Route,
    /// The bridge whose own network it is; none for a declared route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connected: Option<Name>,
    /// Where it comes from, if nobody declared it and it is no gateway's network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    /// It is the one that is used for its network.
    pub active: bool,
}

/// What went by a counted route, in the answer to [`crate::Request::RouteStats`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteCount {
    /// The network.
    pub prefix: Prefix,
    /// The routing table.
    #[serde(default = "Name::main", skip_serializing_if = "Name::is_main")]
    pub vrf: Name,
    /// Of several routes to it, this one.
    pub metric: u32,
    /// Packets that it sent on or, if it is one that says no, refused, since it is counted; each segment of a superframe.
    pub packets: u64,
    /// Their bytes, with all headers from Ethernet on.
    pub bytes: u64,
}

/// Where a route comes from that nobody declared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Who wrote it into the kernel's table, as `ip route` names them: `bird`, `static`, `kernel`; `uplink` for the
    /// way to the kernel itself.
    pub protocol: String,
    /// What the kernel does with such packets, when they are handed to it.
    pub way: String,
}

/// Answer to [`crate::Request::RouteGet`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteChoice {
    /// What becomes of a packet, in a word: `local`, `connected`, `via`, `kernel`, `blackhole`, `unreachable`, `prohibit`,
    /// `broadcast`, `none`.
    pub what: String,
    /// The route that was chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<RouteStatus>,
    /// Why, step by step.
    pub why: Vec<String>,
}

fn default_vid() -> Vid {
    Vid::DEFAULT
}
