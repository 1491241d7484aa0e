//! The addresses of one range: which are free, which were released a moment ago, which come next.
//!
//! What is free is kept as intervals, so that a /64 costs as much as the leases in it and the next free
//! address is found in `log n`. The search goes on where it last stopped, and a released address is held
//! for a while: both keep an address from its next owner until the neighbours have forgotten the last one.

use super::{HOLD_MIN_S, HOLD_S};
use std::collections::{BTreeMap, VecDeque};

/// An interval of addresses, both ends in it.
pub type Interval = (u128, u128);

/// See the module. Addresses are numbers here; IPv4 uses the lowest 32 bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Space {
    /// What can be given out at all: ascending, apart.
    members: Vec<Interval>,
    /// What can be given out now: first → last, apart.
    free: BTreeMap<u128, u128>,
    /// Released, and when (seconds); the oldest in front.
    held: VecDeque<(u32, u128)>,
    /// Where the next search begins.
    next: u128,
}

impl Space {
    /// `first..=last` without what is excluded, all of it free.
    pub fn new((first, last): Interval, excluded: &[Interval]) -> Self {
        let mut excluded = excluded.to_vec();
        excluded.sort_unstable();
        let mut members = Vec::new();
        let mut from = Some(first);
        for (low, high) in excluded {
            let Some(start) = from.filter(|start| *start <= last) else { break };
            if high < start {
                continue;
            }
            if low > start {
                members.push((start, last.min(low - 1)));
            }
            from = high.checked_add(1);
        }
        members.extend(from.filter(|start| *start <= last).map(|start| (start, last)));
        Self { free: members.iter().copied().collect(), members, held: VecDeque::new(), next: first }
    }

    /// Whether it can be given out at all.
    pub fn contains(&self, address: u128) -> bool {
        let after = self.members.partition_point(|(first, _)| *first <= address);
        after > 0 && address <= self.members[after - 1].1
    }

    /// Whether nobody has it. One that is held counts: who asks for it by name wants that very one.
    pub fn is_takeable(&self, address: u128) -> bool {
        self.is_free(address) || self.held.iter().any(|(_, held)| *held == address)
    }

    /// The address to give out next, if there is one that nobody else `has`: a free one, else the one that is held for the
    /// longest time if that is long enough for a start.
    pub fn next(&self, now_s: u32, has: impl Fn(u128) -> bool) -> Option<u128> {
        let rested = self.held.iter().filter(|(since_s, _)| since_s + HOLD_MIN_S <= now_s);
        self.free_ones().chain(rested.map(|(_, address)| *address)).find(|address| !has(*address))
    }

    /// The free ones, in the order in which they are given out; some of them twice.
    fn free_ones(&self) -> impl Iterator<Item = u128> {
        let here = self.free.range(..=self.next).next_back().map(|(_, last)| (self.next, *last));
        let later = self.free.range(self.next..).chain(&self.free).map(|(first, last)| (*first, *last));
        here.into_iter().chain(later).flat_map(|(first, last)| first..=last)
    }

    /// Takes an address; whether it could be had.
    pub fn take(&mut self, address: u128) -> bool {
        let Some((first, last)) = self.interval_of(address) else {
            let place = self.held.iter().position(|(_, held)| *held == address);
            return place.is_some_and(|place| self.held.remove(place).is_some());
        };
        self.free.remove(&first);
        if first < address {
            self.free.insert(first, address - 1);
        }
        if address < last {
            self.free.insert(address + 1, last);
        }
        self.next = address.wrapping_add(1);
        true
    }

    /// An address comes back and is held. Time does not go backwards.
    pub fn hold(&mut self, address: u128, now_s: u32) {
        self.held.push_back((now_s, address));
    }

    /// Frees what has been held long enough, and tells what.
    pub fn expire(&mut self, now_s: u32) -> Vec<u128> {
        let mut freed = Vec::new();
        let is_over = |(since_s, _): &(u32, u128)| since_s + HOLD_S <= now_s;
        while let Some((_, address)) = self.held.front().copied().filter(is_over) {
            self.held.pop_front();
            self.give_back(address);
            freed.push(address);
        }
        freed
    }

    /// How many could be given out, are held, and are free; the rest is leased.
    pub fn figures(&self) -> (u128, u128, u128) {
        let sum = |intervals: &mut dyn Iterator<Item = Interval>| {
            intervals.fold(0u128, |sum, (first, last)| sum.saturating_add((last - first).saturating_add(1)))
        };
        let total = sum(&mut self.members.iter().copied());
        let free = sum(&mut self.free.iter().map(|(first, last)| (*first, *last)));
        (total, self.held.len() as u128, free)
    }

    /// What is held.
    pub fn held(&self) -> impl Iterator<Item = u128> {
        self.held.iter().map(|(_, address)| *address)
    }

    fn is_free(&self, address: u128) -> bool {
        self.interval_of(address).is_some()
    }

    fn interval_of(&self, address: u128) -> Option<Interval> {
        let (first, last) = self.free.range(..=address).next_back()?;
        (*last >= address).then_some((*first, *last))
    }

    /// Into the intervals, joined with its neighbours.
    fn give_back(&mut self, address: u128) {
        let mut first = address;
        let mut last = address;
        let before = address.checked_sub(1).and_then(|before| self.interval_of(before));
        if let Some((start, _)) = before {
            self.free.remove(&start);
            first = start;
        }
        if let Some(end) = address.checked_add(1).and_then(|after| self.free.remove(&after)) {
            last = end;
        }
        self.free.insert(first, last);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    /// The dull twin: a table of every address, walked one by one.
    struct Twin {
        members: BTreeSet<u128>,
        taken: BTreeSet<u128>,
        held: BTreeMap<u128, (u64, u32)>,
        released: u64,
        range: Interval,
        next: u128,
    }

    impl Twin {
        fn new(range: Interval, excluded: &[Interval]) -> Self {
            let is_out = |it: &u128| excluded.iter().any(|(first, last)| (first..=last).contains(&it));
            let members = (range.0..=range.1).filter(|it| !is_out(it)).collect();
            let (taken, held) = (BTreeSet::new(), BTreeMap::new());
            Self { members, taken, held, released: 0, range, next: range.0 }
        }

        fn is_free(&self, it: u128) -> bool {
            self.members.contains(&it) && !self.taken.contains(&it) && !self.held.contains_key(&it)
        }

        fn next(&self, now_s: u32, others: &BTreeSet<u128>) -> Option<u128> {
            let is_free = |it: &u128| self.is_free(*it) && !others.contains(it);
            let later = (self.next..=self.range.1).find(is_free);
            let any = || (self.range.0..=self.range.1).find(is_free);
            let rested = self
                .held
                .iter()
                .filter(|(it, (_, since_s))| now_s - since_s >= HOLD_MIN_S && !others.contains(it));
            let oldest = || rested.min_by_key(|(_, (order, _))| *order);
            later.or_else(any).or_else(|| oldest().map(|(it, _)| *it))
        }

        fn take(&mut self, it: u128) -> bool {
            if self.is_free(it) {
                self.next = it + 1;
            } else if self.held.remove(&it).is_none() {
                return false;
            }
            self.taken.insert(it)
        }

        fn hold(&mut self, it: u128, now_s: u32) {
            self.taken.remove(&it);
            self.released += 1;
            self.held.insert(it, (self.released, now_s));
        }

        fn expire(&mut self, now_s: u32) {
            self.held.retain(|_, (_, since_s)| now_s - *since_s < HOLD_S);
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Next,
        Take(u128),
        Release(usize),
        Pass(u32),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => Just(Step::Next),
            1 => (95u128..145).prop_map(Step::Take),
            3 => any::<usize>().prop_map(Step::Release),
            2 => (0u32..20).prop_map(Step::Pass),
        ]
    }

    proptest! {
        #[test]
        fn it_does_what_its_dull_twin_does(
            excluded in prop::collection::vec((90u128..150, 0u128..6), 0..6),
            others in prop::collection::btree_set(95u128..145, 0..12),
            steps in prop::collection::vec(step(), 0..200),
        ) {
            let range = (100, 139);
            let excluded: Vec<_> = excluded.into_iter().map(|(first, more)| (first, first + more)).collect();
            let (mut space, mut twin) = (Space::new(range, &excluded), Twin::new(range, &excluded));
            let mut now_s = 0;
            for step in steps {
                match step {
                    Step::Next => {
                        let next = space.next(now_s, |it| others.contains(&it));
                        prop_assert_eq!(next, twin.next(now_s, &others));
                        if let Some(it) = next {
                            prop_assert!(space.take(it) && twin.take(it));
                        }
                    }
                    Step::Take(it) => {
                        prop_assert_eq!(space.contains(it), twin.members.contains(&it));
                        let takeable = space.is_takeable(it);
                        prop_assert_eq!(space.take(it), takeable);
                        prop_assert_eq!(twin.take(it), takeable);
                    }
                    Step::Release(at) if !twin.taken.is_empty() => {
                        let it = *twin.taken.iter().nth(at % twin.taken.len()).unwrap();
                        space.hold(it, now_s);
                        twin.hold(it, now_s);
                    }
                    Step::Release(_) => {}
                    Step::Pass(seconds) => {
                        now_s += seconds;
                        space.expire(now_s);
                        twin.expire(now_s);
                    }
                }
                let (total, held, free) = space.figures();
                prop_assert_eq!(total, twin.members.len() as u128);
                prop_assert_eq!(held, twin.held.len() as u128);
                prop_assert_eq!(free, total - held - twin.taken.len() as u128);
            }
        }
    }

    #[test]
    fn the_ends_of_the_number_line_are_no_edge() {
        let mut all = Space::new((0, u128::MAX), &[]);
        assert_eq!(all.figures().0, u128::MAX);
        assert!(all.take(u128::MAX) && all.take(0));
        assert_eq!(all.next(0, |_| false), Some(1));
        all.hold(u128::MAX, 0);
        all.hold(0, 0);
        assert_eq!(all.expire(HOLD_S).len(), 2);
        assert_eq!(all.free.len(), 1);
        assert_eq!(Space::new((0, 9), &[(0, u128::MAX)]).figures().0, 0);
    }
}
