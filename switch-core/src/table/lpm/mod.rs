//! Longest-prefix match, for IPv4 and IPv6: immutable, so that workers read it without a thought, and changed
//! by making a new one that shares all that did not change.
//!
//! # Layout
//! The first 13 bits of an address choose one of 8 192 words, each of which has the best route of up to 13
//! bits and names the [`part`] of longer ones. The next part answers for 11 bits directly, as DIR-24-8 does, so
//! that most IPv4 lookups read one word of the root and one of a part; then come 8 bits, and 16 at a time or, where
//! much is in them, twice 8, in parts that are compressed by what is in them. Parts lie side by side in a few slabs of huge pages
//! ([`arena`]), for it is the TLB and the cache that a lookup waits for. Lookups in a batch wait together.
//!
//! # Change
//! A change makes anew the parts on its way and the root's words; everything else is shared. Short prefixes
//! stand beside what is longer and not in it: a new default route changes the root's words alone, and any other
//! route one part on each level at most. Who owns which part, and of what routes it was made, is kept beside
//! the lookups' memory, in [`node`]s with a reference count.
//!
//! Compared with others in ADR 0007.

mod arena;
mod children;
mod mapped;
mod node;
mod part;
#[cfg(not(loom))]
#[cfg(test)]
mod tests;

use super::probes::{Probes, Uncounted};
use crate::prefetch::prefetch;
use arena::{Arena, Slabs};
use arrayvec::ArrayVec;
pub use mapped::Mapped;
use node::{Node, Route};
use part::Key;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Bits that choose a word of the root: 64 KiB of words, which a change copies.
const ROOT_BITS: u8 = 13;
const ROOT: usize = 1 << ROOT_BITS;
/// Nodes that are copied together when one of them changes.
const GROUP: usize = 128;
/// No route. Values are whatever the caller wants, but not this.
pub const NO_ROUTE: u32 = 0;
/// The largest value: leaves are 16 bits, and one of them marks what is not a value.
pub const VALUE_MAX: u32 = part::CHILD as u32 - 1;
/// Lookups whose cache misses overlap: what a batch of frames needs, and a core has no more buffers for.
const BATCH: usize = 64;

/// A prefix, and the value it shall have from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The address, its first bit highest; bits behind the prefix are zero.
    pub key: u128,
    /// Bits of the prefix.
    pub len: u8,
    /// What a lookup says, at most [`VALUE_MAX`]; [`NO_ROUTE`] takes the prefix away.
    pub value: u32,
}

/// Most probes of one lookup: see [`probes_max`].
pub const V4_PROBES_MAX: u32 = probes_max(u32::BITS as u8);
/// The same of an address of 128 bits.
pub const PROBES_MAX: u32 = probes_max(u128::BITS as u8);

/// The root's word, and of each part on the way a line and the word that leads on, however many routes there are. There are most parts where all
/// nodes of 16 bits are split.
const fn probes_max(bits: u8) -> u32 {
    let (mut depth, mut probes) = (ROOT_BITS, 1);
    while depth < bits {
        let width = node::width(depth);
        let parts = if width > part::DIRECT_BITS { 2 } else { 1 };
        probes += 2 * parts;
        depth += width;
    }
    probes
}

type Group = [Option<Arc<Node>>; GROUP];

/// See the module.
#[derive(Clone, Debug)]
pub struct Lpm {
    root: Arc<[u64; ROOT]>,
    slabs: Slabs,
    nodes: Arc<[Arc<Group>]>,
    /// Routes of at most [`ROOT_BITS`].
    short: Arc<[Route]>,
    /// Of all nodes: see [`Self::bytes`].
    below: usize,
    arena: Arc<Arena>,
}

impl Default for Lpm {
    fn default() -> Self {
        let group: Arc<Group> = Arc::new(std::array::from_fn(|_| None));
        Self {
            root: Arc::new([0; ROOT]),
            slabs: Slabs::default(),
            nodes: vec![group; ROOT / GROUP].into(),
            short: Arc::default(),
            below: 0,
            arena: Arc::default(),
        }
    }
}

/// A lookup on its way through a batch.
#[derive(Clone, Copy)]
struct Way<'a> {
    index: usize,
    /// Bits that led here.
    from: u32,
    /// The word that leads on.
    cell: &'a AtomicU64,
}

impl Lpm {
    /// The value of the longest prefix of `key`, whose first bit is its highest; [`NO_ROUTE`] if there is
    /// none.
    #[inline]
    pub fn find(&self, key: u128) -> u32 {
        self.find_with(key, Uncounted)
    }

    /// The same with whoever counts.
    #[inline]
    pub fn find_with(&self, key: u128, probes: impl Probes) -> u32 {
        self.find_key(key, probes)
    }

    /// The same for an IPv4 address.
    #[inline]
    pub fn find_v4(&self, ip: u32) -> u32 {
        self.find_v4_with(ip, Uncounted)
    }

    /// The same with whoever counts.
    #[inline]
    pub fn find_v4_with(&self, ip: u32, probes: impl Probes) -> u32 {
        self.find_key(ip, probes)
    }

    #[inline(always)]
    fn find_key(&self, key: impl Key, probes: impl Probes) -> u32 {
        probes.probe();
        let mut word = self.root_word(key);
        let mut best = part::value(word);
        let mut from = u32::from(ROOT_BITS);
        while !part::is_bare(word) {
            probes.probe();
            match part::find(&self.slabs, word, key, from) {
                part::Found::Leaf(leaf) => return u32::from(or(leaf, best)),
                part::Found::Further(cell, bits) => {
                    probes.probe();
                    word = cell.load(Relaxed);
                    best = or(part::value(word), best);
                    from = bits;
                }
            }
        }
        u32::from(best)
    }

    /// The value of exactly this prefix, whatever else is shorter or longer; [`NO_ROUTE`] if it is not there.
    pub fn exact(&self, key: u128, len: u8) -> u32 {
        if len <= ROOT_BITS {
            return node::exact(&self.short, key, len, 0, ROOT_BITS);
        }
        let at = key.slot(0, u32::from(ROOT_BITS)) as usize % ROOT;
        let node = self.nodes[at / GROUP][at % GROUP].as_deref();
        node.map_or(NO_ROUTE, |node| node.exact(key, len, ROOT_BITS))
    }

    #[inline(always)]
    fn root_word(&self, key: impl Key) -> u64 {
        self.root[key.slot(0, u32::from(ROOT_BITS)) as usize % ROOT]
    }

    /// Looks up several IPv4 addresses: the cache misses of all of them overlap.
    #[inline]
    pub fn find_v4_each<const N: usize>(&self, ips: &[u32; N], values: &mut [u32; N]) {
        find_each(values, |n| (self, ips[n]));
    }

    /// The same for addresses of any kind.
    #[inline]
    pub fn find_many<const N: usize>(&self, keys: &[u128; N], values: &mut [u32; N]) {
        find_each(values, |n| (self, keys[n]));
    }

    /// This one with `changes`, of which the last for a prefix counts. They are sorted by it.
    pub fn changed(&self, changes: &mut [Change]) -> Self {
        changes.sort_by_key(|change| (change.key, change.len));
        let mut next = self.clone();
        let (short, long): (Vec<Change>, Vec<Change>) =
            changes.iter().partition(|change| change.len <= ROOT_BITS);
        if !short.is_empty() {
            next.change_short(&short);
        }
        let slot = |change: &Change| change.key.slot(0, u32::from(ROOT_BITS)) as usize;
        for group in long.chunk_by(|one, next| slot(one) == slot(next)) {
            let at = slot(&group[0]);
            let before = self.nodes[at / GROUP][at % GROUP].as_deref();
            let node = node::changed(&self.arena, before, group, ROOT_BITS).map(Arc::new);
            next.below -= before.map_or(0, Node::bytes);
            next.below += node.as_deref().map_or(0, Node::bytes);
            let word = &mut Arc::make_mut(&mut next.root)[at];
            let value = part::value(*word);
            *word = node.as_ref().map_or(part::bare(value), |node| part::with_value(node.word(), value));
            Arc::make_mut(&mut Arc::make_mut(&mut next.nodes)[at / GROUP])[at % GROUP] = node;
        }
        if !long.is_empty() {
            next.slabs = self.arena.slabs();
        }
        next
    }

    /// Routes that stand in the root: painted over the words they cover.
    fn change_short(&mut self, changes: &[Change]) {
        self.short = node::merged(&self.short, changes, 0, ROOT_BITS).into();
        let runs = node::runs(&self.short, ROOT_BITS);
        let root = Arc::make_mut(&mut self.root);
        for (n, (first, value)) in runs.iter().enumerate() {
            let end = runs.get(n + 1).map_or(ROOT, |(next, _)| *next as usize);
            for word in &mut root[*first as usize..end] {
                *word = part::with_value(*word, *value);
            }
        }
    }

    /// Bytes of memory it refers to, shared or not.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.root)
            + self.nodes.len() * (16 + size_of::<Group>())
            + size_of_val(&*self.short)
            + self.below
    }

    /// Bytes that lookups read of all versions that are still in use, and those set aside for them, of which
    /// what was never used costs nothing.
    pub fn arena_bytes(&self) -> (usize, usize) {
        self.arena.bytes()
    }
}

/// Looks up in several tables at once: `ask` says in which, and what. The cache misses of up to 64 overlap.
#[inline]
pub fn find_each<'a, K: Key>(values: &mut [u32], ask: impl Fn(usize) -> (&'a Lpm, K)) {
    for (n, values) in values.chunks_mut(BATCH).enumerate() {
        find_batch(values, |index| ask(n * BATCH + index));
    }
}

#[inline(always)]
fn find_batch<'a, K: Key>(values: &mut [u32], ask: impl Fn(usize) -> (&'a Lpm, K)) {
    const FROM: u32 = ROOT_BITS as u32;
    let mut words = [0; BATCH];
    let mut cells = [arena::nowhere(); BATCH];
    for (index, (word, cell)) in words.iter_mut().zip(&mut cells).enumerate().take(values.len()) {
        let (table, key) = ask(index);
        *word = table.root_word(key);
        if !part::is_bare(*word) {
            *cell = part::direct_cell(&table.slabs, *word, key, FROM);
            prefetch(*cell);
        }
    }
    let mut ways = ArrayVec::<Way, BATCH>::new();
    for (index, ((value, cell), word)) in values.iter_mut().zip(&cells).zip(&words).enumerate() {
        let (table, key) = ask(index);
        let leaf = part::direct_leaf(cell, key, FROM);
        *value = u32::from(or(leaf, part::value(*word)));
        if leaf & part::CHILD != 0 {
            *value = u32::from(part::value(*word));
            let cell = part::direct_child(&table.slabs, *word, leaf);
            prefetch(cell);
            ways.push(Way { index, from: u32::from(ROOT_BITS + part::DIRECT_BITS), cell });
        }
    }
    go_on(values, &mut ways, ask);
}

/// What is longer than the direct part. Each turn reads the words that lead on and asks for the parts they
/// name, and then looks into those and asks for the next words.
#[inline(always)]
fn go_on<'a, K: Key>(
    values: &mut [u32],
    ways: &mut ArrayVec<Way<'a>, BATCH>,
    ask: impl Fn(usize) -> (&'a Lpm, K),
) {
    while !ways.is_empty() {
        let mut kept = 0;
        let mut words = [0; BATCH];
        for n in 0..ways.len() {
            let way = ways[n];
            let word = way.cell.load(Relaxed);
            let Some(value) = values.get_mut(way.index) else { continue };
            *value = u32::from(or(part::value(word), *value as u16));
            if !part::is_bare(word) {
                ask(way.index).0.slabs.touch(part::first_line(word));
                (words[kept], ways[kept]) = (word, way);
                kept += 1;
            }
        }
        ways.truncate(kept);
        let mut kept = 0;
        for n in 0..ways.len() {
            let way = ways[n];
            let (table, key) = ask(way.index);
            match part::find(&table.slabs, words[n], key, way.from) {
                part::Found::Leaf(leaf) => {
                    let Some(value) = values.get_mut(way.index) else { continue };
                    *value = u32::from(or(leaf, *value as u16));
                }
                part::Found::Further(cell, from) => {
                    prefetch(cell);
                    ways[kept] = Way { index: way.index, from, cell };
                    kept += 1;
                }
            }
        }
        ways.truncate(kept);
    }
}

/// The answer of the longer prefix, if it has one.
#[inline(always)]
fn or(leaf: u16, best: u16) -> u16 {
    if leaf == 0 { best } else { leaf }
}
