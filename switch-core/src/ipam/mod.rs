//! Addresses: who gets which. Pure: the time is an argument, what is to be kept is a [`Change`] that the
//! caller writes to disk *before* it is applied, so that memory never knows more than the disk.
//!
//! | module | what |
//! |---|---|
//! | [`space`] | the addresses of one range, free and not |
//! | [`pool`] | ranges checked and made into spaces |
//! | [`book`] | pools and leases: plan a change, apply it |

pub mod book;
pub mod pool;
pub mod space;
#[cfg(test)]
mod tests;

pub use book::{Book, Change, Kept};

/// Most pools: one a network, and some to spare.
pub const POOLS_MAX: usize = 64;
/// Most ranges of a pool, and most exclusions of a range; both are walked.
pub const RANGES_MAX: usize = 64;
/// Most leases: 32 for each port there can be.
pub const LEASES_MAX: usize = 32 * crate::config::PORTS_MAX;
/// Addresses one holder may ask for by name.
pub const ADDRESSES_MAX: usize = 16;
/// Longest name of a network or container, in bytes. Runtimes use 64.
pub const HOLDER_LEN_MAX: usize = 256;
/// Seconds a released address is held: longer than a neighbour goes on using what it knows without asking
/// again (RFC 4861 §10: `REACHABLE_TIME` times `MAX_RANDOM_FACTOR` is 45 s), so that nobody sends to the MAC of its last owner.
pub const HOLD_S: u32 = 45;
/// Seconds after which a held address is given out all the same if nothing else is left: its next owner
/// announces itself, and a small pool with much coming and going would stand still otherwise.
pub const HOLD_MIN_S: u32 = 2;
