//! Workers that have more to do than time: told when it lasts, and when it is over.
//!
//! A worker that has time finds nothing in some of its turns, a thousand of which in a row let it sleep. One that did not sleep once in a second and
//! found something in nearly every turn has none left; what comes above that waits in rings and is dropped there. Turns are counted
//! anyway, so that nothing is added to them. It does not say by how much more there is to do than is done.

use super::daemon::Daemon;

/// Of its turns a worker finds frames in at least so many percent: the rest is the unevenness of a second.
const BUSY_PERCENT: u64 = 95;
/// Looks in a row, a second each, after which it is told: a burst that is over sooner is what rings and queues are for.
const LOOKS_OVERLOADED: u32 = 5;
/// Looks in a row after which it is over: a load that comes and goes is told once.
const LOOKS_OVER: u32 = 5;

/// What is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turned {
    Overloaded { percent: u64 },
    Over,
}

/// A worker, as it was last looked at.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    turns: u64,
    empty: u64,
    sleeps: u64,
    is_known: bool,
    is_told: bool,
    /// Looks in a row that speak against what was told last.
    other: u32,
}

impl Seen {
    /// A second later: its counters now.
    fn look(&mut self, turns: u64, empty: u64, sleeps: u64) -> Option<Turned> {
        let passed = turns.saturating_sub(self.turns);
        let found = passed.saturating_sub(empty.saturating_sub(self.empty));
        let percent = found * 100 / passed.max(1);
        let is_busy = self.is_known && passed > 0 && percent >= BUSY_PERCENT && sleeps == self.sleeps;
        (self.turns, self.empty, self.sleeps, self.is_known) = (turns, empty, sleeps, true);
        self.other = if is_busy == self.is_told { 0 } else { self.other + 1 };
        if self.other < if self.is_told { LOOKS_OVER } else { LOOKS_OVERLOADED } {
            return None;
        }
        (self.is_told, self.other) = (is_busy, 0);
        Some(if is_busy { Turned::Overloaded { percent } } else { Turned::Over })
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Overload(Vec<Seen>);

impl Daemon {
    /// Looks at what the workers had to do. Called once a second.
    pub(super) fn look_for_overload(&mut self) {
        self.loads.overload.0.resize(self.counters.len(), Seen::default());
        let mut news = Vec::new();
        for (worker, (counters, seen)) in self.counters.iter().zip(&mut self.loads.overload.0).enumerate() {
            let life = &counters.life;
            // Who naps had time to.
            let rests = life.sleeps.get() + life.naps.get();
            let turned = seen.look(life.turns.get(), life.empty_turns.get(), rests);
            news.extend(turned.map(|turned| (worker, turned)));
        }
        for (worker, turned) in news {
            let mut parts = vec![("worker", worker.to_string())];
            let (kind, text) = match turned {
                Turned::Overloaded { percent } => {
                    parts.push(("busy_percent", percent.to_string()));
                    let text = format!(
                        "worker {worker} has not slept for {LOOKS_OVERLOADED} s and found frames in {percent} % of its turns: what comes above this is dropped; `switch-ctl worker lanes` shows what costs, `switchd --cores` gives it more workers"
                    );
                    tracing::warn!("{text}");
                    ("worker-overloaded", text)
                }
                Turned::Over => ("worker-recovered", format!("worker {worker} has time again")),
            };
            self.tell(kind, text, &parts);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is told of seconds, each with so many turns, empty ones and sleeps.
    fn told(seconds: &[(u64, u64, u64)]) -> Vec<(usize, Turned)> {
        let (mut seen, mut sums) = (Seen::default(), (0, 0, 0));
        seen.look(0, 0, 0);
        let mut told = Vec::new();
        for (second, (turns, empty, sleeps)) in seconds.iter().enumerate() {
            sums = (sums.0 + turns, sums.1 + empty, sums.2 + sleeps);
            told.extend(seen.look(sums.0, sums.1, sums.2).map(|turned| (second, turned)));
        }
        told
    }

    #[test]
    fn it_is_told_once_when_it_lasts_and_once_when_it_is_over() {
        let (full, idle) = ((1000, 10, 0), (5000, 4000, 3));
        let mut seconds = vec![full; 20];
        seconds.extend([idle; 20]);
        let overloaded = Turned::Overloaded { percent: 99 };
        assert_eq!(told(&seconds), [(4, overloaded), (24, Turned::Over)]);
        // A pause of a second does not end it, and a burst of four does not begin it.
        let mut seconds = vec![full; 10];
        seconds.extend([idle, full, full, idle, idle, full]);
        seconds.extend([idle; 4]);
        assert_eq!(told(&seconds), [(4, overloaded)]);
        assert_eq!(told(&[full, full, full, full, idle, full, full, full, full]), []);
    }

    #[test]
    fn who_sleeps_or_stands_still_or_finds_nothing_now_and_then_has_time() {
        for second in [(1000, 0, 1), (0, 0, 0), (1000, 60, 0), (1_000_000, 1_000_000, 0)] {
            assert_eq!(told(&[second; 20]), [], "{second:?}");
        }
    }
}
