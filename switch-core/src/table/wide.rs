//! The atomic table's sibling for keys that do not fit a word: three words of key, two of value, an entry a
//! cache line. What is looked up in it is looked up after a route was, for one line more.
//!
//! # Layout
//! A line holds one entry, a sequence that is odd while the entry is written, and a lock that belongs not
//! to the entry but to all keys whose *home* the line is. A key lives in one of [`WINDOW`] lines from its
//! home on. A line without a key is free; nothing is ever moved.
//!
//! # Readers
//! never write and never wait: sequence, entry, sequence again. A reader that meets a writer tries again a
//! few times and then takes the entry for absent.
//!
//! # Writers
//! lock the key's home first, so that no key is ever twice in the table, then the line they write. Both by a
//! few attempts: a writer that finds another at work gives up ([`Outcome::Busy`]). Nobody waits, so nothing
//! can deadlock.

use super::atomic::{Outcome, fold, mix, relax};
use super::sync::{AtomicU32, AtomicU64, Ordering, fence};
use crate::prefetch::prefetch;

/// A key. Not all zero: that is a free line.
pub type Key = [u64; 3];
/// A value.
pub type Value = [u64; 2];

/// Lines a key may live in. At half load, which is all that is allowed, a window of eight is full once in
/// 256 homes; a key that finds it so is refused.
pub const WINDOW: usize = if cfg!(loom) { 2 } else { 8 };
/// Lines for each entry that is promised room.
const LINES_AN_ENTRY: usize = 2;
/// Attempts of a reader at a line that is being written.
const READ_ATTEMPTS: usize = 8;
/// Attempts of a writer at a lock. A lock is held for some tens of nanoseconds.
const LOCK_ATTEMPTS: usize = if cfg!(loom) { 1 } else { 64 };

#[derive(Debug)]
#[repr(align(64))]
pub(super) struct Line {
    sequence: AtomicU32,
    lock: AtomicU32,
    key: [AtomicU64; 3],
    value: [AtomicU64; 2],
}

/// What a closure wants done with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// Nothing.
    Keep,
    /// This value, new or instead of the old one.
    Put(Value),
    /// The key gone.
    Remove,
}

/// Bytes of a line.
pub const LINE_BYTES: usize = size_of::<Line>();

/// See the module.
#[derive(Debug)]
pub struct WideTable {
    pub(super) lines: Box<[Line]>,
    pub(super) seed: [u64; 2],
}

impl WideTable {
    /// A table that holds `entries` keys at half load.
    pub fn new(entries: usize, seed: [u64; 2]) -> Self {
        let line = |_| Line {
            sequence: AtomicU32::new(0),
            lock: AtomicU32::new(0),
            key: std::array::from_fn(|_| AtomicU64::new(0)),
            value: std::array::from_fn(|_| AtomicU64::new(0)),
        };
        let lines = (entries * LINES_AN_ENTRY).max(WINDOW);
        Self { lines: (0..lines).map(line).collect(), seed: [mix(seed[0]), mix(seed[1]) | 1] }
    }

    /// Lines; [`WideTable::scan`] takes a range of them.
    pub fn lines(&self) -> usize {
        self.lines.len()
    }

    /// Where the keys of `key`'s kind begin. A secret seed keeps a hostile sender from choosing addresses
    /// that share a window.
    #[inline(always)]
    pub fn home(&self, [high, low, tail]: Key) -> u32 {
        let address = fold(high ^ self.seed[0], low ^ self.seed[1]);
        let word = fold(address ^ tail, self.seed[1]);
        ((u128::from(word) * self.lines.len() as u128) >> 64) as u32
    }

    /// Asks for a line: [`WideTable::get`] will read it.
    #[inline(always)]
    pub fn touch(&self, home: u32) {
        prefetch(self.lines.as_ptr().wrapping_add(home as usize));
    }

    #[inline(always)]
    fn window(&self, home: u32) -> impl Iterator<Item = &Line> {
        let (before, from) = self.lines.split_at(home as usize);
        from.iter().chain(before).take(WINDOW)
    }

    /// The value of `key`, whose home is `home`. Nearly every key lives in its home itself: one line, and no loop.
    #[inline(always)]
    pub fn get(&self, home: u32, key: Key) -> Option<Value> {
        match self.lines.get(home as usize)?.read_once() {
            Some((present, value)) if is_same(present, key) => Some(value),
            // In parts, so that the common case is not handed on in memory only because this one is.
            _ => self.get_slowly(home, key).map(|(high, low)| [high, low]),
        }
    }

    /// The key lives further on, or a writer was at work.
    #[cold]
    #[inline(never)]
    fn get_slowly(&self, home: u32, key: Key) -> Option<(u64, u64)> {
        self.window(home).find_map(|line| line.value_of(key)).map(|[high, low]| (high, low))
    }

    /// Decides about `key` while no other writer can: `decide` sees the present value.
    pub fn update(&self, key: Key, decide: impl FnOnce(Option<Value>) -> Want) -> Outcome {
        debug_assert!(key != [0; 3]);
        let at = self.home(key);
        let home = &self.lines[at as usize];
        if !home.lock() {
            return Outcome::Busy;
        }
        let outcome = self.update_locked(at, key, decide);
        home.lock.store(0, Ordering::Release);
        outcome
    }

    fn update_locked(&self, home: u32, key: Key, decide: impl FnOnce(Option<Value>) -> Want) -> Outcome {
        let found = self.window(home).find_map(|line| Some((line, line.value_of(key)?)));
        match (decide(found.map(|(_, value)| value)), found) {
            (Want::Keep, _) | (Want::Remove, None) => Outcome::Kept,
            (Want::Put(value), Some((line, _))) => line.write(key, key, value),
            (Want::Remove, Some((line, _))) => line.write(key, [0; 3], [0; 2]),
            (Want::Put(value), None) => {
                let free = self.window(home).filter(|line| line.key() == [0; 3]);
                // Another home's writer may take it first: then the next one.
                let taken = free.map(|line| line.write([0; 3], key, value));
                let mut busy = false;
                for outcome in taken {
                    match outcome {
                        Outcome::Written => return Outcome::Written,
                        Outcome::Busy => busy = true,
                        Outcome::Kept | Outcome::Full => {}
                    }
                }
                if busy { Outcome::Busy } else { Outcome::Full }
            }
        }
    }

    /// What lives where the keys of this home do.
    pub fn around(&self, home: u32) -> impl Iterator<Item = (Key, Value)> {
        self.window(home).filter_map(Line::read).filter(|(key, _)| *key != [0; 3])
    }

    /// Every key and value in `range` of lines; what changes meanwhile may or may not be seen.
    pub fn scan(&self, range: std::ops::Range<usize>, mut visit: impl FnMut(Key, Value)) {
        let end = range.end.min(self.lines.len());
        for line in &self.lines[range.start.min(end)..end] {
            if let Some((key, value)) = line.read().filter(|(key, _)| *key != [0; 3]) {
                visit(key, value);
            }
        }
    }
}

/// Word by word: compared as arrays, the words just read would be stored and read again as one wide one, which waits for
/// the stores.
#[inline(always)]
fn is_same(a: Key, b: Key) -> bool {
    (a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2]) == 0
}

impl Line {
    fn lock(&self) -> bool {
        (0..LOCK_ATTEMPTS).any(|_| {
            let taken = self.lock.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed).is_ok();
            if !taken {
                relax();
            }
            taken
        })
    }

    #[inline(always)]
    fn key(&self) -> Key {
        std::array::from_fn(|i| self.key[i].load(Ordering::Acquire))
    }

    #[inline(always)]
    fn value_of(&self, key: Key) -> Option<Value> {
        self.read().filter(|(present, _)| is_same(*present, key)).map(|(_, value)| value)
    }

    #[inline(always)]
    fn read(&self) -> Option<(Key, Value)> {
        self.read_once().or_else(|| self.read_again())
    }

    #[inline(always)]
    fn read_once(&self) -> Option<(Key, Value)> {
        let before = self.sequence.load(Ordering::Acquire);
        let entry = (self.key(), std::array::from_fn(|i| self.value[i].load(Ordering::Acquire)));
        (before & 1 == 0 && self.sequence.load(Ordering::Relaxed) == before).then_some(entry)
    }

    #[cold]
    fn read_again(&self) -> Option<(Key, Value)> {
        (1..READ_ATTEMPTS).find_map(|_| {
            relax();
            self.read_once()
        })
    }

    /// The same in a line of its own, which nobody writes.
    pub(super) fn copy(&self) -> Self {
        let (key, value) = self.read().unwrap_or_default();
        Self {
            sequence: AtomicU32::new(0),
            lock: AtomicU32::new(0),
            key: key.map(AtomicU64::new),
            value: value.map(AtomicU64::new),
        }
    }

    /// Writes an entry over `before`, if that is what stands here.
    fn write(&self, before: Key, key: Key, value: Value) -> Outcome {
        let sequence = self.sequence.load(Ordering::Relaxed);
        let locked = sequence & 1 == 0
            && self
                .sequence
                .compare_exchange(sequence, sequence.wrapping_add(1), Ordering::Acquire, Ordering::Relaxed)
                .is_ok();
        if !locked {
            return Outcome::Busy;
        }
        // The odd sequence is visible to whoever sees one of the stores that follow.
        fence(Ordering::Release);
        let fits = self.key() == before;
        if fits {
            self.key.iter().zip(key).for_each(|(place, word)| place.store(word, Ordering::Release));
            self.value.iter().zip(value).for_each(|(place, word)| place.store(word, Ordering::Release));
        }
        self.sequence.store(sequence.wrapping_add(2), Ordering::Release);
        if fits { Outcome::Written } else { Outcome::Kept }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    proptest! {
        /// The dull twin is a map; a key may be refused only when its window is full.
        #[test]
        fn does_what_a_map_does(ops in proptest::collection::vec((1u64..40, 0u8..4, any::<u64>()), 0..400), seed: u64) {
            let table = WideTable::new(16, [seed, !seed]);
            let mut twin: HashMap<u64, Value> = HashMap::new();
            for (n, op, word) in ops {
                let key = [n, n % 3, 1];
                let outcome = table.update(key, |present| {
                    assert_eq!(present, twin.get(&n).copied());
                    match op { 0 => Want::Remove, 1 => Want::Keep, _ => Want::Put([word, n]) }
                });
                match outcome {
                    Outcome::Written if op == 0 => { prop_assert!(twin.remove(&n).is_some()); }
                    Outcome::Written => { twin.insert(n, [word, n]); }
                    Outcome::Kept => prop_assert!(op < 2),
                    Outcome::Full => {
                        let home = table.home(key);
                        prop_assert!(table.window(home).all(|line| line.key() != [0; 3]));
                    }
                    Outcome::Busy => prop_assert!(false, "nobody else is there"),
                }
                for n in 1..40 {
                    let key = [n, n % 3, 1];
                    prop_assert_eq!(table.get(table.home(key), key), twin.get(&n).copied());
                }
            }
            let mut seen = HashMap::new();
            table.scan(0..table.lines(), |key, value| { seen.insert(key[0], value); });
            prop_assert_eq!(seen, twin);
        }
    }

    #[test]
    fn a_full_table_refuses_few_and_loses_none() {
        let table = WideTable::new(4096, [5, 9]);
        let refused = (1..=4096u64)
            .filter(|n| table.update([0, 0xffff_0a00_0000 + n, 7], |_| Want::Put([*n, 0])) == Outcome::Full);
        let refused = refused.count();
        assert!(refused < 41, "{refused} of 4096 were refused");
        let mut entries = 0;
        table.scan(0..table.lines(), |_, _| entries += 1);
        assert_eq!(entries, 4096 - refused);
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::sync::Arc;
    use loom::thread;

    const A: Key = [0, 1, 1];

    /// Interruptions of one thread by another: of three, which loom's documentation takes to be enough, all orders. Without a limit the first of
    /// these tests has a million executions that found nothing that some twenty thousand do not find.
    const PREEMPTIONS: usize = 3;

    fn explore(name: &str, body: impl Fn() + Sync + Send + 'static) {
        let executions = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let counter = executions.clone();
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(PREEMPTIONS);
        model.check(move || {
            counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            body();
        });
        println!("{name}: {} executions", executions.load(std::sync::atomic::Ordering::Relaxed));
    }

    /// A value is whole: both of its words are of one writing.
    #[test]
    fn loom_a_reader_of_the_wide_table_sees_a_whole_value() {
        explore("a_reader_of_the_wide_table_sees_a_whole_value", || {
            let table = Arc::new(WideTable::new(1, [1, 2]));
            assert_eq!(table.update(A, |_| Want::Put([1, 1])), Outcome::Written);
            let reader = table.clone();
            let seen = thread::spawn(move || reader.get(reader.home(A), A));
            table.update(A, |_| Want::Put([2, 2]));
            let seen = seen.join().unwrap();
            assert!(matches!(seen, None | Some([1, 1] | [2, 2])), "a torn value: {seen:?}");
            assert_eq!(table.get(table.home(A), A), Some([2, 2]));
        });
    }

    /// Two writers of one key: one of them may give up, the key is there once.
    #[test]
    fn loom_two_writers_of_the_wide_table_make_one_entry() {
        explore("two_writers_of_the_wide_table_make_one_entry", || {
            let table = Arc::new(WideTable::new(1, [1, 2]));
            let other = table.clone();
            let thread = thread::spawn(move || _ = other.update(A, |_| Want::Put([1, 1])));
            table.update(A, |_| Want::Put([2, 2]));
            thread.join().unwrap();
            let mut seen = 0;
            table.scan(0..table.lines(), |_, _| seen += 1);
            assert_eq!(seen, 1, "the key is twice in the table");
        });
    }
}
