//! The flows that there are: listed, counted, ended.

use super::key::{End, Key};
use super::record::{Decision, Window};
use super::state::State;
use super::{ATTEMPTS, Counted, Flows};
use crate::table::sync::{AtomicU32, Ordering};

/// A flow as it is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Who.
    pub key: Key,
    /// How far.
    pub state: State,
    /// What was decided.
    pub decision: Decision,
    /// Source and destination of what its originator's packets become; none if they stay as they are.
    pub becomes: Option<[End; 2]>,
    /// Seconds since its last packet.
    pub age_s: u32,
    /// Seconds until it is forgotten if nothing more comes.
    pub left_s: u32,
}

impl Entry {
    /// Who began, and whom it really reaches: what policies are asked about.
    pub fn real(&self) -> [End; 2] {
        let (ends, origin) = (self.key.ends(), usize::from(self.state.origin()));
        [ends[origin], self.becomes.map_or(ends[1 - origin], |[_, to]| to)]
    }
}

impl Flows {
    /// Ends a flow: its next packet begins another, if it may. Whether it was there.
    pub fn kill(&self, place: u32) -> bool {
        (0..ATTEMPTS).any(|_| {
            let state = self.record(place).state();
            !state.stage.is_none() && self.end(place, state)
        })
    }

    /// Every living flow in a range of places.
    pub fn scan(&self, range: std::ops::Range<u32>, now_s: u32, mut visit: impl FnMut(u32, Entry)) {
        for place in range.start..range.end.min(self.dealt()) {
            let Some(entry) = self.entry(place, now_s) else { continue };
            visit(place, entry);
        }
    }

    /// The living flow at a place.
    pub fn entry(&self, place: u32, now_s: u32) -> Option<Entry> {
        let record = self.records.get(place)?;
        let (key, state, decision) = record.read()?;
        let age_s = record.age_s(now_s);
        let left_s = state.stage.timeout_s().checked_sub(age_s)?;
        (!state.stage.is_none()).then_some(Entry {
            key,
            state,
            decision,
            becomes: self.becomes(place, &key, state.origin()),
            age_s,
            left_s,
        })
    }

    /// What each end of the flow at a place has said, by side.
    pub fn windows(&self, place: u32) -> [Window; 2] {
        let record = self.record(place);
        [record.window(0), record.window(1)]
    }

    /// Flows, and half-open ones.
    pub fn counted(&self) -> Counted {
        let half_open = self.half_open.iter().map(|count| count.load(Ordering::Relaxed)).sum();
        Counted { all: self.entries.load(Ordering::Relaxed), half_open }
    }

    /// A port's flows, and half-open ones.
    pub fn counted_of(&self, port: u16) -> Counted {
        let of = |counts: &[AtomicU32]| counts[usize::from(port)].load(Ordering::Relaxed);
        Counted { all: of(&self.by_port), half_open: of(&self.half_open) }
    }
}
