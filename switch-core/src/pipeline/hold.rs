//! Packets that wait until their neighbour answers, so that the first packet of a flow is not lost and
//! nothing overtakes it. Private to a worker: a flow comes in by one lane. All room is given at the start.

use super::Now;
use super::note::Note;
use crate::config::PORTS_MAX;
use crate::config::snapshot::PortId;
use crate::frame::{BATCH_FRAMES, Frame};
use crate::table::wide::Key;
use arrayvec::ArrayVec;
use hashbrown::HashMap;

/// Neighbours waited for at one time, by one worker. A quarter of the neighbour table is what one port may
/// ask for at all.
pub const WAITED_FOR_MAX: usize = 1024;
/// Packets held by one worker, if its pool is large enough: one for each of [`WAITED_FOR_MAX`] and some more.
pub const HELD_MAX: usize = 2048;
/// Packets held for one neighbour: a window's worth. Linux holds about 100 (`unres_qlen_bytes`).
pub const HELD_A_NEIGHBOUR_MAX: usize = 64;
/// This part of a worker's frames may be held, no more: the others go on switching.
pub const HELD_PART: usize = 4;
/// Neighbours worked off in one turn: a batch's worth, so that a port's queue holds what is let go and no
/// worker is away for long.
pub const AT_ONCE: usize = BATCH_FRAMES;
/// As many as that.
pub type Few<T> = ArrayVec<T, AT_ONCE>;
/// Between two questions (RFC 4861 §10, RETRANS_TIMER).
const ASK_AGAIN_NS: u64 = 1_000_000_000;

/// A packet that waits, and all that is needed to go on with it.
#[derive(Debug)]
pub struct Held {
    /// The packet, as it came.
    pub frame: Frame,
    /// What is known of it.
    pub note: Note,
    /// The port it came in by.
    pub in_port: PortId,
    /// The queue of that port.
    pub in_queue: u16,
}

/// Packets on their way to another worker, with the lane they came in by, in their order. The control thread makes it and
/// throws it away, so that no worker allocates.
#[derive(Debug)]
pub struct Luggage(Vec<(Key, Held)>);

impl Luggage {
    /// An empty one, with room for all that a worker may hold.
    pub fn new() -> Self {
        Self(Vec::with_capacity(HELD_MAX))
    }

    /// Packets in it.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes them out, oldest first.
    pub fn drain(&mut self) -> std::vec::Drain<'_, (Key, Held)> {
        self.0.drain(..)
    }
}

impl Default for Luggage {
    fn default() -> Self {
        Self::new()
    }
}

/// No cell.
const NONE: u16 = u16::MAX;
const _: () = assert!(HELD_MAX < NONE as usize);

/// A neighbour that is waited for, and the chain of its packets.
#[derive(Clone, Copy, Debug, Default)]
struct Waiting {
    first: u16,
    last: u16,
    held: u16,
    asked: u8,
    due_ns: u64,
}

/// Packets that wait for nobody any more, in their order: [`Holds::next`] has them, and [`Holds::close`] ends it.
#[must_use = "the packets would stay where they are"]
#[derive(Debug)]
pub struct LetGo(u16);

#[derive(Debug)]
struct Cell {
    held: Option<Held>,
    next: u16,
}

/// See the module.
#[derive(Debug)]
pub struct Holds {
    /// Place in `places` by key.
    by_key: HashMap<Key, u16>,
    places: Box<[Waiting]>,
    free_places: Vec<u16>,
    cells: Box<[Cell]>,
    free_cells: Vec<u16>,
    frames: usize,
    by_port: Box<[u16]>,
    due_ns: u64,
    /// [`crate::table::neigh::Neighbours::changes`] when it was last looked at.
    seen: u32,
    poked: u64,
}

/// What is due for a neighbour that is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Ask again.
    Ask,
    /// It was asked often enough.
    GiveUp,
}

impl Default for Holds {
    fn default() -> Self {
        let cell = |_| Cell { held: None, next: NONE };
        Self {
            // Twice the room: removed keys leave marks, and it must never grow.
            by_key: HashMap::with_capacity(2 * WAITED_FOR_MAX),
            places: vec![Waiting::default(); WAITED_FOR_MAX].into(),
            free_places: (0..WAITED_FOR_MAX as u16).rev().collect(),
            cells: (0..HELD_MAX).map(cell).collect(),
            free_cells: (0..HELD_MAX as u16).rev().collect(),
            frames: 0,
            by_port: vec![0; PORTS_MAX].into(),
            due_ns: u64::MAX,
            seen: 0,
            poked: 0,
        }
    }
}

impl Holds {
    /// Whether nothing waits.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.frames == 0
    }

    /// Frames held.
    #[inline(always)]
    pub fn frames(&self) -> usize {
        self.frames
    }

    /// Whether packets wait for `key`: one more must not overtake them.
    #[inline(always)]
    pub fn contains(&self, key: Key) -> bool {
        !self.is_empty() && self.by_key.contains_key(&key)
    }

    /// Puts a packet behind those that wait for `key`; `most` frames may be held in all. It comes back if
    /// there is no room.
    pub fn push(&mut self, key: Key, held: Held, most: usize, now: Now) -> Result<(), Frame> {
        let (port, most) = (usize::from(held.in_port), most.min(HELD_MAX));
        // One port leaves half to the others.
        if self.frames >= most || usize::from(self.by_port[port]) >= most.div_ceil(2) {
            return Err(held.frame);
        }
        let place = match self.by_key.get(&key) {
            Some(place) => *place,
            None => {
                let Some(place) = self.free_places.pop() else { return Err(held.frame) };
                self.by_key.insert(key, place);
                let due_ns = now.ns + ASK_AGAIN_NS;
                self.places[usize::from(place)] =
                    Waiting { first: NONE, last: NONE, held: 0, asked: 1, due_ns };
                self.due_ns = self.due_ns.min(due_ns);
                place
            }
        };
        let waiting = &mut self.places[usize::from(place)];
        if usize::from(waiting.held) >= HELD_A_NEIGHBOUR_MAX {
            return Err(held.frame);
        }
        // There is one for each frame that may be held.
        let Some(cell) = self.free_cells.pop() else { return Err(held.frame) };
        self.cells[usize::from(cell)] = Cell { held: Some(held), next: NONE };
        match self.cells.get_mut(usize::from(waiting.last)) {
            Some(last) => last.next = cell,
            None => waiting.first = cell,
        }
        waiting.last = cell;
        waiting.held += 1;
        self.frames += 1;
        self.by_port[port] += 1;
        Ok(())
    }

    /// Looks at all of them at the next opportunity: of one that is waited for the answer may be there.
    pub fn poke(&mut self) {
        self.seen = self.seen.wrapping_sub(1);
        self.poked += 1;
    }

    /// Grows whenever packets may begin to wait for a neighbour that others know. They are not to be overtaken, so what is
    /// remembered of neighbours is asked for again.
    #[inline(always)]
    pub fn poked(&self) -> u64 {
        self.poked
    }

    /// Whether somebody may have answered since the last look, or something is due.
    #[inline(always)]
    pub fn wants_attention(&self, changes: u32, now: Now) -> bool {
        !self.is_empty() && (changes != self.seen || now.ns >= self.due_ns)
    }

    /// Notes that all answers up to `changes` were looked at.
    pub fn note_seen(&mut self, changes: u32) {
        self.seen = changes;
    }

    /// Some of the neighbours that are waited for and of which `is_known` says so.
    pub fn find(&self, mut is_known: impl FnMut(Key) -> bool) -> Few<Key> {
        self.by_key.keys().copied().filter(|key| is_known(*key)).take(AT_ONCE).collect()
    }

    /// The next packet that waits for `key`, if it came in by this port and queue (any, if none is given).
    pub fn pop(&mut self, key: Key, lane: Option<(PortId, u16)>) -> Option<Held> {
        let place = *self.by_key.get(&key)?;
        let held = self.pop_of(place, lane)?;
        if self.places[usize::from(place)].first == NONE {
            self.by_key.remove(&key);
            self.free_places.push(place);
        }
        Some(held)
    }

    /// Takes out all that waits for `key`, in its order: from here on nothing waits for it, and what is let go is not held again
    /// because of those behind it.
    pub fn let_go(&mut self, key: Key) -> Option<LetGo> {
        self.by_key.remove(&key).map(LetGo)
    }

    /// The next of what was let go, if it came in by this port and queue (any, if none is given).
    pub fn next(&mut self, chain: &LetGo, lane: Option<(PortId, u16)>) -> Option<Held> {
        self.pop_of(chain.0, lane)
    }

    /// Gives back the place of what was let go, all of which is gone.
    pub fn close(&mut self, chain: LetGo) {
        debug_assert_eq!(self.places[usize::from(chain.0)].first, NONE, "packets would be lost");
        self.free_places.push(chain.0);
    }

    fn pop_of(&mut self, place: u16, lane: Option<(PortId, u16)>) -> Option<Held> {
        let waiting = &mut self.places[usize::from(place)];
        let (at, cell) = (waiting.first, self.cells.get_mut(usize::from(waiting.first))?);
        let held = cell.held.take_if(|held| lane.is_none_or(|lane| lane == (held.in_port, held.in_queue)))?;
        waiting.first = cell.next;
        waiting.held -= 1;
        self.free_cells.push(at);
        self.frames -= 1;
        self.by_port[usize::from(held.in_port)] -= 1;
        Some(held)
    }

    /// Takes out what came in by this port and queue, whoever it waits for; the others stay, in their order.
    pub fn pack(&mut self, lane: (PortId, u16), luggage: &mut Luggage) {
        for (key, place) in &self.by_key {
            let waiting = &mut self.places[usize::from(*place)];
            let (mut at, mut before) = (waiting.first, NONE);
            while let Some(cell) = self.cells.get_mut(usize::from(at)) {
                let next = cell.next;
                match cell.held.take_if(|held| lane == (held.in_port, held.in_queue)) {
                    Some(held) => {
                        luggage.0.push((*key, held));
                        self.free_cells.push(at);
                        waiting.held -= 1;
                        self.frames -= 1;
                        self.by_port[usize::from(lane.0)] -= 1;
                        match self.cells.get_mut(usize::from(before)) {
                            Some(before) => before.next = next,
                            None => waiting.first = next,
                        }
                    }
                    None => before = at,
                }
                at = next;
            }
            waiting.last = before;
            if waiting.first == NONE {
                self.free_places.push(*place);
            }
        }
        let places = &self.places;
        self.by_key.retain(|_, place| places[usize::from(*place)].first != NONE);
    }

    /// Some of the neighbours for which something is due. If there are no more, notes when the next one will
    /// be.
    pub fn due(&mut self, now: Now, asks_max: u8) -> Few<(Key, Due)> {
        let mut due = Few::new();
        if now.ns < self.due_ns {
            return due;
        }
        let mut next_ns = u64::MAX;
        for (key, place) in &self.by_key {
            let waiting = &mut self.places[usize::from(*place)];
            if waiting.due_ns <= now.ns && !due.is_full() {
                due.push((*key, if waiting.asked >= asks_max { Due::GiveUp } else { Due::Ask }));
                waiting.asked = waiting.asked.saturating_add(1);
                waiting.due_ns = now.ns + ASK_AGAIN_NS;
            }
            next_ns = next_ns.min(waiting.due_ns);
        }
        self.due_ns = next_ns;
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Area, AreaSize};

    fn frames(n: u32) -> Vec<Frame> {
        Area::new(AreaSize { chunk_bytes: 2048, chunks: n, large: 0 }).unwrap().1
    }

    fn held(frame: Frame, in_port: PortId) -> Held {
        Held { frame, note: Note::default(), in_port, in_queue: 0 }
    }

    #[test]
    fn packets_leave_in_their_order_and_rooms_are_bounded() {
        let (mut holds, now) = (Holds::default(), Now { ns: 5 });
        let mut frames = frames(200);
        let order: Vec<u32> = frames.iter().rev().map(Frame::chunk).take(HELD_A_NEIGHBOUR_MAX).collect();
        for _ in 0..HELD_A_NEIGHBOUR_MAX {
            assert!(holds.push([1; 3], held(frames.pop().unwrap(), 0), 200, now).is_ok());
        }
        assert!(
            holds.push([1; 3], held(frames.pop().unwrap(), 0), 200, now).is_err(),
            "one neighbour's share"
        );
        for _ in 0..36 {
            assert!(holds.push([2; 3], held(frames.pop().unwrap(), 0), 200, now).is_ok());
        }
        assert!(holds.push([3; 3], held(frames.pop().unwrap(), 0), 200, now).is_err(), "one port's half");
        assert!(holds.push([3; 3], held(frames.pop().unwrap(), 1), 200, now).is_ok());
        assert_eq!(holds.frames(), 101);
        let left: Vec<u32> =
            std::iter::from_fn(|| holds.pop([1; 3], None)).map(|held| held.frame.chunk()).collect();
        assert_eq!(left, order);
        assert!(!holds.contains([1; 3]) && holds.contains([2; 3]));
        assert!(holds.pop([3; 3], Some((0, 0))).is_none() && holds.pop([3; 3], Some((1, 0))).is_some());
    }

    proptest::proptest! {
        /// Packing is taking everything out and putting back what does not go.
        #[test]
        fn what_is_packed_leaves_and_the_rest_keeps_its_order(came in proptest::collection::vec((0u64..4, 0u16..3, 0u16..2), 0..60)) {
            let (mut holds, now) = (Holds::default(), Now { ns: 5 });
            let mut frames = frames(60);
            let mut twin = Vec::new();
            for (key, in_port, in_queue) in came {
                let frame = frames.pop().unwrap();
                twin.push((key, in_port, in_queue, frame.chunk()));
                let held = Held { frame, note: Note::default(), in_port, in_queue };
                assert!(holds.push([key; 3], held, 1000, now).is_ok());
            }
            let mut luggage = Luggage::new();
            holds.pack((1, 1), &mut luggage);
            let of = |key: u64, goes: bool| -> Vec<u32> {
                let all = twin.iter().filter(|(of, port, queue, _)| *of == key && ((*port, *queue) == (1, 1)) == goes);
                all.map(|(.., chunk)| *chunk).collect()
            };
            assert_eq!(holds.frames() + luggage.len(), twin.len());
            let packed: Vec<_> = luggage.drain().collect();
            for key in 0..4 {
                let left: Vec<u32> = std::iter::from_fn(|| holds.pop([key; 3], None)).map(|held| held.frame.chunk()).collect();
                assert_eq!(left, of(key, false));
                let gone = packed.iter().filter(|(of, _)| *of == [key; 3]);
                assert_eq!(gone.map(|(_, held)| held.frame.chunk()).collect::<Vec<_>>(), of(key, true));
                // Its place is free again, whoever took the last packet out.
                assert!(!holds.contains([key; 3]));
            }
            assert!(holds.is_empty() && holds.free_places.len() == WAITED_FOR_MAX && holds.free_cells.len() == HELD_MAX);
        }
    }

    #[test]
    fn a_silent_neighbour_is_asked_three_times_a_second_apart() {
        let (mut holds, second) = (Holds::default(), 1_000_000_000);
        assert!(holds.push([1; 3], held(frames(1).remove(0), 0), 9, Now { ns: 0 }).is_ok());
        let due = |holds: &mut Holds, ns| holds.due(Now { ns }, 3).first().copied();
        assert_eq!(due(&mut holds, second - 1), None);
        assert_eq!(due(&mut holds, second), Some(([1; 3], Due::Ask)));
        assert_eq!(due(&mut holds, second), None);
        assert!(!holds.wants_attention(0, Now { ns: 2 * second - 1 }));
        assert_eq!(due(&mut holds, 2 * second), Some(([1; 3], Due::Ask)));
        assert_eq!(due(&mut holds, 3 * second), Some(([1; 3], Due::GiveUp)));
        assert!(holds.pop([1; 3], None).is_some() && holds.is_empty());
    }
}
