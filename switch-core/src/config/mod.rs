//! Declared state: what somebody asked for, checked, and compiled into what the pipeline reads.
//!
//! `Model` (as declared) → [`Checked`] (no contradictions left) → [`Snapshot`] (facts by number).
//!
//! | module | what |
//! |---|---|
//! | [`model`] | the declared objects, and `(Model, Request) → Model'` |
//! | [`checked`] | every contradiction, all at once |
//! | [`snapshot`] | the immutable facts that workers read |
//! | [`publish`] | how a snapshot reaches every worker, and how one knows that it did |

pub mod checked;
pub mod model;
pub mod publish;
pub mod snapshot;

pub use checked::Checked;
pub use model::Model;
pub use publish::{Publisher, Reader};
pub use snapshot::Snapshot;

/// Most ports. 250 pods is what large Kubernetes nodes run; this is twice that. Per-port counters are
/// laid out for all of them, 1 KiB each.
pub const PORTS_MAX: usize = 512;
/// Most bridges: one a tenant or a namespace, on a node with [`PORTS_MAX`] ports.
pub const BRIDGES_MAX: usize = 256;
/// Most pairs of bridge and VLAN that have a member: the filtering identifier is 16 bits, 0 is none.
pub const FIDS_MAX: usize = 65_535;
/// Most static MACs: an eighth of the default table.
pub const STATIC_MACS_MAX: usize = 16_384;
/// MACs the table holds unless `switchd --fdb-entries` says otherwise. The figure [mac-scale] learns
/// 100 000; at half load this is 8 MiB.
pub const FDB_ENTRIES_DEFAULT: usize = 131_072;
