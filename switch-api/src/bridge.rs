//! Bridges: what a learning bridge is told, and what its gateways say of themselves.

use crate::{Mac, Name, Owner};
use serde::{Deserialize, Serialize};

/// A learning bridge (IEEE 802.1Q).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bridge {
    /// Its name, unique among bridges.
    pub name: Name,
    /// Seconds after which a MAC nobody heard from is forgotten (IEEE 802.1Q §8.8.3 default: 300).
    /// 10 to 1 000 000.
    #[serde(default = "ageing_s_default")]
    pub ageing_s: u32,
    /// The switch's own MAC on it, used by its gateways; without one it is derived from the bridge's name
    /// and what identifies the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
    /// The routing table its gateways belong to: networks of different tables do not reach each other.
    #[serde(default = "Name::main", skip_serializing_if = "Name::is_main")]
    pub vrf: Name,
    /// What TCP offers as its largest segment (MSS), routed to or from this bridge, is lowered to what both ports'
    /// MTU carry: for ways on which errors about too large packets do not arrive.
    #[serde(default, skip_serializing_if = "is_false")]
    pub mss_clamp: bool,
    /// Whether a packet to be routed must have come the way that leads back to its sender.
    #[serde(default, skip_serializing_if = "ReversePath::is_off")]
    pub reverse_path: ReversePath,
    /// Router advertisements on every VLAN with an IPv6 gateway; none: the switch says nothing of itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub router_advert: Option<RouterAdvert>,
    /// ARP and neighbour solicitations for a station that the switch knows are answered in its place instead of flooded
    /// (RFC 9161; Linux's `neigh_suppress`). Where the bridge has an address: without one it knows nobody.
    #[serde(default, skip_serializing_if = "is_false")]
    pub neigh_suppress: bool,
    /// ARP and neighbour solicitations for what the switch has a route to, by another bridge or the node's kernel, are answered
    /// with its own MAC (RFC 1027, RFC 4389). Where the bridge has an address.
    #[serde(default, skip_serializing_if = "is_false")]
    pub neigh_proxy: bool,
    /// Who declared it.
    #[serde(default)]
    pub owner: Owner,
}

/// What router advertisements say (RFC 4861 §6.2.1). The gateways' networks are in them, on-link, and the smallest MTU of
/// the ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RouterAdvert {
    /// Seconds between two at most (`MaxRtrAdvInterval`). 4 to 1800.
    pub interval_s: u16,
    /// Seconds that hosts use the switch as their default router; 0: they do not. Not below `interval_s`, up to 9000.
    /// None: three intervals.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lifetime_s: Option<u16>,
    /// Hosts make addresses for themselves in networks of 64 bits (SLAAC, RFC 4862).
    pub autonomous: bool,
    /// Addresses are to be had by DHCPv6 (the M flag).
    pub managed: bool,
    /// Other configuration is to be had by DHCPv6 (the O flag).
    pub other: bool,
}

impl Default for RouterAdvert {
    fn default() -> Self {
        Self { interval_s: 600, lifetime_s: None, autonomous: true, managed: false, other: false }
    }
}

impl RouterAdvert {
    /// The lifetime that is said.
    pub fn lifetime_s(&self) -> u16 {
        self.lifetime_s.unwrap_or_else(|| self.interval_s.saturating_mul(3))
    }
}

/// Whether the source of a packet that is to be routed, or is for the switch itself, is looked up as if it were the
/// destination (RFC 3704; what Linux calls `rp_filter`, here for IPv6 as well). In both modes there must be a way: no
/// blackhole, none that is unreachable or prohibited, and not the switch itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReversePath {
    /// It is not.
    #[default]
    Off,
    /// The way back, or one of several, leaves by the bridge and VLAN that the packet came by (RFC 3704 §2.2, §2.3).
    Strict,
    /// There is a way back, be it the default route (RFC 3704 §2.4).
    Loose,
}

impl ReversePath {
    fn is_off(&self) -> bool {
        *self == Self::Off
    }
}

pub(crate) fn is_false(value: &bool) -> bool {
    !value
}

impl Bridge {
    /// A bridge with everything else by default.
    pub fn new(name: Name) -> Self {
        Self {
            name,
            ageing_s: ageing_s_default(),
            mac: None,
            vrf: Name::main(),
            mss_clamp: false,
            reverse_path: ReversePath::Off,
            router_advert: None,
            neigh_suppress: false,
            neigh_proxy: false,
            owner: Owner::default(),
        }
    }
}

fn ageing_s_default() -> u32 {
    300
}
