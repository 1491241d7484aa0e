//! Places against plain sets: whose each is, which are free, and that none is lost or had by two.

use super::CHUNK;
use super::places::{Chunks, Places};
use proptest::prelude::*;
use std::collections::BTreeSet;

const WORKERS: usize = 3;
const CHUNKS: u32 = 5;

#[derive(Clone, Copy, Debug)]
enum Step {
    /// So many are taken.
    Take(usize, u16),
    /// Of the used ones, from this one on, so many are free again.
    Give(usize, u16, u16),
    /// The chunks without a used place go back.
    PutBack(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let (worker, many) = (0..WORKERS, 0u16..400);
    prop_oneof![
        4 => (worker.clone(), many.clone()).prop_map(|(worker, many)| Step::Take(worker, many)),
        4 => (worker.clone(), any::<u16>(), many).prop_map(|(worker, from, many)| Step::Give(worker, from, many)),
        1 => worker.prop_map(Step::PutBack),
    ]
}

/// The dull twin of one worker's places.
#[derive(Default)]
struct Twin {
    owned: BTreeSet<u32>,
    used: BTreeSet<u32>,
}

impl Twin {
    fn free(&self) -> impl Iterator<Item = u32> {
        let all = self.owned.iter().flat_map(|chunk| chunk * CHUNK..(chunk + 1) * CHUNK);
        all.filter(|place| !self.used.contains(place))
    }
}

struct Table {
    chunks: Chunks,
    links: Vec<u32>,
    places: [Places; WORKERS],
    twins: [Twin; WORKERS],
}

impl Table {
    fn new() -> Self {
        let all = CHUNKS * CHUNK;
        Self {
            chunks: Chunks::new(all),
            links: vec![0; all as usize],
            places: std::array::from_fn(|_| Places::new(all)),
            twins: Default::default(),
        }
    }

    fn take(&mut self, worker: usize) {
        let lowest = self.twins[worker].free().next().map(|place| place / CHUNK);
        let nobodys = |chunk: &u32| self.twins.iter().all(|twin| !twin.owned.contains(chunk));
        let place = self.places[worker].take(&self.chunks, |place| self.links[place as usize]);
        let Some(place) = place else {
            assert!(lowest.is_none() && (0..CHUNKS).filter(nobodys).count() == 0, "there are places");
            return;
        };
        match lowest {
            Some(lowest) => assert_eq!(place / CHUNK, lowest, "not the lowest chunk"),
            None => assert!(nobodys(&(place / CHUNK)), "somebody's"),
        }
        let twin = &mut self.twins[worker];
        twin.owned.insert(place / CHUNK);
        assert!(twin.used.insert(place), "used twice");
    }

    fn give(&mut self, worker: usize, from: u16, many: u16) {
        let used: Vec<u32> = self.twins[worker].used.iter().copied().collect();
        for place in used.iter().cycle().skip(usize::from(from)).take(usize::from(many).min(used.len())) {
            self.links[*place as usize] = self.places[worker].give(*place);
            self.twins[worker].used.remove(place);
        }
    }

    fn put_back(&mut self, worker: usize) {
        for chunk in 0..CHUNKS {
            let (twin, places) = (&mut self.twins[worker], chunk * CHUNK..(chunk + 1) * CHUNK);
            let is_unused = twin.owned.contains(&chunk) && twin.used.range(places.clone()).next().is_none();
            assert_eq!(self.places[worker].put_back_unused(&self.chunks, places.end - 1), is_unused);
            if is_unused {
                twin.owned.remove(&chunk);
            }
        }
    }

    fn check(&self) {
        for (places, twin) in self.places.iter().zip(&self.twins) {
            assert_eq!(places.count(), twin.owned.len() as u32 * CHUNK);
            (0..CHUNKS * CHUNK).for_each(|place| {
                assert_eq!(places.owns(place), twin.owned.contains(&(place / CHUNK)));
            });
            let round: Vec<u32> = std::iter::successors(places.after(u32::MAX >> 1), |at| places.after(*at))
                .take(places.count() as usize)
                .collect();
            let owned = twin.owned.iter().flat_map(|chunk| chunk * CHUNK..(chunk + 1) * CHUNK);
            assert!(round.into_iter().eq(owned), "a round looks at each place once");
        }
        let last = self.twins.iter().flat_map(|twin| &twin.used).max();
        assert!(last.is_none_or(|place| *place < self.chunks.used()));
    }
}

proptest! {
    #[test]
    fn places_are_those_of_plain_sets(steps in proptest::collection::vec(step(), 1..60)) {
        let mut table = Table::new();
        for step in steps {
            match step {
                Step::Take(worker, many) => (0..many).for_each(|_| table.take(worker)),
                Step::Give(worker, from, many) => table.give(worker, from, many),
                Step::PutBack(worker) => table.put_back(worker),
            }
            table.check();
        }
        // All that is used ends, and one worker has everything.
        (0..WORKERS).for_each(|worker| table.give(worker, 0, u16::MAX));
        (0..WORKERS).for_each(|worker| table.put_back(worker));
        (0..CHUNKS * CHUNK).for_each(|_| table.take(1));
        table.check();
        prop_assert_eq!(table.twins[1].used.len() as u32, CHUNKS * CHUNK);
    }
}
