//! Longest-prefix match, for IPv4 and IPv6: immutable, so that workers read it without a thought, and changed
//! by making a new one that shares all that did not change.
//!
//! # Layout
//! An address is looked at 16 bits at a time. The first 16 choose one of 65 536 entries, which lie in 256
//! chunks; an entry has the best route of up to 16 bits and, if there are longer ones, a [`block`]. A block
//! answers for the next 16 bits with a popcount-compressed trie in three steps (6, 6 and 4 bits), after
//! Asai and Ohara, "Poptrie" (2015); where routes are longer still, the answer is another block. For IPv4 a
//! lookup reads an entry, a block's line, perhaps a node or two, and a leaf.
//!
//! # Change
//! A change makes anew the blocks on its way, one chunk, and the list of 256 chunks; everything else is
//! shared by reference count. A short prefix (up to 16 bits) makes the chunks anew that it covers.
//!
//! Compared with DIR-24-8 in ADR 0007.

mod block;

use crate::prefetch::prefetch;
use block::{Block, Route};
use std::sync::Arc;

/// Bits of one step, and of the prefixes that a block holds.
const STEP: u8 = 16;
/// Entries of a chunk: 4 KiB, made anew by one change.
const CHUNK: usize = 256;
/// No route. Values are whatever the caller wants, but not this.
pub const NO_ROUTE: u32 = 0;
/// The largest value: the bit above it marks a further block.
pub const VALUE_MAX: u32 = block::CHILD - 1;

/// A prefix, and the value it shall have from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The address, its first bit highest; bits behind the prefix are zero.
    pub key: u128,
    /// Bits of the prefix.
    pub len: u8,
    /// What a lookup says; [`NO_ROUTE`] takes the prefix away.
    pub value: u32,
}

#[derive(Clone, Debug, Default)]
struct Entry {
    block: Option<Arc<Block>>,
    /// The best route of at most 16 bits.
    short: u32,
}

type Chunk = [Entry; CHUNK];

/// See the module.
#[derive(Clone, Debug)]
pub struct Lpm {
    chunks: Box<[Arc<Chunk>]>,
    /// Routes of at most 16 bits.
    short: Arc<[Route]>,
}

impl Default for Lpm {
    fn default() -> Self {
        let chunk: Arc<Chunk> = Arc::new(std::array::from_fn(|_| Entry::default()));
        Self { chunks: vec![chunk; CHUNK].into(), short: Arc::default() }
    }
}

impl Lpm {
    /// The value of the longest prefix of `key`, whose first bit is its highest; [`NO_ROUTE`] if there is
    /// none.
    #[inline]
    pub fn find(&self, key: u128) -> u32 {
        let entry = self.entry((key >> 112) as u16);
        let mut best = entry.short;
        let mut block = entry.block.as_deref();
        let mut rest = key << STEP;
        while let Some(here) = block {
            let leaf = here.find((rest >> 112) as u16);
            if leaf & block::CHILD == 0 {
                return if leaf == NO_ROUTE { best } else { leaf };
            }
            let child = here.child(leaf);
            best = if child.value == NO_ROUTE { best } else { child.value };
            block = Some(&child.block);
            rest <<= STEP;
        }
        best
    }

    /// The same for an IPv4 address.
    #[inline]
    pub fn find_v4(&self, ip: u32) -> u32 {
        finish_v4(self.entry((ip >> 16) as u16), ip)
    }

    /// Looks up several IPv4 addresses: the cache misses of all of them overlap.
    #[inline]
    pub fn find_v4_each<const N: usize>(&self, ips: &[u32; N], values: &mut [u32; N]) {
        let mut entries = [&EMPTY; N];
        for (entry, ip) in entries.iter_mut().zip(ips) {
            *entry = self.entry((ip >> 16) as u16);
            if let Some(block) = &entry.block {
                prefetch(Arc::as_ptr(block));
            }
        }
        for (entry, ip) in entries.iter().zip(ips) {
            if let Some(block) = &entry.block {
                block.touch(*ip as u16);
            }
        }
        for ((value, entry), ip) in values.iter_mut().zip(entries).zip(ips) {
            *value = finish_v4(entry, *ip);
        }
    }

    #[inline(always)]
    fn entry(&self, at: u16) -> &Entry {
        &self.chunks[usize::from(at >> 8)][usize::from(at & 0xff)]
    }

    /// This one with `changes`, of which the last for a prefix counts. They are sorted by it.
    pub fn changed(&self, changes: &mut [Change]) -> Self {
        changes.sort_by_key(|change| (change.key, change.len));
        let mut next = self.clone();
        let short: Vec<Change> = changes.iter().filter(|change| change.len <= STEP).copied().collect();
        if !short.is_empty() {
            next.change_short(&short);
        }
        let long: Vec<Change> = changes.iter().filter(|change| change.len > STEP).copied().collect();
        for group in long.chunk_by(|one, next| one.key >> 112 == next.key >> 112) {
            let at = (group[0].key >> 112) as u16;
            let before = self.entry(at).block.as_deref();
            next.entry_mut(at).block = block::changed(before, group, STEP).map(Arc::new);
        }
        next
    }

    fn entry_mut(&mut self, at: u16) -> &mut Entry {
        &mut Arc::make_mut(&mut self.chunks[usize::from(at >> 8)])[usize::from(at & 0xff)]
    }

    /// Routes of at most 16 bits: painted over the entries they cover.
    fn change_short(&mut self, changes: &[Change]) {
        self.short = block::merged(&self.short, changes, 0).into();
        let runs = block::runs(&self.short);
        for change in changes {
            let first = (change.key >> 112) as usize;
            let last = first + (1usize << (STEP - change.len)) - 1;
            let mut run = runs.partition_point(|(start, _)| *start as usize <= first) - 1;
            for at in first..=last {
                while runs.get(run + 1).is_some_and(|(start, _)| *start as usize <= at) {
                    run += 1;
                }
                if self.entry(at as u16).short != runs[run].1 {
                    self.entry_mut(at as u16).short = runs[run].1;
                }
            }
        }
    }

    /// Bytes of memory it refers to, shared or not.
    pub fn bytes(&self) -> usize {
        let chunks = self.chunks.len() * (size_of::<Arc<Chunk>>() + size_of::<Chunk>());
        let blocks =
            self.chunks.iter().flat_map(|chunk| chunk.iter()).filter_map(|entry| entry.block.as_deref());
        chunks + self.short.len() * size_of::<Route>() + blocks.map(Block::bytes).sum::<usize>()
    }
}

const EMPTY: Entry = Entry { block: None, short: NO_ROUTE };

#[inline(always)]
fn finish_v4(entry: &Entry, ip: u32) -> u32 {
    match entry.block.as_deref().map_or(NO_ROUTE, |block| block.find(ip as u16)) {
        NO_ROUTE => entry.short,
        value => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// The dull twin: every prefix is looked at.
    fn linear(routes: &BTreeMap<(u128, u8), u32>, key: u128) -> u32 {
        let covers = |(network, len): &(u128, u8)| {
            (network ^ key).checked_shr(128 - u32::from(*len)).unwrap_or(0) == 0
        };
        routes
            .iter()
            .filter(|(prefix, _)| covers(prefix))
            .max_by_key(|((_, len), _)| *len)
            .map_or(NO_ROUTE, |(_, value)| *value)
    }

    fn masked(key: u128, len: u8) -> u128 {
        key & u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0)
    }

    /// Few different bits, so that prefixes lie in each other.
    fn key() -> impl Strategy<Value = u128> {
        (0u8..4, 0u8..4, any::<u16>(), 0u8..6, any::<u128>(), prop::bool::weighted(0.2)).prop_map(
            |(a, b, c, d, all, wild)| {
                if wild {
                    return all;
                }
                let (a, b, d) = (u128::from(a), u128::from(b), u128::from(d));
                a << 125 | b << 112 | u128::from(c & 0xc3) << 96 | d << 80 | (d ^ a) << 62 | b << 30 | d
            },
        )
    }

    fn change(len_max: u8) -> impl Strategy<Value = Change> {
        (key(), 0..=len_max, 0u32..9).prop_map(|(key, len, value)| Change {
            key: masked(key, len),
            len,
            value,
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(192))]

        /// Whatever is added and taken away, in whatever portions: lookups say what the linear scan says, and
        /// a table that was changed says what it said before.
        #[test]
        fn finds_what_a_linear_scan_finds(
            portions in proptest::collection::vec(proptest::collection::vec(change(128), 1..40), 1..6),
            keys in proptest::collection::vec(key(), 1..60),
        ) {
            let (mut lpm, mut twin) = (Lpm::default(), BTreeMap::new());
            for portion in &portions {
                let (old, old_twin) = (lpm.clone(), twin.clone());
                lpm = lpm.changed(&mut portion.clone());
                for Change { key, len, value } in portion {
                    if *value == NO_ROUTE { twin.remove(&(*key, *len)); } else { twin.insert((*key, *len), *value); }
                }
                let ends = twin.keys().flat_map(|(key, len)| {
                    let behind = u128::MAX.checked_shr(u32::from(*len)).unwrap_or(0);
                    [*key, key | behind, key.wrapping_sub(1), (key | behind).wrapping_add(1)]
                });
                for key in keys.iter().copied().chain(ends) {
                    prop_assert_eq!(lpm.find(key), linear(&twin, key));
                    prop_assert_eq!(old.find(key), linear(&old_twin, key));
                }
            }
        }

        #[test]
        fn ipv4_is_the_upper_quarter(
            changes in proptest::collection::vec(change(32), 1..80),
            ips in proptest::array::uniform32(any::<u32>()),
        ) {
            let lpm = Lpm::default().changed(&mut changes.clone());
            let mut ips = ips;
            for (ip, change) in ips.iter_mut().step_by(2).zip(&changes) { *ip = (change.key >> 96) as u32 | *ip & 0x3ff; }
            let mut values = [0; 32];
            lpm.find_v4_each(&ips, &mut values);
            for (ip, value) in ips.iter().zip(values) {
                prop_assert_eq!(lpm.find_v4(*ip), lpm.find(u128::from(*ip) << 96));
                prop_assert_eq!(lpm.find_v4(*ip), value);
            }
        }
    }

    #[test]
    fn what_did_not_change_is_shared() {
        let change = |ip: u32, len, value| Change { key: u128::from(ip) << 96, len, value };
        let mut all: Vec<_> = (0..10_000u32).map(|n| change(n << 16 | 0x100, 24, n + 1)).collect();
        let before = Lpm::default().changed(&mut all);
        let after = before.changed(&mut [change(0x0001_0200, 24, 7)]);
        let shared =
            before.chunks.iter().zip(&after.chunks).filter(|(one, other)| Arc::ptr_eq(one, other)).count();
        assert_eq!(shared, CHUNK - 1);
        let block = |lpm: &Lpm, at| lpm.entry(at).block.clone().unwrap();
        assert!(
            Arc::ptr_eq(&block(&before, 2), &block(&after, 2))
                && !Arc::ptr_eq(&block(&before, 1), &block(&after, 1))
        );
        assert_eq!((after.find_v4(0x0001_0203), before.find_v4(0x0001_0203)), (7, NO_ROUTE));
        // And with the last route goes the block.
        let empty = before
            .changed(&mut (0..10_000u32).map(|n| change(n << 16 | 0x100, 24, NO_ROUTE)).collect::<Vec<_>>());
        assert!(empty.chunks.iter().all(|chunk| chunk.iter().all(|entry| entry.block.is_none())));
    }
}
