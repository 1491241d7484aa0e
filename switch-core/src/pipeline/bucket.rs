//! A token bucket (as RFC 2697 fills one): what storm control and rate limits count with.

use super::Now;

pub(super) const NS: i128 = 1_000_000_000;

/// See the module.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bucket {
    /// Until when the bucket's content was counted.
    filled_ns: u64,
    /// Content in billionths, so that no fill is too short to count; below 0 after something that was more than
    /// there was.
    content: i128,
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
