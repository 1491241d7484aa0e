//! An entry of the flow table: 96 bytes of atomic words. A line of them is what every packet is held against, half a line what only some
//! flows have: the windows of TCP, and the other key of what is translated. So many entries as fill pages have their lines on some, their
//! halves on others: who asks for lines alone goes by two thirds of the pages, of which the TLB holds few.
//!
//! The key is written only while the entry belongs to nobody, between two values of the sequence, the first of
//! them odd; a reader that compares the key looks at the sequence before and after. State and decision are
//! words of their own.

use super::bound::Bound;
use super::key::{self, Key};
use super::state::{STAGE_MASK, Stage, State};
use crate::pages::Pages;
use crate::prefetch;
use crate::table::sync::{AtomicU32, AtomicU64, Ordering, fence};
use crate::wire::packet::Plain;

/// What was decided about a flow: a word whose meaning belongs to whoever decides. Flat, so that a program in
/// the kernel could read it as well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// The word.
    pub epoch: u64,
}

impl Decision {
    /// Nothing yet.
    pub const NONE: Self = Self { epoch: 0 };
}

/// What one end of a TCP flow has said so far. Of SCTP, `ack` is the tag that the end wants to see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// The highest sequence number it has sent, and one.
    pub end: u32,
    /// The highest it has acknowledged.
    pub ack: u32,
    /// How far beyond that the other end may send, in units of its scale.
    pub room: u16,
    /// The largest window it ever announced, in units of its scale.
    pub largest: u16,
}

/// What every packet of a flow is held against: a line.
#[derive(Debug)]
#[cfg_attr(not(loom), derive(zerocopy::FromZeros))]
#[repr(C)]
pub(super) struct Head {
    sequence: AtomicU32,
    /// The next in a list of its owner's.
    link: AtomicU32,
    key: [AtomicU64; 5],
    state: AtomicU32,
    stamp_s: AtomicU32,
    decision: AtomicU64,
}

/// What only some flows have: half a line.
#[derive(Debug)]
#[cfg_attr(not(loom), derive(zerocopy::FromZeros))]
#[repr(C)]
pub(super) struct Tail {
    reach: [AtomicU64; 2],
    windows: [AtomicU32; 2],
    /// The entry of the other key of a translated flow: [`super::bound`].
    bound: AtomicU64,
}

/// Entries of a group: their heads are two pages of 4 KiB, their tails one.
const GROUP: usize = if cfg!(loom) { 2 } else { 128 };

/// So many entries, from a page's border on.
#[derive(Debug)]
#[cfg_attr(not(loom), derive(zerocopy::FromZeros))]
#[repr(C)]
pub(super) struct Group {
    heads: [Head; GROUP],
    tails: [Tail; GROUP],
}

/// Bytes of an entry.
pub const RECORD_BYTES: usize = 96;
const _: () = assert!(cfg!(loom) || size_of::<Head>() == 64 && size_of::<Group>() == GROUP * RECORD_BYTES);

/// All entries.
#[derive(Debug)]
pub(super) struct Records(Pages<Group>);

impl Group {
    fn empty() -> Self {
        let word = |_: usize| AtomicU64::new(0);
        let half = |_: usize| AtomicU32::new(0);
        let head = |_: usize| Head {
            sequence: half(0),
            link: half(0),
            key: std::array::from_fn(word),
            state: half(0),
            stamp_s: half(0),
            decision: word(0),
        };
        let tail = |_: usize| Tail {
            reach: std::array::from_fn(word),
            windows: std::array::from_fn(half),
            bound: word(0),
        };
        Self { heads: std::array::from_fn(head), tails: std::array::from_fn(tail) }
    }
}

impl Records {
    /// So many, and what fills the last group. The kernel gives memory for those that are used.
    pub fn new(count: usize) -> Self {
        Self(Pages::new(count.div_ceil(GROUP), Group::empty))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        GROUP * self.0.len()
    }

    /// The one at a place, which is there.
    #[inline(always)]
    pub fn at(&self, place: u32) -> Record<'_> {
        Record { group: &self.0[place as usize / GROUP], place }
    }

    /// The one at a place, if there is one.
    #[inline(always)]
    pub fn get(&self, place: u32) -> Option<Record<'_>> {
        self.0.get(place as usize / GROUP).map(|group| Record { group, place })
    }
}

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    group: &'a Group,
    place: u32,
}

impl<'a> Record<'a> {
    /// Where it is.
    #[inline(always)]
    pub fn place(self) -> u32 {
        self.place
    }

    #[inline(always)]
    fn head(self) -> &'a Head {
        &self.group.heads[self.place as usize % GROUP]
    }

    #[inline(always)]
    fn tail(self) -> &'a Tail {
        &self.group.tails[self.place as usize % GROUP]
    }

    /// Asks for the line that every packet is held against.
    #[inline(always)]
    pub fn touch(self) {
        prefetch::prefetch_far(self.head());
    }

    /// Asks for the line with its windows, and with what it is bound to.
    #[inline(always)]
    pub fn touch_tail(self) {
        prefetch::prefetch_far(self.tail());
    }

    /// Whether this is the entry of `key`. While it is written it is nobody's.
    #[inline(always)]
    pub fn holds(self, key: &Key) -> bool {
        self.holds_at(key).is_some()
    }

    /// The sequence at which this is the entry of `key`; none: it is not. What is read of the entry, or of another that this one stands
    /// for, belongs to `key` if [`Record::is_still`] says so behind it.
    #[inline(always)]
    pub fn holds_at(self, key: &Key) -> Option<u32> {
        let before = self.head().sequence.load(Ordering::Acquire);
        let mut differ = 0;
        for (word, stored) in key.words.iter().zip(&self.head().key) {
            differ |= word ^ stored.load(Ordering::Acquire);
        }
        let moved = self.head().sequence.load(Ordering::Relaxed) ^ before;
        (differ | u64::from(moved | before & 1) == 0).then_some(before)
    }

    /// Whether no other flow was written here since.
    #[inline(always)]
    pub fn is_still(self, sequence: u32) -> bool {
        self.head().sequence.load(Ordering::Relaxed) == sequence
    }

    /// The same behind something that was written here: who writes another flow from now on writes over that, for of two
    /// who read and write at once the later sees what the earlier wrote.
    pub(super) fn was_still(self, sequence: u32) -> bool {
        self.head().sequence.fetch_add(0, Ordering::AcqRel) == sequence
    }

    /// Whether it is a UDP flow in both directions, of which a packet came this second: one more changes nothing.
    #[inline(always)]
    pub fn streams(self, now_s: u32) -> bool {
        let streams = self.head().state.load(Ordering::Acquire) & STAGE_MASK == Stage::UdpStream as u32;
        streams & self.is_in_use(now_s)
    }

    /// Whether a packet of it came this second.
    #[inline(always)]
    pub fn is_in_use(self, now_s: u32) -> bool {
        self.head().stamp_s.load(Ordering::Relaxed) >= now_s
    }

    /// Its key; for its owner, or for whoever does not mind a torn one.
    pub fn key(self) -> Key {
        Key { words: std::array::from_fn(|i| self.head().key[i].load(Ordering::Acquire)) }
    }

    /// Who is at a side of its key, and who at the other, of IPv4; none if the owner was writing. Three words, not by way of a key.
    #[inline(always)]
    pub fn read_plain(self, side: u8) -> Option<Plain> {
        let head = self.head();
        let before = head.sequence.load(Ordering::Acquire);
        let word = |at: usize| head.key[at].load(Ordering::Acquire);
        let words = [word(1), word(3), word(4)];
        let is_whole = (head.sequence.load(Ordering::Relaxed) ^ before) | before & 1 == 0;
        is_whole.then(|| key::plain_from(words, side))
    }

    /// Key, state and decision of one moment; none if the owner was writing.
    pub fn read(self) -> Option<(Key, State, Decision)> {
        let before = self.head().sequence.load(Ordering::Acquire);
        let read = (self.key(), self.state(), self.decision());
        (before & 1 == 0 && self.head().sequence.load(Ordering::Relaxed) == before).then_some(read)
    }

    /// Writes a new flow. For its owner, while the index does not lead here.
    pub(super) fn begin(
        self,
        key: &Key,
        state: State,
        now_s: u32,
        windows: [Window; 2],
        decision: Decision,
        bound: Option<Bound>,
    ) {
        // Behind whatever others wrote here that still saw its last number.
        let sequence = self.head().sequence.fetch_add(1, Ordering::AcqRel);
        // The odd sequence is visible to whoever sees one of the stores that follow.
        fence(Ordering::Release);
        self.head().key.iter().zip(key.words).for_each(|(place, word)| place.store(word, Ordering::Release));
        self.head().state.store(state.pack(), Ordering::Release);
        self.tail().bound.store(Bound::pack(bound), Ordering::Release);
        self.restart(now_s, windows, decision);
        self.head().sequence.store(sequence.wrapping_add(2), Ordering::Release);
    }

    /// Another flow of the same key.
    pub(super) fn restart(self, now_s: u32, windows: [Window; 2], decision: Decision) {
        self.decide(decision);
        self.head().stamp_s.store(now_s, Ordering::Relaxed);
        (0..2).for_each(|side| self.set_window(side, windows[usize::from(side)]));
    }

    /// What another entry says, in one that nobody else has.
    pub(super) fn copy_from(self, other: Record) {
        let Some((key, state, decision)) = other.read() else { return };
        let windows = [other.window(0), other.window(1)];
        self.begin(
            &key,
            state,
            other.head().stamp_s.load(Ordering::Relaxed),
            windows,
            decision,
            other.bound(),
        );
    }

    /// Its state.
    #[inline(always)]
    pub fn state(self) -> State {
        State::unpack(self.head().state.load(Ordering::Acquire))
    }

    /// Whether it is a reply: nothing passes by it alone.
    #[inline(always)]
    pub fn is_reply(self) -> bool {
        self.head().state.load(Ordering::Acquire) & STAGE_MASK == Stage::Reply as u32
    }

    /// Another state, unless somebody was faster.
    pub(super) fn change(self, from: State, to: State) -> bool {
        self.head()
            .state
            .compare_exchange(from.pack(), to.pack(), Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
    }

    /// For its owner, who has taken the place back. Whose flow it was, and who began that, stays: a packet that was found to be of it before it ended
    /// may be on its way in the same batch.
    pub(super) fn set_free(self) {
        self.head().state.store(self.state().freed().pack(), Ordering::Release);
    }

    /// Seconds since its last packet; a second that lies ahead (another worker's clock reading) is now.
    #[inline(always)]
    pub fn age_s(self, now_s: u32) -> u32 {
        now_s.saturating_sub(self.head().stamp_s.load(Ordering::Relaxed))
    }

    /// A packet came. Written once a second.
    #[inline(always)]
    pub(super) fn stamp(self, now_s: u32) {
        if self.head().stamp_s.load(Ordering::Relaxed) < now_s {
            self.head().stamp_s.store(now_s, Ordering::Relaxed);
        }
    }

    /// What a side has said. The window is read before the reach, and written after it: who is between the two
    /// sees too much room, never too little.
    #[inline(always)]
    pub fn window(self, side: u8) -> Window {
        let side = usize::from(side & 1);
        let window = self.tail().windows[side].load(Ordering::Acquire);
        let reach = self.tail().reach[side].load(Ordering::Relaxed);
        Window {
            end: (reach >> 32) as u32,
            ack: reach as u32,
            room: (window >> 16) as u16,
            largest: window as u16,
        }
    }

    /// Only packets of that side write it.
    #[inline(always)]
    pub(super) fn set_window(self, side: u8, window: Window) {
        let side = usize::from(side & 1);
        self.tail().reach[side].store(u64::from(window.end) << 32 | u64::from(window.ack), Ordering::Relaxed);
        self.tail().windows[side]
            .store(u32::from(window.room) << 16 | u32::from(window.largest), Ordering::Release);
    }

    /// What was decided.
    #[inline(always)]
    pub fn decision(self) -> Decision {
        Decision { epoch: self.head().decision.load(Ordering::Acquire) }
    }

    /// Decides.
    #[inline(always)]
    pub fn decide(self, decision: Decision) {
        self.head().decision.store(decision.epoch, Ordering::Release);
    }

    /// The entry of its other key, of a translated flow.
    #[inline(always)]
    pub fn bound(self) -> Option<Bound> {
        Bound::unpack(self.tail().bound.load(Ordering::Acquire))
    }

    /// Notes which number an answer to a SYN would acknowledge, that an end of an open connection has sent. It stands where a translated flow says what
    /// it is bound to: of such a one nothing is noted.
    #[cold]
    pub(super) fn note_asked(self, number: u32) {
        let word = &self.tail().bound;
        let before = word.load(Ordering::Acquire);
        if Bound::unpack(before).is_none() {
            // The place may be given to another flow meanwhile, which is bound: that stands.
            let asked = Bound::pack_asked(number);
            _ = word.compare_exchange(before, asked, Ordering::AcqRel, Ordering::Relaxed);
        }
    }

    /// See [`Record::note_asked`].
    #[cold]
    pub(super) fn asked(self) -> Option<u32> {
        Bound::unpack_asked(self.tail().bound.load(Ordering::Acquire))
    }

    /// It has no other entry any more. For its owner.
    pub(super) fn unbind(self) {
        self.tail().bound.store(Bound::pack(None), Ordering::Release);
    }

    pub(super) fn link(self) -> u32 {
        self.head().link.load(Ordering::Relaxed)
    }

    pub(super) fn set_link(self, link: u32) {
        self.head().link.store(link, Ordering::Relaxed);
    }
}
