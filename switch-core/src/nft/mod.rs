//! nf_tables (linux/netfilter/nf_tables.h): one table of ours, replaced whole in one transaction, and whether it is still as
//! it was left. The kernel's netlink is spoken directly: the daemon executes nothing, `nft` included.
//!
//! | module | what |
//! |---|---|
//! | [`attribute`] | netlink's attributes: type, length, value |
//! | [`expression`] | what rules are made of, one step each |
//! | [`ranges`] | networks as the ranges that a set of intervals takes |
//! | [`table`] | a table: sets, chains, rules |
//! | [`kernel`] | to the kernel and back |
//!
//! Only `control` uses it; only [`kernel`] touches a descriptor. Why not a library: ADR 0020.

pub mod attribute;
pub mod expression;
pub mod kernel;
pub mod ranges;
pub mod table;

pub use kernel::{Kernel, Mark};
pub use table::{Chain, Hook, Set, Table};
