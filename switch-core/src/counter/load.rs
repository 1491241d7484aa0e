//! What a lane costs its worker. It travels with the lane, and only who serves the lane writes it.

use super::Counter;

/// One batch in so many is measured, of each lane by itself, and counts for as many. Two reads of the time-stamp counter
/// (44 cycles) in four batches are lost in the noise.
pub const LOAD_SAMPLE_EVERY: u64 = 4;

/// See the module.
#[derive(Debug, Default)]
pub struct LaneLoad {
    /// Frames that came in by it.
    pub rx_packets: Counter,
    /// Frames that left by it.
    pub tx_packets: Counter,
    /// What taking frames in, deciding and sending them on took, and sending what other workers decided: in ns, from
    /// samples.
    pub busy_ns: Counter,
}
