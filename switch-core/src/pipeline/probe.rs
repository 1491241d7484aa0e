//! The loop guard. Two ports that are patched together show themselves by stations that hop between
//! them. Hopping alone proves nothing: a hostile pod can make a neighbour's MAC hop at will, and blocking
//! on that would be its weapon. So a port under suspicion is sent a probe that only this daemon can have
//! made; if the probe comes back, by whatever port, that port leads back to us and is blocked
//! ([`crate::table::loops`]). A pod that sends its own probe back blocks nobody but itself.

use super::Now;
use crate::wire::ethernet::HEADER_LEN;

/// Hops in one window before a port is under suspicion. Live migration moves a handful of MACs, a loop
/// moves them at line rate.
pub const HOPS_SUSPICIOUS: u32 = 64;
/// The window, and the shortest time between two probes of one port. Ten a second bound what a pod can
/// provoke, and keep detection well within the second we promise.
const WINDOW_NS: u64 = 100_000_000;
/// IEEE 802 local experimental EtherType 1.
pub const ETHERTYPE: u16 = 0x88b5;
/// A locally administered group address: bridges between two of our ports flood it.
pub const DESTINATION: u64 = 0x0353_5749_5443;
/// Shortest Ethernet frame without FCS.
pub const LEN: usize = 60;

#[derive(Clone, Copy, Debug, Default)]
struct Suspicion {
    since_ns: u64,
    hops: u32,
    probed_ns: u64,
}

/// Signs of a loop, private to a worker.
#[derive(Debug)]
pub struct LoopWatch {
    ports: Box<[Suspicion]>,
    /// Ports to be probed; the worker takes them when it has time.
    due: Vec<u16>,
    source: u64,
}

impl LoopWatch {
    /// `secret` goes into the probes' source address: 46 bits that nobody else knows.
    pub fn new(ports: usize, secret: u64) -> Self {
        let source = secret & 0xfcff_ffff_ffff | 0x0200_0000_0000;
        Self { ports: vec![Suspicion::default(); ports].into(), due: Vec::with_capacity(ports), source }
    }

    /// A station hopped to `port`, or would have.
    pub fn suspect(&mut self, port: u16, now: Now) {
        let suspicion = &mut self.ports[usize::from(port)];
        if now.ns.saturating_sub(suspicion.since_ns) > WINDOW_NS {
            suspicion.since_ns = now.ns;
            suspicion.hops = 0;
        }
        suspicion.hops += 1;
        let rested = now.ns.saturating_sub(suspicion.probed_ns) > WINDOW_NS;
        if suspicion.hops >= HOPS_SUSPICIOUS && rested && self.due.len() < self.due.capacity() {
            suspicion.probed_ns = now.ns;
            self.due.push(port);
        }
    }

    /// A port to send a probe out of.
    pub fn due(&mut self) -> Option<u16> {
        self.due.pop()
    }

    /// Whether a frame is one of our probes.
    #[inline(always)]
    pub fn is_probe(&self, dst: u64, src: u64, ethertype: u16) -> bool {
        ethertype == ETHERTYPE && dst == DESTINATION && src == self.source
    }

    /// A probe's bytes.
    pub fn probe(&self) -> [u8; LEN] {
        let mut frame = [0; LEN];
        frame[..6].copy_from_slice(&DESTINATION.to_be_bytes()[2..]);
        frame[6..12].copy_from_slice(&self.source.to_be_bytes()[2..]);
        frame[12..HEADER_LEN].copy_from_slice(&ETHERTYPE.to_be_bytes());
        frame
    }
}
