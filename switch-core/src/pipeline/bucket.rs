//! A token bucket (as RFC 2697 fills one): what storm control and rate limits count with. It begins full, whatever the
//! clock says by then.

use super::Now;

pub(super) const NS: i128 = 1_000_000_000;
/// More than any bucket is allowed, and so little that nothing overflows when all of a clock's seconds are added.
const MORE_THAN_FULL: i128 = i128::MAX / 4;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    /// Until when the bucket's content was counted.
    filled_ns: u64,
    /// Content in billionths, so that no fill is too short to count; below 0 after something that was more than
    /// there was.
    content: i128,
}

impl Default for Bucket {
    /// Full, however much that is: the first fill cuts it down.
    fn default() -> Self {
        Self { filled_ns: 0, content: MORE_THAN_FULL }
    }
}

impl Bucket {
    /// Counts what came since it was filled last: `own` parts of `of`, of `per_s` a second. Up to `full` billionths.
    #[inline]
    pub(super) fn fill(&mut self, per_s: u64, (own, of): (u32, u32), full: i128, now: Now) {
        let elapsed = now.ns.saturating_sub(self.filled_ns);
        let came = i128::from(elapsed) * i128::from(per_s) * i128::from(own) / i128::from(of);
        self.content = (self.content + came).min(full);
        self.filled_ns = now.ns.max(self.filled_ns);
    }

    /// Whether one is in it.
    #[inline(always)]
    pub(super) fn has_any(&self) -> bool {
        self.content >= NS
    }

    /// Takes `n`, also if there are fewer: those that come later pay. What is large may not starve because it is.
    #[inline(always)]
    pub(super) fn take(&mut self, n: u64) {
        self.content -= i128::from(n) * NS;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A limit is there before the clock has counted up to its burst, and long after.
    #[test]
    fn a_new_bucket_is_full_and_no_fuller() {
        for ns in [0, 1, 1_000_000_000, u64::MAX] {
            let mut bucket = Bucket::default();
            bucket.fill(1, (1, 1), 3 * NS, Now { ns });
            let taken = std::iter::from_fn(|| bucket.has_any().then(|| bucket.take(1))).count();
            assert_eq!(taken, 3, "at {ns}");
        }
    }

    /// A rest of years holds no more than the burst, and a clock that stands still adds nothing.
    #[test]
    fn a_rest_fills_it_to_the_brim() {
        let mut bucket = Bucket::default();
        bucket.fill(1_000_000_000_000, (1, 1), 2 * NS, Now { ns: 0 });
        bucket.take(7);
        bucket.fill(1_000_000_000_000, (1, 1), 2 * NS, Now { ns: 0 });
        assert_eq!(bucket.content, -5 * NS);
        bucket.fill(1_000_000_000_000, (64, 64), 2 * NS, Now { ns: u64::MAX });
        assert_eq!(bucket.content, 2 * NS);
    }
}
