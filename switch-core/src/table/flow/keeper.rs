//! What one worker has of the flow table: the places it may use, its half-open flows by port in the order they
//! came, and its share of the sweeping. Plain memory, but for the links, which lie in the entries.
//!
//! A place is in one list at most: the free ones, or the half-open ones of a port. A flow that was answered, or
//! ended, stays in the latter until its turn comes; every new flow of the port turns the list by two.

use super::kept::Kept;
use super::key::Key;
use super::places::Places;
use super::round::Round;
use super::state::{Stage, State};
use super::watch::{Watch, What, Why, is_closed};
use super::{CHUNK, Flows};
use std::sync::Arc;

/// No place.
const NONE: u32 = u32::MAX >> 1;
/// In a link: the place is in a list of half-open flows.
const QUEUED: u32 = 1 << 31;
/// Places looked at to make room for one flow: those in front may have been answered meanwhile.
const EVICT_TRIES: usize = 16;
/// This part of a port's half-open flows each worker may have, whoever has the others.
const OWN_PART: u32 = 8;
/// Steps that each new flow turns its port's list: twice as fast as it grows.
const TURNS: usize = 2;
/// How much is swept in one call.
struct Share {
    /// Places looked at.
    places: u64,
    /// Half-open flows looked at, however many places are, and of one port: those in front of its list.
    half_open: u32,
    of_port: u32,
}

/// Beside frames: some microseconds.
const BESIDE_FRAMES: Share = Share { places: 128, half_open: HALF_OPEN_LOOKED_AT, of_port: 1 };
/// Where there are none: a quarter of a millisecond, for a worker that sleeps comes by four times a second.
const AT_REST: Share = Share { places: 8192, half_open: 8192, of_port: 8192 };
/// Half-open flows looked at in one call, if fewer places are.
const HALF_OPEN_LOOKED_AT: u32 = 4;
/// Ports that are looked at in one call for half-open flows: most have none.
const SWEEP_PORTS_LOOKED_AT: usize = 64;

#[derive(Clone, Copy, Debug)]
struct List {
    head: u32,
    tail: u32,
    len: u32,
}

impl List {
    const EMPTY: Self = Self { head: NONE, tail: NONE, len: 0 };
}

/// What a new flow has no room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// Its port may have no more: one that is counted has to end.
    Count,
    /// There is no place: that of a dead one will do.
    Place,
}

/// See the module.
#[derive(Debug)]
pub struct Keeper {
    places: Places,
    /// Whether it ever had any.
    had_places: bool,
    half_open: Box<[List]>,
    swept: Round,
    /// The place that was looked at last, and how many there were, at most, since the first one was: a round takes no longer as chunks go back.
    looked_at: u32,
    most: u32,
    next_port: usize,
    /// Half-open flows that made room for others, since it was last asked.
    evicted: u32,
    /// Who looks on.
    pub watch: Option<Arc<Watch>>,
    /// Of which ports.
    pub kept: Kept,
}

impl Keeper {
    /// For ports `0..ports` of a table of so many places.
    pub fn new(ports: usize, places: u32) -> Self {
        Self {
            places: Places::new(places),
            had_places: false,
            half_open: vec![List::EMPTY; ports].into(),
            swept: Round::default(),
            looked_at: NONE,
            most: 0,
            next_port: 0,
            evicted: 0,
            watch: None,
            kept: Kept::new(ports),
        }
    }

    /// Tells whoever looks on what has become of a flow.
    #[inline]
    pub fn tell(&self, what: What, key: Key, state: State) {
        if let Some(watch) = &self.watch {
            watch.tell(what, key, state);
        }
    }

    /// Half-open flows that made room for others since the last call.
    pub fn take_evicted(&mut self) -> u32 {
        std::mem::take(&mut self.evicted)
    }

    /// With places of its own and no others.
    #[cfg(all(test, loom))]
    pub fn with_places(ports: usize, places: std::ops::Range<u32>) -> Self {
        Self { places: Places::only(places), ..Self::new(ports, 0) }
    }

    /// Takes the first of a port's list out of it, whatever it is.
    #[cfg(all(test, loom))]
    pub fn unqueue(&mut self, flows: &Flows, port: u16) {
        self.pop(flows, port);
    }

    /// Looks once at everything in a port's list.
    #[cfg(all(test, loom))]
    pub fn settle(&mut self, flows: &Flows) {
        (0..2).for_each(|_| _ = self.turn(flows, 0));
    }

    /// Whether it ever made a flow.
    pub fn had_places(&self) -> bool {
        self.had_places
    }

    /// How many it has.
    #[cfg(all(test, not(loom)))]
    pub fn owned(&self) -> u32 {
        self.places.count()
    }

    /// Whether a place is one of this worker's.
    pub(super) fn owns(&self, place: u32) -> bool {
        self.places.owns(place)
    }

    /// Whether of a port's half-open flows so few are this worker's that it may have one more, although the port has as many as it may: they are
    /// other workers', who alone can end them. What floods one lane of a port shuts no other one.
    pub(super) fn has_few(&self, flows: &Flows, port: u16) -> bool {
        self.half_open[usize::from(port)].len < flows.limits().half_open / OWN_PART
    }

    /// Whether a place is in a list of half-open flows.
    pub(super) fn is_queued(&self, flows: &Flows, place: u32) -> bool {
        flows.record(place).link() & QUEUED != 0
    }

    /// A free place.
    pub(super) fn take(&mut self, flows: &Flows, port: u16) -> Option<u32> {
        if let Some(place) = self.take_free(flows) {
            return Some(place);
        }
        self.evict(flows, port, Room::Place);
        self.take_free(flows)
    }

    #[inline]
    fn take_free(&mut self, flows: &Flows) -> Option<u32> {
        let place = self.places.take(&flows.chunks, |place| flows.record(place).link());
        self.had_places |= place.is_some();
        place
    }

    /// A place that is in no list and to which the index does not lead.
    pub(super) fn give(&mut self, flows: &Flows, place: u32) {
        let record = flows.record(place);
        record.set_free();
        record.set_link(self.places.give(place));
    }

    /// A flow was made.
    pub(super) fn note(&mut self, flows: &Flows, place: u32, state: State) {
        let record = flows.record(place);
        if !state.stage.is_half_open() {
            return record.set_link(0);
        }
        self.push(flows, state.port, place);
        for _ in 0..TURNS {
            if self.turn(flows, state.port) {
                return;
            }
        }
    }

    fn push(&mut self, flows: &Flows, port: u16, place: u32) {
        flows.record(place).set_link(QUEUED | NONE);
        let list = &mut self.half_open[usize::from(port)];
        if list.tail == NONE {
            list.head = place;
        } else {
            flows.record(list.tail).set_link(QUEUED | place);
        }
        list.tail = place;
        list.len += 1;
    }

    fn pop(&mut self, flows: &Flows, port: u16) -> Option<u32> {
        let list = &mut self.half_open[usize::from(port)];
        let place = list.head;
        if place == NONE {
            return None;
        }
        let record = flows.record(place);
        list.len -= 1;
        list.head = record.link() & !QUEUED;
        if list.head == NONE {
            list.tail = NONE;
        }
        record.set_link(0);
        Some(place)
    }

    /// Looks at the first of a port's list: what is no longer half-open leaves it. Whether the list is empty.
    fn turn(&mut self, flows: &Flows, port: u16) -> bool {
        let Some(place) = self.pop(flows, port) else { return true };
        let state = flows.record(place).state();
        match state.stage {
            Stage::Dead => _ = self.release(flows, port, place),
            // By another port's packet it may have begun anew, and is that port's.
            stage if stage.is_half_open() => self.push(flows, state.port, place),
            _ => {}
        }
        false
    }

    /// A dead flow's place becomes free; if the index cannot be written now, or a packet has begun another flow
    /// there, it is queued again. Whether it is free.
    pub(super) fn release(&mut self, flows: &Flows, port: u16, place: u32) -> bool {
        let released = self.retire(flows, place);
        if !released {
            self.push(flows, port, place)
        }
        released
    }

    /// A dead flow's place becomes free, and that of its reply. Whether they are.
    fn retire(&mut self, flows: &Flows, place: u32) -> bool {
        let retired = flows.take_back(place) && flows.unlink_both(place);
        if retired {
            self.part(flows, place);
            self.give(flows, place);
        }
        retired
    }

    /// Ends the oldest half-open flow of `port` among those in front of its list, or of dead ones gives a place back, if that is room enough.
    /// Whether there is room.
    #[cold]
    pub(super) fn evict(&mut self, flows: &Flows, port: u16, room: Room) -> bool {
        for _ in 0..EVICT_TRIES {
            let Some(place) = self.pop(flows, port) else { return false };
            let state = flows.record(place).state();
            if state.stage.is_half_open() && state.port != port {
                self.push(flows, state.port, place);
                continue;
            }
            let ends = state.stage.is_half_open() && flows.end(place, state);
            if ends {
                self.evicted += 1;
                self.tell(What::Ended(Why::Evicted), flows.record(place).key(), state);
            }
            let is_free = (ends || state.stage == Stage::Dead) && self.release(flows, port, place);
            if is_free && (ends || room == Room::Place) {
                return true;
            }
        }
        false
    }

    /// Looks for flows that are over. Called often; what is due by `now_ns` is done, up to a limit.
    pub fn sweep(&mut self, flows: &Flows, now_ns: u64) {
        self.sweep_some(flows, now_ns, &BESIDE_FRAMES);
    }

    /// The same where no frame waits for it, of a worker that may not have been here for long.
    pub fn sweep_at_rest(&mut self, flows: &Flows, now_ns: u64) {
        self.sweep_some(flows, now_ns, &AT_REST);
    }

    fn sweep_some(&mut self, flows: &Flows, now_ns: u64, share: &Share) {
        self.most = self.most.max(self.places.count());
        let due = self.swept.due(u64::from(self.most), now_ns, share.places);
        if due.is_empty() {
            return;
        }
        let now_s = (now_ns / 1_000_000_000) as u32;
        let looked_at = (due.end - due.start) as u32;
        for _ in due {
            let Some(place) = self.places.after(self.looked_at) else { break };
            if place <= self.looked_at {
                self.most = self.places.count();
            }
            self.looked_at = place;
            // Of a chunk of which nothing is used no place is looked at.
            let begins_chunk = place.is_multiple_of(CHUNK);
            if begins_chunk && self.places.put_back_unused(&flows.chunks, place) {
                self.looked_at = place + (CHUNK - 1);
                continue;
            }
            self.look_at(flows, place, now_s);
            if (place + 1).is_multiple_of(CHUNK) {
                self.places.put_back_unused(&flows.chunks, place);
            }
        }
        self.turn_lists(flows, looked_at.clamp(HALF_OPEN_LOOKED_AT, share.half_open), share.of_port);
    }

    /// Looks at half-open flows in front of their ports' lists.
    fn turn_lists(&mut self, flows: &Flows, most: u32, of_port: u32) {
        let mut left = most;
        for _ in 0..SWEEP_PORTS_LOOKED_AT {
            self.next_port = (self.next_port + 1) % self.half_open.len();
            // What stays is behind the others then, and has its turn next time.
            let turns = self.half_open[self.next_port].len.min(of_port).min(left);
            (0..turns).for_each(|_| _ = self.turn(flows, self.next_port as u16));
            left -= turns;
            if left == 0 {
                break;
            }
        }
    }

    /// Looks whether the flow at a place is over.
    pub(super) fn look_at(&mut self, flows: &Flows, place: u32, now_s: u32) {
        let record = flows.record(place);
        let state = record.state();
        // It goes with its flow.
        if state.stage == Stage::Reply {
            return;
        }
        let is_over = record.age_s(now_s) > state.stage.timeout_s();
        // A free place is dead as well; what tells them apart is that the index leads to a flow.
        let (is_queued, is_bound) = (self.is_queued(flows, place), record.bound().is_some());
        // One that began anew in its place, which may have been by another worker's packet, makes room for others as well.
        if !is_over && !is_queued && state.stage.is_half_open() {
            return self.push(flows, state.port, place);
        }
        if state.stage == Stage::Dead && (is_queued && !is_bound || !flows.leads_to(place)) {
            return;
        }
        if state.stage != Stage::Dead {
            if !(is_over && flows.end(place, state)) {
                return;
            }
            if !is_closed(state.stage) {
                self.tell(What::Ended(Why::Timeout), record.key(), state);
            }
        }
        // One in a list of half-open flows leaves it when its turn comes; what it was bound to does not wait for that.
        if !is_queued {
            self.retire(flows, place);
        } else if is_bound && flows.take_back(place) && flows.unlink_both(place) {
            self.part(flows, place);
        }
    }
}
