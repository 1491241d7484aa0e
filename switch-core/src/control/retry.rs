//! When a port that is down is to be tried again. An attempt costs the control thread milliseconds, and what it makes and takes away again
//! the kernel tells everybody of, us among them; so each that fails makes the port wait longer for the next.

use std::time::{Duration, Instant};

/// Behind the first attempt: what a pod did to its device is mended about as soon as the pod has undone it.
const REOPEN_PAUSE: Duration = Duration::from_secs(2);
/// Behind many: a thousand ports whose pods are gone take the control thread some percent of its time, and whoever has put one right
/// does not wait for long.
const REOPEN_PAUSE_MAX: Duration = Duration::from_secs(30);
/// Once something happened to devices of the daemon's namespace the wait is so much shorter. It is not over, for it may be the attempt's own
/// doing.
const HEARD_SOONER: u32 = 8;

/// Of a port that is down, and was tried.
#[derive(Clone, Copy, Debug)]
pub(super) struct Retry {
    tried: Instant,
    pause: Duration,
    heard: bool,
}

impl Retry {
    /// An attempt failed now, behind another that did if one did.
    pub fn after(before: Option<Self>, now: Instant) -> Self {
        let pause = before.map_or(REOPEN_PAUSE, |before| (before.pause * 2).min(REOPEN_PAUSE_MAX));
        Self { tried: now, pause, heard: false }
    }

    /// Something happened that may be about it.
    pub fn hear(&mut self) {
        self.heard = true;
    }

    /// Whether it is time for the next.
    pub fn is_due(&self, now: Instant) -> bool {
        let pause = if self.heard { self.pause / HEARD_SOONER } else { self.pause };
        now.saturating_duration_since(self.tried) >= pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Attempts within a time, looked for every 100 ms; with `hears` each is followed by news of what it did.
    fn attempts(within: Duration, hears: bool) -> Vec<Duration> {
        let begun = Instant::now();
        let (mut retry, mut made) = (Retry::after(None, begun), Vec::new());
        let mut passed = Duration::ZERO;
        while passed < within {
            passed += Duration::from_millis(100);
            if hears {
                retry.hear();
            }
            if retry.is_due(begun + passed) {
                retry = Retry::after(Some(retry), begun + passed);
                made.push(passed);
            }
        }
        made
    }

    #[test]
    fn each_attempt_that_fails_makes_the_next_wait_longer_up_to_a_limit() {
        let seconds: Vec<_> =
            attempts(Duration::from_secs(130), false).iter().map(Duration::as_secs).collect();
        assert_eq!(seconds, [2, 6, 14, 30, 60, 90, 120]);
    }

    #[test]
    fn news_makes_it_sooner_and_not_at_once() {
        let mut retry = Retry::after(None, Instant::now());
        retry.hear();
        assert!(!retry.is_due(retry.tried) && retry.is_due(retry.tried + REOPEN_PAUSE / HEARD_SOONER));
        // A port that hears of nothing but its own attempts does not feed itself.
        let heard = attempts(Duration::from_secs(130), true).len();
        assert!((20..50).contains(&heard), "{heard} attempts");
        // The next attempt waits for news of its own.
        let again = Retry::after(Some(retry), retry.tried);
        assert!(!again.is_due(again.tried + REOPEN_PAUSE));
    }
}
