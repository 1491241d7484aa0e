//! Routing tables as objects: where what a table has no route for goes, and what it has to do with the
//! kernel's.

use crate::{Mac, Name, Owner, Prefix};
use serde::{Deserialize, Serialize};

/// The kernel's main table (`RT_TABLE_MAIN`, linux/rtnetlink.h).
pub const KERNEL_TABLE_MAIN: u32 = 254;
/// What the switch's own routes in the kernel are marked with (`proto 83` in `ip route`); nobody else is known
/// to use the number.
pub const KERNEL_PROTOCOL: u8 = 83;

/// How a routing table's packets leave the node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Uplink {
    /// By a host port to the node's kernel, which routes on: no NIC is touched.
    #[default]
    Kernel,
    /// Not at all.
    None,
}

/// Settings of a routing table (VRF). One that was never set has the defaults: `main` has the kernel as its
/// uplink as soon as there is a host port for it, any other table has none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vrf {
    /// Its name, as bridges give it.
    #[serde(default = "Name::main")]
    pub name: Name,
    /// Where what it has no route for goes.
    #[serde(default)]
    pub uplink: Uplink,
    /// The host port to the kernel; without it the first that is on a bridge with a gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<Name>,
    /// The kernel's table that the node's networks are announced in and, with `mirror`, that is read.
    #[serde(default = "table_main")]
    pub kernel_table: u32,
    /// Read that table: what it has no route for has none here either, and what it refuses is refused here.
    #[serde(default)]
    pub mirror: bool,
    /// Who set it.
    #[serde(default, skip_serializing_if = "Owner::is_operator")]
    pub owner: Owner,
}

impl Vrf {
    /// What a table is that was never set.
    pub fn unset(name: Name) -> Self {
        let uplink = if name.is_main() { Uplink::Kernel } else { Uplink::None };
        Self {
            name,
            uplink,
            port: None,
            kernel_table: KERNEL_TABLE_MAIN,
            mirror: false,
            owner: Owner::Operator,
        }
    }
}

fn table_main() -> u32 {
    KERNEL_TABLE_MAIN
}

/// One table in the answer to [`crate::Request::VrfList`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VrfStatus {
    /// Its settings.
    pub vrf: Vrf,
    /// The host port that leads to the kernel, if one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<Name>,
    /// That port's device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Uplinks on NICs that it shares with the kernel: by these, what the kernel's routes send there leaves at once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub uplinks: Vec<UplinkStatus>,
    /// Networks that the kernel was told of: who exports its table exports them.
    pub announced: Vec<Prefix>,
    /// What is mirrored of its table in the kernel; none without a mirror.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirrored: Option<MirrorStatus>,
    /// What stands in the way, each with what to do about it.
    pub problems: Vec<String>,
}

/// An uplink on a NIC that stays the host's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UplinkStatus {
    /// The port.
    pub port: Name,
    /// The NIC.
    pub device: String,
    /// It is open. While it is not, the kernel does what it did.
    pub up: bool,
    /// The NIC's MAC, which the switch sends with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
    /// The kernel's addresses on it, with their networks.
    pub addresses: Vec<Prefix>,
    /// What it takes from the NIC: packets to these networks, but for the kernel's own addresses in them.
    pub takes: Vec<Prefix>,
}

/// The mirror of a kernel's table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MirrorStatus {
    /// Routes of the kernel that are mirrored, all tables together.
    pub routes: usize,
    /// Routes beyond the limit.
    pub beyond: usize,
    /// Routes that are not understood.
    pub odd: usize,
    /// Routes that would lead from here to the kernel and back.
    pub circles: usize,
    /// Times that news from the kernel was lost, and everything asked anew.
    pub overruns: u64,
    /// Times that everything was asked.
    pub questions: u64,
    /// Times that news from the kernel was enough to follow it.
    #[serde(default)]
    pub changes: u64,
    /// Work that the last of them took, until all workers went by it, µs.
    #[serde(default)]
    pub worked_us: u64,
    /// What the kernel told last does not say all: everything is asked anew before long, and what is mirrored may be old till then.
    #[serde(default)]
    pub unsure: bool,
}
