//! The exact-match cache: which flow packets of these very words were of. Private to a worker, and nothing but a memory: whoever finds
//! nothing here asks the table of flows, which says the same.
//!
//! # What is spared
//! The table is asked by a key in which both ends stand in an order of their own; its index names an entry, of which the whole key is
//! compared. Here a plain packet is asked for as it lies there, by two words, and what is found names the entry and the number of the flow
//! in it (its sequence): an entry whose number is still the same is still that flow's, for each new one gets another. Whether the flow lives, and
//! what was decided about it, stands in the entry alone and is read there with each packet.
//!
//! The number comes round after 2^31 flows in one entry, which a flood over a small table may make in hours; and then a packet is mistaken only if it
//! comes at that very number, which nobody outside can see.
//!
//! # When it is asked
//! Where packets are of far more flows than are remembered it is asked in vain, and costs a line and a branch that cannot be
//! foretold. So who finds too few ([`Exact::note_batch`]) lets some batches pass by ([`PAUSE`]).
//!
//! The secret of the hash keeps a hostile sender from choosing packets that push others out; the worst that full sets cost is the
//! table.

use super::ways::many;
use crate::prefetch::prefetch;
use crate::table::atomic::{SPREAD, fold, mix};
use std::hint::select_unpredictable;

/// Sets, 256 KiB: a quarter of a second-level cache. Each direction of a flow has an entry: of those of a thousand flows one in eleven shares its
/// set with two others.
const SETS: usize = 4096;
const _: () = assert!(SETS.is_power_of_two());
/// Batches that pass by after one of which too few were known. With the one that is asked about an odd number of them: those of two ports that
/// take turns are both. Under test one passes by, so that the twins meet both ways of asking in turns, with
/// whatever they send.
const PAUSE: u8 = if cfg!(test) { 1 } else { 60 };

/// What a plain packet is asked for by: its addresses, and ports, protocol and zone.
pub(super) type Words = [u64; 2];

/// Which flow it was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Entry {
    words: Words,
    /// Where its entry is.
    pub place: u32,
    /// The number of the flow there.
    pub sequence: u32,
    /// From which side of the flow's key such packets come.
    pub side: u8,
}

/// Two entries, the younger in front.
#[derive(Clone, Copy, Debug, Default)]
#[repr(align(64))]
struct Set([Entry; 2]);

const _: () = assert!(size_of::<Set>() == 64);

/// Bytes that a worker's cache takes.
pub const EXACT_BYTES: usize = SETS * size_of::<Set>();

/// See the module.
#[derive(Debug)]
pub struct Exact {
    sets: Box<[Set; SETS]>,
    secrets: [u64; 2],
    /// Batches that are to pass by.
    pause: u8,
}

/// By what a packet in a zone is asked for; never all zero, as no entry is: every packet has a protocol.
#[inline(always)]
pub(super) fn words([ends, rest]: [u64; 2], zone: u16) -> Words {
    [ends, rest | u64::from(zone)]
}

impl Exact {
    /// Nothing yet.
    pub(super) fn new(secret: u64) -> Self {
        Self { sets: many(), secrets: [mix(secret ^ 1), mix(!secret)], pause: 0 }
    }

    /// Whether it is asked about this batch.
    #[inline(always)]
    pub(super) fn is_asked(&mut self) -> bool {
        let is_asked = self.pause == 0;
        self.pause -= u8::from(!is_asked);
        is_asked
    }

    /// A batch is done, of which so many were known of so many, or found room that nobody had.
    #[inline(always)]
    pub(super) fn note_batch(&mut self, known: usize, asked: usize) {
        if !pays(known, asked) {
            self.pause = PAUSE;
        }
    }

    /// The set of some words, and asks for its line.
    #[inline(always)]
    pub(super) fn touch(&self, [ends, rest]: Words) -> u16 {
        let [one, other] = self.secrets;
        // Words as they lie in a packet are numbered in their upper bytes: one product alone leaves flows that follow each other in a few sets,
        // with some secrets.
        let set = (fold(ends ^ one, rest ^ other).wrapping_mul(SPREAD) >> (u64::BITS - SETS.ilog2())) as u16;
        prefetch(&self.sets[usize::from(set)]);
        set
    }

    /// Which flow packets of these words were of; `set` is theirs.
    #[inline(always)]
    pub(super) fn find(&self, set: u16, words: Words) -> Option<&Entry> {
        let Set([young, old]) = &self.sets[usize::from(set) % SETS];
        // Which of the two it is cannot be foretold.
        let entry = select_unpredictable(young.words == words, young, old);
        (entry.words == words).then_some(entry)
    }

    /// They are of this flow: in the place of what was said of them before, or of the older entry. Whether that was nobody's.
    pub(super) fn keep(&mut self, words: Words, place: u32, sequence: u32, side: u8) -> bool {
        let set = self.touch(words);
        let Set([young, old]) = &mut self.sets[usize::from(set)];
        let is_new = young.words != words;
        let has_room = is_new && *old == Entry::default();
        if is_new {
            *old = *young;
        }
        *young = Entry { words, place, sequence, side };
        has_room
    }
}

/// Whether it pays to ask where so many are known of so many: a packet that is not costs a third of what one that is spares.
#[inline(always)]
fn pays(known: usize, asked: usize) -> bool {
    4 * known >= 3 * asked
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::packet::Plain;
    use proptest::prelude::*;
    use std::collections::HashMap;

    #[test]
    fn it_pays_where_most_are_known() {
        assert!(pays(0, 0) && pays(48, 64) && pays(64, 64));
        assert!(!pays(0, 1) && !pays(47, 64));
    }

    #[test]
    fn the_same_addresses_in_two_zones_are_two() {
        assert_ne!(words([1, 17 << 24], 1), words([1, 17 << 24], 2));
    }

    #[test]
    fn who_is_not_asked_is_asked_again() {
        let mut exact = Exact::new(7);
        assert!(exact.is_asked());
        exact.pause = 2;
        assert_eq!([(); 4].map(|()| exact.is_asked()), [false, false, true, true]);
    }

    /// Flows as load generators and clients number them: nearly all of a thousand are there, whatever the secret.
    #[test]
    fn numbered_flows_are_spread() {
        let numbered: [fn(u32) -> Plain; 4] = [
            |n| plain([0x0a00_0001, 0x0a00_0002], [1024 + n as u16, 80]),
            |n| plain([0x0a00_0001 + n, 0x0b00_0001], [5, 6]),
            |n| plain([0x0b00_0001, 0x0a00_0001 + n], [6, 5]),
            |n| plain([0x0a00_0001 + n % 100, 0x0b00_0001 + n / 100], [5, 6]),
        ];
        for (seed, each) in
            (0..crate::cases::some_of(100) as u64).flat_map(|seed| numbered.map(|each| (seed, each)))
        {
            let mut exact = Exact::new(mix(seed));
            let both = |n| [each(n), turned(each(n))].map(|plain| words(plain.words(), 1));
            (0..1000).flat_map(both).for_each(|words| _ = exact.keep(words, 1, 2, 0));
            let there =
                (0..1000).flat_map(both).filter(|words| exact.find(exact.touch(*words), *words).is_some());
            assert!(there.count() > 1800, "seed {seed}");
        }
    }

    fn plain([src, dst]: [u32; 2], ports: [u16; 2]) -> Plain {
        Plain { src, dst, ports, protocol: 17 }
    }

    fn turned(plain: Plain) -> Plain {
        let [from, to] = plain.ports;
        Plain { src: plain.dst, dst: plain.src, ports: [to, from], ..plain }
    }

    proptest! {
        /// Whatever is kept, it says of words what was kept of them last, or nothing.
        #[test]
        fn it_says_what_was_kept_or_nothing(kept in proptest::collection::vec((0u64..40, 0u64..3, any::<(u32, u32, u8)>()), 0..200)) {
            let (mut exact, mut dull) = (Exact::new(3), HashMap::new());
            for (ends, rest, said) in kept {
                let words = words([ends, rest << 32 | 17 << 24], 9);
                exact.keep(words, said.0, said.1, said.2);
                dull.insert(words, said);
                for (words, (place, sequence, side)) in &dull {
                    if let Some(found) = exact.find(exact.touch(*words), *words) {
                        prop_assert_eq!(*found, Entry { words: *words, place: *place, sequence: *sequence, side: *side });
                    }
                }
                prop_assert!(exact.find(exact.touch(words), words).is_some(), "what was kept last is there");
            }
        }

        /// Two to a set: of three that share one the two that were kept last are there, and the third found no room.
        #[test]
        fn the_younger_two_are_there(seed: u64) {
            let mut exact = Exact::new(seed);
            let all = |n: u64| words([n, 6 << 24], 1);
            let home = exact.touch(all(0));
            let three: Vec<Words> = (0..).map(all).filter(|words| exact.touch(*words) == home).take(3).collect();
            let had_room: Vec<bool> = three.iter().map(|words| exact.keep(*words, 1, 2, 0)).collect();
            prop_assert_eq!(had_room, [true, true, false]);
            let there: Vec<bool> = three.iter().map(|words| exact.find(home, *words).is_some()).collect();
            prop_assert_eq!(there, [false, true, true]);
        }
    }
}
