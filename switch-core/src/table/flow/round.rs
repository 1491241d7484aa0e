//! Looking at everything once in a while, a little at a time, however often it is asked for.

/// Everything is looked at once in so many nanoseconds: 4 s, an eighth of the shortest long timeout.
const ROUND_NS: u64 = 4_000_000_000;

/// How far one has come.
#[derive(Clone, Copy, Debug, Default)]
pub struct Round {
    done: u64,
    /// Up to when all that was due is done.
    done_ns: u64,
}

impl Round {
    /// What is due by `now_ns` of `count` things, fewer than 2^31 and as many as there are now, at most `most` of them: numbers that go on from
    /// round to round. What a sleeping worker missed is not made good at once: one round is enough.
    #[inline]
    pub fn due(&mut self, count: u64, now_ns: u64, most: u64) -> std::ops::Range<u64> {
        let behind_ns = now_ns.saturating_sub(self.done_ns).min(ROUND_NS);
        let due = (behind_ns * count / ROUND_NS).min(most);
        let from = self.done;
        self.done += due;
        match count {
            0 => self.done_ns = now_ns,
            _ if due > 0 => self.done_ns = now_ns.max(self.done_ns) - behind_ns + due * ROUND_NS / count,
            _ => {}
        }
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

    /// As many things as there are: more or fewer of them mean no more and no fewer looks at each.
    #[test]
    fn what_is_due_follows_how_many_there_are() {
        let (mut round, mut now_ns) = (Round::default(), 1_000_000 * ROUND_NS);
        round.due(1, now_ns, 1);
        for count in [256u64, 512, 256, 4096, 0, 256] {
            let due: u64 = (0..1000)
                .map(|_| {
                    now_ns += ROUND_NS / 1000;
                    let due = round.due(count, now_ns, 128);
                    due.end - due.start
                })
                .sum();
            assert!(due.abs_diff(count) <= 1, "{due} of {count}");
        }
    }
}
