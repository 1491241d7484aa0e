//! Workers: one pinned core each, run to completion on the lanes they own.
//!
//! | module | what |
//! |---|---|
//! | [`turn`] | one turn: refresh, recv, process, send, service |
//! | [`mail`] | what others may put before a worker: commands, frames for its lanes |
//! | [`handover`] | lanes move from worker to worker |
//! | [`idle`] | falling asleep without missing a wake-up |
//! | [`laps`] | cycles per stage |
//! | [`naps`] | resting at low load, to let frames gather |
//! | [`parcel`] | frames on their way to another worker |
//! | [`patience`] | how long a worker looks for frames in vain |
//! | [`prompt`] | what a worker asks of the kernel's scheduler |
//! | [`readable`] | which lanes have something, for those that are asked by a system call |
//! | [`watch`] | what wakes a sleeping worker |
//! | [`thread`] | the loop around the turn: pinning, beating, sleeping |

#[cfg(all(test, not(loom)))]
mod copy_tests;
#[cfg(not(loom))]
pub mod handover;
pub mod idle;
#[cfg(all(test, not(loom)))]
mod inbox_tests;
#[cfg(not(loom))]
pub mod laps;
#[cfg(not(loom))]
pub mod mail;
#[cfg(not(loom))]
pub mod naps;
#[cfg(not(loom))]
pub mod parcel;
#[cfg(not(loom))]
pub mod patience;
#[cfg(all(test, not(loom)))]
mod piped;
#[cfg(not(loom))]
pub mod prompt;
#[cfg(not(loom))]
pub mod readable;
#[cfg(not(loom))]
pub mod thread;
#[cfg(not(loom))]
pub mod turn;
#[cfg(not(loom))]
pub mod watch;

#[cfg(not(loom))]
pub use mail::{Command, Mail, Report};
#[cfg(not(loom))]
pub use thread::{Running, Start, start};
#[cfg(not(loom))]
pub use turn::Turn;
