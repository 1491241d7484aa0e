//! Sets of numbers that have a number themselves, in the order in which they came: found by it, and by what is in them. A version shares with the
//! one before all but the latest: to go on from tens of thousands of them costs nothing.

use hashbrown::HashMap;
use std::hash::Hash;
use std::sync::Arc;

/// Sets that are copied with each version, at most: then all are gone through once.
const LATEST_MAX: usize = 1024;

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Numbered<T> {
    shared: Arc<Numbers<T>>,
    latest: Numbers<T>,
}

#[derive(Clone, Debug)]
struct Numbers<T> {
    of: HashMap<Arc<[T]>, u32>,
    all: Vec<Arc<[T]>>,
}

impl<T> Default for Numbers<T> {
    fn default() -> Self {
        Self { of: HashMap::new(), all: Vec::new() }
    }
}

impl<T> Default for Numbered<T> {
    fn default() -> Self {
        Self { shared: Arc::default(), latest: Numbers::default() }
    }
}

impl<T: Hash + Eq + Copy> Numbered<T> {
    /// The number of a set, if it occurred.
    pub fn find(&self, set: &[T]) -> Option<u32> {
        self.shared.of.get(set).or_else(|| self.latest.of.get(set)).copied()
    }

    /// Numbers a set that did not occur.
    pub fn push(&mut self, set: &[T]) -> u32 {
        let (number, set) = (self.len() as u32, Arc::<[T]>::from(set));
        self.latest.all.push(set.clone());
        self.latest.of.insert(set, number);
        number
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.shared.all.len() + self.latest.all.len()
    }

    /// A set by its number.
    pub fn get(&self, number: usize) -> &Arc<[T]> {
        let shared = &self.shared.all;
        if number < shared.len() { &shared[number] } else { &self.latest.all[number - shared.len()] }
    }

    /// All, by their numbers.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<[T]>> {
        self.shared.all.iter().chain(&self.latest.all)
    }

    /// To be shared by the versions to come: all of it if there was nothing to share, or the latest are many.
    pub fn share(&mut self) {
        if self.shared.all.is_empty() {
            self.shared = Arc::new(std::mem::take(&mut self.latest));
        } else if self.latest.all.len() > LATEST_MAX {
            let Numbers { of, all } = std::mem::take(&mut self.latest);
            let shared = Arc::make_mut(&mut self.shared);
            shared.of.extend(of);
            shared.all.extend(all);
        }
    }
}

#[cfg(not(loom))]
#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever is shared, and whoever went on from it: a set has the number of its first coming.
        #[test]
        fn a_set_has_the_number_of_its_first_coming(
            sets in prop::collection::vec((prop::collection::vec(0u8..12, 0..3), any::<bool>()), 0..4000)
        ) {
            let (mut numbered, mut plain, mut older) = (Numbered::default(), Vec::new(), Vec::new());
            for (set, shares) in sets {
                let place = plain.iter().position(|it| *it == set);
                prop_assert_eq!(numbered.find(&set), place.map(|place| place as u32));
                if place.is_none() {
                    prop_assert_eq!(numbered.push(&set) as usize, plain.len());
                    plain.push(set);
                }
                if shares {
                    numbered.share();
                    older.push((numbered.clone(), plain.len()));
                }
            }
            older.push((numbered, plain.len()));
            for (numbered, len) in older {
                prop_assert_eq!(numbered.len(), len);
                prop_assert!(numbered.iter().zip(&plain).all(|(set, plain)| **set == **plain));
                prop_assert!((0..len).all(|n| **numbered.get(n) == *plain[n]));
            }
        }
    }

    /// Of many that came since, all are shared in the end.
    #[test]
    fn what_came_since_is_shared_when_it_is_much() {
        let mut numbered = Numbered::default();
        for n in 0..3 * LATEST_MAX as u32 {
            assert_eq!((numbered.find(&[n]), numbered.push(&[n])), (None, n));
            numbered.share();
            assert!(numbered.latest.all.len() <= LATEST_MAX);
        }
        assert_eq!(numbered.find(&[17]), Some(17));
        assert_eq!(numbered.find(&[3 * LATEST_MAX as u32 - 1]), Some(3 * LATEST_MAX as u32 - 1));
    }
}
