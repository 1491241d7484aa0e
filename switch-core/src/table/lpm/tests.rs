//! Lookups and changes beside their dull twin, which looks at every prefix.

use super::*;
use crate::table::probes::Counted;
use proptest::prelude::*;
use std::cell::Cell;
use std::collections::BTreeMap;

/// The dull twin.
fn linear(routes: &BTreeMap<(u128, u8), u32>, key: u128) -> u32 {
    let covers =
        |(network, len): &(u128, u8)| (network ^ key).checked_shr(128 - u32::from(*len)).unwrap_or(0) == 0;
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

/// Keys that differ in 16 bits only, which lie where a node has them or across two: parts get many runs.
fn crowded() -> impl Strategy<Value = Vec<Change>> {
    let place = (0u32..113, prop::sample::select(vec![8u8, 16, 24, 32, 48, 64, 128]));
    (place, any::<u128>()).prop_flat_map(|((shift, deeper), base)| {
        let one = (any::<u16>(), 0..=deeper.min(24), 0u32..9);
        proptest::collection::vec(one, 40..600).prop_map(move |ones| {
            let base = base & !(0xffff << shift);
            let change = |(bits, less, value): (u16, u8, u32)| {
                let len = (128 - shift as u8).saturating_sub(less % 17).max(1) + deeper / 128 * shift as u8;
                Change { key: masked(base | u128::from(bits) << shift, len), len, value }
            };
            ones.into_iter().map(change).collect()
        })
    })
}

fn change(len_max: u8) -> impl Strategy<Value = Change> {
    (key(), 0..=len_max, 0u32..9).prop_map(|(key, len, value)| Change { key: masked(key, len), len, value })
}

fn tell(twin: &mut BTreeMap<(u128, u8), u32>, portion: &[Change]) {
    for Change { key, len, value } in portion {
        if *value == NO_ROUTE {
            twin.remove(&(*key, *len));
        } else {
            twin.insert((*key, *len), *value);
        }
    }
}

fn all(twin: &BTreeMap<(u128, u8), u32>) -> Vec<Change> {
    twin.iter().map(|((key, len), value)| Change { key: *key, len: *len, value: *value }).collect()
}

/// Both ends of every prefix, and what lies beside them.
fn ends(twin: &BTreeMap<(u128, u8), u32>) -> impl Iterator<Item = u128> {
    twin.keys().flat_map(|(key, len)| {
        let behind = u128::MAX.checked_shr(u32::from(*len)).unwrap_or(0);
        [*key, key | behind, key.wrapping_sub(1), (key | behind).wrapping_add(1)]
    })
}

/// What a lookup says that counts its probes, and how many there were.
fn counted(lpm: &Lpm, key: impl Key) -> (u32, u32) {
    let probes = Cell::new(0);
    (lpm.find_key(key, Counted(&probes)), probes.get())
}

/// Looked up one by one and by batch, in no more probes than there may be.
fn find_all(lpm: &Lpm, keys: &[u128]) -> Vec<u32> {
    let mut values = vec![0; keys.len()];
    find_each(&mut values, |n| (lpm, keys[n]));
    for (key, value) in keys.iter().zip(&values) {
        let (found, probes) = counted(lpm, *key);
        assert_eq!((lpm.find(*key), found), (*value, *value), "{key:#034x}");
        assert!((1..=PROBES_MAX).contains(&probes), "{key:#034x} takes {probes} probes");
    }
    values
}

proptest! {
    #![proptest_config(crate::cases::cases(192))]

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
            tell(&mut twin, portion);
            let keys: Vec<u128> = keys.iter().copied().chain(ends(&twin)).collect();
            let (values, before) = (find_all(&lpm, &keys), find_all(&old, &keys));
            for ((key, value), before) in keys.iter().zip(values).zip(before) {
                prop_assert_eq!(value, linear(&twin, *key));
                prop_assert_eq!(before, linear(&old_twin, *key));
            }
            for Change { key, len, .. } in portions.iter().flatten() {
                let there = twin.get(&(*key, *len)).copied().unwrap_or(NO_ROUTE);
                prop_assert_eq!(lpm.exact(*key, *len), there);
            }
        }
    }

    /// The same where parts are full: bitmaps, and bitmaps below bitmaps.
    #[test]
    fn finds_it_in_a_crowd(
        crowds in proptest::collection::vec(crowded(), 1..3),
        gone in any::<prop::sample::Index>(),
    ) {
        let (mut lpm, mut twin) = (Lpm::default(), BTreeMap::new());
        let withdrawn = crowds[gone.index(crowds.len())].iter().step_by(2);
        let withdrawn: Vec<Change> = withdrawn.map(|change| Change { value: NO_ROUTE, ..*change }).collect();
        for portion in crowds.iter().chain([&withdrawn]) {
            lpm = lpm.changed(&mut portion.clone());
            tell(&mut twin, portion);
            let keys: Vec<u128> = ends(&twin).collect();
            for (key, value) in keys.iter().zip(find_all(&lpm, &keys)) {
                prop_assert_eq!(value, linear(&twin, *key), "{:#034x}", key);
            }
            let rebuilt = Lpm::default().changed(&mut all(&twin));
            prop_assert_eq!(lpm.bytes(), rebuilt.bytes());
        }
    }

    /// Around the number at which a node of 16 bits is split: keys come and go one by one, and what is left at last is as if it had been
    /// made at once.
    #[test]
    fn a_node_is_split_and_joined_again(
        shift in prop::sample::select(vec![0u32, 16, 48, 64, 80]),
        steps in proptest::collection::vec((any::<prop::sample::Index>(), 0u8..20, 0u32..3), 1..200),
    ) {
        let (mut lpm, mut twin) = (Lpm::default(), BTreeMap::new());
        let places: Vec<u128> = (0..90u128).map(|n| ((n * n * 37) & 0xffff) << shift).collect();
        for (place, less, value) in steps {
            let len = 128 - shift as u8 - less.saturating_sub(3) + if less < 2 { (shift as u8).min(5) } else { 0 };
            let change = Change { key: masked(places[place.index(places.len())], len), len, value };
            lpm = lpm.changed(&mut [change]);
            tell(&mut twin, &[change]);
        }
        let rebuilt = Lpm::default().changed(&mut all(&twin));
        prop_assert_eq!(lpm.bytes(), rebuilt.bytes());
        prop_assert_eq!(lpm.arena_bytes().0, rebuilt.arena_bytes().0);
        let keys: Vec<u128> = ends(&twin).collect();
        for (key, value) in keys.iter().zip(find_all(&lpm, &keys)) {
            prop_assert_eq!(value, linear(&twin, *key), "{:#034x}", key);
        }
        for Change { key, len, value } in all(&twin) {
            prop_assert_eq!(lpm.exact(key, len), value);
        }
    }

    /// A table that was changed step by step and one that was made at once say the same and lie in as much
    /// memory: the layout depends on the routes and not on how they came.
    #[test]
    fn changed_is_as_rebuilt(portions in proptest::collection::vec(proptest::collection::vec(change(64), 1..60), 1..6)) {
        let (mut lpm, mut twin) = (Lpm::default(), BTreeMap::new());
        for portion in &portions {
            lpm = lpm.changed(&mut portion.clone());
            tell(&mut twin, portion);
        }
        let rebuilt = Lpm::default().changed(&mut all(&twin));
        prop_assert_eq!(lpm.bytes(), rebuilt.bytes());
        prop_assert_eq!(lpm.arena_bytes().0, rebuilt.arena_bytes().0, "what nobody can reach was given back");
        for key in ends(&twin) { prop_assert_eq!(lpm.find(key), rebuilt.find(key)); }
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
            let (found, probes) = counted(&lpm, *ip);
            prop_assert_eq!((lpm.find_v4(*ip), found), (value, value));
            prop_assert!((1..=V4_PROBES_MAX).contains(&probes), "{} probes", probes);
        }
    }
}

fn v4(ip: u32, len: u8, value: u32) -> Change {
    Change { key: u128::from(ip) << 96, len, value }
}

#[test]
fn what_did_not_change_is_shared() {
    let mut all: Vec<_> = (0..10_000u32).map(|n| v4(n << 16 | 0x100, 24, n + 1)).collect();
    let before = Lpm::default().changed(&mut all);
    let used = before.arena_bytes().0;
    let after = before.changed(&mut [v4(0x0001_0200, 24, 7)]);
    let shared = before.nodes.iter().zip(&*after.nodes).filter(|(one, other)| Arc::ptr_eq(one, other));
    assert_eq!(shared.count(), ROOT / GROUP - 1);
    assert_eq!(after.arena_bytes().0 - used, 4096, "one part anew");
    assert_eq!((after.find_v4(0x0001_0203), before.find_v4(0x0001_0203)), (7, NO_ROUTE));
    drop(after);
    assert_eq!(before.arena_bytes().0, used);
    // And with the last route goes the memory.
    let gone = &mut (0..10_000u32).map(|n| v4(n << 16 | 0x100, 24, NO_ROUTE)).collect::<Vec<_>>();
    let empty = before.changed(gone);
    drop(before);
    assert!(empty.nodes.iter().all(|group| group.iter().all(Option::is_none)));
    assert_eq!(empty.arena_bytes(), (0, 0));
}

/// 50 000 addresses that have 64 bits in common and differ in the next 16: one more or less makes anew what lies on its way, of which
/// no part has more than 256 answers, and no list of nodes more than a hundred of them.
#[test]
fn one_of_many_in_a_node_costs_what_it_is() {
    let address = |n: u32| Change {
        key: 0x2001_0db8 << 96 | u128::from(n.wrapping_mul(0x9e37_79b1)) << 32,
        len: 128,
        value: 1,
    };
    let before = Lpm::default().changed(&mut (0..50_000).map(address).collect::<Vec<_>>());
    let used = before.arena_bytes().0;
    let made = |change: Change| {
        let next = before.changed(&mut [change]);
        (next.arena_bytes().0 - used, next)
    };
    for n in [0, 77, 49_999] {
        let (anew, gone) = made(Change { value: NO_ROUTE, ..address(n) });
        assert!(anew <= 12 << 10, "{anew} bytes anew for one of 50 000 less");
        assert_eq!((gone.find(address(n).key), before.find(address(n).key)), (NO_ROUTE, 1));
        drop(gone);
        let (anew, more) = made(address(50_000 + n));
        assert!(anew <= 12 << 10, "{anew} bytes anew for one of 50 000 more");
        assert_eq!(more.find(address(50_000 + n).key), 1);
    }
    // The same for IPv4, where a node of 11 bits has 2 048 below.
    let mut hosts: Vec<Change> = (0..2048).map(|n| v4(0x6440_0000 | n << 8 | 1, 32, 1)).collect();
    let before = Lpm::default().changed(&mut hosts);
    let after = before.changed(&mut [v4(0x6440_0102, 32, 1)]);
    let node = |lpm: &Lpm| lpm.nodes.iter().flat_map(|group| group.iter().flatten()).next().cloned().unwrap();
    let (shared, groups) = node(&before).children().shared(node(&after).children());
    assert_eq!((shared, groups), (31, 32), "one group of 32 is another");
}

/// As many as there may be are taken where every part is a bitmap, each below the one before, and two of them where a node of 16 bits is
/// split; and nothing that is added then makes it more.
#[test]
fn the_deepest_of_all_ways_takes_what_the_bound_says() {
    // At each depth where a part may begin, 17 runs and more beside the way further down, and too many for a node of 16 bits.
    let crowd = |key: u128, bits: u8, values: u32| {
        let ends = (24..=bits).step_by(8);
        ends.flat_map(move |end| {
            let last = (1..=70u128).map(move |n| (key >> (128 - end) ^ n) << (128 - end));
            last.zip(1..).map(move |(key, n): (u128, u32)| Change { key, len: end, value: 1 + n % values })
        })
    };
    let key = 0x2001_0db8_1234_5678_9abc_def0_1357_9bdf_u128;
    let mut all: Vec<Change> = crowd(key, 128, 9).chain([Change { key, len: 128, value: 77 }]).collect();
    let lpm = Lpm::default().changed(&mut all);
    assert_eq!((counted(&lpm, key), PROBES_MAX), ((77, 29), 29));
    let ip = 0x0a01_0203u32;
    let host = Change { key: u128::from(ip) << 96, len: 32, value: 77 };
    let mut all: Vec<Change> = crowd(host.key, 32, 9).chain([host]).collect();
    let lpm = Lpm::default().changed(&mut all);
    assert_eq!((counted(&lpm, ip), V4_PROBES_MAX), ((77, 5), 5));
    // What has no route at all, and what has one in the root.
    assert_eq!(counted(&lpm, 0xc0a8_0001u32), (NO_ROUTE, 1));
    let lpm = lpm.changed(&mut [v4(0xc000_0000, 2, 5)]);
    assert_eq!((counted(&lpm, 0xc0a8_0001u32), counted(&lpm, ip)), ((5, 1), (77, 5)));
}

#[test]
fn the_largest_value_is_no_child() {
    let lpm = Lpm::default().changed(&mut [v4(0x0a00_0000, 9, VALUE_MAX), v4(0x0a00_0000, 30, 1)]);
    assert_eq!((lpm.find_v4(0x0a00_0001), lpm.find_v4(0x0a00_0004)), (1, VALUE_MAX));
}
