//! The switch. A worker takes frames from ports, sends them through a fixed list of stages that read one
//! snapshot, and gives them back to ports; everything else exists so that this sentence stays true.
//!
//! | room | what |
//! |---|---|
//! | [`wire`] | bytes ⇄ headers |
//! | [`frame`] | packet memory and who owns which bytes |
//! | [`table`] | what is learned |
//! | [`counter`] | what is counted, and the names of drops |
//! | [`host`] | what the switch says for itself: ARP, ND, ping, errors |
//! | [`config`] | what is declared: model, checks, snapshots |
//! | [`balance`] | which lanes should move |
//! | [`ipam`] | who gets which address |
//! | [`nft`] | the kernel's nf_tables: one table of ours |
//! | [`nat`] | network address translation: what a flow's first packet is told |
//! | [`acl`] | access control lists: from rules to tables |
//! | [`policy`] | network policies: from words to tables |
//! | [`pipeline`] | what happens to a batch |
//! | [`port`] | the doors to the outside |
//! | [`worker`] | who does it: one pinned core each |
//! | [`control`] | the one thread that changes things |
//! | [`sandbox`] | what the daemon gives up once it has started |
//! | [`rig`] | a switch without threads, for tests, fuzzing and benches

// Under loom only what loom explores is built: its atomics live inside a model and nowhere else.
pub mod acl;
pub mod balance;
#[cfg(not(loom))]
#[cfg(test)]
mod cases;
pub mod config;
#[cfg(not(loom))]
pub mod control;
pub mod counter;
pub mod frame;
#[cfg(not(loom))]
pub mod host;
#[cfg(not(loom))]
pub mod ipam;
#[cfg(not(loom))]
#[cfg(test)]
mod limits;
pub mod nat;
#[cfg(not(loom))]
pub mod nft;
mod pages;
#[cfg(not(loom))]
pub mod pipeline;
pub mod policy;
#[cfg(not(loom))]
pub mod port;
mod prefetch;
#[cfg(not(loom))]
pub mod rig;
#[cfg(not(loom))]
pub mod sandbox;
pub mod table;
pub mod wire;
pub mod worker;
