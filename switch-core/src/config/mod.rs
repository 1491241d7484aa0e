//! Declared state: what somebody asked for, checked, and compiled into what the pipeline reads.
//!
//! `Model` (as declared) → [`Checked`] (no contradictions left) → [`Snapshot`] (facts by number).
//!
//! | module | what |
//! |---|---|
//! | [`model`] | the declared objects, and `(Model, Request) → Model'` |
//! | [`acls`] | access control lists, and the ports that they are for |
//! | [`port_sets`] | port sets that they name, too |
//! | [`sets`] | address sets that their rules name |
//! | [`nats`] | network address translation, and what of it workers read |
//! | [`addresses`] | gateway addresses and declared neighbours |
//! | [`plan`] | what leads from what is declared to what shall be |
//! | [`checked`] | every contradiction, all at once |
//! | [`snapshot`] | the immutable facts that workers read |
//! | [`routes`] | declared routes |
//! | [`nexthops`] | contradictions among them: where their next hops are |
//! | [`ecmp`] | several next hops for one route |
//! | [`policies`] | network policies, and what ports are to them |
//! | [`gateway`] | of these, what routing reads |
//! | [`mirrored`] | routes of that kernel, and what they mean here |
//! | [`making`] | routing tables, changed where they differ |
//! | [`rates`] | how fast a port may send and be sent |
//! | [`source_guard`] | what a port may say of itself |
//! | [`numbers`] | numbers for what becomes of destinations |
//! | [`owners`] | what of another owner's a request would touch |
//! | [`outside`] | what that kernel does for pods: masquerade, published ports |
//! | [`unique`] | no address on two ports |
//! | [`uplink`] | the way to the node's kernel |
//! | [`shared`] | the ways out by NICs that it shares |
//! | [`tunnels`] | ports whose cable is a route |
//! | [`publish`] | how a snapshot reaches every worker, and how one knows that it did |

pub mod acls;
mod addresses;
pub mod checked;
pub mod ecmp;
pub mod gateway;
mod making;
pub mod mirrored;
pub mod model;
pub mod nats;
mod network;
pub mod nexthops;
mod numbers;
pub mod outside;
#[cfg(not(loom))]
#[cfg(test)]
mod outside_tests;
mod owners;
pub mod plan;
#[cfg(not(loom))]
#[cfg(test)]
mod plan_tests;
pub mod policies;
pub mod port_sets;
pub mod publish;
mod published;
pub mod rates;
pub mod routes;
#[cfg(not(loom))]
#[cfg(test)]
mod routing_tests;
pub mod sets;
pub mod shared;
pub mod snapshot;
pub mod source_guard;
pub mod taken;
pub mod tunnels;
mod unique;
pub mod uplink;

pub use checked::Checked;
pub use model::Model;
pub use nexthops::CheckedRoutes;
pub use publish::{Publisher, Reader};
pub use snapshot::Snapshot;

/// Most ports. 250 pods is what large Kubernetes nodes run; this is twice that. Per-port counters are
/// laid out for all of them, 1 KiB each.
pub const PORTS_MAX: usize = 512;
/// Most bridges: one a tenant or a namespace, on a node with [`PORTS_MAX`] ports.
pub const BRIDGES_MAX: usize = 256;
/// Most pairs of bridge and VLAN that have a member: the filtering identifier is 16 bits, 0 is none, and of the numbers that flows' zones
/// have as well each of [`BRIDGES_MAX`] bridges may want one for a routing table of its own.
pub const FIDS_MAX: usize = 65_535 - BRIDGES_MAX;
/// Most static MACs: an eighth of the default table.
pub const STATIC_MACS_MAX: usize = 16_384;
/// MACs the table holds unless `switchd --fdb-entries` says otherwise. The figure [mac-scale] learns
/// 100 000; at half load this is 8 MiB.
pub const FDB_ENTRIES_DEFAULT: usize = 131_072;
/// Most gateway addresses: four for each of [`BRIDGES_MAX`] bridges, two of either version.
pub const ADDRESSES_MAX: usize = 4 * BRIDGES_MAX;
/// Most declared neighbours: an eighth of the default table.
pub const NEIGHBOURS_STATIC_MAX: usize = 512;
/// Neighbours the table holds unless `switchd --neighbours` says otherwise: eight for each of [`PORTS_MAX`]
/// ports; 512 KiB.
pub const NEIGHBOURS_DEFAULT: usize = 4096;
/// MACs a guarded port may have: its own, and those of what it runs (nested containers, VRRP's virtual ones).
pub const GUARD_MACS_MAX: usize = 16;
/// Networks a guarded port's addresses may be in. They are walked for each of its packets.
pub const GUARD_ADDRESSES_MAX: usize = 64;
/// Most routes that are counted: 16 bytes at each worker for one. Who wants to know of more wants flows.
pub const ROUTES_COUNTED_MAX: usize = 1024;
/// Counters for them: a change may end counting as many as it begins, and whose snapshot is still read has its own till then.
pub const ROUTE_COUNTERS: usize = 2 * ROUTES_COUNTED_MAX;
/// Most declared routes: the Internet's table of both versions (1.25 million in 2025) and two thirds as much again. A
/// change costs the same among so many as among ten; what they take is memory.
pub const ROUTES_STATIC_MAX: usize = 1 << 21;
