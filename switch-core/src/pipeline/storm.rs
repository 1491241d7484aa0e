//! Storm control: a token bucket a port, in frames a second (as RFC 2697 fills one, counted in packets).
//! Private to a worker; a port with queues on several workers has the limit on each of them.

use super::Now;

/// How many seconds' worth of frames may come at once. A tenth: a burst of ARP at a pod's start passes.
const BURST_TENTHS_S: u64 = 1;
const NS: u64 = 1_000_000_000;

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    /// Until when the bucket's content was counted.
    filled_ns: u64,
    /// Content, in billionths of a frame, so that no fill is too short to count.
    content: u64,
}

/// One bucket a port.
#[derive(Debug)]
pub struct Storms(Box<[Bucket]>);

impl Storms {
    /// For ports `0..ports`.
    pub fn new(ports: usize) -> Self {
        Self(vec![Bucket::default(); ports].into())
    }

    /// Whether `port` may flood one more frame now, at `pps` frames a second. 0 lets nothing pass.
    pub fn admit(&mut self, port: u16, pps: u32, now: Now) -> bool {
        let bucket = &mut self.0[usize::from(port)];
        let pps = u64::from(pps);
        // At least one whole frame fits, or a small limit would be none at all.
        let full = if pps == 0 { 0 } else { (pps * NS / 10 * BURST_TENTHS_S).max(NS) };
        let elapsed = now.ns.saturating_sub(bucket.filled_ns).min(NS);
        bucket.content = (bucket.content + elapsed * pps).min(full);
        bucket.filled_ns = now.ns.max(bucket.filled_ns);
        let admitted = bucket.content >= NS;
        if admitted {
            bucket.content -= NS;
        }
        admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever the spacing, no second lets through more than the limit and one burst.
        #[test]
        fn never_more_than_the_limit(pps in 1u32..5000, gaps_ns in proptest::collection::vec(0u64..400_000, 1..3000)) {
            let mut storms = Storms::new(1);
            let (mut ns, mut passed) = (NS, 0u64);
            for gap in &gaps_ns {
                ns += gap;
                passed += u64::from(storms.admit(0, pps, Now { ns }));
            }
            let burst = (u64::from(pps) / 10).max(1);
            prop_assert!(passed <= burst + (ns - NS) * u64::from(pps) / NS + 1);
        }
    }

    #[test]
    fn a_steady_sender_below_the_limit_loses_nothing() {
        let mut storms = Storms::new(1);
        assert!((1..1000u64).all(|i| storms.admit(0, 100, Now { ns: NS + i * 10_000_000 })));
        assert!(!storms.admit(0, 0, Now { ns: 100 * NS }));
    }
}
