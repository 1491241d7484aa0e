//! What routing needs: a bridge's gateway addresses, and the neighbours behind it.

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
}

fn default_vid() -> Vid {
    Vid::DEFAULT
}
