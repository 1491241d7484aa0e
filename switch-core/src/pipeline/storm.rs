//! Storm control: a token bucket a port, in frames a second (as RFC 2697 fills one, counted in packets).
//! Private to a worker; a port with queues on several workers has the limit on each of them.

use super::Now;
use super::bucket::{Bucket, NS};

/// How many seconds' worth of frames may come at once. A tenth: a burst of ARP at a pod's start passes.
const BURST_TENTHS_S: i128 = 1;

/// One bucket a port.
#[derive(Debug)]
pub struct Storms(Box<[Bucket]>);

impl Storms {
    /// For ports `0..ports`.
    pub fn new(ports: usize) -> Self {
        Self(vec![Bucket::default(); ports].into())
    }

    /// Whether `port` may flood one more frame of `segments` segments now, at `pps` of them a second. 0 lets
    /// nothing pass. A superframe that is let through with too little in the bucket is paid for by those that
    /// come after it: it may not starve because it is large.
    pub fn admit(&mut self, port: u16, pps: u32, segments: u16, now: Now) -> bool {
        let bucket = &mut self.0[usize::from(port)];
        // At least one whole frame fits, or a small limit would be none at all.
        let full = if pps == 0 { 0 } else { (i128::from(pps) * NS / 10 * BURST_TENTHS_S).max(NS) };
        bucket.fill(u64::from(pps), (1, 1), full, now);
        let admitted = bucket.has_any();
        if admitted {
            bucket.take(u64::from(segments));
        }
        admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const S: u64 = 1_000_000_000;

    proptest! {
        /// Whatever the spacing, no second lets through more than the limit and one burst.
        #[test]
        fn never_more_than_the_limit(pps in 1u32..5000, longest in 1u16..50,
                                       gaps_ns in proptest::collection::vec(0u64..400_000, 1..3000)) {
            let mut storms = Storms::new(1);
            let (mut ns, mut passed) = (S, 0u64);
            for gap in &gaps_ns {
                ns += gap;
                let segments = 1 + (gap % u64::from(longest)) as u16;
                passed += if storms.admit(0, pps, segments, Now { ns }) { u64::from(segments) } else { 0 };
            }
            let burst = (u64::from(pps) / 10).max(1);
            // The last superframe may be paid for later.
            prop_assert!(passed <= burst + (ns - S) * u64::from(pps) / S + u64::from(longest));
        }
    }

    #[test]
    fn a_steady_sender_below_the_limit_loses_nothing() {
        let mut storms = Storms::new(1);
        assert!((1..1000u64).all(|i| storms.admit(0, 100, 1, Now { ns: S + i * 10_000_000 })));
        assert!(!storms.admit(0, 0, 1, Now { ns: 100 * S }));
    }

    #[test]
    fn a_superframe_is_not_starved_but_paid_for() {
        let mut storms = Storms::new(1);
        // 10 segments a second, of which one may come at once: a train of 45 takes the next four and a half.
        assert!(storms.admit(0, 10, 45, Now { ns: S }));
        assert!(!storms.admit(0, 10, 1, Now { ns: 5 * S }));
        assert!(storms.admit(0, 10, 1, Now { ns: 6 * S }));
    }
}
