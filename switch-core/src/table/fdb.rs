//! The filtering database (IEEE 802.1Q §8.8): which port a station is behind.
//!
//! The key is MAC and *filtering identifier* in one word; the identifier stands for a bridge and a VLAN.
//! The value is port, flags and the second in which the station was last heard from. A station that is
//! heard again from the same port costs a read; the second is written at most once a second.
//!
//! **Fairness.** The table never evicts a living entry. An eighth of it is dealt out evenly, the rest is
//! shared by whoever comes first: a port below its share can always learn, whatever the others do.
//!
//! **Forgetting.** A port that goes takes its stations with it ([`Fdb::forget`]). Of each port the first few keys are
//! noted, so that nobody has to look through the whole table for the one station of a pod; a count of what is behind it says
//! whether there was more.

use super::atomic::{AtomicTable, Outcome, Want};
use super::sync::{AtomicU32, AtomicU64, Ordering};

/// In the value: the second, modulo this (24 days), where it was last heard from.
const SECONDS: u32 = 1 << 21;
/// In the value: a static entry.
const STATIC: u32 = SECONDS;
/// In the value: the port is above this bit.
const PORT_SHIFT: u32 = 22;
/// Ports that a value can name.
pub const PORTS_NAMED: usize = 1 << (32 - PORT_SHIFT);
/// The oldest age that can be told from a second that lies ahead. Ageing takes less than this
/// (at most 1 000 000 s), and the sweep that removes old entries comes round every few seconds.
const AGE_MAX_S: u32 = SECONDS / 2;

/// How many MACs may be learned; made anew with every snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// All entries together.
    pub table: u32,
    /// What every port may learn whatever the others do.
    pub share: u32,
}

/// This part of the table is dealt out evenly. With the default table and 250 ports that is 65 stations
/// for each of them: more than a pod has.
const DEALT_PART: u32 = 8;

impl Limits {
    /// For a table of so many entries and so many ports.
    pub fn new(table: u32, ports: usize) -> Self {
        Self { table, share: table / DEALT_PART / ports.max(1) as u32 }
    }

    /// What is shared by whoever comes first. Beyond it a port learns its own share, and nothing more: for most, the table is full then.
    pub fn shared(self) -> u32 {
        self.table - self.table / DEALT_PART
    }
}

/// What learning came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learned {
    /// Known and fresh: nothing written.
    Known,
    /// Known; its second was written.
    Refreshed,
    /// New.
    New,
    /// Was behind another port until now.
    Moved {
        /// That port.
        from: u16,
    },
    /// Declared to be behind another port: the frame is not what it says.
    Pinned,
    /// The port has learned as many as it may.
    PortLimit,
    /// The table has no room for it.
    Full,
    /// Another worker writes next to it; the next packet will do.
    Busy,
}

/// One entry, unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Port number.
    pub port: u16,
    /// Never aged, never moved.
    pub is_static: bool,
    /// Second in which it was last heard from, modulo [`SECONDS`].
    stamp: u32,
}

impl Entry {
    fn learned(port: u16, now_s: u32) -> Self {
        Self { port, is_static: false, stamp: now_s % SECONDS }
    }

    fn pinned(port: u16) -> Self {
        Self { port, is_static: true, stamp: 0 }
    }

    fn pack(self) -> u32 {
        self.stamp | u32::from(self.port) << PORT_SHIFT | if self.is_static { STATIC } else { 0 }
    }

    #[inline(always)]
    fn unpack(word: u32) -> Self {
        Self { port: (word >> PORT_SHIFT) as u16, is_static: word & STATIC != 0, stamp: word % SECONDS }
    }

    /// Seconds since it was last heard from. A second that lies ahead (another worker's clock reading) is
    /// now.
    #[inline(always)]
    pub fn age_s(self, now_s: u32) -> u32 {
        let age_s = now_s.wrapping_sub(self.stamp) % SECONDS;
        if age_s < AGE_MAX_S { age_s } else { 0 }
    }

    /// Whether nobody heard from it for `ageing_s`.
    #[inline(always)]
    pub fn is_old(self, now_s: u32, ageing_s: u32) -> bool {
        !self.is_static && self.age_s(now_s) > ageing_s
    }
}

/// MAC and filtering identifier in one word. Never 0 for a real station: its MAC is not all zero.
#[inline(always)]
pub fn key(mac: u64, fid: u16) -> u64 {
    mac << 16 | u64::from(fid)
}

/// The reverse of [`key`].
pub fn unkey(key: u64) -> (u64, u16) {
    (key >> 16, key as u16)
}

/// Keys that are noted of a port: of a pod with a second interface, or one that was given another MAC, all of them.
const NOTED: usize = 4;
/// Filtering identifiers are counted in so many counters: those that share one are looked for together.
const FID_COUNTS: usize = 4096;

/// The first keys that came to be behind a port.
#[derive(Debug, Default)]
pub(super) struct Notes {
    /// How many there were, if they were more than are noted.
    count: AtomicU32,
    /// 0: not written yet.
    keys: [AtomicU64; NOTED],
}

impl Notes {
    fn add(&self, key: u64) {
        if self.keys().any(|noted| noted == key) {
            return;
        }
        let at = self.count.load(Ordering::Relaxed) as usize;
        // Two that came at once may want one place: the count of the port's stations tells that one is missing.
        if let Some(place) = self.keys.get(at) {
            place.store(key, Ordering::Relaxed);
            self.count.store(at as u32 + 1, Ordering::Relaxed);
        }
    }

    fn keys(&self) -> impl Iterator<Item = u64> {
        let count = self.count.load(Ordering::Relaxed) as usize;
        self.keys.iter().take(count).map(|key| key.load(Ordering::Relaxed))
    }

    fn clear(&self) {
        self.count.store(0, Ordering::Relaxed);
    }
}

/// See the module.
#[derive(Debug)]
pub struct Fdb {
    pub(super) table: AtomicTable,
    pub(super) entries: AtomicU32,
    pub(super) learned: Box<[AtomicU32]>,
    pub(super) notes: Box<[Notes]>,
    pub(super) by_fid: Box<[AtomicU32]>,
    pub(super) epoch: AtomicU64,
}

impl Fdb {
    /// Room for `entries` MACs behind ports `0..ports`.
    pub fn new(entries: usize, ports: usize, seed: [u64; 2]) -> Self {
        assert!(ports <= PORTS_NAMED);
        Self {
            table: AtomicTable::new(entries, seed),
            entries: AtomicU32::new(0),
            learned: (0..ports).map(|_| AtomicU32::new(0)).collect(),
            notes: (0..ports).map(|_| Notes::default()).collect(),
            by_fid: (0..FID_COUNTS).map(|_| AtomicU32::new(0)).collect(),
            epoch: AtomicU64::new(0),
        }
    }

    /// Where a key's entry lives; pass it to [`Fdb::learn`] and [`Fdb::lookup`].
    #[inline(always)]
    pub fn home(&self, key: u64) -> u32 {
        self.table.home(key)
    }

    /// See [`AtomicTable::touch`].
    #[inline(always)]
    pub fn touch(&self, home: u32) {
        self.table.touch(home);
    }

    /// The port of `key`, unless it has not been heard from for `ageing_s`.
    #[inline(always)]
    pub fn lookup(&self, home: u32, key: u64, now_s: u32, ageing_s: u32) -> Option<u16> {
        let entry = Entry::unpack(self.table.get(home, key)?);
        (!entry.is_old(now_s, ageing_s)).then_some(entry.port)
    }

    /// The last second in which [`Fdb::lookup`] will say the same of `key` as now, if nobody changes it: then the epoch is another.
    pub fn until_s(&self, home: u32, key: u64, now_s: u32, ageing_s: u32) -> u32 {
        match self.table.get(home, key).map(Entry::unpack) {
            None => 0,
            Some(entry) if entry.is_static => u32::MAX,
            Some(entry) => (now_s + ageing_s).saturating_sub(entry.age_s(now_s)),
        }
    }

    /// Grows when a station is not any more where it was. Read it before what is to be remembered with it.
    #[inline(always)]
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Notes that `key` was heard from behind `port`.
    #[inline(always)]
    pub fn learn(
        &self,
        home: u32,
        key: u64,
        port: u16,
        now_s: u32,
        limit: Option<u32>,
        limits: Limits,
    ) -> Learned {
        // The two words that need nothing, for all packets of a port and a second the same.
        let (fresh, pinned) = (Entry::learned(port, now_s).pack(), Entry::pinned(port).pack());
        match self.table.get(home, key) {
            Some(word) if word == fresh || word == pinned => Learned::Known,
            _ => self.learn_slowly(key, port, now_s, limit, limits),
        }
    }

    #[cold]
    fn learn_slowly(&self, key: u64, port: u16, now_s: u32, limit: Option<u32>, limits: Limits) -> Learned {
        let mut learned = Learned::Known;
        let outcome = self.table.update(key, |present| {
            let fresh = Entry::learned(port, now_s).pack();
            learned = match present.map(Entry::unpack) {
                Some(entry) if entry.is_static && entry.port == port => Learned::Known,
                Some(entry) if entry.is_static => Learned::Pinned,
                // Another worker's clock reading is ahead of ours.
                Some(entry) if entry.port == port && entry.age_s(now_s) == 0 => Learned::Known,
                Some(entry) if entry.port == port => Learned::Refreshed,
                Some(_) if !self.may_learn(port, limit, limits, true) => Learned::PortLimit,
                Some(entry) => Learned::Moved { from: entry.port },
                None if self.may_learn(port, limit, limits, false) => Learned::New,
                None => Learned::PortLimit,
            };
            match learned {
                Learned::Refreshed | Learned::New | Learned::Moved { .. } => Want::Put(fresh),
                _ => Want::Keep,
            }
        });
        match (outcome, learned) {
            (Outcome::Full, _) => return Learned::Full,
            (Outcome::Busy, _) => return Learned::Busy,
            (_, Learned::New) => self.count(key, None, Some(port)),
            (_, Learned::Moved { from }) => self.count(key, Some(from), Some(port)),
            _ => {}
        }
        learned
    }

    /// Whether `port` may have one more. A move takes no further place in the table.
    fn may_learn(&self, port: u16, limit: Option<u32>, limits: Limits, moves: bool) -> bool {
        let own = self.learned[usize::from(port)].load(Ordering::Relaxed);
        limit.is_none_or(|limit| own < limit)
            && (moves || own < limits.share || self.entries.load(Ordering::Relaxed) < limits.shared())
    }

    fn count(&self, key: u64, from: Option<u16>, to: Option<u16>) {
        for counter in [&self.entries, self.of_fid(unkey(key).1)] {
            match (from, to) {
                (None, Some(_)) => _ = counter.fetch_add(1, Ordering::Relaxed),
                (Some(_), None) => _ = counter.fetch_sub(1, Ordering::Relaxed),
                _ => {}
            }
        }
        if let Some(port) = from {
            self.learned[usize::from(port)].fetch_sub(1, Ordering::Relaxed);
            // Behind the entry: who sees this sees that.
            self.epoch.fetch_add(1, Ordering::Release);
        }
        if let Some(port) = to {
            self.learned[usize::from(port)].fetch_add(1, Ordering::Relaxed);
            self.notes[usize::from(port)].add(key);
        }
    }

    fn of_fid(&self, fid: u16) -> &AtomicU32 {
        &self.by_fid[usize::from(fid) % FID_COUNTS]
    }

    /// Declares a static entry, over a learned one if need be.
    pub fn pin(&self, key: u64, port: u16) -> Outcome {
        let mut before = None;
        let outcome = self.table.update(key, |present| {
            before = present.map(Entry::unpack);
            Want::Put(Entry::pinned(port).pack())
        });
        if outcome == Outcome::Written && before != Some(Entry::pinned(port)) {
            self.count(key, before.map(|entry| entry.port), Some(port));
        }
        outcome
    }

    /// Removes an entry, static or not. Whether it was there.
    pub fn remove(&self, key: u64) -> bool {
        self.remove_if(key, |_| true)
    }

    fn remove_if(&self, key: u64, gone: impl Fn(Entry) -> bool) -> bool {
        let mut before = None;
        let outcome = self.table.update(key, |present| {
            before = present.map(Entry::unpack).filter(|entry| gone(*entry));
            if before.is_some() { Want::Remove } else { Want::Keep }
        });
        if let (Outcome::Written, Some(entry)) = (outcome, before) {
            self.count(key, Some(entry.port), None);
        }
        outcome == Outcome::Written
    }

    /// Removes the entries for which `gone` says so, in `range` of [`Fdb::buckets`]. What a worker is
    /// writing at this moment stays; whoever needs it gone sweeps again.
    pub fn sweep(
        &self,
        range: std::ops::Range<usize>,
        mut gone: impl FnMut(u64, u16, Entry) -> bool,
    ) -> usize {
        let mut old = Vec::new();
        self.table.scan(range, |word, value| {
            let (mac, fid) = unkey(word);
            let entry = Entry::unpack(value);
            if gone(mac, fid, entry) {
                old.push((word, entry));
            }
        });
        // A station that was heard from since the scan has another entry now and stays.
        old.into_iter().filter(|(word, entry)| self.remove_if(*word, |present| present == *entry)).count()
    }

    /// Forgets what is behind a port, but for static entries unless `statics` says so. Nobody learns behind it any more. It costs
    /// what there is to forget, or a sweep of the table where that is more than a few.
    pub fn forget(&self, port: u16, statics: bool) {
        let behind = || self.learned(port);
        let gone = |entry: Entry| entry.port == port && (statics || !entry.is_static);
        let notes = &self.notes[usize::from(port)];
        if behind() > 0 {
            notes.keys().filter(|key| *key != 0).for_each(|key| _ = self.remove_if(key, gone));
        }
        // What a worker is writing beside one is passed over, once.
        while behind() > 0 && self.sweep(0..self.buckets(), |_, _, entry| gone(entry)) > 0 {}
        if behind() == 0 {
            notes.clear();
        }
    }

    /// Whether there may be entries with a filtering identifier; none if not.
    pub fn may_have(&self, fid: u16) -> bool {
        self.of_fid(fid).load(Ordering::Relaxed) > 0
    }

    /// Buckets of the table.
    pub fn buckets(&self) -> usize {
        self.table.buckets()
    }

    /// Bytes it takes.
    pub fn bytes(&self) -> usize {
        let counts = size_of_val(&*self.learned) + size_of_val(&*self.by_fid);
        self.table.bytes() + counts + size_of_val(&*self.notes)
    }

    /// Entries, static ones too.
    pub fn entries(&self) -> u32 {
        self.entries.load(Ordering::Relaxed)
    }

    /// Entries behind `port`.
    pub fn learned(&self, port: u16) -> u32 {
        self.learned[usize::from(port)].load(Ordering::Relaxed)
    }

    /// Every entry: MAC, filtering identifier, entry.
    pub fn for_each(&self, mut visit: impl FnMut(u64, u16, Entry)) {
        self.table.scan(0..self.buckets(), |key, value| {
            let (mac, fid) = unkey(key);
            visit(mac, fid, Entry::unpack(value));
        });
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    const LIMITS: Limits = Limits { table: 64, share: 2 };

    fn learn(fdb: &Fdb, mac: u64, port: u16, now_s: u32) -> Learned {
        let key = key(mac, 1);
        fdb.learn(fdb.home(key), key, port, now_s, None, LIMITS)
    }

    fn lookup(fdb: &Fdb, mac: u64, now_s: u32) -> Option<u16> {
        let key = key(mac, 1);
        fdb.lookup(fdb.home(key), key, now_s, 300)
    }

    #[test]
    fn a_station_is_learned_refreshed_moved_and_forgotten() {
        let fdb = Fdb::new(64, 4, [1, 2]);
        assert_eq!(learn(&fdb, 5, 1, 10), Learned::New);
        assert_eq!(learn(&fdb, 5, 1, 10), Learned::Known);
        assert_eq!(learn(&fdb, 5, 1, 11), Learned::Refreshed);
        assert_eq!(learn(&fdb, 5, 2, 11), Learned::Moved { from: 1 });
        assert_eq!((fdb.learned(1), fdb.learned(2), fdb.entries()), (0, 1, 1));
        assert_eq!(lookup(&fdb, 5, 311), Some(2));
        assert_eq!(lookup(&fdb, 5, 312), None, "older than the ageing time");
        assert_eq!(fdb.sweep(0..fdb.buckets(), |_, _, entry| entry.is_old(312, 300)), 1);
        assert_eq!((fdb.learned(2), fdb.entries()), (0, 0));
    }

    #[test]
    fn a_clock_that_lags_does_not_age_a_fresh_station() {
        let fdb = Fdb::new(64, 4, [1, 2]);
        learn(&fdb, 5, 1, 1000);
        assert_eq!(lookup(&fdb, 5, 999), Some(1));
    }

    #[test]
    fn a_daemon_that_runs_for_years_ages_as_on_its_first_day() {
        for born_s in [SECONDS - 100, SECONDS, 40 * SECONDS - 1, u32::MAX - 2_000_000] {
            let fdb = Fdb::new(64, 4, [1, 2]);
            learn(&fdb, 5, 1, born_s);
            assert_eq!(lookup(&fdb, 5, born_s + 300), Some(1), "{born_s}");
            assert_eq!(lookup(&fdb, 5, born_s + 301), None, "{born_s}");
            let key = key(5, 1);
            assert_eq!(fdb.lookup(fdb.home(key), key, born_s + 1_000_000, 1_000_000), Some(1));
            assert_eq!(fdb.lookup(fdb.home(key), key, born_s + 1_000_001, 1_000_000), None);
        }
    }

    #[test]
    fn a_static_entry_neither_ages_nor_moves() {
        let fdb = Fdb::new(64, 4, [1, 2]);
        learn(&fdb, 5, 2, 0);
        fdb.pin(key(5, 1), 1);
        assert_eq!((fdb.learned(1), fdb.learned(2), fdb.entries()), (1, 0, 1));
        assert_eq!(learn(&fdb, 5, 2, 9), Learned::Pinned);
        assert_eq!(learn(&fdb, 5, 1, 9), Learned::Known);
        assert_eq!(lookup(&fdb, 5, 1_000_000), Some(1));
        assert!(fdb.remove(key(5, 1)) && !fdb.remove(key(5, 1)));
        assert_eq!(fdb.entries(), 0);
    }

    /// Few or many, static or not; and what is behind the number again, once it is another port's.
    #[test]
    fn a_port_that_goes_takes_its_stations_with_it_and_no_others() {
        let fdb = Fdb::new(256, 4, [1, 2]);
        for many in [1, NOTED as u64, NOTED as u64 + 1, 20] {
            for mac in 1..=many {
                assert_eq!(fdb.pin(key(1000 + mac, 1), 2), Outcome::Written);
                assert_eq!(learn(&fdb, mac, 1, 0), Learned::New);
            }
            fdb.pin(key(100, 3), 1);
            fdb.forget(1, false);
            assert_eq!((fdb.learned(1), fdb.learned(2) as u64), (1, many), "of {many}");
            assert!(fdb.may_have(3));
            fdb.forget(1, true);
            assert_eq!((fdb.learned(1), u64::from(fdb.entries())), (0, many), "of {many}");
            assert!(!fdb.may_have(3) && fdb.may_have(1));
            fdb.forget(2, true);
            assert!(fdb.entries() == 0 && !fdb.may_have(1));
        }
    }

    /// A station that comes and goes is noted once.
    #[test]
    fn a_station_that_comes_again_takes_no_second_note() {
        let fdb = Fdb::new(64, 4, [1, 2]);
        for _ in 0..10 {
            learn(&fdb, 5, 1, 0);
            fdb.remove(key(5, 1));
        }
        learn(&fdb, 6, 1, 0);
        assert_eq!(fdb.notes[1].keys().collect::<Vec<_>>(), [key(5, 1), key(6, 1)]);
    }

    #[test]
    fn one_port_cannot_take_the_others_share() {
        let fdb = Fdb::new(64, 4, [1, 2]);
        for mac in 1..1000 {
            learn(&fdb, mac, 0, 0);
        }
        assert_eq!(fdb.learned(0), 56, "the shared part and not one more");
        for mac in 2000..2002 {
            assert_eq!(learn(&fdb, mac, 1, 0), Learned::New, "within its share");
        }
        assert_eq!(learn(&fdb, 3000, 1, 0), Learned::PortLimit);
        let key = key(4000, 1);
        assert_eq!(fdb.learn(fdb.home(key), key, 2, 0, Some(0), LIMITS), Learned::PortLimit);
    }

    proptest! {
        /// Counts are what a map of the same stations counts, whatever happened.
        #[test]
        fn counts_are_those_of_a_map(ops in proptest::collection::vec((1u64..30, 0u16..4, 0u8..8), 0..300)) {
            let fdb = Fdb::new(64, 4, [7, 9]);
            let mut twin: HashMap<u64, u16> = HashMap::new();
            for (now_s, (mac, port, op)) in ops.into_iter().enumerate() {
                match op {
                    0 => prop_assert_eq!(fdb.remove(key(mac, 1)), twin.remove(&mac).is_some()),
                    1 => {
                        fdb.sweep(0..fdb.buckets(), |_, _, entry| entry.port == port);
                        twin.retain(|_, behind| *behind != port);
                    }
                    2 => {
                        fdb.forget(port, true);
                        twin.retain(|_, behind| *behind != port);
                    }
                    _ => match learn(&fdb, mac, port, now_s as u32) {
                        Learned::New | Learned::Moved { .. } => { twin.insert(mac, port); }
                        Learned::PortLimit => {}
                        learned => {
                            prop_assert!(matches!(learned, Learned::Refreshed | Learned::Known));
                            prop_assert_eq!(twin.get(&mac), Some(&port));
                        }
                    },
                }
                for port in 0..4 {
                    prop_assert_eq!(fdb.learned(port) as usize, twin.values().filter(|p| **p == port).count());
                }
                prop_assert_eq!(fdb.entries() as usize, twin.len());
                prop_assert_eq!(fdb.may_have(1), !twin.is_empty());
                prop_assert!(!fdb.may_have(2));
                for mac in 1..30 {
                    prop_assert_eq!(lookup(&fdb, mac, now_s as u32), twin.get(&mac).copied());
                }
            }
        }
    }
}
