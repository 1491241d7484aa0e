//! An entry of the flow table: 96 bytes of atomic words, a line and a half.
//!
//! The key is written only while the entry belongs to nobody, between two values of the sequence, the first of
//! them odd; a reader that compares the key looks at the sequence before and after. State and decision are
//! words of their own.

use super::bound::Bound;
use super::key::Key;
use super::state::{STAGE_MASK, Stage, State};
use crate::prefetch::prefetch;
use crate::table::sync::{AtomicU32, AtomicU64, Ordering, fence};

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

/// See the module.
#[derive(Debug)]
#[cfg_attr(not(loom), derive(zerocopy::FromZeros, zerocopy::KnownLayout))]
#[repr(C)]
pub struct Record {
    sequence: AtomicU32,
    /// The next in a list of its owner's.
    link: AtomicU32,
    key: [AtomicU64; 5],
    state: AtomicU32,
    stamp_s: AtomicU32,
    reach: [AtomicU64; 2],
    windows: [AtomicU32; 2],
    decision: AtomicU64,
    /// The entry of the other key of a translated flow: [`super::bound`].
    bound: AtomicU64,
}

const _: () = assert!(cfg!(loom) || size_of::<Record>() == 96);

/// Bytes before the first entry. A large piece of memory begins 16 bytes into a page (glibc's and musl's header), so that with as
/// many again entries begin at multiples of 32 and lie in two lines each. Said by `align`, the same would cost what
/// it is not worth: memory of that alignment is zeroed by hand, and every place takes some before it is used.
#[cfg(not(loom))]
const SHIFT: usize = 16;

/// All entries.
#[cfg(not(loom))]
#[derive(Debug, zerocopy::FromZeros, zerocopy::KnownLayout)]
#[repr(C)]
pub(super) struct Records {
    _shift: [u8; SHIFT],
    all: [Record],
}

#[cfg(not(loom))]
impl std::ops::Deref for Records {
    type Target = [Record];

    #[inline(always)]
    fn deref(&self) -> &[Record] {
        &self.all
    }
}

#[cfg(loom)]
pub(super) type Records = [Record];

/// So many, all zero. The kernel gives memory for those that are used.
#[cfg(not(loom))]
pub(super) fn many(count: usize) -> Box<Records> {
    use zerocopy::FromZeros;
    Records::new_box_zeroed_with_elems(count)
        .unwrap_or_else(|_| std::alloc::handle_alloc_error(std::alloc::Layout::new::<[Record; 1]>()))
}

#[cfg(loom)]
pub(super) fn many(count: usize) -> Box<Records> {
    let word = |_: usize| AtomicU64::new(0);
    let half = |_: usize| AtomicU32::new(0);
    let record = |_| Record {
        sequence: half(0),
        link: half(0),
        key: std::array::from_fn(word),
        state: half(0),
        stamp_s: half(0),
        reach: std::array::from_fn(word),
        windows: std::array::from_fn(half),
        decision: word(0),
        bound: word(0),
    };
    (0..count).map(record).collect()
}

impl Record {
    /// Asks for both lines.
    #[inline(always)]
    pub fn touch(&self) {
        prefetch(&raw const self.sequence);
        prefetch(&raw const self.bound);
    }

    /// Whether this is the entry of `key`. While it is written it is nobody's.
    #[inline(always)]
    pub fn holds(&self, key: &Key) -> bool {
        let before = self.sequence.load(Ordering::Acquire);
        let mut differ = 0;
        for (word, stored) in key.words.iter().zip(&self.key) {
            differ |= word ^ stored.load(Ordering::Acquire);
        }
        let moved = self.sequence.load(Ordering::Relaxed) ^ before;
        differ | u64::from(moved | before & 1) == 0
    }

    /// The sequence at which this is the entry of `key`; none: it is not. What is read of the entry, or of another that this one stands
    /// for, belongs to `key` if [`Record::is_still`] says so behind it.
    #[inline(always)]
    pub fn holds_at(&self, key: &Key) -> Option<u32> {
        let sequence = self.sequence.load(Ordering::Acquire);
        (self.holds(key) && self.is_still(sequence)).then_some(sequence)
    }

    /// Whether no other flow was written here since.
    #[inline(always)]
    pub fn is_still(&self, sequence: u32) -> bool {
        self.sequence.load(Ordering::Relaxed) == sequence
    }

    /// Whether it is a UDP flow in both directions, of which a packet came this second: one more changes nothing.
    #[inline(always)]
    pub fn streams(&self, now_s: u32) -> bool {
        let streams = self.state.load(Ordering::Acquire) & STAGE_MASK == Stage::UdpStream as u32;
        streams & (self.stamp_s.load(Ordering::Relaxed) >= now_s)
    }

    /// Its key; for its owner, or for whoever does not mind a torn one.
    pub fn key(&self) -> Key {
        Key { words: std::array::from_fn(|i| self.key[i].load(Ordering::Acquire)) }
    }

    /// Key, state and decision of one moment; none if the owner was writing.
    pub fn read(&self) -> Option<(Key, State, Decision)> {
        let before = self.sequence.load(Ordering::Acquire);
        let read = (self.key(), self.state(), self.decision());
        (before & 1 == 0 && self.sequence.load(Ordering::Relaxed) == before).then_some(read)
    }

    /// Writes a new flow. For its owner, while the index does not lead here.
    pub(super) fn begin(
        &self,
        key: &Key,
        state: State,
        now_s: u32,
        windows: [Window; 2],
        decision: Decision,
        bound: Option<Bound>,
    ) {
        let sequence = self.sequence.load(Ordering::Relaxed);
        self.sequence.store(sequence.wrapping_add(1), Ordering::Relaxed);
        // The odd sequence is visible to whoever sees one of the stores that follow.
        fence(Ordering::Release);
        self.key.iter().zip(key.words).for_each(|(place, word)| place.store(word, Ordering::Release));
        self.state.store(state.pack(), Ordering::Release);
        self.bound.store(Bound::pack(bound), Ordering::Release);
        self.restart(now_s, windows, decision);
        self.sequence.store(sequence.wrapping_add(2), Ordering::Release);
    }

    /// Another flow of the same key.
    pub(super) fn restart(&self, now_s: u32, windows: [Window; 2], decision: Decision) {
        self.decide(decision);
        self.stamp_s.store(now_s, Ordering::Relaxed);
        (0..2).for_each(|side| self.set_window(side, windows[usize::from(side)]));
    }

    /// What another entry says, in one that nobody else has.
    pub(super) fn copy_from(&self, other: &Self) {
        let Some((key, state, decision)) = other.read() else { return };
        let windows = [other.window(0), other.window(1)];
        self.begin(&key, state, other.stamp_s.load(Ordering::Relaxed), windows, decision, other.bound());
    }

    /// Its state.
    #[inline(always)]
    pub fn state(&self) -> State {
        State::unpack(self.state.load(Ordering::Acquire))
    }

    /// Another state, unless somebody was faster.
    pub(super) fn change(&self, from: State, to: State) -> bool {
        self.state.compare_exchange(from.pack(), to.pack(), Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// For its owner, who has taken the place back.
    pub(super) fn set_free(&self) {
        self.state.store(State::FREE.pack(), Ordering::Release);
    }

    /// Seconds since its last packet; a second that lies ahead (another worker's clock reading) is now.
    #[inline(always)]
    pub fn age_s(&self, now_s: u32) -> u32 {
        now_s.saturating_sub(self.stamp_s.load(Ordering::Relaxed))
    }

    /// A packet came. Written once a second.
    #[inline(always)]
    pub(super) fn stamp(&self, now_s: u32) {
        if self.stamp_s.load(Ordering::Relaxed) < now_s {
            self.stamp_s.store(now_s, Ordering::Relaxed);
        }
    }

    /// What a side has said. The window is read before the reach, and written after it: who is between the two
    /// sees too much room, never too little.
    #[inline(always)]
    pub fn window(&self, side: u8) -> Window {
        let side = usize::from(side & 1);
        let window = self.windows[side].load(Ordering::Acquire);
        let reach = self.reach[side].load(Ordering::Relaxed);
        Window {
            end: (reach >> 32) as u32,
            ack: reach as u32,
            room: (window >> 16) as u16,
            largest: window as u16,
        }
    }

    /// Only packets of that side write it.
    #[inline(always)]
    pub(super) fn set_window(&self, side: u8, window: Window) {
        let side = usize::from(side & 1);
        self.reach[side].store(u64::from(window.end) << 32 | u64::from(window.ack), Ordering::Relaxed);
        self.windows[side].store(u32::from(window.room) << 16 | u32::from(window.largest), Ordering::Release);
    }

    /// What was decided.
    #[inline(always)]
    pub fn decision(&self) -> Decision {
        Decision { epoch: self.decision.load(Ordering::Acquire) }
    }

    /// Decides.
    #[inline(always)]
    pub fn decide(&self, decision: Decision) {
        self.decision.store(decision.epoch, Ordering::Release);
    }

    /// The entry of its other key, of a translated flow.
    #[inline(always)]
    pub fn bound(&self) -> Option<Bound> {
        Bound::unpack(self.bound.load(Ordering::Acquire))
    }

    /// It has no other entry any more. For its owner.
    pub(super) fn unbind(&self) {
        self.bound.store(Bound::pack(None), Ordering::Release);
    }

    pub(super) fn link(&self) -> u32 {
        self.link.load(Ordering::Relaxed)
    }

    pub(super) fn set_link(&self, link: u32) {
        self.link.store(link, Ordering::Relaxed);
    }
}
