//! The memory that lookups read: lines of 64 bytes in a few large slabs, so that a table lies on a handful of
//! huge pages and a place in it is a number of 32 bits.
//!
//! A [`Span`] is some neighbouring lines that belong to whoever holds it. It is written once, before anybody
//! else knows of it, and given back when dropped; versions of a table share spans by reference count, so no
//! line that a version can reach is written. Words are atomic because a slab is shared: a relaxed load is a
//! plain load. What makes the writes visible is the way by which a version reaches its readers.
//!
//! Who changes a table takes the lock; lookups never do.

use crate::pages::Pages;
use crate::prefetch::{advise_huge, prefetch};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Words of a line.
pub const LINE: u32 = 8;
/// A slab has 16 MiB, of which a page is touched only when it is used. Eight huge pages.
const SLAB_LINES_LOG2: u32 = 18;
const SLAB_LINES: u32 = 1 << SLAB_LINES_LOG2;
const SLAB_WORDS_LOG2: u32 = SLAB_LINES_LOG2 + LINE.trailing_zeros();
/// Places are 32 bits: 2 048 slabs, 32 GiB.
const SLABS_MAX: usize = 1 << (32 - SLAB_WORDS_LOG2);
/// A table below this is left on small pages: a huge one would be mostly air.
const HUGE_LINES_MIN: u32 = (1 << 20) / 64;

/// What is not there reads as zero.
static NOWHERE: [AtomicU64; LINE as usize] = [const { AtomicU64::new(0) }; LINE as usize];

/// See the module.
#[derive(Debug)]
pub struct Slab {
    words: Pages<AtomicU64>,
}

impl Slab {
    /// Of so many lines, each of which begins where a cache line does. Without memory it ends the process, as any other allocation does.
    fn new(lines: u32) -> Self {
        Self { words: Pages::small((lines * LINE) as usize, || AtomicU64::new(0)) }
    }
}

/// The slabs that a version of a table reads.
#[derive(Clone, Debug, Default)]
pub struct Slabs(Arc<[Arc<Slab>]>);

impl Slabs {
    /// A word by its place; a place that is nowhere reads as zero.
    #[inline(always)]
    pub fn cell(&self, at: u32) -> &AtomicU64 {
        let within = (at & ((1 << SLAB_WORDS_LOG2) - 1)) as usize;
        let slab = self.0.get((at >> SLAB_WORDS_LOG2) as usize);
        slab.and_then(|slab| slab.words.get(within)).unwrap_or(&NOWHERE[0])
    }

    /// Asks for the line at a place, and the one behind it: a bitmap's leaves may lie there.
    #[inline(always)]
    pub fn touch(&self, at: u32) {
        let cell = std::ptr::from_ref(self.cell(at));
        prefetch(cell);
        prefetch(cell.wrapping_add(LINE as usize));
    }

    /// The words of a line.
    #[inline(always)]
    pub fn line(&self, at: u32) -> &[AtomicU64; LINE as usize] {
        let within = (at & ((1 << SLAB_WORDS_LOG2) - 1)) as usize;
        let slab = self.0.get((at >> SLAB_WORDS_LOG2) as usize);
        slab.and_then(|slab| slab.words.get(within..)?.first_chunk()).unwrap_or(&NOWHERE)
    }
}

/// A place that is nowhere.
#[inline(always)]
pub fn nowhere() -> &'static AtomicU64 {
    &NOWHERE[0]
}

/// See the module.
#[derive(Debug, Default)]
pub struct Arena(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    slabs: Vec<Option<Arc<Slab>>>,
    /// Free lines: where they begin, and how many; none reaches into the next slab.
    by_start: BTreeMap<u32, u32>,
    by_len: BTreeSet<(u32, u32)>,
    used: u32,
    huge: bool,
}

/// Lines of an arena. See the module.
#[derive(Debug)]
pub struct Span {
    arena: Arc<Arena>,
    start: u32,
    lines: u32,
}

impl Span {
    /// `words`, written where there is room. Without memory it ends the process, as any other allocation does.
    pub fn new(arena: &Arc<Arena>, words: &[u64]) -> Self {
        Self::try_new(arena, words)
            .unwrap_or_else(|| std::alloc::handle_alloc_error(std::alloc::Layout::for_value(words)))
    }

    fn try_new(arena: &Arc<Arena>, words: &[u64]) -> Option<Self> {
        let lines = (words.len() as u32).div_ceil(LINE);
        let mut inner = arena.lock();
        let start = inner.take(lines)?;
        let slab = inner.slabs.get((start >> SLAB_LINES_LOG2) as usize)?.clone()?;
        drop(inner);
        let span = Self { arena: arena.clone(), start, lines };
        let within = (span.at() & ((1 << SLAB_WORDS_LOG2) - 1)) as usize;
        for (cell, word) in slab.words.get(within..)?.iter().zip(words) {
            cell.store(*word, Relaxed);
        }
        Some(span)
    }

    /// The place of its first word.
    pub fn at(&self) -> u32 {
        self.start * LINE
    }

    /// Its first line.
    pub fn start(&self) -> u32 {
        self.start
    }

    /// Bytes of it.
    pub fn bytes(&self) -> usize {
        self.lines as usize * 64
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        self.arena.lock().give(self.start, self.lines);
    }
}

impl Arena {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing in here panics half-way; and a table that cannot be changed any more helps nobody.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a version that was just made reads.
    pub fn slabs(&self) -> Slabs {
        // A slab that was given back leaves a hole, which nobody's place is in.
        thread_local!(static EMPTY: Arc<Slab> = Arc::new(Slab::new(0)));
        let slab = |slab: &Option<Arc<Slab>>| slab.clone().unwrap_or_else(|| EMPTY.with(Arc::clone));
        Slabs(self.lock().slabs.iter().map(slab).collect())
    }

    /// Bytes in use and bytes of all slabs, of which those never used cost nothing.
    pub fn bytes(&self) -> (usize, usize) {
        let inner = self.lock();
        (inner.used as usize * 64, inner.slabs.iter().flatten().count() << (SLAB_LINES_LOG2 + 6))
    }
}

impl Inner {
    fn take(&mut self, lines: u32) -> Option<u32> {
        let fits = self.by_len.range((lines, 0)..).next().copied();
        let (len, start) = match fits {
            Some(free) => free,
            None if lines > SLAB_LINES => return None,
            None => (SLAB_LINES, self.grow()?),
        };
        self.remove(start, len);
        if len > lines {
            self.insert(start + lines, len - lines);
        }
        self.used += lines;
        self.ask_for_huge();
        Some(start)
    }

    /// A slab more; where its lines begin.
    fn grow(&mut self) -> Option<u32> {
        let slab = Arc::new(Slab::new(SLAB_LINES));
        if self.huge {
            advise_huge(&slab.words);
        }
        let hole = self.slabs.iter().position(Option::is_none).unwrap_or(self.slabs.len());
        if hole >= SLABS_MAX {
            return None;
        }
        if hole == self.slabs.len() {
            self.slabs.push(None);
        }
        self.slabs[hole] = Some(slab);
        let start = (hole as u32) << SLAB_LINES_LOG2;
        self.insert(start, SLAB_LINES);
        Some(start)
    }

    fn ask_for_huge(&mut self) {
        if !self.huge && self.used >= HUGE_LINES_MIN {
            self.huge = true;
            self.slabs.iter().flatten().for_each(|slab| advise_huge(&slab.words));
        }
    }

    fn give(&mut self, mut start: u32, mut lines: u32) {
        self.used -= lines;
        let slab = start >> SLAB_LINES_LOG2;
        let same = |other: u32| other >> SLAB_LINES_LOG2 == slab;
        if let Some((at, len)) = self.by_start.range(..start).next_back().map(|(at, len)| (*at, *len))
            && at + len == start
            && same(at)
        {
            self.remove(at, len);
            (start, lines) = (at, lines + len);
        }
        if let Some(len) = self.by_start.get(&(start + lines)).copied().filter(|_| same(start + lines)) {
            self.remove(start + lines, len);
            lines += len;
        }
        if lines < SLAB_LINES {
            return self.insert(start, lines);
        }
        // Nobody uses it any more. Older versions that name it hold it until they go.
        self.slabs[slab as usize] = None;
        if self.used == 0 {
            self.huge = false;
        }
    }

    fn insert(&mut self, start: u32, len: u32) {
        self.by_start.insert(start, len);
        self.by_len.insert((len, start));
    }

    fn remove(&mut self, start: u32, len: u32) {
        self.by_start.remove(&start);
        self.by_len.remove(&(len, start));
    }
}

#[cfg(not(loom))]
#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(crate::cases::cases(48))]

        /// Whatever is taken and given back in whatever order: no span is written by another, all comes back.
        #[test]
        fn spans_are_apart_and_come_back(steps in proptest::collection::vec((1usize..4000, any::<prop::sample::Index>(), 0..3u8), 1..200)) {
            let arena = Arc::new(Arena::default());
            let mut held: Vec<(Span, u64, usize)> = Vec::new();
            for (n, (len, which, step)) in steps.into_iter().enumerate() {
                if step == 0 && !held.is_empty() {
                    held.swap_remove(which.index(held.len()));
                } else {
                    held.push((Span::new(&arena, &vec![n as u64; len]), n as u64, len));
                }
                let slabs = arena.slabs();
                for (span, mark, len) in &held {
                    for at in [0, *len as u32 / 2, *len as u32 - 1] {
                        prop_assert_eq!(slabs.cell(span.at() + at).load(Relaxed), *mark);
                    }
                }
            }
            let used: usize = held.iter().map(|(span, ..)| span.bytes()).sum();
            prop_assert_eq!(arena.bytes().0, used);
            held.clear();
            prop_assert_eq!(arena.bytes(), (0, 0));
        }
    }

    #[test]
    fn a_slab_that_is_full_is_followed_by_another() {
        let arena = Arc::new(Arena::default());
        let half = vec![7; (SLAB_LINES / 2 * LINE) as usize];
        let spans: Vec<Span> = (0..3).map(|_| Span::new(&arena, &half)).collect();
        assert_eq!(arena.bytes().1, 2 << 24);
        let slabs = arena.slabs();
        assert!(spans.iter().all(|span| slabs.cell(span.at()).load(Relaxed) == 7));
        assert!(spans.iter().all(|span| std::ptr::from_ref(slabs.cell(span.at())).addr() % 64 == 0));
        drop(spans);
        assert_eq!(arena.bytes(), (0, 0));
        assert_eq!(slabs.cell(0).load(Relaxed), 7, "who reads an older version goes on reading");
    }
}
