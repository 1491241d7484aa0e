//! Looking at everything once in a while, a little at a time, however often it is asked for.

/// Everything is looked at once in so many nanoseconds: 4 s, an eighth of the shortest long timeout.
const ROUND_NS: u64 = 4_000_000_000;

/// How far one has come.
#[derive(Clone, Copy, Debug, Default)]
pub struct Round {
    done: u64,
}

impl Round {
    /// What is due by `now_ns` of `count` things, fewer than 2^31, at most `most` of them: numbers that go on from round to
    /// round. What a sleeping worker missed is not made good at once: one round is enough.
    #[inline]
    pub fn due(&mut self, count: u64, now_ns: u64, most: u64) -> std::ops::Range<u64> {
        // In two parts, so that neither product is longer than a word.
        let due = now_ns / ROUND_NS * count + now_ns % ROUND_NS * count / ROUND_NS;
        let behind = due.saturating_sub(self.done).min(count);
        let from = due - behind;
        self.done = from + behind.min(most);
        from..self.done
    }
}

#[cfg(not(loom))]
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_due_once_a_round_and_a_sleeper_makes_good_one() {
        let mut round = Round::default();
        let mut seen = [0; 1000];
        for millisecond in 1..=8_000u64 {
            for at in round.due(1000, millisecond * 1_000_000, 3) {
                seen[(at % 1000) as usize] += 1;
            }
        }
        assert_eq!(seen, [2; 1000]);
        let after_an_hour = round.due(1000, 3_600_000_000_000, 5000);
        assert_eq!(after_an_hour.end - after_an_hour.start, 1000);
        assert!(round.due(1000, 3_600_000_000_000, 5000).is_empty());
    }
}
