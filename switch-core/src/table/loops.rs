//! Which ports a loop was found behind, and until when they stay blocked. Learned state: the worker
//! that sees its own probe come back writes, every worker reads.

use super::sync::{AtomicU32, Ordering};

/// Seconds a port stays blocked, both ways, after a loop was seen behind it. Long enough that a standing loop costs
/// one short burst in that time, short enough that nobody has to unblock a port by hand.
pub const HOLD_S: u32 = 10;

/// One word a port: the second until which it is blocked; 0 is never.
#[derive(Debug)]
pub struct Loops(pub(super) Box<[AtomicU32]>);

impl Loops {
    /// For ports `0..ports`.
    pub fn new(ports: usize) -> Self {
        Self((0..ports).map(|_| AtomicU32::new(0)).collect())
    }

    /// Blocks `port`; a port that is blocked already stays so for longer.
    pub fn found(&self, port: u16, now_s: u32) {
        self.0[usize::from(port)].store(now_s + HOLD_S, Ordering::Relaxed);
    }

    /// Whether `port` is blocked now.
    #[inline(always)]
    pub fn is_blocked(&self, port: u16, now_s: u32) -> bool {
        self.0[usize::from(port)].load(Ordering::Relaxed) > now_s
    }

    /// Forgets what was known of `port`.
    pub fn clear(&self, port: u16) {
        self.0[usize::from(port)].store(0, Ordering::Relaxed);
    }
}
