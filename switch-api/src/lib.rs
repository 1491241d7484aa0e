//! The words the switch and its clients share. Clients know the switch only through this crate.
//!
//! | module | what |
//! |---|---|
//! | [`name`] | names of objects, MAC addresses, VLAN identifiers: checked once, here |
//! | [`chain`] | which CNI plugins cannot work beside the switch's |
//! | [`cidr`] | addresses with a prefix length |
//! | [`bridge`] | what a bridge is told |
//! | [`device_route`] | routes of devices that the switch makes |
//! | [`object`] | what else can be declared: ports, static MACs |
//! | [`owner`] | whose an object is |
//! | [`publish`] | ports of the node that lead to pods |
//! | [`ipam`] | address pools and leases |
//! | [`limit`] | how fast a port may send and be sent |
//! | [`acl`] | access control lists |
//! | [`acl_match`] | what their rules say of packets beyond addresses and ports |
//! | [`port_set`] | ports that rules share |
//! | [`address_set`] | networks and addresses that rules share |
//! | [`nat`] | network address translation |
//! | [`policy`] | network policies, and the workloads they are about |
//! | [`policy_diff`] | what a change of them would cut or open |
//! | [`prefix`] | an address and the length of its network |
//! | [`flow`] | flows, as they are listed and ended |
//! | [`route`] | what routing needs: gateway addresses, neighbours, routes |
//! | [`verdict`] | what becomes of what nobody decides |
//! | [`vrf`] | routing tables: where they lead, and what they have to do with the kernel's |
//! | [`request`] | what can be asked, one variant per JSON-RPC method |
//! | [`reply`] | what is answered |
//! | [`config`] | all that one owner declares, applied at once |
//! | [`mod@file`] | the same as a TOML file, and its problems with line and column |
//! | [`trace`] | one frame, and what becomes of it |
//! | [`capture`] | copies of frames, as they pass |
//! | [`event`] | what happens, as it happens |
//! | [`error`] | what is refused: a code, the field, what to do |
//! | [`codec`] | JSON-RPC 2.0, one message per line |
//! | [`client`] | a blocking client over the Unix socket |

pub mod acl;
pub mod acl_match;
pub mod address_set;
pub mod bridge;
pub mod capture;
pub mod chain;
pub mod cidr;
pub mod client;
pub mod codec;
pub mod config;
pub mod device_route;
pub mod error;
pub mod event;
pub mod file;
pub mod flow;
pub mod ipam;
mod lenient;
pub mod limit;
pub mod name;
pub mod nat;
pub mod object;
pub mod owner;
pub mod policy;
pub mod policy_diff;
pub mod port_set;
pub mod prefix;
pub mod publish;
pub mod reply;
pub mod request;
pub mod route;
pub mod trace;
pub mod verdict;
pub mod vrf;

pub use acl::*;
pub use acl_match::*;
pub use address_set::*;
pub use bridge::*;
pub use capture::*;
pub use cidr::Cidr;
pub use client::{Client, Notice};
pub use config::{
    Action, CONFIRM_WITHIN_S_MAX, Change, Config, ConfigApplied, ConfigApply, ConfigExport, ConfigRollback,
    FieldChange, HistoryEntry, Object, ObjectRef, Problem,
};
pub use device_route::DeviceRoute;
pub use error::{ApiError, Code};
pub use event::{EVENT_KINDS, EventsSubscribe, Happened, Missed};
pub use flow::*;
pub use ipam::{
    FamilyStatus, Holder, Lease, LeaseAcquire, LeaseFilter, LeaseStatus, LeasedAddress, Pool, PoolRange,
    PoolStatus, Released, Span,
};
pub use ipnet::IpNet;
pub use limit::{LIMIT_MAX, Limit, PortLimits};
pub use name::{Mac, Name, Vid};
pub use nat::*;
pub use object::*;
pub use owner::{NoOwner, Owner};
pub use policy::*;
pub use policy_diff::*;
pub use port_set::*;
pub use prefix::Prefix;
pub use publish::Publish;
pub use reply::*;
pub use request::{
    ByDevice, ByName, FdbDelete, FdbFilter, Hello, LogLevel, Nothing, PortAddress, PortSet, Rebalance,
    Request, Stop,
};
pub use route::*;
pub use trace::*;
pub use verdict::*;
pub use vrf::*;

/// The version of these words. A client says it in `hello`; the daemon refuses another number
/// and names the side to update. It moves when an old client would misread a new daemon.
pub const API_VERSION: u32 = 2;

/// Where the daemon listens when nobody says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/switchd/switchd.sock";
