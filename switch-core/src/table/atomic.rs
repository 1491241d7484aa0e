//! The one concurrent table: one word of key, half a word of value, shared by all workers.
//!
//! # Layout
//! A bucket is one cache line: five keys, five values, and a control word that holds a lock bit, a sequence
//! and a count of *spilled* keys, which belong here but found no room. They live in one of [`WINDOW`] − 1
//! further buckets, a stride apart that the key chooses. A lookup reads one line, and more only while that
//! count says so. 0 is the empty key.
//!
//! # Readers
//! never write and never wait: read the control word, the line, the control word again; if it was locked or
//! moved, try again, a few times. Should a writer be stopped in the middle (a worker whose core was taken
//! away), the reader answers *not found* rather than spin: for a MAC that means one flooded frame.
//!
//! # Writers
//! lock the home bucket, then, if the entry lives elsewhere, that bucket too. Both by one attempt: a writer
//! that finds another at work gives up ([`Outcome::Busy`]) and learns from the next packet. Because every
//! writer of a key holds the key's home bucket, no key is ever twice in the table. Nobody waits for anybody,
//! so nothing can deadlock.

use super::sync::{AtomicU32, AtomicU64, Ordering, fence};
use crate::pages::Pages;
use crate::prefetch::{prefetch, prefetch_far};
use std::hint::select_unpredictable;

/// Entries of a bucket: with the control word they fill 64 bytes.
const SLOTS: usize = 5;
/// Entries for which a bucket is provided. At this load, three fifths, one key in 19 is not in its home; at
/// half of it, where a table spends its life, one in 270. A fuller table is a smaller one, but with four
/// fifths the keys that spilled cost more than the cache lines that were saved.
const SLOTS_USED: (usize, usize) = (3, 1);
/// Buckets a key may live in, its home first. With eight of them, 20 tables filled to the brim refused
/// one key in 200 000.
pub const WINDOW: usize = 8;
/// Fewest buckets: a home and its neighbour, and the others two or more apart.
const BUCKETS_MIN: usize = 2 * WINDOW;
/// Reads of one bucket before a reader gives up on a stopped writer.
const READ_ATTEMPTS: usize = 8;

/// An odd number that spreads small ones over all bits (2^64 by the golden ratio).
pub(crate) const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// In the control word: a writer is at work.
const LOCKED: u32 = 1;
/// In the control word: one spilled key. At most `SLOTS * (WINDOW - 1)` of them, 35, live elsewhere.
const SPILLED_ONE: u32 = 1 << 1;
const SPILLED: u32 = 0x3f << 1;
/// In the control word: one change. What is left, 25 bits, comes round only after 33 million changes of one
/// bucket within one read of it.
const CHANGED_ONE: u32 = 1 << 7;

#[derive(Debug)]
#[cfg_attr(not(loom), derive(zerocopy::FromZeros))]
#[repr(align(64))]
pub(super) struct Bucket {
    keys: [AtomicU64; SLOTS],
    values: [AtomicU32; SLOTS],
    control: AtomicU32,
}

/// A bucket is a cache line.
pub const BUCKET_BYTES: usize = 64;
const _: () = assert!(cfg!(loom) || size_of::<Bucket>() == BUCKET_BYTES);

/// What a bucket says of a key.
struct Reading {
    found: Option<u32>,
    /// Whether keys of this home live further on; only if the key is not here.
    spilled: bool,
}

/// The bucket that is a key's home, whose line was asked for: who asked reads it without looking for it again.
#[derive(Clone, Copy, Debug)]
pub struct Home<'a>(&'a Bucket);

/// Nobody knows whether a key is there: a writer was at work all the while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsure;

/// What a writer did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The closure's answer stands in the table.
    Written,
    /// The closure wanted no change.
    Kept,
    /// All places for this key are taken.
    Full,
    /// Another writer is at work in the same bucket.
    Busy,
}

/// What a closure wants done with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// Nothing.
    Keep,
    /// This value, new or instead of the old one.
    Put(u32),
    /// The key gone.
    Remove,
}

/// See the module.
#[derive(Debug)]
pub struct AtomicTable {
    pub(super) buckets: Pages<Bucket>,
    pub(super) seed: [u64; 2],
}

impl AtomicTable {
    /// A table with room for `entries` keys at the load we allow. `seed` keeps a hostile sender from
    /// choosing keys that share a bucket.
    pub fn new(entries: usize, seed: [u64; 2]) -> Self {
        let buckets = (entries * SLOTS_USED.1).div_ceil(SLOTS_USED.0);
        let buckets = buckets.next_multiple_of(2).max(BUCKETS_MIN);
        let seed = [mix(seed[0]), mix(seed[1]) | 1];
        Self { buckets: Pages::resident(buckets, Bucket::empty), seed }
    }

    /// Bytes it takes.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.buckets)
    }

    /// Buckets; [`AtomicTable::scan`] takes a range of them.
    pub fn buckets(&self) -> usize {
        self.buckets.len()
    }

    /// The bucket where `key` lives. Two rounds of multiply and fold: stations are numbered one after
    /// another, and one round leaves such keys in clusters for some seeds. The result is scaled to the
    /// number of buckets, which need not be a power of two.
    #[inline(always)]
    pub fn home(&self, key: u64) -> u32 {
        ((u128::from(self.scatter(key)) * self.buckets.len() as u128) >> 64) as u32
    }

    #[inline(always)]
    fn scatter(&self, key: u64) -> u64 {
        let mixed = (key ^ self.seed[0]).wrapping_mul(self.seed[1]);
        (mixed ^ (mixed >> 32)).wrapping_mul(SPREAD)
    }

    /// Asks for a bucket's line: [`AtomicTable::get`] will read it.
    #[inline(always)]
    pub fn touch(&self, home: u32) {
        prefetch(self.buckets.as_ptr().wrapping_add(home as usize));
    }

    /// The home of `key`, and asks for its line: [`AtomicTable::get_at`] will read it.
    #[inline(always)]
    pub fn approach(&self, key: u64) -> Home<'_> {
        let bucket = self.bucket(self.home(key));
        prefetch_far(bucket);
        Home(bucket)
    }

    #[inline(always)]
    fn bucket(&self, at: u32) -> &Bucket {
        &self.buckets[at as usize]
    }

    /// The buckets in which `key` may live, its home first. The second is the home's neighbour in a pair of
    /// lines, which processors like to fetch together. The others are a stride apart that is what the home
    /// left unused of the scattered key; more neighbours would grow into long runs of full buckets.
    fn places(&self, home: u32, key: u64) -> impl Iterator<Item = u32> {
        let len = self.buckets.len() as u64;
        let scattered = self.scatter(key) as u32;
        // Never the pair again: at least two on, and all the steps together less than once round.
        let stride = 2 + ((u64::from(scattered) * (len / WINDOW as u64 - 2)) >> 32);
        let stepped = move |step| {
            let at = u64::from(home) + step * stride;
            (if at < len { at } else { at - len }) as u32
        };
        [home, home ^ 1].into_iter().chain((1..WINDOW as u64 - 1).map(stepped))
    }

    /// The value of `key`, whose home is `home`.
    #[inline(always)]
    pub fn get(&self, home: u32, key: u64) -> Option<u32> {
        self.get_at(Home(self.bucket(home)), key)
    }

    /// The same with what [`AtomicTable::approach`] gave.
    #[inline(always)]
    pub fn get_at(&self, Home(bucket): Home, key: u64) -> Option<u32> {
        match bucket.read_once(key) {
            Some(Reading { found: Some(value), .. }) => Some(value),
            Some(Reading { spilled: false, .. }) => None,
            _ => self.get_slowly(key),
        }
    }

    /// The key may live further on, or a writer was at work.
    #[cold]
    fn get_slowly(&self, key: u64) -> Option<u32> {
        self.find(key).unwrap_or(None)
    }

    /// The value of `key`, or that it has none: for those to whom a writer at work is not the same as none.
    ///
    /// # Errors
    /// A writer does not get done where the key is, or would be.
    pub fn find(&self, key: u64) -> Result<Option<u32>, Unsure> {
        let home = self.home(key);
        for at in self.places(home, key) {
            let reading = self.bucket(at).read(key).ok_or(Unsure)?;
            if reading.found.is_some() || (at == home && !reading.spilled) {
                return Ok(reading.found);
            }
        }
        Ok(None)
    }

    /// Decides about `key` while no other writer can: `decide` sees the present value.
    pub fn update(&self, key: u64, decide: impl FnOnce(Option<u32>) -> Want) -> Outcome {
        debug_assert!(key != 0);
        let home = self.home(key);
        let bucket = self.bucket(home);
        let Some(control) = bucket.lock() else { return Outcome::Busy };
        let found = match bucket.slot_of(key) {
            Some(slot) => Some((home, slot)),
            None if control & SPILLED == 0 => None,
            None => self.places(home, key).find_map(|at| Some((at, self.bucket(at).slot_of(key)?))),
        };
        let (outcome, control) = self.update_locked(home, control, key, found, decide);
        bucket.unlock(control);
        outcome
    }

    /// The home bucket is locked by us and unlocked with the control word that is returned; a further one
    /// is locked for as long as it is written.
    fn update_locked(
        &self,
        home: u32,
        control: u32,
        key: u64,
        found: Option<(u32, usize)>,
        decide: impl FnOnce(Option<u32>) -> Want,
    ) -> (Outcome, u32) {
        let present = found.map(|(at, slot)| self.bucket(at).values[slot].load(Ordering::Relaxed));
        match (decide(present), found) {
            (Want::Keep, _) | (Want::Remove, None) => (Outcome::Kept, control),
            (Want::Put(value), Some((at, slot))) => {
                let put = |bucket: &Bucket| bucket.values[slot].store(value, Ordering::Release);
                (self.write(home, at, put), control)
            }
            (Want::Remove, Some((at, slot))) => {
                let outcome = self.write(home, at, |bucket| bucket.keys[slot].store(0, Ordering::Release));
                let comes_home = outcome == Outcome::Written && at != home;
                (outcome, if comes_home { control - SPILLED_ONE } else { control })
            }
            (Want::Put(value), None) => {
                let (outcome, spilled) = self.insert(home, key, value);
                (outcome, if spilled { control + SPILLED_ONE } else { control })
            }
        }
    }

    /// Into the first place that is free, and whether that is another bucket than the home.
    fn insert(&self, home: u32, key: u64, value: u32) -> (Outcome, bool) {
        for at in self.places(home, key) {
            // Looked at before it is locked: another home's writer may take the slot meanwhile.
            let Some(slot) = self.bucket(at).slot_of(0) else { continue };
            let mut slot = Some(slot);
            let outcome = self.write(home, at, |bucket| {
                slot = bucket.slot_of(0);
                if let Some(slot) = slot {
                    bucket.values[slot].store(value, Ordering::Release);
                    bucket.keys[slot].store(key, Ordering::Release);
                }
            });
            if outcome == Outcome::Busy || slot.is_some() {
                return (outcome, slot.is_some() && at != home && outcome == Outcome::Written);
            }
        }
        (Outcome::Full, false)
    }

    /// Writes to the bucket `at`: the home, which we hold, or another, held meanwhile.
    fn write(&self, home: u32, at: u32, write: impl FnOnce(&Bucket)) -> Outcome {
        let bucket = self.bucket(at);
        if at == home {
            write(bucket);
            return Outcome::Written;
        }
        let Some(control) = bucket.lock() else { return Outcome::Busy };
        write(bucket);
        bucket.unlock(control);
        Outcome::Written
    }

    /// Every key and value in `range` of buckets; what changes meanwhile may or may not be seen, and a
    /// bucket whose writer was stopped is passed over.
    pub fn scan(&self, range: std::ops::Range<usize>, mut visit: impl FnMut(u64, u32)) {
        let end = range.end.min(self.buckets.len());
        for bucket in &self.buckets[range.start.min(end)..end] {
            let entries = bucket.snapshot().unwrap_or_default();
            entries.into_iter().filter(|(key, _)| *key != 0).for_each(|(key, value)| visit(key, value));
        }
    }
}

impl Bucket {
    pub(super) fn empty() -> Self {
        Self {
            keys: std::array::from_fn(|_| AtomicU64::new(0)),
            values: std::array::from_fn(|_| AtomicU32::new(0)),
            control: AtomicU32::new(0),
        }
    }

    /// One attempt to become the only writer; the control word as it was.
    fn lock(&self) -> Option<u32> {
        let control = self.control.load(Ordering::Relaxed);
        let locked = control & LOCKED == 0
            && self
                .control
                .compare_exchange(control, control | LOCKED, Ordering::Acquire, Ordering::Relaxed)
                .is_ok();
        // The lock bit is visible to whoever sees one of the stores that follow.
        fence(Ordering::Release);
        locked.then_some(control)
    }

    /// `control` is what [`Bucket::lock`] gave, with another count of spilled keys perhaps.
    fn unlock(&self, control: u32) {
        self.control.store(control.wrapping_add(CHANGED_ONE), Ordering::Release);
    }

    /// For the writer that holds the key's home: nobody else moves this key.
    fn slot_of(&self, key: u64) -> Option<usize> {
        self.keys.iter().position(|stored| stored.load(Ordering::Relaxed) == key)
    }

    /// What is here of `key`; none if a writer did not get done.
    fn read(&self, key: u64) -> Option<Reading> {
        for _ in 0..READ_ATTEMPTS {
            if let Some(reading) = self.read_once(key) {
                return Some(reading);
            }
            relax();
        }
        None
    }

    /// One attempt; none if a writer was at work. All keys are compared, and the one that fits is picked
    /// without a branch: which slot it is cannot be predicted.
    #[inline(always)]
    fn read_once(&self, key: u64) -> Option<Reading> {
        let before = self.control.load(Ordering::Acquire);
        let mut place = SLOTS;
        for (slot, stored) in self.keys.iter().enumerate() {
            place = select_unpredictable(stored.load(Ordering::Acquire) == key, slot, place);
        }
        let found = self.values.get(place).map(|value| value.load(Ordering::Acquire));
        let is_whole = before & LOCKED == 0 && self.control.load(Ordering::Relaxed) == before;
        is_whole.then_some(Reading { found, spilled: before & SPILLED != 0 })
    }

    /// The same in a bucket of its own, unlocked.
    pub(super) fn copy(&self) -> Self {
        // Before the entries: keys that spill meanwhile are not looked for, and that is all.
        let control = self.control.load(Ordering::Acquire) & !LOCKED;
        let entries = self.snapshot().unwrap_or_default();
        Self {
            keys: entries.map(|(key, _)| AtomicU64::new(key)),
            values: entries.map(|(_, value)| AtomicU32::new(value)),
            control: AtomicU32::new(control),
        }
    }

    fn snapshot(&self) -> Option<[(u64, u32); SLOTS]> {
        for _ in 0..READ_ATTEMPTS {
            let before = self.control.load(Ordering::Acquire);
            let entries = std::array::from_fn(|slot| {
                (self.keys[slot].load(Ordering::Acquire), self.values[slot].load(Ordering::Acquire))
            });
            if before & LOCKED == 0 && self.control.load(Ordering::Relaxed) == before {
                return Some(entries);
            }
            relax();
        }
        None
    }
}

/// Spreads a seed over all 64 bits (the finisher of splitmix64): a small one would make neighbouring keys
/// neighbours in the table.
pub(crate) fn mix(seed: u64) -> u64 {
    let seed = seed.wrapping_add(SPREAD);
    let seed = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let seed = (seed ^ (seed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    seed ^ (seed >> 31)
}

/// Multiply and fold: every bit of the result depends on every bit of both. With a secret on each, whoever does not know
/// them cannot choose words that meet.
#[inline(always)]
pub(crate) fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product >> 64) as u64 ^ product as u64
}

pub(super) fn relax() {
    #[cfg(loom)]
    loom::thread::yield_now();
    #[cfg(not(loom))]
    std::hint::spin_loop();
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    proptest! {
        /// The dull twin is a HashMap. Few keys and a small table, so that buckets spill.
        #[test]
        fn does_what_a_map_does(ops in proptest::collection::vec((1u64..60, 0u8..4, any::<u32>()), 0..600), seed: [u64; 2]) {
            let table = AtomicTable::new(20, seed);
            let mut twin: HashMap<u64, u32> = HashMap::new();
            for (key, op, value) in ops {
                let want = match op { 0 => Want::Remove, 1 => Want::Keep, _ => Want::Put(value) };
                let mut seen = None;
                let outcome = table.update(key, |present| { seen = present; want });
                prop_assert_eq!(seen, twin.get(&key).copied());
                match (want, outcome) {
                    (Want::Put(value), Outcome::Written) => { twin.insert(key, value); }
                    (Want::Put(_), Outcome::Full) => prop_assert!(!twin.contains_key(&key)),
                    (Want::Remove, Outcome::Written) => prop_assert!(twin.remove(&key).is_some()),
                    (Want::Remove, Outcome::Kept) => prop_assert!(!twin.contains_key(&key)),
                    (want, outcome) => prop_assert_eq!((want, outcome), (Want::Keep, Outcome::Kept)),
                }
                for key in 1..60 {
                    prop_assert_eq!(table.get(table.home(key), key), twin.get(&key).copied());
                }
            }
            let mut all = HashMap::new();
            table.scan(0..table.buckets(), |key, value| assert!(all.insert(key, value).is_none(), "twice in the table"));
            prop_assert_eq!(&all, &twin);
        }
    }

    #[test]
    fn a_full_table_fits_for_any_seed() {
        const ENTRIES: u64 = 10_000;
        let mut refused = 0;
        for seed in 0..20u64 {
            let table = AtomicTable::new(ENTRIES as usize, [seed, seed]);
            // Stations as container runtimes number them: a few prefixes, the rest counted up.
            let station = |i: u64| ((0x0200_0000_0000 | ((i % 2) << 32) | (i / 2)) << 16) | 1;
            refused += (1..=ENTRIES)
                .filter(|i| table.update(station(*i), |_| Want::Put(1)) == Outcome::Full)
                .count();
            let spilled = table.buckets.iter().map(|bucket| bucket.control.load(Ordering::Relaxed) & SPILLED);
            let spilled = spilled.sum::<u32>() / SPILLED_ONE;
            assert!(spilled < ENTRIES as u32 / 15, "seed {seed}: {spilled} are not at home");
        }
        // Those that find none are counted and flooded.
        assert!(refused <= 2, "{refused} of 200 000");
    }

    #[test]
    fn a_stopped_writer_costs_a_miss_not_a_hang() {
        let table = AtomicTable::new(8, [1, 2]);
        table.update(5, |_| Want::Put(9));
        let control = table.bucket(table.home(5)).lock().unwrap();
        assert_eq!(table.get(table.home(5), 5), None);
        assert_eq!(table.update(5, |_| Want::Put(1)), Outcome::Busy);
        table.bucket(table.home(5)).unlock(control);
        assert_eq!(table.get(table.home(5), 5), Some(9));
    }
}

/// Run with `cargo test --workspace --test races loom_`.
#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::sync::Arc;
    use loom::thread;

    fn explore(name: &str, body: impl Fn() + Sync + Send + 'static) {
        let executions = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let counter = executions.clone();
        let mut model = loom::model::Builder::new();
        model.preemption_bound = None;
        model.check(move || {
            counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            body();
        });
        println!("{name}: {} executions", executions.load(std::sync::atomic::Ordering::Relaxed));
    }

    /// A reader sees a whole entry or none: a value never belongs to another key.
    #[test]
    fn loom_reader_sees_no_torn_entry() {
        explore("reader_sees_no_torn_entry", || {
            let table = Arc::new(AtomicTable::new(1, [0, 0]));
            assert_eq!(table.update(4, |_| Want::Put(40)), Outcome::Written);
            let reader = table.clone();
            let seen = thread::spawn(move || reader.get(reader.home(4), 4));
            table.update(4, |_| Want::Remove);
            table.update(table.twin_of(4), |_| Want::Put(80));
            assert!(matches!(seen.join().unwrap(), None | Some(40)), "a value of another key");
        });
    }

    /// Two writers of one key: it is in the table once, whoever was first.
    #[test]
    fn loom_two_writers_make_one_entry() {
        explore("two_writers_make_one_entry", || {
            let table = Arc::new(AtomicTable::new(1, [0, 0]));
            let other = table.clone();
            let handle = thread::spawn(move || other.update(4, |_| Want::Put(1)));
            let mine = table.update(4, |_| Want::Put(2));
            let theirs = handle.join().unwrap();
            assert!(mine == Outcome::Written || theirs == Outcome::Written);
            let mut entries = 0;
            table.scan(0..table.buckets(), |_, _| entries += 1);
            assert_eq!(entries, 1);
        });
    }

    impl AtomicTable {
        /// Another key with the same home, so that it takes the slot the first one leaves.
        fn twin_of(&self, key: u64) -> u64 {
            (key + 1..).find(|other| self.home(*other) == self.home(key)).unwrap_or(key)
        }
    }
}
