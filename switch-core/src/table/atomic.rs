//! The one concurrent table: one word of key, one word of value, shared by all workers.
//!
//! # Layout
//! A bucket is one cache line: a sequence word, three entries, and a count of keys that belong here but
//! found no room and live in one of the next [`WINDOW`] − 1 buckets. A lookup reads one line, and more
//! only while that count says so. 0 is the empty key.
//!
//! # Readers
//! never write and never wait: read the sequence, the line, the sequence again; if it was odd or moved,
//! try again, a few times. Should a writer be stopped in the middle (a worker whose core was taken
//! away), the reader answers *not found* rather than spin: for a MAC that means one flooded frame.
//!
//! # Writers
//! take the home bucket by making its sequence odd, then, if the entry lives elsewhere, that bucket too.
//! Both by one attempt: a writer that finds another at work gives up ([`Outcome::Busy`]) and learns from
//! the next packet. Because every writer of a key holds the key's home bucket, no key is ever twice in
//! the table. Nobody waits for anybody, so nothing can deadlock.

use super::sync::{AtomicU64, Ordering, fence};

/// Entries of a bucket: with sequence and spill count they fill 64 bytes.
const SLOTS: usize = 3;
/// Buckets a key may live in, its home first. At the load we allow (half the entries) one key in 14 is not
/// in its home, and with 8 buckets to go to fewer than one in 10 000 finds no place (with 4: one in 700).
pub const WINDOW: usize = 8;
/// Reads of one bucket before a reader gives up on a stopped writer.
const READ_ATTEMPTS: usize = 8;

#[derive(Debug)]
#[repr(align(64))]
struct Bucket {
    sequence: AtomicU64,
    keys: [AtomicU64; SLOTS],
    values: [AtomicU64; SLOTS],
    spilled: AtomicU64,
}

/// What a bucket says of a key.
struct Reading {
    found: Option<u64>,
    /// Keys of this home that live further on; read only if the key is not here.
    spilled: u64,
}

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
    Put(u64),
    /// The key gone.
    Remove,
}

/// See the module.
#[derive(Debug)]
pub struct AtomicTable {
    buckets: Box<[Bucket]>,
    seed: [u64; 2],
}

impl AtomicTable {
    /// A table with room for `entries` keys at half load. `seed` keeps a hostile sender from choosing
    /// keys that share a bucket.
    pub fn new(entries: usize, seed: [u64; 2]) -> Self {
        let buckets = (entries * 2).div_ceil(SLOTS).max(WINDOW);
        let zeros = || std::array::from_fn(|_| AtomicU64::new(0));
        let bucket = |_| Bucket {
            sequence: AtomicU64::new(0),
            keys: zeros(),
            values: zeros(),
            spilled: AtomicU64::new(0),
        };
        let seed = [mix(seed[0]), mix(seed[1]) | 1];
        Self { buckets: (0..buckets).map(bucket).collect(), seed }
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
        let mixed = (key ^ self.seed[0]).wrapping_mul(self.seed[1]);
        let mixed = (mixed ^ (mixed >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        ((u128::from(mixed) * self.buckets.len() as u128) >> 64) as u32
    }

    /// Brings a bucket's line into the cache. A plain load whose result nobody waits for: a batch of
    /// these overlaps its cache misses, which is what a prefetch instruction would do.
    #[inline(always)]
    pub fn touch(&self, home: u32) {
        std::hint::black_box(self.buckets[home as usize].sequence.load(Ordering::Relaxed));
    }

    #[inline(always)]
    fn bucket(&self, home: u32, step: usize) -> &Bucket {
        let at = home as usize + step;
        let len = self.buckets.len();
        &self.buckets[if at < len { at } else { at - len }]
    }

    /// The value of `key`, whose home is `home`.
    #[inline(always)]
    pub fn get(&self, home: u32, key: u64) -> Option<u64> {
        match self.buckets[home as usize].read_once(key) {
            Some(Reading { found: Some(value), .. }) => Some(value),
            Some(Reading { spilled: 0, .. }) => None,
            _ => self.get_slowly(home, key),
        }
    }

    /// The key may live further on, or a writer was at work.
    #[cold]
    fn get_slowly(&self, home: u32, key: u64) -> Option<u64> {
        for step in 0..WINDOW {
            let reading = self.bucket(home, step).read(key)?;
            if reading.found.is_some() || (step == 0 && reading.spilled == 0) {
                return reading.found;
            }
        }
        None
    }

    /// Decides about `key` while no other writer can: `decide` sees the present value.
    pub fn update(&self, key: u64, decide: impl FnOnce(Option<u64>) -> Want) -> Outcome {
        debug_assert!(key != 0);
        let home = self.home(key);
        let bucket = self.bucket(home, 0);
        if !bucket.lock() {
            return Outcome::Busy;
        }
        let outcome = self.update_locked(home, key, decide);
        bucket.unlock();
        outcome
    }

    /// The home bucket is locked by us; a further one is locked for as long as it is written.
    fn update_locked(&self, home: u32, key: u64, decide: impl FnOnce(Option<u64>) -> Want) -> Outcome {
        let found = (0..WINDOW).find_map(|step| {
            let slot = self.bucket(home, step).slot_of(key)?;
            Some((step, slot))
        });
        let present = found.map(|(step, slot)| self.bucket(home, step).values[slot].load(Ordering::Relaxed));
        match (decide(present), found) {
            (Want::Keep, _) | (Want::Remove, None) => Outcome::Kept,
            (Want::Put(value), Some((step, slot))) => {
                self.write(home, step, |bucket| bucket.values[slot].store(value, Ordering::Release))
            }
            (Want::Remove, Some((step, slot))) => {
                let outcome = self.write(home, step, |bucket| bucket.keys[slot].store(0, Ordering::Release));
                if outcome == Outcome::Written && step > 0 {
                    self.spill(home, u64::MAX);
                }
                outcome
            }
            (Want::Put(value), None) => self.insert(home, key, value),
        }
    }

    fn insert(&self, home: u32, key: u64, value: u64) -> Outcome {
        for step in 0..WINDOW {
            let bucket = self.bucket(home, step);
            if step > 0 && !bucket.lock() {
                return Outcome::Busy;
            }
            let slot = bucket.slot_of(0);
            if let Some(slot) = slot {
                bucket.values[slot].store(value, Ordering::Release);
                bucket.keys[slot].store(key, Ordering::Release);
            }
            if step > 0 {
                bucket.unlock();
            }
            if slot.is_some() {
                if step > 0 {
                    self.spill(home, 1);
                }
                return Outcome::Written;
            }
        }
        Outcome::Full
    }

    fn write(&self, home: u32, step: usize, write: impl FnOnce(&Bucket)) -> Outcome {
        let bucket = self.bucket(home, step);
        if step > 0 && !bucket.lock() {
            return Outcome::Busy;
        }
        write(bucket);
        if step > 0 {
            bucket.unlock();
        }
        Outcome::Written
    }

    /// Adds to the home's spill count, whose bucket we hold.
    fn spill(&self, home: u32, delta: u64) {
        let spilled = &self.bucket(home, 0).spilled;
        spilled.store(spilled.load(Ordering::Relaxed).wrapping_add(delta), Ordering::Release);
    }

    /// Every key and value in `range` of buckets; what changes meanwhile may or may not be seen, and a
    /// bucket whose writer was stopped is passed over.
    pub fn scan(&self, range: std::ops::Range<usize>, mut visit: impl FnMut(u64, u64)) {
        let end = range.end.min(self.buckets.len());
        for bucket in &self.buckets[range.start.min(end)..end] {
            let entries = bucket.snapshot().unwrap_or_default();
            entries.into_iter().filter(|(key, _)| *key != 0).for_each(|(key, value)| visit(key, value));
        }
    }
}

impl Bucket {
    /// One attempt to become the only writer.
    fn lock(&self) -> bool {
        let sequence = self.sequence.load(Ordering::Relaxed);
        let locked = sequence & 1 == 0
            && self
                .sequence
                .compare_exchange(sequence, sequence + 1, Ordering::Acquire, Ordering::Relaxed)
                .is_ok();
        // The odd sequence is visible to whoever sees one of the stores that follow.
        fence(Ordering::Release);
        locked
    }

    fn unlock(&self) {
        let sequence = self.sequence.load(Ordering::Relaxed);
        self.sequence.store(sequence + 1, Ordering::Release);
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

    /// One attempt; none if a writer was at work.
    #[inline(always)]
    fn read_once(&self, key: u64) -> Option<Reading> {
        let before = self.sequence.load(Ordering::Acquire);
        let slot = (0..SLOTS).find(|slot| self.keys[*slot].load(Ordering::Acquire) == key);
        let reading = match slot {
            Some(slot) => Reading { found: Some(self.values[slot].load(Ordering::Acquire)), spilled: 0 },
            None => Reading { found: None, spilled: self.spilled.load(Ordering::Acquire) },
        };
        (before & 1 == 0 && self.sequence.load(Ordering::Relaxed) == before).then_some(reading)
    }

    fn snapshot(&self) -> Option<[(u64, u64); SLOTS]> {
        for _ in 0..READ_ATTEMPTS {
            let before = self.sequence.load(Ordering::Acquire);
            let entries = std::array::from_fn(|slot| {
                (self.keys[slot].load(Ordering::Acquire), self.values[slot].load(Ordering::Acquire))
            });
            if before & 1 == 0 && self.sequence.load(Ordering::Relaxed) == before {
                return Some(entries);
            }
            relax();
        }
        None
    }
}

/// Spreads a seed over all 64 bits (the finisher of splitmix64): a small one would make neighbouring keys
/// neighbours in the table.
fn mix(seed: u64) -> u64 {
    let seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let seed = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let seed = (seed ^ (seed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    seed ^ (seed >> 31)
}

fn relax() {
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
        fn does_what_a_map_does(ops in proptest::collection::vec((1u64..40, 0u8..4, any::<u64>()), 0..400), seed: [u64; 2]) {
            let table = AtomicTable::new(20, seed);
            let mut twin: HashMap<u64, u64> = HashMap::new();
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
                for key in 1..40 {
                    prop_assert_eq!(table.get(table.home(key), key), twin.get(&key).copied());
                }
            }
            let mut all = HashMap::new();
            table.scan(0..table.buckets(), |key, value| assert!(all.insert(key, value).is_none(), "twice in the table"));
            prop_assert_eq!(&all, &twin);
        }
    }

    #[test]
    fn half_load_fits_for_any_seed() {
        for seed in 0..20u64 {
            let table = AtomicTable::new(10_000, [seed, seed]);
            // Stations as container runtimes number them: a few prefixes, the rest counted up.
            let station = |i: u64| ((0x0200_0000_0000 | ((i % 2) << 32) | (i / 2)) << 16) | 1;
            let put = |i: &u64| table.update(station(*i), |_| Want::Put(1)) == Outcome::Full;
            let full = (1..=10_000u64).filter(put);
            // Those that find none are counted and flooded.
            let full = full.count();
            assert!(full <= 3, "seed {seed}: {full} of 10 000");
        }
    }

    #[test]
    fn a_stopped_writer_costs_a_miss_not_a_hang() {
        let table = AtomicTable::new(8, [1, 2]);
        table.update(5, |_| Want::Put(9));
        assert!(table.bucket(table.home(5), 0).lock());
        assert_eq!(table.get(table.home(5), 5), None);
        assert_eq!(table.update(5, |_| Want::Put(1)), Outcome::Busy);
        table.bucket(table.home(5), 0).unlock();
        assert_eq!(table.get(table.home(5), 5), Some(9));
    }
}

/// Run with `RUSTFLAGS="--cfg loom" cargo test -p switch-core --release loom_`.
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
