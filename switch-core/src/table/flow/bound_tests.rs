//! Translated flows beside others: both entries of one begin, count and end together, whatever ends them.

use super::bound::{Binding, Rules, Unbound};
use super::keeper::Keeper;
use super::key::Key;
use super::record::Decision;
use super::state::Stage;
use super::tests::{Table, packet};
use super::*;
use proptest::prelude::*;
use std::collections::HashMap;

const RULES: Rules = Rules { destination: 3, source: 4 };

fn udp(src: u128, dst: u128) -> Packet {
    packet(src, dst, 17, [5, 6], Content::Udp)
}

impl Table {
    /// A flow from `src` to `dst` whose packets become ones from `src2` to `dst2`.
    fn bind(&mut self, from: [u128; 2], to: [u128; 2], port: u16) -> Result<Opened, Unbound> {
        let (first, becomes) = (udp(from[0], from[1]), udp(to[0], to[1]));
        let (key, side) = Key::of(&becomes, 1);
        let binding = Binding { key, hash: self.flows.hash(&key), side, rules: RULES };
        let (own, own_side) = Key::of(&first, 1);
        let (hash, now_s) = (self.flows.hash(&own), self.now_s);
        let seen = Seen { packet: &first, key: own, hash, side: own_side, port, now_s };
        self.flows.open_bound(&mut self.keeper, &seen, Decision { epoch: 9 }, &binding)
    }

    fn place_of(&self, src: u128, dst: u128) -> Option<u32> {
        self.flows.find(&Key::of(&udp(src, dst), 1).0)
    }
}

#[test]
fn each_key_leads_to_the_flow_and_says_what_the_others_packets_become() {
    for (from, to) in [([1, 100], [1, 7]), ([1, 100], [200, 100]), ([50, 100], [40, 30]), ([9, 3], [2, 8])] {
        let mut table = Table::new(256, false);
        let Ok(Opened::New(place)) = table.bind(from, to, 1) else { panic!() };
        assert_eq!(table.place_of(from[0], from[1]), Some(place));
        let reply = table.place_of(to[0], to[1]).unwrap();
        assert!(table.flows.is_reply(reply) && !table.flows.is_reply(place));
        let (own, other) = (Key::of(&udp(from[0], from[1]), 1).0, Key::of(&udp(to[0], to[1]), 1).0);
        let (bound, key) = table.flows.original(reply, &other).unwrap();
        assert_eq!((key, table.flows.original(reply, &own)), (own, None));
        assert_eq!((bound.other, bound.rules), (place, RULES));
        let side = Key::of(&udp(from[0], from[1]), 1).1;
        let ips = |side| table.flows.becomes(place, &own, side).unwrap().map(|end| end.ip);
        assert_eq!(table.flows.becomes(place, &other, side), None, "of this flow's key only");
        assert!(!table.flows.is_unbound(place, &own));
        assert_eq!(ips(side), to);
        assert_eq!(ips(side ^ 1), [from[1], from[0]]);
        // The answer's side, as the flow's key has it.
        let answer = Key::of(&packet(to[1], to[0], 17, [6, 5], Content::Udp), 1).1;
        assert_eq!(answer ^ u8::from(bound.turned), side ^ 1);
        // One look at both says the same.
        let go = |at: u32, key: &Key, side: u8| {
            let going = table.flows.going(table.flows.record(at), key, side)?;
            let becomes = going
                .becomes
                .map(|plain| [plain.src, plain.dst, plain.ports[0].into(), plain.ports[1].into()]);
            Some((going.flow.place(), going.side, going.by_reply, becomes))
        };
        let [there, back] = [to, [from[1], from[0]]].map(|ips| ips.map(|ip| ip as u32));
        assert_eq!(go(place, &own, side), Some((place, side, false, Some([there[0], there[1], 5, 6]))));
        assert_eq!(go(reply, &other, answer), Some((place, side ^ 1, true, Some([back[0], back[1], 6, 5]))));
        assert_eq!((go(place, &own, side ^ 1), go(reply, &other, answer ^ 1)), (None, None), "who poses");
        assert_eq!((go(place, &other, side), go(reply, &own, answer)), (None, None), "of another key");
        assert_eq!(table.flows.counted().all, 2);
        let mut seen = Vec::new();
        table.flows.scan_bound(0..256, |at, rules, key, _| seen.push((at, rules, key)));
        assert_eq!(seen, [(place, RULES, Key::of(&udp(to[0], to[1]), 1).0)]);
        let mut listed = 0;
        table.flows.scan(0..256, table.now_s, |_, entry| {
            listed += 1;
            assert_eq!(entry.real().map(|end| end.ip), [from[0], to[1]]);
        });
        assert_eq!(listed, 1, "the reply is no flow");
    }
}

#[test]
fn what_is_anothers_is_not_taken_twice() {
    let mut table = Table::new(256, false);
    assert!(matches!(table.bind([1, 100], [200, 100], 1), Ok(Opened::New(_))));
    assert_eq!(table.bind([2, 100], [200, 100], 1), Err(Unbound::Taken));
    assert!(matches!(table.bind([2, 101], [200, 101], 1), Ok(Opened::New(_))), "another peer");
    // A flow of its own with a key that is a reply's waits until that is gone.
    assert_eq!(table.packet(&udp(200, 100), 2), Err(Refusal::Busy));
    // Its first packet again, from another worker: counted to the flow that is there.
    assert!(matches!(table.bind([1, 100], [201, 100], 1), Ok(Opened::Known(_))));
    assert_eq!(table.flows.counted().all, 4);
}

/// An answer that came in one batch with what it answers was no flow's when it was looked for, and asks for one of its own when the other has
/// begun: what is there stays, and no place is in two lists.
#[test]
fn a_reply_makes_way_for_nobody() {
    let mut table = Table::new(512, false);
    let Ok(Opened::New(place)) = table.bind([1, 100], [200, 100], 1) else { panic!() };
    let reply = table.place_of(200, 100).unwrap();
    assert_eq!(table.bind([200, 100], [300, 100], 2), Err(Unbound::Refused(Refusal::Busy)));
    assert!(
        !table.keeper.clear(&table.flows, reply, &table.flows.record(reply).key())
            && table.keeper.is_queued(&table.flows, place)
    );
    assert_eq!((table.place_of(1, 100), table.place_of(200, 100)), (Some(place), Some(reply)));
    for n in 0..300 {
        assert!(matches!(table.bind([1000 + n, 100], [5000 + n, 100], 1), Ok(Opened::New(_))), "{n}");
    }
}

/// By time, by deletion, by a flood of its own port, by another of its key: both entries are free again.
#[test]
fn both_entries_end_together() {
    let mut table = Table::new(1024, false);
    let half_open = table.flows.limits().half_open;
    for round in 0..4u128 {
        for n in 0..40 {
            assert!(matches!(table.bind([n, 1000], [5000 + n, 1000], 1), Ok(Opened::New(_))), "{round} {n}");
        }
        assert_eq!(table.flows.counted(), Counted { all: 80, half_open: 40 });
        assert_eq!(table.flows.begun_at(1), 40, "of each one began");
        match round {
            0 => table.now_s += Stage::UdpOneWay.timeout_s() + 5,
            1 => (0..40).for_each(|n| assert!(table.flows.kill_at(table.place_of(n, 1000).unwrap()))),
            2 => {
                for n in 0..20_000 {
                    _ = table.packet(&udp(100_000 + n, 7), 1);
                    assert!(table.flows.counted_of(1).half_open <= half_open);
                }
                assert!(
                    (0..40).all(
                        |n| table.place_of(n, 1000).is_none() && table.place_of(5000 + n, 1000).is_none()
                    )
                );
                table.now_s += Stage::UdpOneWay.timeout_s() + 5;
            }
            _ => {
                let places: Vec<u32> = (0..40).map(|n| table.place_of(n, 1000).unwrap()).collect();
                for place in places {
                    assert!(table.keeper.clear(&table.flows, place, &table.flows.record(place).key()));
                }
                assert!(
                    (0..40).all(
                        |n| table.place_of(n, 1000).is_none() && table.place_of(5000 + n, 1000).is_none()
                    )
                );
            }
        }
        // Queues of half-open flows turn, and rounds pass.
        for _ in 0..40 {
            table.now_s += 1;
            table.sweep();
        }
        assert_eq!(table.flows.counted(), Counted { all: 0, half_open: 0 }, "round {round}");
        assert_eq!((table.flows.counted_of(1).all, table.flows.begun_at(1)), (0, 0));
    }
}

/// Where the lane that it came by has moved to another worker: that one ends it, and its owner gives it up.
#[test]
fn anothers_flow_makes_way_when_its_owner_comes_round() {
    let mut table = Table::new(512, false);
    let Ok(Opened::New(place)) = table.bind([100, 1], [100, 7], 1) else { panic!() };
    let (key, began) = (table.flows.record(place).key(), table.flows.began(place));
    let mut other = Keeper::new(8, table.flows.places());
    assert!(!other.clear(&table.flows, place, &Key::default()) && table.flows.is_alive(place, table.now_s));
    assert!(!other.clear(&table.flows, place, &key) && !table.flows.is_alive(place, table.now_s));
    table.now_s += 5;
    table.sweep();
    assert_eq!((table.place_of(100, 1), table.place_of(100, 7)), (None, None));
    assert_eq!(table.flows.began(place), began, "whose it was is still known to packets of the same batch");
    assert_eq!(table.flows.counted(), Counted { all: 0, half_open: 0 });
}

#[test]
fn what_is_not_translated_stays_as_it_is() {
    let mut table = Table::new(256, false);
    let Ok(Opened::New(place)) = table.packet(&udp(60, 61), 1) else { panic!() };
    let (key, side) = Key::of(&udp(60, 61), 1);
    let stays = |table: &Table, side| {
        let going = table.flows.going(table.flows.record(place), &key, side);
        going.map(|it| (it.flow.place(), it.side, it.by_reply, it.becomes))
            == Some((place, side, false, None))
    };
    assert!(stays(&table, side) && stays(&table, side ^ 1));
    assert!(table.flows.kill_at(place) && !stays(&table, side));
}

proptest! {
    /// Beside a map: what is bound is found by both keys, and nothing else is, however it goes.
    #[test]
    fn a_map_says_the_same(steps in proptest::collection::vec((0u128..6, 0u128..4, 0u8..5), 1..300)) {
        let mut table = Table::new(256, false);
        let mut map: HashMap<(u128, u128), u128> = HashMap::new();
        for (n, peer, what) in steps {
            let (host, peer) = (n, 1000 + peer);
            let outer = |try_: u128| 5000 + try_;
            match what {
                0 | 1 => {
                    let free = (0..3).find(|t| !map.iter().any(|((_, p), o)| *p == peer && *o == outer(*t)));
                    let is_known = map.contains_key(&(host, peer));
                    if is_known {
                        let known = table.bind([host, peer], [outer(9), peer], 1);
                        prop_assert!(matches!(known, Ok(Opened::Known(_))));
                    }
                    if let Some(t) = free.filter(|_| !is_known) {
                        for taken in 0..t {
                            prop_assert_eq!(table.bind([host, peer], [outer(taken), peer], 1), Err(Unbound::Taken));
                        }
                        prop_assert!(matches!(table.bind([host, peer], [outer(t), peer], 1), Ok(Opened::New(_))));
                        map.insert((host, peer), outer(t));
                    }
                }
                2 => {
                    let place = table.place_of(host, peer);
                    prop_assert_eq!(place.is_some(), map.remove(&(host, peer)).is_some());
                    if let Some(place) = place {
                        prop_assert!(table.keeper.clear(&table.flows, place, &table.flows.record(place).key()));
                    }
                }
                3 => {
                    table.now_s += 1;
                    table.sweep();
                    // What waits for an answer for too long is gone; keep them all alive.
                    for (host, peer) in map.keys() {
                        let again = table.packet(&udp(*host, *peer), 1);
                        prop_assert!(matches!(again, Ok(Opened::Known(_))));
                    }
                }
                _ => {
                    let place = table.place_of(host, peer);
                    if let Some(place) = place.filter(|_| map.remove(&(host, peer)).is_some()) {
                        table.flows.kill_at(place);
                        (0..20).for_each(|_| { table.now_s += 1; table.sweep(); });
                        for (host, peer) in map.keys() {
                            _ = table.packet(&udp(*host, *peer), 1);
                        }
                    }
                }
            }
            for ((host, peer), outer) in &map {
                let place = table.place_of(*host, *peer);
                let reply = table.place_of(*outer, *peer).unwrap();
                let key = Key::of(&udp(*outer, *peer), 1).0;
                prop_assert_eq!(table.flows.original(reply, &key).map(|(bound, _)| bound.other), place);
            }
            prop_assert_eq!(table.flows.counted().all, 2 * map.len() as u32);
        }
    }
}
