//! A copy of what is learned, for a trace: the same geometry and the same seed, so that whatever the copy answers the
//! original would have answered, a full bucket included; and whatever is written into it nobody else sees. The
//! originals are only read. Of a bucket in which a writer was stopped nothing is copied, as nothing is found in it.

use super::atomic::{AtomicTable, Bucket};
use super::fdb::Fdb;
use super::loops::Loops;
use super::neigh::Neighbours;
use super::sync::{AtomicU32, AtomicU64, Ordering};
use super::wide::WideTable;
use crate::pages::Pages;

fn words(of: &[AtomicU32]) -> Box<[AtomicU32]> {
    of.iter().map(word).collect()
}

fn word(of: &AtomicU32) -> AtomicU32 {
    AtomicU32::new(of.load(Ordering::Relaxed))
}

impl Fdb {
    /// See the module.
    pub fn copy(&self) -> Self {
        Self {
            table: self.table.copy(),
            entries: word(&self.entries),
            learned: words(&self.learned),
            // Nobody forgets a port of the copy.
            notes: self.learned.iter().map(|_| Default::default()).collect(),
            by_fid: words(&self.by_fid),
            epoch: AtomicU64::new(self.epoch()),
        }
    }
}

impl Neighbours {
    /// See the module. Nobody holds packets by the copy.
    pub fn copy(&self) -> Self {
        Self {
            table: self.table.copy(),
            limits: self.limits,
            entries: word(&self.entries),
            waiting: word(&self.waiting),
            by_port: words(&self.by_port),
            waiting_by_port: words(&self.waiting_by_port),
            changes: word(&self.changes),
            holders: AtomicU64::new(0),
            epoch: AtomicU64::new(self.epoch()),
        }
    }
}

impl Loops {
    /// See the module.
    pub fn copy(&self) -> Self {
        let decided = AtomicU64::new(self.decided.load(Ordering::Relaxed));
        Self { until_s: words(&self.until_s), decided }
    }
}

impl AtomicTable {
    /// See the module.
    pub fn copy(&self) -> Self {
        let mut buckets = Pages::new(self.buckets.len(), Bucket::empty);
        buckets.iter_mut().zip(&*self.buckets).for_each(|(to, from)| *to = from.copy());
        Self { buckets, seed: self.seed }
    }
}

impl WideTable {
    /// See the module.
    pub fn copy(&self) -> Self {
        Self { lines: self.lines.iter().map(super::wide::Line::copy).collect(), seed: self.seed }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::table::fdb::{self, Limits};
    use crate::table::neigh::{self, Claim};

    #[test]
    fn a_copy_answers_as_its_original_and_is_its_own() {
        let (fdb, limits) = (Fdb::new(64, 4, [3, 4]), Limits { table: 64, share: 9 });
        let learn = |fdb: &Fdb, mac: u64, port| {
            let key = fdb::key(mac, 1);
            fdb.learn(fdb.home(key), key, port, 5, None, limits)
        };
        let lookup = |fdb: &Fdb, mac: u64| fdb.lookup(fdb.home(fdb::key(mac, 1)), fdb::key(mac, 1), 5, 300);
        (1..=40).for_each(|mac| _ = learn(&fdb, mac, (mac % 4) as u16));
        let copy = fdb.copy();
        (1..=40).for_each(|mac| assert_eq!(lookup(&copy, mac), lookup(&fdb, mac), "{mac}"));
        assert_eq!((copy.entries(), copy.learned(2)), (fdb.entries(), fdb.learned(2)));
        learn(&copy, 4, 3);
        learn(&copy, 99, 3);
        assert_eq!((lookup(&fdb, 4), lookup(&fdb, 99)), (Some(0), None), "the original was written");
        assert_eq!((lookup(&copy, 4), lookup(&copy, 99)), (Some(3), Some(3)));
    }

    #[test]
    fn neighbours_and_loops_are_copied_too() {
        let (neighbours, loops) = (Neighbours::new(16, 4, [1, 2]), Loops::new(4));
        let key = neigh::key(1, 7);
        neighbours.hear(key, 5, 1, 9, Claim::Question, |_| true);
        loops.found(2, 2, 9);
        let (copy, copied) = (neighbours.copy(), loops.copy());
        assert_eq!(copy.lookup(copy.home(key), key, 9), neighbours.lookup(neighbours.home(key), key, 9));
        assert!(copied.is_blocked(2, 9) && !copied.is_blocked(1, 9));
        copied.found(1, 1, 9);
        _ = copy.ask(neigh::key(1, 8), 1, 9);
        assert!(!loops.is_blocked(1, 9));
        assert_eq!((neighbours.entries(), copy.entries()), (1, 2));
    }
}
