//! Translated flows (ADR 0026): a binding is a flow whose reply is not its mirror. It has two keys, that of the
//! packets its originator sends and that of what becomes of them, and so two entries: the flow itself, and a *reply*
//! that only says where the flow is. Each names the other, and each key says what the other's packets turn into.
//!
//! Both belong to one worker, begin and end together; the flow has the state, the windows and the decision. A packet is
//! looked up once, whichever way it goes; an answer looks at one entry more.

use super::keeper::Keeper;
use super::key::{End, Key};
use super::open::First;
use super::record::{Decision, Record};
use super::state::{Stage, State};
use super::watch::{What, Why, is_closed};
use super::{Flows, Opened, Outcome, Refusal, Seen, Want};
use crate::wire::packet::Plain;

/// The rules that made a binding, by number; 0 is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Which chose another destination.
    pub destination: u16,
    /// Which chose another source.
    pub source: u16,
}

/// What a reply's entry says of itself.
fn reply_state(port: u16) -> State {
    State { stage: Stage::Reply, port, scales: 0, flags: 0 }
}

/// Whether an entry that says so of its other one, and had this sequence before, is of a living flow that has none.
#[inline(always)]
fn is_unbound(record: Record, bound: Option<Bound>, sequence: u32) -> bool {
    // A flow that is parted is dead before it is; and what is alive behind that is another, which was written since.
    bound.is_none() && !record.state().stage.is_none() && record.is_still(sequence)
}

fn why(outcome: Outcome) -> Unbound {
    match outcome {
        Outcome::Kept => Unbound::Taken,
        Outcome::Full => Unbound::Refused(Refusal::Full),
        Outcome::Written | Outcome::Busy => Unbound::Refused(Refusal::Busy),
    }
}

/// What an entry of a translated flow says of its other one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// Its place.
    pub other: u32,
    /// Who is the lower end in one key is the higher one in the other.
    pub turned: bool,
    /// What made it.
    pub rules: Rules,
}

const TURNED: u64 = 1 << 31;

impl Bound {
    /// In a word: place and one, turned, two rules. 0 is none.
    pub(super) fn pack(bound: Option<Self>) -> u64 {
        bound.map_or(0, |it| {
            u64::from(it.other + 1)
                | if it.turned { TURNED } else { 0 }
                | u64::from(it.rules.destination) << 32
                | u64::from(it.rules.source) << 48
        })
    }

    /// In the same word, of a flow that is not bound: a number that it waits for. To whoever asks what it is bound to, it is nothing.
    pub(super) fn pack_asked(number: u32) -> u64 {
        TURNED | u64::from(number) << 32
    }

    /// The reverse.
    pub(super) fn unpack_asked(word: u64) -> Option<u32> {
        (word as u32 == TURNED as u32).then_some((word >> 32) as u32)
    }

    /// The reverse.
    #[inline(always)]
    pub(super) fn unpack(word: u64) -> Option<Self> {
        let other = (word as u32 & !(TURNED as u32)).checked_sub(1)?;
        let rules = Rules { destination: (word >> 32) as u16, source: (word >> 48) as u16 };
        Some(Self { other, turned: word & TURNED != 0, rules })
    }
}

/// What the packets of a flow that begins become.
#[derive(Clone, Copy, Debug)]
pub struct Binding {
    /// Key of what they become.
    pub key: Key,
    /// Its hash.
    pub hash: u64,
    /// From which side of that key they come.
    pub side: u8,
    /// What made it.
    pub rules: Rules,
}

/// A packet's flow, and what becomes of the packet.
#[derive(Clone, Copy, Debug)]
pub struct Going<'a> {
    /// The flow's own entry.
    pub flow: Record<'a>,
    /// From which side of the flow's key it comes.
    pub side: u8,
    /// It was found by the other key: it is an answer.
    pub by_reply: bool,
    /// What it becomes; none: it stays.
    pub becomes: Option<Plain>,
}

/// Why a translated flow was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unbound {
    /// What its packets would become is somebody else's already.
    Taken,
    /// As for every flow.
    Refused(Refusal),
}

impl Flows {
    /// Whether somebody's packets, or what becomes of them, have the key of this hash already.
    #[inline]
    pub fn is_taken(&self, hash: u64) -> bool {
        self.index.get(self.index.home(hash), hash).is_some()
    }

    /// The other entry of the flow at `place`, if it is translated.
    #[inline(always)]
    pub fn bound(&self, place: u32) -> Option<Bound> {
        self.record(place).bound()
    }

    /// Whether a place has the other key of a translated flow.
    #[inline(always)]
    pub fn is_reply(&self, place: u32) -> bool {
        self.record(place).is_reply()
    }

    /// The flow whose answers have `key`, which is at `reply`: where it is, and its own key. None if it ends at this moment: both places may
    /// be another flow's already.
    pub fn original(&self, reply: u32, key: &Key) -> Option<(Bound, Key)> {
        let record = self.record(reply);
        let sequence = record.holds_at(key)?;
        let bound = record.bound().filter(|_| self.is_reply(reply))?;
        let flow = self.records.get(bound.other)?;
        let (own, state, _) = flow.read()?;
        let is_pair = flow.bound().is_some_and(|back| back.other == reply) && state.stage != Stage::Reply;
        // A reply is written before its flow: with another flow there would be another reply here.
        (is_pair && record.is_still(sequence)).then_some((bound, own))
    }

    /// Source and destination of what a packet becomes that comes from `side` of `key`, the key of the translated flow at
    /// `place`. None if the flow ends at this moment: both places may be another's already.
    #[inline]
    pub fn becomes(&self, place: u32, key: &Key, side: u8) -> Option<[End; 2]> {
        let record = self.record(place);
        let sequence = record.holds_at(key)?;
        let bound = record.bound()?;
        let (ends, side) = match record.state().origin() == side {
            true => (self.records.get(bound.other)?.read()?.0.ends(), side ^ u8::from(bound.turned)),
            false => (key.ends(), side),
        };
        // A pair is parted before its reply's place is used again: as long as it is one, what was read is its own.
        let is_pair = record.bound() == Some(bound) && record.is_still(sequence);
        is_pair.then_some([ends[usize::from(side & 1)], ends[usize::from(side & 1 ^ 1)]])
    }

    /// Whether `key` is of a living flow at `place` that is not translated. None of its packets is another's for whom it was.
    #[inline]
    pub fn is_unbound(&self, place: u32, key: &Key) -> bool {
        let record = self.record(place);
        record.holds_at(key).is_some_and(|sequence| is_unbound(record, record.bound(), sequence))
    }

    /// Asks for the lines that [`Flows::going`] will read of an entry's other one.
    #[inline(always)]
    pub fn touch_other(&self, record: Record) {
        let Some(other) = record.bound().and_then(|bound| self.records.get(bound.other)) else { return };
        other.touch();
        // A flow's windows are its own, and an answer counts to them.
        if record.is_reply() {
            other.touch_tail();
        }
    }

    /// Whose the IPv4 packet is that comes from `side` of `key`, by the entry that was found, and what becomes of it: all that
    /// [`Flows::original`], [`Flows::is_unbound`] and [`Flows::becomes`] say, in one look at both entries, and with what holds of them. None: it
    /// is not of a flow, or of one that ends at this moment, or poses as its peer; these say which.
    #[inline(always)]
    pub fn going<'a>(&'a self, record: Record<'a>, key: &Key, side: u8) -> Option<Going<'a>> {
        let sequence = record.holds_at(key)?;
        let bound = record.bound();
        let Some(Bound { other, turned, .. }) = bound else {
            let going = Going { flow: record, side, by_reply: false, becomes: None };
            return is_unbound(record, None, sequence).then_some(going);
        };
        let other = self.records.get(other)?;
        let far = side ^ u8::from(turned);
        let becomes = other.read_plain(far)?;
        let by_reply = record.is_reply();
        let (flow, side, is_pair) = match by_reply {
            true => (other, far, other.bound().is_some_and(|back| back.other == record.place())),
            false => (record, side, record.bound() == bound),
        };
        // What the originator sends has the flow's key, and what it is sent the other one.
        let poses = (flow.state().origin() == side) == by_reply;
        let going = Going { flow, side, by_reply, becomes: Some(becomes) };
        // As in `original` and `becomes`.
        (is_pair && !poses && record.is_still(sequence)).then_some(going)
    }

    /// Writes both entries of a pair, the reply first, for [`Flows::original`] reads them so.
    fn begin_both(
        &self,
        places: [u32; 2],
        seen: &Seen,
        first: &First,
        decision: Decision,
        binding: &Binding,
    ) {
        let [place, reply] = places;
        let turned = binding.side != seen.side;
        let bound = |other| Some(Bound { other, turned, rules: binding.rules });
        let none = Default::default();
        let state = reply_state(seen.port);
        self.record(reply).begin(&binding.key, state, 0, none, Decision::NONE, bound(place));
        let (now_s, windows) = (seen.now_s, first.windows);
        self.record(place).begin(&seen.key, first.state, now_s, windows, decision, bound(reply));
    }

    /// Makes the translated flow that `seen` begins. If the flow is there already, the packet is counted to it, and what
    /// it is bound to stands.
    pub fn open_bound(
        &self,
        keeper: &mut Keeper,
        seen: &Seen,
        decision: Decision,
        binding: &Binding,
    ) -> Result<Opened, Unbound> {
        if let Some(place) = self.place(seen.hash) {
            match self.join(place, seen) {
                Some(joined) => return joined.map_err(Unbound::Refused),
                // Begun anew in its place it would be bound to nothing.
                None if !keeper.clear(self, place, &seen.key) => return Err(Unbound::Refused(Refusal::Busy)),
                None => {}
            }
        }
        if self.is_taken(binding.hash) || binding.key == seen.key {
            return Err(Unbound::Taken);
        }
        let first = self.first(seen).map_err(Unbound::Refused)?;
        self.make_room(keeper, seen.port).map_err(Unbound::Refused)?;
        let full = Unbound::Refused(Refusal::Full);
        let place = keeper.take(self, seen.port).ok_or(full)?;
        let Some(reply) = keeper.take(self, seen.port) else {
            keeper.give(self, place);
            return Err(full);
        };
        // Before anybody can see them, and end the flow.
        self.count(State::DEAD, reply_state(seen.port));
        self.count(State::DEAD, first.state);
        self.begin_both([place, reply], seen, &first, decision, binding);
        let put = |hash: u64, place: u32| {
            self.insist(hash, |present| if present.is_some() { Want::Keep } else { Want::Put(place) })
        };
        let outcome = put(binding.hash, reply);
        if outcome != Outcome::Written {
            for place in [reply, place] {
                // Dead before it is parted: see `is_unbound`.
                self.finish(place);
                self.record(place).unbind();
                keeper.give(self, place);
            }
            return Err(why(outcome));
        }
        let outcome = put(seen.hash, place);
        if outcome == Outcome::Written {
            keeper.note(self, place, first.state);
            return Ok(Opened::New(place));
        }
        // Both first packets at once on two workers: the other one's binding stands.
        self.finish(place);
        keeper.release(self, seen.port, place);
        match self.place(seen.hash) {
            Some(other) => self.join(other, seen).unwrap_or(Err(Refusal::Busy)).map_err(Unbound::Refused),
            None => Err(why(outcome)),
        }
    }

    /// Takes both entries of a flow out of the index. For its owner. Whether both are out.
    pub(super) fn unlink_both(&self, place: u32) -> bool {
        let reply = self.record(place).bound();
        reply.is_none_or(|bound| self.unlink(bound.other)) && self.unlink(place)
    }

    /// The reply of a flow that is in the index no more, which from now on has none. The flow is parted first: see [`Flows::becomes`].
    pub(super) fn part(&self, place: u32) -> Option<u32> {
        let reply = self.record(place).bound()?.other;
        let state = self.record(reply).state();
        self.count(state, State { stage: Stage::Dead, ..state });
        [place, reply].into_iter().for_each(|place| self.record(place).unbind());
        Some(reply)
    }

    /// Every translated flow in a range of places: its rules, its key, the other key, and from which side of the latter its
    /// originator's packets come.
    pub fn scan_bound(&self, range: std::ops::Range<u32>, mut visit: impl FnMut(u32, Rules, Key, u8)) {
        for place in range.start..range.end.min(self.chunks.used()) {
            let (Some(bound), Some((_, state, _))) = (self.bound(place), self.record(place).read()) else {
                continue;
            };
            if matches!(state.stage, Stage::Dead | Stage::Reply) {
                continue;
            }
            let Some((reply, ..)) = self.records.get(bound.other).and_then(|it| it.read()) else {
                continue;
            };
            visit(place, bound.rules, reply, state.origin() ^ u8::from(bound.turned));
        }
    }
}

impl Keeper {
    /// The flow of `key`, which is over, makes way for the next: what it was bound to is free again, and the next may be bound to something.
    /// Whether it did: another worker's is ended, and makes way when its owner comes round. A reply does not: it goes with its flow, of which
    /// it cannot be said here whether that is over.
    #[cold]
    pub fn clear(&mut self, flows: &Flows, place: u32, key: &Key) -> bool {
        let state = flows.state(place);
        if state.stage == Stage::Reply || !flows.holds(place, key) {
            return false;
        }
        if state.stage != Stage::Dead {
            if !flows.end(place, state) {
                return false;
            }
            if !is_closed(state.stage) {
                self.tell(What::Ended(Why::Timeout), *key, state);
            }
        }
        if !(self.owns(place) && flows.take_back(place) && flows.unlink_both(place)) {
            return false;
        }
        self.part(flows, place);
        // One in a list of half-open flows is given back when its turn comes.
        if !self.is_queued(flows, place) {
            self.give(flows, place);
        }
        true
    }

    /// The reply of a flow that ends is free.
    pub(super) fn part(&mut self, flows: &Flows, place: u32) {
        if let Some(reply) = flows.part(place) {
            self.give(flows, reply);
        }
    }
}
