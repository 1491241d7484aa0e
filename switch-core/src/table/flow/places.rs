//! Which places of the flow table are whose: by chunks. A worker that has none left is dealt one; one in which it has no flow goes back, for
//! whichever worker asks next.
//!
//! A worker takes a place of the lowest chunk that has a free one, so that those above become free as flows end.

use super::CHUNK;
use crate::table::sync::{AtomicU32, AtomicU64, Ordering};

/// No place.
const NONE: u32 = u32::MAX >> 1;

/// A bit for each chunk. As many words as that takes.
fn words(chunks: u32) -> usize {
    chunks.div_ceil(u64::BITS) as usize
}

fn bit(chunk: u32) -> (usize, u64) {
    ((chunk / u64::BITS) as usize, 1 << (chunk % u64::BITS))
}

/// The chunks that no worker has.
#[derive(Debug)]
pub(super) struct Chunks {
    all: u32,
    /// Those below were somebody's once.
    dealt: AtomicU32,
    /// Of those, the ones that came back.
    back: Box<[AtomicU64]>,
    /// How many those are at most; counted before they are there, and until they are gone.
    back_count: AtomicU32,
}

impl Chunks {
    /// Of a table of so many places.
    pub fn new(places: u32) -> Self {
        let all = places / CHUNK;
        let back = (0..words(all)).map(|_| AtomicU64::new(0)).collect();
        Self { all, dealt: AtomicU32::new(0), back, back_count: AtomicU32::new(0) }
    }

    /// The same, of a moment.
    pub fn copy(&self) -> Self {
        let back: Box<[AtomicU64]> =
            self.back.iter().map(|word| AtomicU64::new(word.load(Ordering::Acquire))).collect();
        let back_count = back.iter().map(|word| word.load(Ordering::Relaxed).count_ones()).sum();
        let dealt = AtomicU32::new(self.dealt.load(Ordering::Relaxed));
        Self { all: self.all, dealt, back, back_count: AtomicU32::new(back_count) }
    }

    /// Places that were somebody's once; none beyond has a flow.
    pub fn used(&self) -> u32 {
        self.dealt.load(Ordering::Relaxed).min(self.all) * CHUNK
    }

    /// One that nobody has; what came back goes first, for its memory is there already.
    pub fn deal(&self) -> Option<u32> {
        self.again().or_else(|| {
            // It would never end where a table is full.
            let has_more = self.dealt.load(Ordering::Relaxed) < self.all;
            let chunk = has_more.then(|| self.dealt.fetch_add(1, Ordering::Relaxed))?;
            (chunk < self.all).then_some(chunk)
        })
    }

    fn again(&self) -> Option<u32> {
        if self.back_count.load(Ordering::Relaxed) == 0 {
            return None;
        }
        (0..).zip(&self.back).find_map(|(at, word)| {
            let mut seen = word.load(Ordering::Relaxed);
            while seen != 0 {
                let lowest = seen & seen.wrapping_neg();
                // What the one before wrote in its places is seen by whoever takes them.
                if word.fetch_and(!lowest, Ordering::Acquire) & lowest != 0 {
                    self.back_count.fetch_sub(1, Ordering::Relaxed);
                    return Some(at * u64::BITS + lowest.trailing_zeros());
                }
                seen &= !lowest;
            }
            None
        })
    }

    /// One in which no place is used is nobody's any more. For whoever has it.
    pub fn put(&self, chunk: u32) {
        let (at, bit) = bit(chunk);
        self.back_count.fetch_add(1, Ordering::Relaxed);
        self.back[at].fetch_or(bit, Ordering::Release);
    }
}

/// What a worker has of a chunk.
#[derive(Clone, Copy, Debug)]
struct Own {
    /// The first of its free places that were used before; each leads to the next.
    head: u32,
    /// How many places are free.
    free: u16,
    /// Of these, the last so many were not used by this worker yet.
    fresh: u16,
}

/// The places that one worker has. Plain memory, but for the links between those that are free, which lie in the entries.
#[derive(Debug)]
pub(super) struct Places {
    /// Of every chunk of the table.
    chunks: Box<[Own]>,
    owned: Box<[u64]>,
    count: u32,
    /// Of the owned ones, those with a free place; none in words below `lowest`.
    with_free: Box<[u64]>,
    lowest: usize,
}

impl Places {
    /// Nothing yet, of a table of so many places.
    pub fn new(places: u32) -> Self {
        let all = places / CHUNK;
        let none = Own { head: NONE, free: 0, fresh: 0 };
        let bits: Box<[u64]> = vec![0; words(all)].into();
        let lowest = bits.len();
        Self {
            chunks: vec![none; all as usize].into(),
            owned: bits.clone(),
            count: 0,
            with_free: bits,
            lowest,
        }
    }

    /// How many there are, free ones and others.
    pub fn count(&self) -> u32 {
        self.count * CHUNK
    }

    /// Whether a place is one of them.
    pub fn owns(&self, place: u32) -> bool {
        let (at, bit) = bit(place / CHUNK);
        self.owned.get(at).is_some_and(|word| word & bit != 0)
    }

    /// A free one. `link` says to which other one it leads.
    pub fn take(&mut self, chunks: &Chunks, link: impl FnOnce(u32) -> u32) -> Option<u32> {
        let chunk = self.first_with_free().or_else(|| self.ask(chunks))?;
        let own = &mut self.chunks[chunk as usize];
        let place = own.head;
        own.free -= 1;
        if own.free == 0 {
            let (at, bit) = bit(chunk);
            self.with_free[at] &= !bit;
        }
        // One that was used before is in some cache.
        if place != NONE {
            own.head = link(place);
            return Some(place);
        }
        own.fresh -= 1;
        Some((chunk + 1) * CHUNK - 1 - u32::from(own.fresh))
    }

    fn first_with_free(&mut self) -> Option<u32> {
        while let Some(word) = self.with_free.get(self.lowest) {
            if *word != 0 {
                return Some(self.lowest as u32 * u64::BITS + word.trailing_zeros());
            }
            self.lowest += 1;
        }
        None
    }

    fn ask(&mut self, chunks: &Chunks) -> Option<u32> {
        // One that has all there is need not ask.
        let chunk = (self.count < self.chunks.len() as u32).then(|| chunks.deal())??;
        self.have(chunk);
        Some(chunk)
    }

    fn have(&mut self, chunk: u32) {
        let (at, bit) = bit(chunk);
        self.owned[at] |= bit;
        self.count += 1;
        self.chunks[chunk as usize] = Own { head: NONE, free: CHUNK as u16, fresh: CHUNK as u16 };
        self.set_free(chunk);
    }

    fn set_free(&mut self, chunk: u32) {
        let (at, bit) = bit(chunk);
        self.with_free[at] |= bit;
        self.lowest = self.lowest.min(at);
    }

    /// One of them is free from now on. To which other one it leads.
    pub fn give(&mut self, place: u32) -> u32 {
        let chunk = place / CHUNK;
        let own = &mut self.chunks[chunk as usize];
        own.free += 1;
        let next = std::mem::replace(&mut own.head, place);
        self.set_free(chunk);
        next
    }

    /// The one that follows, in a round through all of them.
    pub fn after(&self, place: u32) -> Option<u32> {
        let next = place.wrapping_add(1);
        if !next.is_multiple_of(CHUNK) && self.owns(next) {
            return Some(next);
        }
        let chunk = self.owned_from(next.div_ceil(CHUNK)).or_else(|| self.owned_from(0))?;
        Some(chunk * CHUNK)
    }

    fn owned_from(&self, chunk: u32) -> Option<u32> {
        let (from, bit) = bit(chunk);
        let mut mask = !(bit - 1);
        (from..self.owned.len()).find_map(|at| {
            let word = self.owned[at] & std::mem::replace(&mut mask, u64::MAX);
            (word != 0).then(|| at as u32 * u64::BITS + word.trailing_zeros())
        })
    }

    /// The chunk of a place goes back if no place in it is used. Whether it did.
    pub fn put_back_unused(&mut self, chunks: &Chunks, place: u32) -> bool {
        let chunk = place / CHUNK;
        let is_unused = self.owns(place) && u32::from(self.chunks[chunk as usize].free) == CHUNK;
        if is_unused {
            let (at, bit) = bit(chunk);
            self.owned[at] &= !bit;
            self.with_free[at] &= !bit;
            self.count -= 1;
            chunks.put(chunk);
        }
        is_unused
    }

    /// With these places and no others, whatever comes.
    #[cfg(all(test, loom))]
    pub fn only(places: std::ops::Range<u32>) -> Self {
        let mut only = Self::new(places.end);
        (places.start / CHUNK..places.end / CHUNK).for_each(|chunk| only.have(chunk));
        // So it asks for no more.
        only.count = only.chunks.len() as u32;
        only
    }
}
