//! Places in the program's maps: each device has as many in a row as it has queues.

use std::collections::BTreeMap;
use std::ops::Range;

/// Which places are taken.
#[derive(Debug)]
pub struct Ranges {
    len: u32,
    /// Begin and end of each that is taken.
    taken: BTreeMap<u32, u32>,
}

impl Ranges {
    /// `len` places, all free.
    pub fn new(len: u32) -> Self {
        Self { len, taken: BTreeMap::new() }
    }

    /// The first `count` free ones in a row; none if there are not so many.
    pub fn take(&mut self, count: u32) -> Option<Range<u32>> {
        let mut start = 0;
        for (&taken, &end) in &self.taken {
            if taken - start >= count {
                break;
            }
            start = end;
        }
        let end = start.checked_add(count).filter(|end| *end <= self.len)?;
        // Nothing is taken for nothing: it would stand for the next one's.
        if count > 0 {
            self.taken.insert(start, end);
        }
        Some(start..end)
    }

    /// Places that [`Ranges::take`] gave, back.
    pub fn give(&mut self, places: Range<u32>) {
        if !places.is_empty() {
            self.taken.remove(&places.start);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Beside a list of places, each of which is somebody's or free.
        #[test]
        fn nobody_has_anothers_place(steps in proptest::collection::vec((any::<bool>(), 0u32..6), 1..80)) {
            const LEN: usize = 24;
            let (mut ranges, mut twin, mut held) = (Ranges::new(LEN as u32), [false; LEN], Vec::new());
            for (takes, number) in steps {
                if takes {
                    let first = (0..=LEN - number as usize)
                        .find(|start| twin[*start..start + number as usize].iter().all(|taken| !taken));
                    let got = ranges.take(number);
                    prop_assert_eq!(got.clone().map(|places| places.start as usize), first);
                    if let Some(places) = got {
                        prop_assert_eq!(places.len(), number as usize);
                        twin[places.start as usize..places.end as usize].fill(true);
                        held.push(places);
                    }
                } else if !held.is_empty() {
                    let places = held.remove(number as usize % held.len());
                    twin[places.start as usize..places.end as usize].fill(false);
                    ranges.give(places);
                }
            }
        }
    }
}
