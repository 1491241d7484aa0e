//! How the answers for some bits of an address are laid out, and how they are read.
//!
//! A part is a few neighbouring lines. A *leaf* of 16 bits is an answer (0: none in here), or, with [`CHILD`],
//! the number of a *word* at the part's end, which names the part that has the next bits and the answer of the
//! best route so far. Four shapes:
//!
//! | shape | bits | layout in words |
//! |---|---|---|
//! | direct | 11 | 2 048 leaves in 512 words; child words |
//! | sparse | 8 or 16 | where each of at most 16 runs of equal leaves begins, in 4 words; their leaves in 4; child words |
//! | bitmap | 8 | a bit for each value with which a run begins, in 4 words; how many begin before each of them, 16 bits each; a word for each run |
//!
//! A lookup in a sparse part compares all 16 beginnings at once and reads one line. In a bitmap it counts bits
//! and reads a second one, which is the word that leads on, or the answer.

use super::arena::Slabs;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// In a leaf: another part has the answer.
pub const CHILD: u16 = 1 << 15;
/// Runs of a sparse part.
pub const RUNS_MAX: usize = 16;

/// Shapes, as the lowest bits of a word say them. No part: the answer is the word's.
const NONE: u64 = 0;
const DIRECT: u64 = 1;
const SPARSE_16: u64 = 2;
const SPARSE_8: u64 = 3;
const BITMAP: u64 = 4;
const SHAPE_BITS: u32 = 3;
const SHAPE_MASK: u64 = (1 << SHAPE_BITS) - 1;

/// Bits that a direct part answers for.
pub const DIRECT_BITS: u8 = 11;
const DIRECT_WORDS: u32 = (1 << DIRECT_BITS) / 4;
const SPARSE_WORDS: u32 = 8;
const BITMAP_HEAD: usize = 5;
const LOW_LANES: u64 = 0x0001_0001_0001_0001;
const HIGH_LANES: u64 = 0x8000_8000_8000_8000;

/// An address, its first bit highest.
pub trait Key: Copy {
    /// `bits` of it behind the first `from`.
    fn slot(self, from: u32, bits: u32) -> u32;
}

impl Key for u32 {
    #[inline(always)]
    fn slot(self, from: u32, bits: u32) -> u32 {
        self.wrapping_shl(from) >> (32 - bits)
    }
}

impl Key for u128 {
    #[inline(always)]
    fn slot(self, from: u32, bits: u32) -> u32 {
        // No part's bits lie in both halves.
        let half = if from < 64 { (self >> 64) as u64 } else { self as u64 };
        (half << (from % 64) >> (64 - bits)) as u32
    }
}

/// The word for no part.
pub fn bare(value: u16) -> u64 {
    u64::from(value) << 32
}

/// `word` with another answer so far.
pub fn with_value(word: u64, value: u16) -> u64 {
    word & !(0xffff << 32) | bare(value)
}

/// The answer so far.
#[inline(always)]
pub fn value(word: u64) -> u16 {
    (word >> 32) as u16
}

/// The place of a word's part.
#[inline(always)]
fn place(word: u64) -> u32 {
    (word as u32 >> SHAPE_BITS) * super::arena::LINE
}

/// What a part says.
#[derive(Clone, Copy, Debug)]
pub enum Found<'a> {
    /// A leaf; 0 if it has no route.
    Leaf(u16),
    /// The word that leads further, and the bits that led to it.
    Further(&'a AtomicU64, u32),
}

/// Where the leaf of the direct part lies that `word` names.
#[inline(always)]
pub fn direct_cell(slabs: &Slabs, word: u64, key: impl Key, from: u32) -> &AtomicU64 {
    slabs.cell(place(word) + key.slot(from, u32::from(DIRECT_BITS)) / 4)
}

/// The leaf of a direct part, which lies in `cell`.
#[inline(always)]
pub fn direct_leaf(cell: &AtomicU64, key: impl Key, from: u32) -> u16 {
    (cell.load(Relaxed) >> (key.slot(from, u32::from(DIRECT_BITS)) % 4 * 16)) as u16
}

/// The word of a child that a leaf of the direct part names.
#[inline(always)]
pub fn direct_child(slabs: &Slabs, word: u64, leaf: u16) -> &AtomicU64 {
    slabs.cell(place(word) + DIRECT_WORDS + u32::from(leaf & !CHILD))
}

/// Where a lookup in a part that is not direct reads first.
#[inline(always)]
pub fn first_line(word: u64) -> u32 {
    place(word)
}

/// Looks into the part that `word` names, which is not bare; `from` bits of `key` led here.
#[inline(always)]
pub fn find(slabs: &Slabs, word: u64, key: impl Key, from: u32) -> Found<'_> {
    let at = place(word);
    let shape = word & SHAPE_MASK;
    if shape == DIRECT {
        let leaf = direct_leaf(direct_cell(slabs, word, key, from), key, from);
        if leaf & CHILD == 0 {
            return Found::Leaf(leaf);
        }
        return Found::Further(direct_child(slabs, word, leaf), from + u32::from(DIRECT_BITS));
    }
    let line = slabs.line(at);
    if shape == BITMAP {
        let slot = key.slot(from, 8);
        let (part, bit) = (slot / 64 % 4, slot % 64);
        let before = (line[4].load(Relaxed) >> (part * 16)) as u32 & 0xffff;
        let here = line[part as usize].load(Relaxed) & (u64::MAX >> (63 - bit));
        let run = before + here.count_ones();
        return Found::Further(slabs.cell(at + BITMAP_HEAD as u32 + run - 1), from + 8);
    }
    let bits = if shape == SPARSE_16 { 16 } else { 8 };
    let run = begun(line, key.slot(from, bits)) - 1;
    let leaf = (line[4 + (run as usize / 4) % 4].load(Relaxed) >> (run % 4 * 16)) as u16;
    if leaf & CHILD == 0 {
        return Found::Leaf(leaf);
    }
    Found::Further(slabs.cell(at + SPARSE_WORDS + u32::from(leaf & !CHILD)), from + bits)
}

/// How many of the 16 numbers in the first four words are not above `slot`: at least one, the first is 0.
#[inline(always)]
fn begun(line: &[AtomicU64; 8], slot: u32) -> u32 {
    let all = u64::from(slot) * LOW_LANES;
    let mut counts = 0;
    for starts in &line[..4] {
        // Lane by lane: whether `all` is at least `starts`, in the highest bit.
        let starts = starts.load(Relaxed);
        let low = (all | HIGH_LANES) - (starts & !HIGH_LANES);
        let at_least = (all & !starts) | (!(all ^ starts) & low);
        counts += (at_least & HIGH_LANES) >> 15;
    }
    (counts.wrapping_mul(LOW_LANES) >> 48) as u32
}

/// An answer for the values from the first on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaf {
    /// Of a route, or 0.
    Value(u16),
    /// A child of this number.
    Child(u32),
}

/// A part in the making.
#[derive(Debug, Default)]
pub struct Made {
    /// What is written.
    pub words: Vec<u64>,
    shape: u64,
}

impl Made {
    /// The word for it, once it begins at the line `start`.
    pub fn word(&self, start: u32) -> u64 {
        self.shape + (u64::from(start) << SHAPE_BITS)
    }
}

/// Lays out `runs`, which begin with 0 and answer for `bits` bits: for 16 no more than [`RUNS_MAX`]. `child` gives the word of a
/// child.
pub fn make(runs: &[(u32, Leaf)], bits: u8, child: &dyn Fn(u32) -> u64) -> Made {
    let mut words = Vec::new();
    let shape = match bits {
        DIRECT_BITS => DIRECT,
        16 => SPARSE_16,
        _ if runs.len() <= RUNS_MAX => SPARSE_8,
        _ => BITMAP,
    };
    debug_assert!(shape != SPARSE_16 || runs.len() <= RUNS_MAX, "{} runs in a line", runs.len());
    match shape {
        DIRECT => make_direct(&mut words, runs, child),
        BITMAP => make_bitmap(&mut words, runs, child),
        _ => make_sparse(&mut words, runs, child),
    }
    Made { words, shape }
}

/// Gives out leaves, and collects the words of the children among them.
fn leaves<'a>(
    runs: &'a [(u32, Leaf)],
    children: &'a mut Vec<u64>,
    child: &'a dyn Fn(u32) -> u64,
) -> impl Iterator<Item = u16> + use<'a> {
    runs.iter().map(move |(_, leaf)| match leaf {
        Leaf::Value(value) => *value,
        Leaf::Child(n) => {
            children.push(child(*n));
            CHILD | (children.len() - 1) as u16
        }
    })
}

fn make_direct(words: &mut Vec<u64>, runs: &[(u32, Leaf)], child: &dyn Fn(u32) -> u64) {
    let mut children = Vec::new();
    words.resize(DIRECT_WORDS as usize, 0);
    let ends = runs.iter().skip(1).map(|(first, _)| *first).chain([1 << DIRECT_BITS]);
    for (((first, _), end), leaf) in runs.iter().zip(ends).zip(leaves(runs, &mut children, child)) {
        paint(words, *first, end, leaf);
    }
    words.append(&mut children);
}

/// Writes a leaf over the places from `first` to before `end`.
fn paint(words: &mut [u64], first: u32, end: u32, leaf: u16) {
    for (at, word) in words.iter_mut().enumerate().take(end.div_ceil(4) as usize).skip(first as usize / 4) {
        let (from, to) = (first.max(at as u32 * 4) % 4 * 16, end.min(at as u32 * 4 + 4) - at as u32 * 4);
        let mask = (u64::MAX >> (64 - to * 16)) & (u64::MAX << from);
        *word = *word & !mask | (u64::from(leaf) * LOW_LANES) & mask;
    }
}

fn make_sparse(words: &mut Vec<u64>, runs: &[(u32, Leaf)], child: &dyn Fn(u32) -> u64) {
    let mut children = Vec::new();
    let leaves: Vec<u16> = leaves(runs, &mut children, child).collect();
    let last = leaves.last().copied().unwrap_or(0);
    // What is left over begins nowhere but at the last value, where it says what is true there.
    let starts = runs.iter().map(|(first, _)| *first as u16).chain(std::iter::repeat(u16::MAX));
    pack(words, starts.take(RUNS_MAX));
    pack(words, leaves.iter().copied().chain(std::iter::repeat(last)).take(RUNS_MAX));
    words.append(&mut children);
}

fn make_bitmap(words: &mut Vec<u64>, runs: &[(u32, Leaf)], child: &dyn Fn(u32) -> u64) {
    words.resize(BITMAP_HEAD, 0);
    for (first, _) in runs {
        words[*first as usize / 64] |= 1 << (first % 64);
    }
    let mut before = 0;
    for part in 0..4 {
        words[4] |= u64::from(before) << (part * 16);
        before += words[part].count_ones();
    }
    words.extend(runs.iter().map(|(_, leaf)| match leaf {
        Leaf::Value(value) => bare(*value),
        Leaf::Child(n) => child(*n),
    }));
}

/// Four to a word.
fn pack(words: &mut Vec<u64>, values: impl Iterator<Item = u16>) {
    for (n, value) in values.enumerate() {
        if n % 4 == 0 {
            words.push(0);
        }
        if let Some(word) = words.last_mut() {
            *word |= u64::from(value) << (n % 4 * 16);
        }
    }
}

/// Whether `word` names no part.
#[inline(always)]
pub fn is_bare(word: u64) -> bool {
    word & SHAPE_MASK == NONE
}
