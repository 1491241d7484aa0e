//! Flows that begin: of a key that nobody has, or anew in the place of one that is over; and whether there is room for one more.

use super::keeper::{Keeper, Room};
use super::record::{self, Decision};
use super::state::{self, Stage, State};
use super::watch::{self, Why};
use super::{DEALT_PART, Flows, Opened, Passed, Refusal, Seen, others, tcp};
use crate::table::atomic::{Outcome, Unsure, Want};
use crate::table::sync::Ordering;
use crate::wire::packet::Content;

/// What a first packet leaves.
pub(super) struct First {
    pub state: State,
    pub windows: [record::Window; 2],
}

impl Flows {
    /// Makes the flow that `seen` begins, with a decision. If it is there already, the packet is counted to
    /// it, and the decision is not written.
    #[inline]
    pub fn open(&self, keeper: &mut Keeper, seen: &Seen, decision: Decision) -> Result<Opened, Refusal> {
        if let Some(place) = self.place(seen.hash) {
            return self.open_again(keeper, place, seen, decision);
        }
        let first = match self.first(seen) {
            Err(Refusal::NoBeginning) => return self.join_late(seen),
            first => first?,
        };
        self.make_room(keeper, seen.port)?;
        let place = keeper.take(self, seen.port).ok_or(Refusal::Full)?;
        // Before anybody can see it, and end it.
        self.count(State::DEAD, first.state);
        self.record(place).begin(&seen.key, first.state, seen.now_s, first.windows, decision, None);
        let mut other = None;
        let outcome = self.insist(seen.hash, |present| {
            other = present;
            if present.is_some() { Want::Keep } else { Want::Put(place) }
        });
        match (outcome, other) {
            (Outcome::Written, _) => {
                keeper.note(self, place, first.state);
                Ok(Opened::New(place))
            }
            (_, Some(other)) => {
                self.finish(place);
                keeper.give(self, place);
                self.open_again(keeper, other, seen, decision)
            }
            (outcome, _) => {
                self.finish(place);
                keeper.give(self, place);
                Err(if outcome == Outcome::Full { Refusal::Full } else { Refusal::Busy })
            }
        }
    }

    /// What begins nothing is of no flow, unless the index was written when it was asked.
    #[cold]
    fn join_late(&self, seen: &Seen) -> Result<Opened, Refusal> {
        let place = self.index.find(seen.hash).map_err(|Unsure| Refusal::Busy)?;
        place.and_then(|place| self.join(place, seen)).unwrap_or(Err(Refusal::NoBeginning))
    }

    /// The key's hash has a place: the packet is counted to its flow, unless that is over.
    pub(super) fn join(&self, place: u32, seen: &Seen) -> Option<Result<Opened, Refusal>> {
        // Two keys of one hash, or a place that was given up a moment ago.
        if !self.holds(place, &seen.key) {
            return Some(Err(Refusal::Busy));
        }
        match self.pass(place, seen) {
            Passed::Known | Passed::Moved(_) => Some(Ok(Opened::Known(place))),
            Passed::Invalid(invalid) => Some(Ok(Opened::Invalid(invalid))),
            Passed::Over => None,
        }
    }

    /// The same; a flow that is over begins anew in its place.
    #[cold]
    fn open_again(
        &self,
        keeper: &mut Keeper,
        place: u32,
        seen: &Seen,
        decision: Decision,
    ) -> Result<Opened, Refusal> {
        // As it is before anything is asked about it: its owner may give it to another flow at any time.
        let record = self.record(place);
        let (sequence, before) = (record.holds_at(&seen.key), record.state());
        if let Some(joined) = self.join(place, seen) {
            return joined;
        }
        let first = self.first(seen)?;
        // A translated flow does not begin anew in its place: its owner gives it up first ([`Keeper::clear`]).
        let is_given_up = before.flags & state::TAKEN_BACK != 0 && before.stage == Stage::Dead;
        if is_given_up || before.stage == Stage::Reply || record.bound().is_some() {
            return Err(Refusal::Busy);
        }
        let counts = before.stage == Stage::Dead || before.port != seen.port;
        let was_half_open = !counts && before.stage.is_half_open();
        let finds_no_room =
            counts && !self.may_have(seen.port) || !was_half_open && !self.may_half_open(seen.port);
        if finds_no_room && !keeper.evict(self, seen.port, Room::Count) {
            return Err(Refusal::PortLimit);
        }
        if !sequence.is_some_and(|sequence| record.is_still(sequence)) {
            return Err(Refusal::Busy);
        }
        // What was decided about the old flow is not true of the new one for a moment, nor is it as old.
        record.decide(Decision::NONE);
        record.stamp(seen.now_s);
        if !self.change(record, before, first.state) {
            return Err(Refusal::Busy);
        }
        if !watch::is_closed(before.stage) {
            keeper.tell(watch::What::Ended(Why::Timeout), seen.key, before);
        }
        record.restart(seen.now_s, first.windows, decision);
        Ok(Opened::New(place))
    }

    /// State and windows that a first packet leaves.
    pub(super) fn first(&self, seen: &Seen) -> Result<First, Refusal> {
        let begun = match seen.packet.content {
            Content::Tcp(ref segment) => tcp::begin(seen.side, segment, self.pickup),
            Content::Sctp(ref chunk) => others::begin_sctp(seen.side, chunk),
            Content::Query { answer: false } => Some((Stage::Asked, 0, Default::default())),
            Content::Query { answer: true } | Content::Error { .. } | Content::Later => None,
            Content::Udp => Some((Stage::UdpOneWay, 0, Default::default())),
            Content::Control | Content::Other => Some((Stage::OneWay, 0, Default::default())),
        };
        let (stage, scales, windows) = begun.ok_or(Refusal::NoBeginning)?;
        let mut state = State { stage, port: seen.port, scales, flags: 0 };
        state.set_origin(seen.side);
        if stage == Stage::Established {
            state.flags |= state::PICKED_UP | state::SCALED;
        }
        Ok(First { state, windows })
    }

    /// Whether `port` may have one more flow.
    fn may_have(&self, port: u16) -> bool {
        let own = self.by_port[usize::from(port)].load(Ordering::Relaxed) as u32;
        let all = self.entries.load(Ordering::Relaxed);
        let shared = self.limits.all - self.limits.all / DEALT_PART;
        own < self.limits.port && (own < self.limits.share || all < shared)
    }

    fn may_half_open(&self, port: u16) -> bool {
        self.half_open[usize::from(port)].load(Ordering::Relaxed) < self.limits.half_open
    }

    /// The port's own half-open flows make room.
    #[inline]
    pub(super) fn make_room(&self, keeper: &mut Keeper, port: u16) -> Result<(), Refusal> {
        if self.may_half_open(port) && self.may_have(port) {
            return Ok(());
        }
        let has_room =
            keeper.evict(self, port, Room::Count) || self.may_have(port) && keeper.has_few(self, port);
        if has_room { Ok(()) } else { Err(Refusal::PortLimit) }
    }
}
