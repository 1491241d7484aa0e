//! What VPP takes for a packet, the goal. It was measured elsewhere, with testpmd between null ports beside it, so that what it would take
//! here is scaled by what testpmd takes here.

/// VPP's cycles are of a counter that ticks so many times a nanosecond.
const GHZ: f64 = 2.6;
/// Packets a second of testpmd between null ports, where that was measured.
pub const NULL_THERE: f64 = 90e6;
/// L2, with few and with many stations.
pub const L2: [f64; 2] = [48.0, 49.0];
/// IPv4, with few and with many routes.
pub const L3: [f64; 2] = [57.0, 57.0];
/// Stateful, without L3, 100 rules, at 1 000 and at 100 000 flows; it grows with rules.
pub const POLICY: [f64; 2] = [103.0, 173.0];

/// Nanoseconds that so many of VPP's cycles would be here, where testpmd between null ports does so many packets a second.
pub fn here_ns(cycles: f64, null_pps: f64) -> f64 {
    cycles / GHZ * NULL_THERE / null_pps
}
