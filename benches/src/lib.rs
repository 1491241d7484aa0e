//! What is measured, and with what.
//!
//! | module | what |
//! |---|---|
//! | [`figures`] | the registry: one figure a file, each with an id and a numeric bar |
//! | [`pipeline`] | the L2 pipeline alone, on memory |
//! | [`traffic`] | the packet generator and sink, on another AF_XDP than ours |
//! | [`flood`] | a flood that no socket could send |
//! | [`cycles`] | what a cycle is here |
//! | [`allocations`] | an allocator that counts |

pub mod allocations;
pub mod cycles;
pub mod figures;
pub mod flood;
pub mod pipeline;
pub mod traffic;
