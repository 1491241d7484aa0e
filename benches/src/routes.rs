//! Routing tables as large as the Internet's, made by a seeded script: lengths are spread as in a full table
//! of 2025, addresses evenly, which is harder on a cache than the real ones.

use switch_core::table::lpm::Change;

/// A small generator (splitmix64): the same seed gives the same table everywhere.
#[derive(Debug)]
pub struct Dice(u64);

impl Dice {
    /// From a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next word.
    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let word = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    fn wide(&mut self) -> u128 {
        u128::from(self.word()) << 64 | u128::from(self.word())
    }

    /// One of several lengths, by parts of a thousand.
    fn len(&mut self, parts: &[(u8, u64)]) -> u8 {
        let mut at = self.word() % parts.iter().map(|(_, part)| part).sum::<u64>();
        for (len, part) in parts {
            if at < *part {
                return *len;
            }
            at -= part;
        }
        parts[0].0
    }
}

/// Lengths of a full IPv4 table, in parts of a thousand.
const V4: &[(u8, u64)] = &[
    (24, 590),
    (22, 110),
    (23, 97),
    (21, 50),
    (20, 45),
    (19, 26),
    (18, 15),
    (16, 14),
    (17, 9),
    (15, 2),
    (14, 2),
    (13, 1),
    (12, 1),
    (25, 6),
    (26, 6),
    (27, 5),
    (28, 5),
    (29, 5),
    (30, 4),
    (32, 7),
];
/// The same for IPv6.
const V6: &[(u8, u64)] = &[
    (48, 470),
    (32, 150),
    (44, 95),
    (40, 95),
    (36, 55),
    (29, 45),
    (33, 25),
    (34, 15),
    (35, 10),
    (46, 15),
    (47, 10),
    (64, 10),
    (128, 5),
];

fn mask(len: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0)
}

/// `count` different IPv4 prefixes in 1.0.0.0 to 223.255.255.255, left-aligned.
pub fn v4(count: usize, seed: u64) -> Vec<Change> {
    let mut dice = Dice::new(seed);
    distinct(count, || {
        let len = dice.len(V4);
        let ip = 0x0100_0000 + dice.word() as u32 % (0xe000_0000 - 0x0100_0000);
        (u128::from(ip) << 96 & mask(len), len)
    })
}

/// `count` different IPv6 prefixes; most lie in 40 000 allocations of /32 in a dozen blocks of the registries.
pub fn v6(count: usize, seed: u64) -> Vec<Change> {
    const BLOCKS: [u16; 12] =
        [0x2001, 0x2400, 0x2401, 0x2402, 0x2403, 0x2600, 0x2602, 0x2604, 0x2800, 0x2804, 0x2a00, 0x2c0f];
    let mut dice = Dice::new(seed);
    let mut allocations = Vec::new();
    for _ in 0..40_000 {
        let block = BLOCKS[dice.word() as usize % BLOCKS.len()];
        allocations.push(u128::from(block) << 112 | u128::from(dice.word() as u16) << 96);
    }
    distinct(count, || {
        let len = dice.len(V6);
        let allocation = allocations[dice.word() as usize % allocations.len()];
        ((allocation | dice.wide() >> 32) & mask(len), len)
    })
}

fn distinct(count: usize, mut next: impl FnMut() -> (u128, u8)) -> Vec<Change> {
    let mut seen = std::collections::HashSet::with_capacity(count);
    let mut changes = Vec::with_capacity(count);
    while changes.len() < count {
        let (key, len) = next();
        if seen.insert((key, len)) {
            changes.push(Change { key, len, value: 1 + (changes.len() % 64) as u32 });
        }
    }
    changes
}

/// `count` addresses, each in a prefix chosen at random.
pub fn destinations(routes: &[Change], count: usize, seed: u64) -> Vec<u128> {
    let mut dice = Dice::new(seed);
    let address = |_| {
        let route = routes[dice.word() as usize % routes.len()];
        route.key | dice.wide() & !mask(route.len)
    };
    (0..count).map(address).collect()
}
