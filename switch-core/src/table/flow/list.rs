//! The flows that there are: listed, counted, ended.

use super::key::{End, Key};
use super::record::{Decision, Window};
use super::state::{Stage, State};
use super::{ATTEMPTS, Counted, Flows, Seen};
use crate::table::sync::Ordering;

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
    /// Ends the flow of `key` at `place`: its next packet begins another, if it may. Whether it was there. Should another have been given the
    /// place meanwhile, that one stays: the key is compared behind the look at the state, and only from that state it ends.
    pub fn kill(&self, place: u32, key: &Key) -> bool {
        let record = self.record(place);
        (0..ATTEMPTS).any(|_| {
            let state = record.state();
            !state.stage.is_none() && record.holds(key) && self.end(place, state)
        })
    }

    /// Ends whichever flow is at a place.
    #[cfg(test)]
    pub fn kill_at(&self, place: u32) -> bool {
        self.record(place).read().is_some_and(|(key, ..)| self.kill(place, &key))
    }

    /// Every living flow in a range of places.
    pub fn scan(&self, range: std::ops::Range<u32>, now_s: u32, mut visit: impl FnMut(u32, Entry)) {
        for place in range.start..range.end.min(self.chunks.used()) {
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
        let port = usize::from(port);
        let all = self.by_port[port].load(Ordering::Relaxed) as u32;
        Counted { all, half_open: self.half_open[port].load(Ordering::Relaxed) }
    }

    /// Whether a packet may begin a flow, were there room for it.
    pub fn begins(&self, seen: &Seen) -> bool {
        self.first(seen).is_ok()
    }

    /// Flows that began at a port and are not over. Of a translated one there are two entries, and it is one.
    pub fn begun_at(&self, port: u16) -> u32 {
        let count = self.by_port[usize::from(port)].load(Ordering::Relaxed);
        (count as u32).saturating_sub((count >> 32) as u32)
    }
}

/// Among what is counted of a port, an entry: in the low half it is one of all, in the high half one that is another flow's other key.
pub(super) fn one(state: State) -> u64 {
    1 | u64::from(state.stage == Stage::Reply) << 32
}
