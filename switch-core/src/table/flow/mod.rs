//! Flows: who speaks with whom, and how far they have come. One entry serves both directions.
//!
//! | module | what |
//! |---|---|
//! | [`key`] | zone, addresses, protocol, ports in an order of their own, and from which side a packet came |
//! | [`state`] | what a flow goes through, how long each of it may last, all of it in half a word |
//! | [`tcp`] | RFC 9293 as seen from the middle: the state and the window |
//! | [`others`] | UDP, queries, SCTP, everything else |
//! | [`record`] | an entry: 96 bytes of atomic words, a line of which every packet is held against |
//! | [`keeper`] | what one worker has: its free places, its half-open flows, its share of the sweeping |
//! | `places` | which places are whose, by chunks that come and go |
//! | [`kept`] | since when flows are kept of a port, and a connection of before is taken up where it is |
//! | [`round`] | when it looks at what |
//! | [`fragments`] | which flow the later fragments of a packet belong to |
//! | [`list`] | the flows that there are, as they are listed, counted and ended |
//! | `open` | how they begin |
//! | [`bound`] | translated flows: two keys, two entries, one flow |
//! | [`watch`] | what becomes of them, for whoever looks on |
//!
//! # Layout
//! The index is the [`AtomicTable`]: a keyed hash of 64 bits leads to a place. The place holds the whole key,
//! which is compared; two keys of one hash (one in 2^64) cannot both be there. A flow costs 96 bytes of place
//! and 21 of index.
//!
//! # Writers
//! A place has one owner, the worker that made the flow: only it reuses the place. State is one word, changed
//! by compare and exchange by whoever sees the packet. The window of each direction is words of its own that
//! only packets of that direction write, with plain stores: one direction on two workers at once may lose an
//! update, which the next packet makes good.
//!
//! # Bounds
//! All flows together, the flows of a port, and the half-open ones of a port have limits. A port that is at a
//! limit, or finds the table full, loses its own oldest half-open flows, never another's and never an
//! established one; if it has none, the new flow is refused. Each worker ends its own: one that has few of a port whose others are another
//! worker's may have an eighth more.

pub mod bound;
#[cfg(all(test, not(loom)))]
mod bound_tests;
#[cfg(all(test, not(loom)))]
mod fair_tests;
pub mod fragments;
pub mod keeper;
pub mod kept;
pub mod key;
mod list;
#[cfg(all(test, loom))]
mod loom_tests;
mod open;
pub mod others;
mod places;
#[cfg(all(test, not(loom)))]
mod places_tests;
pub mod record;
pub mod round;
#[cfg(all(test, not(loom)))]
mod sctp_tests;
pub mod state;
pub mod tcp;
#[cfg(all(test, not(loom)))]
mod tcp_tests;
#[cfg(all(test, not(loom)))]
mod tests;
pub mod watch;

use super::atomic::{AtomicTable, BUCKET_BYTES, Home, Outcome, Want, relax};
use super::sync::{AtomicU32, AtomicU64, Ordering};
use crate::wire::ip::TCP;
use crate::wire::packet::{Content, Packet};
use key::Key;
pub use list::Entry;
use places::Chunks;
use record::{Decision, RECORD_BYTES, Record, Records};
use state::{Stage, State};

/// Flows unless said otherwise: 15 MiB when all are there, and what is not used is not resident.
pub const FLOWS_DEFAULT: usize = 131_072;
/// Places are given to workers so many at a time.
pub const CHUNK: u32 = if cfg!(loom) { 1 } else { 256 };
/// One port may have this part of all flows: an uplink has most of them, and never all.
const PORT_PART: u32 = 2;
/// This part of the table is dealt out evenly among the ports, so that a new flow of a quiet port finds room
/// however many the others have.
const DEALT_PART: u32 = 4;
/// One port may have this part of all flows half-open.
const HALF_OPEN_PART: u32 = 8;
/// Attempts at a bucket that another worker writes.
const ATTEMPTS: usize = if cfg!(loom) { 2 } else { 64 };

/// Why there is no flow for a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No such packet begins a flow: TCP without SYN, an answer nobody asked for.
    NoBeginning,
    /// The port has as many flows as it may.
    PortLimit,
    /// The table is full.
    Full,
    /// Another worker was writing next to it.
    Busy,
}

/// Why a packet does not belong where it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invalid {
    /// TCP flags that no segment has (RFC 9293 §3.10).
    Flags,
    /// TCP outside the window.
    Window,
    /// It does not fit the state: an answer before the question, a wrong SCTP tag.
    State,
}

/// What a packet is to its flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passed {
    /// It belongs to it.
    Known,
    /// It belongs to it, and has led it here from this stage.
    Moved(Stage),
    /// The flow is over, and this is the first packet of another with the same key.
    Over,
    /// It pretends to.
    Invalid(Invalid),
}

/// What came of making a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opened {
    /// Here it is.
    New(u32),
    /// It is there already, by an earlier packet or another worker; the packet has been counted to it.
    Known(u32),
    /// It is there already, and the packet does not fit it.
    Invalid(Invalid),
}

/// A packet, as the flow table is told of it.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// What was read.
    pub packet: &'a Packet,
    /// Its flow's key.
    pub key: Key,
    /// Hash of the key.
    pub hash: u64,
    /// From which side of the key it comes.
    pub side: u8,
    /// Where it came in.
    pub port: u16,
    /// Now.
    pub now_s: u32,
}

/// How many flows may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// All together.
    pub all: u32,
    /// One port's.
    pub port: u32,
    /// What a port may have whatever the others do.
    pub share: u32,
    /// One port's half-open.
    pub half_open: u32,
}

/// What there is of flows, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// All.
    pub all: u32,
    /// Those without an answer yet.
    pub half_open: u32,
}

/// See the module.
#[derive(Debug)]
pub struct Flows {
    index: AtomicTable,
    records: Records,
    seed: [u64; 6],
    chunks: Chunks,
    entries: AtomicU32,
    /// See [`list::one`].
    by_port: Box<[AtomicU64]>,
    half_open: Box<[AtomicU32]>,
    limits: Limits,
    pickup: bool,
}

impl Flows {
    /// Room for `entries` flows behind ports `0..ports`. With `pickup` a TCP flow may begin in the middle.
    pub fn new(entries: usize, ports: usize, seed: [u64; 2], pickup: bool) -> Self {
        let entries = entries.next_multiple_of(CHUNK as usize);
        let by_port = (0..ports).map(|_| AtomicU64::new(0)).collect();
        let half_open = (0..ports).map(|_| AtomicU32::new(0)).collect();
        let all = entries as u32;
        Self {
            index: AtomicTable::new(entries, seed),
            records: Records::new(entries),
            seed: key::seeds(seed),
            chunks: Chunks::new(all),
            entries: AtomicU32::new(0),
            by_port,
            half_open,
            limits: Limits {
                all,
                port: (all / PORT_PART).max(1),
                share: all / DEALT_PART / ports.max(1) as u32,
                half_open: (all / HALF_OPEN_PART).max(1),
            },
            pickup,
        }
    }

    /// Bytes it may come to take, fixed when it is made. Places that were never used take none yet.
    pub fn bytes(&self) -> usize {
        self.index.bytes() + self.records.len() * RECORD_BYTES
    }

    /// A copy that answers the same and that nobody else writes or reads. Places without a flow cost nothing.
    pub fn copy(&self) -> Self {
        let records = Records::new(self.records.len());
        let chunks = self.chunks.copy();
        (0..chunks.used()).for_each(|place| records.at(place).copy_from(self.record(place)));
        let by_port = self.by_port.iter().map(|count| AtomicU64::new(count.load(Ordering::Relaxed)));
        let half_open = self.half_open.iter().map(|count| AtomicU32::new(count.load(Ordering::Relaxed)));
        Self {
            index: self.index.copy(),
            records,
            seed: self.seed,
            chunks,
            entries: AtomicU32::new(self.entries.load(Ordering::Relaxed)),
            by_port: by_port.collect(),
            half_open: half_open.collect(),
            limits: self.limits,
            pickup: self.pickup,
        }
    }

    /// The limits it was made with.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Places; [`Flows::scan`] takes a range of them.
    pub fn places(&self) -> u32 {
        self.limits.all
    }

    /// Bytes of the index.
    pub fn index_bytes(&self) -> usize {
        self.index.buckets() * BUCKET_BYTES
    }

    /// Hash of a key.
    #[inline(always)]
    pub fn hash(&self, key: &Key) -> u64 {
        key.hash(&self.seed)
    }

    /// Where the index keeps a hash; asks for its line.
    #[inline(always)]
    pub fn touch(&self, hash: u64) -> Home<'_> {
        self.index.approach(hash)
    }

    /// The entry that the index names at the home of a hash, and asks for its line. Whether it is the right one says
    /// [`Record::holds`].
    #[inline(always)]
    pub fn named(&self, home: Home, hash: u64) -> Option<Record<'_>> {
        let record = self.records.get(self.index.get_at(home, hash)?)?;
        record.touch();
        Some(record)
    }

    /// The place that the index names. Whether it is the right one says [`Flows::holds`].
    #[inline(always)]
    fn place(&self, hash: u64) -> Option<u32> {
        self.named(self.touch(hash), hash).map(Record::place)
    }

    /// Whether the flow at `place` has this key.
    #[inline(always)]
    pub fn holds(&self, place: u32, key: &Key) -> bool {
        self.record(place).holds(key)
    }

    /// The flow of a key, in one call.
    pub fn find(&self, key: &Key) -> Option<u32> {
        let hash = self.hash(key);
        self.place(hash).filter(|place| self.holds(*place, key))
    }

    /// The port whose packet made the flow at `place`, and from which side of its key that came.
    #[inline(always)]
    pub fn began(&self, place: u32) -> (u16, u8) {
        let state = self.record(place).state();
        (state.port, state.origin())
    }

    /// The entry at a place, if there is one.
    #[inline(always)]
    pub fn at(&self, place: u32) -> Option<Record<'_>> {
        self.records.get(place)
    }

    #[inline(always)]
    fn record(&self, place: u32) -> Record<'_> {
        self.records.at(place)
    }

    /// What was decided about the flow at `place`; [`Decision::NONE`] for a new one.
    #[inline(always)]
    pub fn decision(&self, place: u32) -> Decision {
        self.record(place).decision()
    }

    /// Decides about the flow of `key` at `place`. Should another have been given the place meanwhile, nothing is decided about that one, and
    /// what was is asked about again.
    pub fn decide(&self, place: u32, key: &Key, decision: Decision) {
        let record = self.record(place);
        let Some(sequence) = record.holds_at(key) else { return };
        record.decide(decision);
        if !record.was_still(sequence) {
            record.decide(Decision::NONE);
        }
    }

    /// A flow's state.
    #[inline(always)]
    pub fn state(&self, place: u32) -> State {
        self.record(place).state()
    }

    /// Counts a packet to the flow at `place`, whose key has been compared.
    #[inline]
    pub fn pass(&self, place: u32, seen: &Seen) -> Passed {
        let record = self.record(place);
        let state = record.state();
        if state.stage.is_none() || record.age_s(seen.now_s) > state.stage.timeout_s() {
            return Passed::Over;
        }
        let passed = match seen.packet.content {
            Content::Tcp(ref segment) => tcp::pass(record, state, seen.side, segment),
            Content::Sctp(ref chunk) => {
                others::pass_sctp(record, state, seen.side, seen.port == state.port, chunk)
            }
            Content::Query { answer } => others::pass_query(state, seen.side, answer),
            Content::Later => Ok(pass_later(record, state, seen)),
            _ => others::pass_plain(state, seen.side),
        };
        match passed {
            Ok(next) => {
                record.stamp(seen.now_s);
                if next != state && self.change(record, state, next) && next.stage != state.stage {
                    return Passed::Moved(state.stage);
                }
                Passed::Known
            }
            Err(tcp::Refused::Reopens) => Passed::Over,
            Err(tcp::Refused::Passes) => Passed::Known,
            Err(tcp::Refused::Invalid(invalid)) => Passed::Invalid(invalid),
        }
    }

    /// Takes the connection at `place` up where it is, by a packet that fits no more what is known of it, if its last one came before the second
    /// `since_s`: some passed unseen until then. Of one whose last came in that very second nobody knows, and it has the next one, too. What the
    /// packet is to it now.
    #[cold]
    pub fn take_up(&self, place: u32, seen: &Seen, since_s: u32) -> Option<Passed> {
        let (record, Content::Tcp(segment)) = (self.record(place), &seen.packet.content) else { return None };
        let last_s = seen.now_s.saturating_sub(record.age_s(seen.now_s));
        let is_old = last_s < since_s || last_s == since_s && seen.now_s <= since_s + 1;
        (is_old && tcp::take_up(record, seen.side, segment)).then(|| self.pass(place, seen))
    }

    /// Whether an ICMP error that quotes this packet of the flow at `place` may be believed: the flow is
    /// alive.
    pub fn is_alive(&self, place: u32, now_s: u32) -> bool {
        let record = self.record(place);
        let stage = record.state().stage;
        stage != Stage::Dead && record.age_s(now_s) <= stage.timeout_s()
    }

    /// Another state, if nobody else changed it meanwhile; then theirs stands, and the next packet goes on
    /// from there. Whether it is ours.
    fn change(&self, record: Record, from: State, to: State) -> bool {
        let changed = record.change(from, to);
        if changed {
            self.count(from, to);
        }
        changed
    }

    /// Keeps the counts.
    fn count(&self, from: State, to: State) {
        let moved = from.port != to.port;
        let (was, is) = (from.stage != Stage::Dead, to.stage != Stage::Dead);
        let (was_half, is_half) = (from.stage.is_half_open(), to.stage.is_half_open());
        if was && (!is || moved) {
            self.by_port[usize::from(from.port)].fetch_sub(list::one(from), Ordering::Relaxed);
        }
        if is && (!was || moved) {
            self.by_port[usize::from(to.port)].fetch_add(list::one(to), Ordering::Relaxed);
        }
        if was_half && (!is_half || moved) {
            self.half_open[usize::from(from.port)].fetch_sub(1, Ordering::Relaxed);
        }
        if is_half && (!was_half || moved) {
            self.half_open[usize::from(to.port)].fetch_add(1, Ordering::Relaxed);
        }
        if was != is {
            let more = if is { 1 } else { u32::MAX };
            self.entries.fetch_add(more, Ordering::Relaxed);
        }
    }

    /// An update of the index that waits a little for others.
    fn insist(&self, hash: u64, mut decide: impl FnMut(Option<u32>) -> Want) -> Outcome {
        for _ in 0..ATTEMPTS {
            let outcome = self.index.update(hash, &mut decide);
            if outcome != Outcome::Busy {
                return outcome;
            }
            relax();
        }
        Outcome::Busy
    }

    /// Does something while the index is written where it has a hash: as what other workers do then.
    #[cfg(all(test, not(loom)))]
    pub(crate) fn while_written(&self, hash: u64, meanwhile: impl FnOnce()) {
        self.index.update(hash, |_| {
            meanwhile();
            Want::Keep
        });
    }

    /// Takes the flow out of the index; its place may be used again. For its owner. Whether it is out: a
    /// bucket that another worker writes is tried again later.
    fn unlink(&self, place: u32) -> bool {
        let hash = self.hash(&self.record(place).key());
        let outcome =
            self.insist(hash, |present| if present == Some(place) { Want::Remove } else { Want::Keep });
        matches!(outcome, Outcome::Written | Outcome::Kept)
    }

    /// Whether the index leads to a place.
    fn leads_to(&self, place: u32) -> bool {
        let hash = self.hash(&self.record(place).key());
        self.index.get(self.index.home(hash), hash) == Some(place)
    }

    /// Takes a dead flow's place back, unless a packet began another one in it a moment ago. For its owner. From
    /// then on it is nobody's.
    fn take_back(&self, place: u32) -> bool {
        let record = self.record(place);
        let state = record.state();
        state.stage == Stage::Dead && (state == state.freed() || record.change(state, state.freed()))
    }

    /// Ends a flow that is still in this state.
    fn end(&self, place: u32, state: State) -> bool {
        self.change(self.record(place), state, state.at(Stage::Dead))
    }

    /// Ends what is at a place, however often others change it meanwhile: its packets are few.
    fn finish(&self, place: u32) {
        loop {
            let state = self.record(place).state();
            if state.stage == Stage::Dead || self.end(place, state) {
                return;
            }
        }
    }
}

/// Counts one more packet to the flow of an entry, whose key has been compared, if it is of those that nearly all are: UDP that goes both
/// ways, an open TCP connection's, and there was one this second. Then it passes, as [`Flows::pass`] would say, and only a window
/// may be other than before. False: nothing was done, and that is to be asked.
#[inline(always)]
pub fn streams(record: Record, content: &Content, side: u8, now_s: u32) -> bool {
    match content {
        Content::Udp => record.streams(now_s),
        Content::Tcp(segment) => tcp::streams(record, side, segment, now_s),
        _ => false,
    }
}

/// A later fragment. Of TCP its payload counts, so that its acknowledgement is known.
#[cold]
fn pass_later(record: Record, state: State, seen: &Seen) -> State {
    if let Some(fragment) = seen.packet.fragment.filter(|_| seen.packet.protocol == TCP) {
        tcp::count_later(record, state, seen.side, fragment.len as u32);
    }
    state
}
