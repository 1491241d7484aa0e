//! What is to be over some time from now, also when the daemon was started anew meanwhile. The time of day somebody may set; the clock that counts from
//! boot nobody sets, but it begins anew with each boot. So the latter counts as long as it is the same boot, and the former only beyond.

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use std::sync::OnceLock;
use std::time::SystemTime;

/// Says which boot this is (random(4)).
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// What the clocks say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clocks {
    /// Seconds since 1970.
    pub day_s: u64,
    /// Seconds since boot, in which a suspended machine counts too.
    pub boot_s: u64,
    /// Which boot; empty if nobody says.
    pub boot_id: String,
}

impl Clocks {
    /// As they are now. The first call is before the daemon gives up reading files.
    pub fn now() -> Self {
        static BOOT: OnceLock<String> = OnceLock::new();
        let read = || std::fs::read_to_string(BOOT_ID).unwrap_or_default().trim().to_owned();
        Self {
            day_s: day_s(),
            boot_s: u64::try_from(clock_gettime(ClockId::Boottime).tv_sec).unwrap_or(0),
            boot_id: BOOT.get_or_init(read).clone(),
        }
    }
}

/// Seconds since 1970: for people, and for what no other clock knows.
pub fn day_s() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// See the module. As it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deadline {
    until_s: u64,
    within_s: u32,
    /// The same by the clock since boot; a daemon of before did not note it.
    #[serde(default)]
    until_boot_s: u64,
    #[serde(default)]
    boot_id: String,
}

impl Deadline {
    /// So many seconds from now.
    pub fn new(within_s: u32, now: &Clocks) -> Self {
        let within = u64::from(within_s);
        let (until_s, until_boot_s) = (now.day_s.saturating_add(within), now.boot_s.saturating_add(within));
        Self { until_s, within_s, until_boot_s, boot_id: now.boot_id.clone() }
    }

    /// Seconds left: never more than there were.
    pub fn left_s(&self, now: &Clocks) -> u64 {
        let is_same_boot = !self.boot_id.is_empty() && self.boot_id == now.boot_id;
        let left = match is_same_boot {
            true => self.until_boot_s.saturating_sub(now.boot_s),
            false => self.until_s.saturating_sub(now.day_s),
        };
        left.min(self.within_s.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clocks(day_s: u64, boot_s: u64, boot_id: &str) -> Clocks {
        Clocks { day_s, boot_s, boot_id: boot_id.into() }
    }

    #[test]
    fn whatever_is_done_to_the_time_of_day_a_minute_is_a_minute() {
        let deadline = Deadline::new(60, &clocks(1_000_000, 500, "this"));
        for day_s in [0, 1, 999_000, 1_000_000, 1_000_059, 1_000_061, u64::MAX] {
            assert_eq!(deadline.left_s(&clocks(day_s, 500, "this")), 60, "{day_s}");
            assert_eq!(deadline.left_s(&clocks(day_s, 540, "this")), 20, "{day_s}");
            assert_eq!(deadline.left_s(&clocks(day_s, 560, "this")), 0, "{day_s}");
        }
    }

    #[test]
    fn after_a_boot_the_time_of_day_counts_and_makes_it_no_longer_than_it_was() {
        for before in ["this", ""] {
            let deadline = Deadline::new(60, &clocks(1_000_000, 500, before));
            for (day_s, left_s) in
                [(0, 60), (999_000, 60), (1_000_020, 40), (1_000_060, 0), (2_000_000, 0), (u64::MAX, 0)]
            {
                for now in ["other", ""] {
                    assert_eq!(
                        deadline.left_s(&clocks(day_s, 7, now)),
                        left_s,
                        "{day_s}, {before:?} {now:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn what_a_daemon_of_before_noted_is_understood() {
        let kept: Deadline = serde_json::from_str(r#"{"until_s":1000060,"within_s":60}"#).unwrap();
        assert_eq!(kept.left_s(&clocks(1_000_050, 7, "this")), 10);
        let now = Clocks::now();
        let again: Deadline =
            serde_json::from_str(&serde_json::to_string(&Deadline::new(9, &now)).unwrap()).unwrap();
        assert_eq!((again.left_s(&now), again), (9, Deadline::new(9, &now)));
        assert!(now.boot_id.len() == 36 && now.boot_s > 0 && now.day_s > 1_700_000_000, "{now:?}");
    }
}
