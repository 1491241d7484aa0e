//! One neighbour: what is known of it, and what its age makes of that.

use super::{ASKED_S, FAILED_S, FRESH_S, STALE_MAX_S};
use crate::table::wide::Value;

/// State in the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// Asked for; nobody answered yet.
    Asked = 1,
    /// It answered.
    Known = 2,
    /// Nobody answered.
    Failed = 3,
    /// Declared.
    Static = 4,
}

/// One entry, unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its station, low 48 bits; 0 if unknown.
    pub mac: u64,
    /// The port it answered by, or whose packet made the switch ask.
    pub port: u16,
    /// See [`State`].
    pub state: State,
    /// Questions since it last answered. Of one that is asked for: 1 if nobody answered the time before.
    pub(super) probes: u8,
    /// Low bits of the second of the last question.
    pub(super) probed_s: u16,
    /// The second of the last answer, or of the state's beginning.
    pub(super) stamp_s: u32,
}

impl Entry {
    pub(super) fn new(state: State, mac: u64, port: u16, now_s: u32) -> Self {
        Self { mac, port, state, probes: 0, probed_s: 0, stamp_s: now_s }
    }

    pub(super) fn pack(self) -> Value {
        let low = u64::from(self.stamp_s) << 32
            | u64::from(self.probed_s) << 16
            | u64::from(self.probes) << 8
            | self.state as u64;
        [self.mac << 16 | u64::from(self.port), low]
    }

    #[inline(always)]
    pub(super) fn unpack([high, low]: Value) -> Self {
        let state = match low & 0xff {
            1 => State::Asked,
            2 => State::Known,
            3 => State::Failed,
            _ => State::Static,
        };
        Self {
            mac: high >> 16,
            port: high as u16,
            state,
            probes: (low >> 8) as u8,
            probed_s: (low >> 16) as u16,
            stamp_s: (low >> 32) as u32,
        }
    }

    /// Seconds since it was last heard from, or its state began. A second that lies ahead is now.
    pub fn age_s(self, now_s: u32) -> u32 {
        now_s.saturating_sub(self.stamp_s)
    }

    /// Whether it may be forgotten.
    pub fn is_old(self, now_s: u32) -> bool {
        match self.state {
            State::Asked => self.age_s(now_s) > ASKED_S,
            State::Failed => self.age_s(now_s) > FAILED_S,
            State::Known => self.age_s(now_s) > STALE_MAX_S,
            State::Static => false,
        }
    }

    /// Whether it is sure enough to be used without a question.
    pub fn is_fresh(self, now_s: u32) -> bool {
        self.state == State::Static || self.state == State::Known && self.age_s(now_s) <= FRESH_S
    }

    /// Whether it may be sent to.
    pub(super) fn has_station(self) -> bool {
        matches!(self.state, State::Known | State::Static)
    }

    /// Whether all that follows of this entry follows of `next`: the same station, for as long.
    pub(super) fn goes_on_as(self, next: Option<Self>) -> bool {
        next.is_some_and(|next| {
            let lasts =
                next.state == State::Static || self.state == State::Known && next.stamp_s >= self.stamp_s;
            next.has_station() && next.mac == self.mac && lasts
        })
    }

    /// Whether nobody answered when it was asked for last, and it is asked for again at most.
    pub(super) fn is_missed(self) -> bool {
        self.state == State::Failed || self.state == State::Asked && self.probes > 0
    }

    pub(super) fn is_waiting(self) -> bool {
        matches!(self.state, State::Asked | State::Failed)
    }
}
