//! Which ports a loop was found behind, and until when they stay blocked. Learned state: the worker
//! that sees a probe come back writes, every worker reads.
//!
//! A loop has two ends, and both may hear of it at one time, on two workers. One of them is blocked: what is between them is still
//! reached by the other. So who blocks a port says so first, and then puts down of which pair that was; who finds the pair there
//! already was second, and takes his word back.

use super::sync::{AtomicU32, AtomicU64, Ordering};

/// Seconds a port stays blocked, both ways, after a loop was seen behind it. Long enough that a standing loop costs
/// one short burst in that time, short enough that nobody has to unblock a port by hand.
pub const HOLD_S: u32 = 10;

/// See the module.
#[derive(Debug)]
pub struct Loops {
    /// One word a port: the second until which it is blocked; 0 is never.
    pub(super) until_s: Box<[AtomicU32]>,
    /// The two ends that were decided about last: the lower port, the higher one, and the second until which that holds.
    pub(super) decided: AtomicU64,
}

impl Loops {
    /// For ports `0..ports`.
    pub fn new(ports: usize) -> Self {
        Self { until_s: (0..ports).map(|_| AtomicU32::new(0)).collect(), decided: AtomicU64::new(0) }
    }

    /// A probe that left by `other` came back by `port`: blocks that, unless the loop is cut at its other end; a port that is blocked already
    /// stays so for longer. `other` is `port` itself if it is not known, or the loop has one end. Whether `port` is blocked.
    pub fn found(&self, port: u16, other: u16, now_s: u32) -> bool {
        let was_blocked = self.is_blocked(port, now_s);
        if !was_blocked && other != port && self.is_blocked(other, now_s) {
            return false;
        }
        self.word(port).store(now_s + HOLD_S, Ordering::Relaxed);
        if was_blocked || other == port || self.decides(port, other, now_s) {
            return true;
        }
        // Whoever was faster has blocked his port before he said so. If it is not: that was another port of this number.
        let is_cut = self.is_blocked(other, now_s);
        if is_cut {
            self.clear(port);
        }
        !is_cut
    }

    /// Whether nobody else has decided about this pair of ports.
    fn decides(&self, port: u16, other: u16, now_s: u32) -> bool {
        let (low, high) = (port.min(other), port.max(other));
        let pair = u64::from(low) << 48 | u64::from(high) << 32;
        let mine = pair | u64::from(now_s + HOLD_S);
        let is_new = |was: u64| (was >> 32 != pair >> 32 || was as u32 <= now_s).then_some(mine);
        self.decided.fetch_update(Ordering::AcqRel, Ordering::Acquire, is_new).is_ok()
    }

    /// Whether `port` is blocked now.
    #[inline(always)]
    pub fn is_blocked(&self, port: u16, now_s: u32) -> bool {
        self.word(port).load(Ordering::Relaxed) > now_s
    }

    /// Forgets what was known of `port`.
    pub fn clear(&self, port: u16) {
        self.word(port).store(0, Ordering::Relaxed);
    }

    #[inline(always)]
    fn word(&self, port: u16) -> &AtomicU32 {
        &self.until_s[usize::from(port)]
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn one_end_is_blocked_for_a_while() {
        let loops = Loops::new(4);
        let blocked = |now_s| (0..4).filter(|port| loops.is_blocked(*port, now_s)).collect::<Vec<u16>>();
        assert!(loops.found(2, 1, 5) && !loops.found(1, 2, 6));
        assert_eq!((blocked(14), blocked(15)), (vec![2], vec![]));
        // It goes on: for longer. Another pair has nothing to do with it, and a loop of one end has no other.
        assert!(loops.found(2, 1, 12) && loops.found(3, 0, 12));
        assert!(!loops.found(1, 2, 13), "that something else was decided since changes nothing");
        assert!(loops.found(1, 1, 12));
        assert_eq!((blocked(21), blocked(22)), (vec![1, 2, 3], vec![]));
        assert!(loops.found(1, 2, 30), "when it is over either may be");
    }

    #[test]
    fn what_was_decided_of_a_port_that_is_gone_is_not_true_of_the_next_of_its_number() {
        let loops = Loops::new(4);
        assert!(loops.found(2, 1, 5));
        loops.clear(2);
        assert!(loops.found(1, 2, 6) && loops.is_blocked(1, 7));
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::sync::Arc;
    use loom::thread;

    /// Both ends hear of one loop at once: one is blocked, and it is the one that was told so.
    #[test]
    fn loom_of_two_ends_that_hear_at_once_one_is_blocked() {
        loom::model(|| {
            let loops = Arc::new(Loops::new(2));
            let other = loops.clone();
            let thread = thread::spawn(move || other.found(1, 0, 5));
            let told = [loops.found(0, 1, 5), thread.join().unwrap()];
            assert_eq!(told, [0, 1].map(|port| loops.is_blocked(port, 5)));
            assert_eq!(told.iter().filter(|told| **told).count(), 1, "{told:?}");
        });
    }
}
