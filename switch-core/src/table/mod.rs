//! What the switch looks up and learns. Pure: `now` and seeds are arguments.
//!
//! | module | what |
//! |---|---|
//! | [`atomic`] | the one concurrent table: bounded, lock-free to read, no `unsafe` |
//! | [`wide`] | its sibling for keys that do not fit a word |
//! | [`fdb`] | MACs over it: learning with limits, ageing, static entries |
//! | [`flow`] | flows: TCP, UDP and the like, how far each has come, and what was decided about it |
//! | [`lpm`] | the longest prefix of an address: immutable, changed by sharing |
//! | [`neigh`] | who has which address: states, ageing, limits |
//! | [`probes`] | how many reads a classification takes, where somebody counts |
//! | [`loops`] | which ports a loop was found behind |

pub mod atomic;
mod copy;
pub mod fdb;
pub mod flow;
pub mod loops;
pub mod lpm;
pub mod neigh;
pub mod probes;
pub mod wide;

/// Atomics that `loom` can watch (in the package `switch-loom`, which is these files again), or the real ones.
pub(crate) mod sync {
    #[cfg(loom)]
    pub use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
    #[cfg(not(loom))]
    pub use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
}
