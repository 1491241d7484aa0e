//! What was declared before, and what waits to be confirmed.

use super::clocks::{Clocks, Deadline, day_s};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};
use switch_api::{ApiError, Code, Config, HistoryEntry};

/// Entries that are kept: a change a week for half a year, and what a bad night adds.
pub const HISTORY_MAX: usize = 32;
/// Bytes of all of them together, as JSON. The oldest go first; what is in force and what it would go back to stay, however large.
pub const HISTORY_BYTES_MAX: usize = 8 << 20;
/// Bytes of one: a file as large as a request can be, and what commands have added to it.
pub(crate) const ENTRY_BYTES_MAX: usize = switch_api::codec::LONG_LINE_LEN_MAX + HISTORY_BYTES_MAX;
/// Between two attempts to roll back.
const AGAIN: Duration = Duration::from_secs(10);

/// What was declared from a time on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Past {
    /// Counted from 1, and never given out again.
    pub number: u64,
    time_s: u64,
    what: String,
    uid: u32,
    changes: usize,
    objects: usize,
    /// The configuration, as JSON.
    config: Arc<str>,
}

/// A change that is undone unless somebody confirms it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Pending {
    /// Its entry.
    pub number: u64,
    /// The entry that comes back.
    pub back: u64,
    /// Until when: what a restart goes by.
    #[serde(flatten)]
    deadline: Deadline,
    /// The same by this process's clock.
    #[serde(skip)]
    due: Option<Instant>,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// The oldest first.
    pub past: VecDeque<Past>,
    /// What waits.
    pub pending: Option<Pending>,
}

impl History {
    /// Of what was kept. The time that is left to confirm goes on, also while no daemon ran.
    pub fn of(past: VecDeque<Past>, mut pending: Option<Pending>) -> Self {
        let now = Clocks::now();
        if let Some(pending) = &mut pending {
            let left = pending.deadline.left_s(&now);
            pending.due = Some(Instant::now() + Duration::from_secs(left));
        }
        Self { past, pending }
    }

    /// With what is declared now, if commands made it something that is not noted yet.
    pub fn note(&mut self, current: &Config) -> Result<(), ApiError> {
        let text = text_of(current)?;
        if self.past.back().is_none_or(|last| last.config != text) {
            self.push("commands".into(), 0, 0, current, text);
        }
        Ok(())
    }

    /// With a change. Its number.
    pub fn add(
        &mut self,
        what: String,
        uid: u32,
        changes: usize,
        config: &Config,
        within_s: Option<u32>,
    ) -> Result<u64, ApiError> {
        let back = self.past.back().map(|last| last.number);
        let number = self.push(what, uid, changes, config, text_of(config)?);
        self.pending = back.zip(within_s).map(|(back, within_s)| Pending {
            number,
            back,
            deadline: Deadline::new(within_s, &Clocks::now()),
            due: Some(Instant::now() + Duration::from_secs(within_s.into())),
        });
        Ok(number)
    }

    fn push(&mut self, what: String, uid: u32, changes: usize, config: &Config, text: Arc<str>) -> u64 {
        let number = self.past.back().map_or(1, |last| last.number + 1);
        let objects = objects_of(config);
        let time_s = day_s();
        self.past.push_back(Past { number, time_s, what, uid, changes, objects, config: text });
        let bytes = |past: &VecDeque<Past>| past.iter().map(|entry| entry.config.len()).sum::<usize>();
        while self.past.len() > HISTORY_MAX || self.past.len() > 2 && bytes(&self.past) > HISTORY_BYTES_MAX {
            self.past.pop_front();
        }
        number
    }

    /// What was declared from entry `number` on.
    pub fn config(&self, number: u64) -> Result<Config, ApiError> {
        let entry = self.past.iter().find(|entry| entry.number == number).ok_or_else(|| {
            ApiError::new(Code::NotFound, format!("the history has no number {number}"))
                .field("number")
                .hint("`switch-ctl history` shows those there are")
        })?;
        serde_json::from_str(&entry.config).map_err(|error| {
            ApiError::new(Code::Internal, format!("number {number} of the history cannot be read: {error}"))
        })
    }

    /// As it is listed.
    pub fn list(&self) -> Vec<HistoryEntry> {
        let entries = self.past.iter().map(|entry| HistoryEntry {
            number: entry.number,
            time_s: entry.time_s,
            what: entry.what.clone(),
            uid: entry.uid,
            changes: entry.changes,
            objects: entry.objects,
            confirm_within_s: self
                .pending
                .as_ref()
                .filter(|pending| pending.number == entry.number)
                .map(Pending::left_s),
        });
        entries.collect()
    }
}

impl Pending {
    /// Seconds left.
    pub fn left_s(&self) -> u64 {
        self.due.map_or(0, |due| due.saturating_duration_since(Instant::now()).as_secs_f64().ceil() as u64)
    }

    /// Nobody confirmed it in time.
    pub fn is_over(&self) -> bool {
        self.due.is_none_or(|due| due <= Instant::now())
    }

    /// It could not be undone now.
    pub fn put_off(&mut self) {
        self.due = Some(Instant::now() + AGAIN);
    }
}

fn text_of(config: &Config) -> Result<Arc<str>, ApiError> {
    let text =
        serde_json::to_string(config).map_err(|error| ApiError::new(Code::Internal, error.to_string()))?;
    if text.len() > ENTRY_BYTES_MAX {
        let said = format!(
            "what is declared takes {} bytes, and the history keeps at most {ENTRY_BYTES_MAX} of one state",
            text.len()
        );
        return Err(ApiError::new(Code::Limit, said)
            .hint("nothing was changed; declare so many routes with `switch-ctl route` instead"));
    }
    Ok(text.into())
}

fn objects_of(config: &Config) -> usize {
    let Config {
        bridge,
        vrf,
        address,
        port,
        fdb,
        neigh,
        route,
        namespace,
        policy,
        port_set,
        address_set,
        acl,
        nat,
    } = config;
    bridge.len()
        + vrf.len()
        + address.len()
        + port.len()
        + fdb.len()
        + neigh.len()
        + route.len()
        + namespace.len()
        + policy.len()
        + port_set.len()
        + address_set.len()
        + acl.len()
        + nat.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_bounded_and_what_comes_back_stays() {
        let mut history = History::default();
        let config = |n: usize| Config {
            bridge: vec![switch_api::Bridge::new(format!("br{n}").parse().unwrap())],
            ..Config::default()
        };
        history.note(&config(0)).unwrap();
        history.note(&config(0)).unwrap();
        assert_eq!(history.past.len(), 1, "what is noted already is not noted again");
        for n in 1..=3 * HISTORY_MAX {
            history.add("apply".into(), 0, 1, &config(n), Some(60)).unwrap();
        }
        assert_eq!(history.past.len(), HISTORY_MAX);
        let pending = history.pending.clone().unwrap();
        assert_eq!(history.config(pending.back).unwrap(), config(3 * HISTORY_MAX - 1));
        assert_eq!(history.config(1).unwrap_err().code, Code::NotFound);
        let left_s = pending.left_s();
        assert!(!pending.is_over() && (1..=60).contains(&left_s));
        // After a restart no more time is left than there was.
        let kept: Pending = serde_json::from_str(&serde_json::to_string(&pending).unwrap()).unwrap();
        let again = History::of(history.past, Some(kept));
        assert!((1..=left_s).contains(&again.pending.unwrap().left_s()));
    }

    #[test]
    fn two_large_states_stay_beside_each_other_and_nothing_else_does() {
        let large = |n: usize| {
            let bridge = (0..HISTORY_BYTES_MAX / 64)
                .map(|m| switch_api::Bridge::new(format!("b{n}-{m}").parse().unwrap()));
            Config { bridge: bridge.collect(), ..Config::default() }
        };
        let mut much = History::default();
        for n in 0..4 {
            much.add("apply".into(), 0, 1, &large(n), None).unwrap();
        }
        assert_eq!(much.past.len(), 2);
        assert!(much.past.iter().all(|past| past.config.len() > HISTORY_BYTES_MAX / 2));
    }
}
