//! The flow table: its limits, and a map as its twin. What TCP does is told in `tcp_tests`.

use super::keeper::Keeper;
use super::key::Key;
use super::record::Decision;
use super::state::Stage;
use super::*;
use crate::wire::packet::{Tcp, flags};
use proptest::prelude::*;
use std::collections::HashMap;

/// Two ends, a packet between them, told to a table.
pub(super) struct Table {
    pub flows: Flows,
    pub keeper: Keeper,
    pub now_s: u32,
}

pub(super) fn packet(src: u128, dst: u128, protocol: u8, ports: [u16; 2], content: Content) -> Packet {
    Packet { src, dst, protocol, ports, icmp: [0; 2], content, fragment: None }
}

impl Table {
    pub fn new(entries: usize, pickup: bool) -> Self {
        let flows = Flows::new(entries, 8, [3, 4], pickup);
        let keeper = Keeper::new(8, flows.places());
        Self { flows, keeper, now_s: 100 }
    }

    fn seen<'a>(&self, packet: &'a Packet, port: u16) -> Seen<'a> {
        let (key, side) = Key::of(packet, 1);
        Seen { packet, key, hash: self.flows.hash(&key), side, port, now_s: self.now_s }
    }

    /// As the pipeline does it: to its flow, or a new one.
    pub fn packet(&mut self, packet: &Packet, port: u16) -> Result<Opened, Refusal> {
        let seen = self.seen(packet, port);
        if let Some(place) = self.flows.find(&seen.key) {
            match self.flows.pass(place, &seen) {
                Passed::Known | Passed::Moved(_) => return Ok(Opened::Known(place)),
                Passed::Invalid(invalid) => return Ok(Opened::Invalid(invalid)),
                Passed::Over => {}
            }
        }
        self.flows.open(&mut self.keeper, &seen, Decision { epoch: 7 })
    }

    fn udp(&mut self, src: u128, dst: u128, port: u16) -> Result<Opened, Refusal> {
        self.packet(&packet(src, dst, 17, [5, 6], Content::Udp), port)
    }

    fn syn(&mut self, src: u128, dst: u128, port: u16) -> Result<Opened, Refusal> {
        let segment = Tcp { flags: flags::SYN, window: 1000, ..Tcp::default() };
        self.packet(&packet(src, dst, 6, [5, 6], Content::Tcp(segment)), port)
    }

    pub fn sweep(&mut self) {
        for _ in 0..100 {
            self.keeper.sweep(&self.flows, u64::from(self.now_s) * 1_000_000_000);
        }
    }
}

#[test]
fn both_directions_are_one_flow() {
    let mut table = Table::new(256, false);
    let Ok(Opened::New(place)) = table.udp(10, 20, 1) else { panic!() };
    let answer = packet(20, 10, 17, [6, 5], Content::Udp);
    assert_eq!(table.packet(&answer, 2), Ok(Opened::Known(place)));
    assert_eq!(table.flows.state(place).stage, Stage::UdpAnswered);
    assert_eq!(table.flows.state(place).port, 1, "who began it pays");
    assert_eq!(table.flows.decision(place).epoch, 7);
}

#[test]
fn a_flow_is_forgotten_when_its_time_is_over_and_its_place_is_used_again() {
    let mut table = Table::new(256, false);
    for n in 0..32 {
        assert!(matches!(table.udp(n, 1000, 1), Ok(Opened::New(_))), "{n}");
    }
    assert_eq!(table.flows.counted(), Counted { all: 32, half_open: 32 });
    table.now_s += Stage::UdpOneWay.timeout_s();
    table.sweep();
    assert_eq!(table.flows.counted().all, 32);
    // One more second, and a round of the sweep.
    table.now_s += 5;
    table.sweep();
    assert_eq!(table.flows.counted(), Counted { all: 0, half_open: 0 });
    for n in 0..32 {
        assert!(matches!(table.udp(n, 2000, 1), Ok(Opened::New(_))), "{n}");
    }
}

#[test]
fn a_flood_of_one_port_evicts_its_own_half_open_flows_and_nobody_elses() {
    let mut table = Table::new(1024, false);
    let half_open = table.flows.limits().half_open;
    // Port 2: one established flow and one half-open.
    let Ok(Opened::New(quiet)) = table.udp(1, 2, 2) else { panic!() };
    table.packet(&packet(2, 1, 17, [6, 5], Content::Udp), 3).unwrap();
    let Ok(Opened::New(asked)) = table.udp(3, 4, 2) else { panic!() };
    // Port 1: an established flow, and then a flood.
    let Ok(Opened::New(own)) = table.udp(5, 6, 1) else { panic!() };
    table.packet(&packet(6, 5, 17, [6, 5], Content::Udp), 3).unwrap();
    for n in 0..100_000u128 {
        assert!(matches!(table.syn(1000 + n, 7, 1), Ok(Opened::New(_))), "{n}");
        assert!(table.flows.counted_of(1).half_open <= half_open);
    }
    assert!(table.keeper.take_evicted() > 99_000);
    for place in [quiet, own] {
        assert_eq!(table.flows.state(place).stage, Stage::UdpAnswered);
    }
    assert_eq!(table.flows.state(asked).stage, Stage::UdpOneWay);
    assert!(matches!(table.udp(8, 9, 4), Ok(Opened::New(_))), "another port finds room");
}

/// Wherever in the list of those without an answer it stands when the list is full.
#[test]
fn a_flood_passes_over_what_was_answered_meanwhile() {
    let half_open = u128::from(Table::new(256, false).flows.limits().half_open);
    for which in 0..half_open {
        let mut table = Table::new(256, false);
        let mut places = Vec::new();
        for n in 0..half_open {
            let Ok(Opened::New(place)) = table.udp(1000 + n, 7, 1) else { panic!() };
            places.push(place);
        }
        table.packet(&packet(7, 1000 + which, 17, [6, 5], Content::Udp), 2).unwrap();
        for n in 0..half_open * 2 {
            assert!(matches!(table.syn(5000 + n, 7, 1), Ok(Opened::New(_))), "{which}, {n}");
        }
        assert_eq!(table.flows.state(places[which as usize]).stage, Stage::UdpAnswered, "{which}");
    }
}

/// Reset, and opened anew in its place when it had left the list of those without an answer.
#[test]
fn what_began_anew_makes_room_for_others() {
    let mut table = Table::new(256, false);
    let half_open = u128::from(table.flows.limits().half_open);
    let reset = Tcp { flags: flags::RST, seq: 1, window: 1000, ..Tcp::default() };
    for n in 0..half_open {
        assert!(matches!(table.syn(1000 + n, 7, 1), Ok(Opened::New(_))));
        table.packet(&packet(1000 + n, 7, 6, [5, 6], Content::Tcp(reset)), 1).unwrap();
    }
    table.now_s += 1;
    table.sweep();
    for n in 0..half_open {
        assert!(matches!(table.syn(1000 + n, 7, 1), Ok(Opened::New(_))), "it is open again");
    }
    assert_eq!(u128::from(table.flows.counted_of(1).half_open), half_open);
    table.now_s += 5;
    table.sweep();
    for n in 0..half_open * 2 {
        assert!(matches!(table.udp(5000 + n, 7, 1), Ok(Opened::New(_))), "{n}");
        assert!(u128::from(table.flows.counted_of(1).half_open) <= half_open);
    }
}

/// It stands in the list of the port that it began at first, and that port's flood passes over it.
#[test]
fn what_began_anew_at_another_port_is_that_ports() {
    let mut table = Table::new(256, false);
    let half_open = table.flows.limits().half_open;
    let Ok(Opened::New(place)) = table.udp(10, 20, 1) else { panic!() };
    table.now_s += Stage::UdpOneWay.timeout_s() + 1;
    assert_eq!(table.packet(&packet(20, 10, 17, [6, 5], Content::Udp), 2), Ok(Opened::New(place)));
    for n in 0..4 * u128::from(half_open) {
        assert!(matches!(table.udp(1000 + n, 7, 1), Ok(Opened::New(_))), "{n}");
        assert!(table.flows.counted_of(1).half_open <= half_open);
    }
    assert_eq!((table.flows.state(place).port, table.flows.counted_of(2).half_open), (2, 1));
}

/// What was ended otherwise gave its count back already: its place is no room for one more.
#[test]
fn dead_flows_in_front_are_no_room_within_a_limit() {
    let half_open = Table::new(256, false).flows.limits().half_open;
    // Wherever it stands in the list.
    for which in 0..half_open {
        let mut table = Table::new(256, false);
        let places: Vec<u32> = (0..u128::from(half_open))
            .map(|n| match table.syn(1000 + n, 7, 1) {
                Ok(Opened::New(place)) => place,
                other => panic!("{other:?}"),
            })
            .collect();
        assert!(table.flows.kill_at(places[which as usize]));
        for n in 0..2 * u128::from(half_open) {
            assert!(matches!(table.syn(5000 + n, 7, 1), Ok(Opened::New(_))), "{which}, {n}");
            assert!(table.flows.counted_of(1).half_open <= half_open, "{which}, {n}");
        }
    }
}

/// Two lanes of one port on two workers, one of which is flooded.
#[test]
fn a_flood_by_one_worker_leaves_the_ports_other_lane_room() {
    let mut table = Table::new(1024, false);
    let half_open = table.flows.limits().half_open;
    for n in 0..u128::from(half_open) {
        assert!(matches!(table.syn(1000 + n, 7, 1), Ok(Opened::New(_))));
    }
    let mut other = Keeper::new(8, table.flows.places());
    for n in 0..500 {
        std::mem::swap(&mut table.keeper, &mut other);
        assert!(matches!(table.udp(5000 + n, 7, 1), Ok(Opened::New(_))), "{n}");
        if n % 2 == 0 {
            table.packet(&packet(7, 5000 + n, 17, [6, 5], Content::Udp), 2).unwrap();
        }
        std::mem::swap(&mut table.keeper, &mut other);
        // It takes what the other gives.
        assert!(matches!(table.syn(100_000 + n, 7, 1), Ok(Opened::New(_))), "{n}");
        assert!(table.flows.counted_of(1).half_open <= half_open + half_open / 8, "{n}");
    }
}

#[test]
fn one_ports_established_flows_leave_room_for_the_others() {
    let mut table = Table::new(1024, false);
    let mut refused = 0;
    for n in 0..2000u128 {
        match table.udp(n * 2 + 1, 5000, 1) {
            Ok(_) => _ = table.packet(&packet(5000, n * 2 + 1, 17, [6, 5], Content::Udp), 2).unwrap(),
            Err(refusal) => {
                assert_eq!(refusal, Refusal::PortLimit);
                refused += 1;
            }
        }
    }
    assert_eq!(table.flows.counted_of(1).all, table.flows.limits().port);
    assert!(refused > 1000);
    for n in 0..u128::from(table.flows.limits().share) {
        assert!(matches!(table.udp(n, 6000, 3), Ok(Opened::New(_))), "{n}");
    }
}

/// A flow that was over begins anew where its port has as many half-open ones as it may: the oldest makes room, as for one that is new.
#[test]
fn what_begins_anew_finds_room_as_what_begins_does() {
    let mut table = Table::new(256, false);
    let (asks, answers) = (packet(1, 2, 17, [5, 6], Content::Udp), packet(2, 1, 17, [6, 5], Content::Udp));
    table.packet(&asks, 1).unwrap();
    table.packet(&answers, 3).unwrap();
    table.now_s += 200;
    for n in 0..table.flows.limits().half_open {
        assert!(matches!(table.syn(100 + u128::from(n), 2, 1), Ok(Opened::New(_))));
    }
    assert_eq!(table.keeper.take_evicted(), 0);
    assert!(matches!(table.packet(&asks, 1), Ok(Opened::New(_))));
    assert_eq!(table.keeper.take_evicted(), 1);
    // Half-open itself, it needs nobody else's room.
    table.now_s += 31;
    assert!(matches!(table.packet(&asks, 1), Ok(Opened::New(_))));
    assert_eq!(table.keeper.take_evicted(), 0);
    assert_eq!(table.flows.counted_of(1).half_open, table.flows.limits().half_open);
}

#[test]
fn a_killed_flow_begins_anew_without_its_decision() {
    let mut table = Table::new(256, false);
    let Ok(Opened::New(place)) = table.syn(1, 2, 1) else { panic!() };
    assert!(table.flows.kill_at(place) && !table.flows.kill_at(place));
    assert_eq!(table.flows.counted(), Counted::default());
    assert!(matches!(table.syn(1, 2, 3), Ok(Opened::New(_))));
    assert_eq!(table.flows.counted_of(3), Counted { all: 1, half_open: 1 });
}

/// Between the look at a flow and its end its place may be another's.
#[test]
fn who_ends_a_flow_does_not_end_another_in_its_place() {
    let mut table = Table::new(256, false);
    let (Ok(Opened::New(one)), Ok(Opened::New(other))) = (table.syn(1, 2, 1), table.syn(3, 4, 1)) else {
        panic!()
    };
    let looked_at = table.flows.entry(one, table.now_s).unwrap();
    assert!(!table.flows.kill(other, &looked_at.key));
    assert_eq!(table.flows.counted().all, 2);
    assert!(table.flows.kill(one, &looked_at.key));
}

#[test]
fn two_pings_with_one_identifier_are_two_flows() {
    let mut table = Table::new(256, false);
    let ping = |answer| Content::Query { answer };
    let mut say = |src, dst, answer| table.packet(&packet(src, dst, 1, [9, 9], ping(answer)), 1);
    let Ok(Opened::New(one)) = say(1, 2, false) else { panic!() };
    assert_eq!(say(1, 2, true), Err(Refusal::NoBeginning), "an answer nobody asked for");
    let Ok(Opened::New(other)) = say(2, 1, false) else { panic!() };
    assert_ne!(one, other);
    assert_eq!((say(2, 1, true), say(1, 2, true)), (Ok(Opened::Known(one)), Ok(Opened::Known(other))));
}

/// What the first piece says of itself, the others are of.
#[test]
fn the_pieces_of_a_ping_are_of_its_flow() {
    for (protocol, ask, reply) in [(1, 8, 0), (58, 128, 129)] {
        let base: u128 = if protocol == 1 { 0xffff_0a00_0000 } else { 0xfd << 120 };
        for (src, dst, kind, answer) in [(1, 2, ask, false), (2, 1, ask, false), (1, 2, reply, true)] {
            let whole = packet(base + src, base + dst, protocol, [7, 7], Content::Query { answer });
            let whole = Packet { icmp: [kind, 0], ..whole };
            let later = Packet { content: Content::Later, ..whole };
            assert_eq!(Key::of(&whole, 1), Key::of(&later, 1), "{protocol} {kind}");
        }
    }
}

#[test]
fn a_copy_says_the_same() {
    let mut table = Table::new(512, false);
    for n in 0..50 {
        table.udp(n, 77, 1).unwrap();
    }
    let copy = table.flows.copy();
    let all = |flows: &Flows| {
        let mut all = Vec::new();
        flows.scan(0..flows.places(), 101, |_, entry| all.push(entry));
        all
    };
    assert_eq!(all(&copy).len(), 50);
    assert_eq!(all(&copy), all(&table.flows));
}

proptest! {
    /// The dull twin is a map from key to what was last heard: who is found, who is forgotten, how many there
    /// are.
    #[test]
    fn does_what_a_map_does(ops in proptest::collection::vec((1u128..12, 1u128..12, 0u8..8, 0u32..40), 0..300)) {
        let mut table = Table::new(1024, false);
        let mut twin: HashMap<[u128; 2], (u32, bool, u128)> = HashMap::new();
        for (src, dst, op, pause) in ops {
            if src == dst { continue }
            let ends = [src.min(dst), src.max(dst)];
            if op == 0 {
                table.now_s += pause;
                table.sweep();
            }
            let now_s = table.now_s;
            let udp = packet(src, dst, 17, [5, 5], Content::Udp);
            let key = Key::of(&udp, 1).0;
            if op == 1 {
                let alive = twin.remove(&ends).is_some_and(|(last, answered, _)| {
                    now_s - last <= if answered { Stage::UdpAnswered } else { Stage::UdpOneWay }.timeout_s()
                });
                let place = table.flows.find(&key).filter(|place| table.flows.is_alive(*place, now_s));
                prop_assert_eq!(place.is_some_and(|place| table.flows.kill_at(place)), alive);
                continue;
            }
            let said = table.packet(&udp, 1);
            let before = twin.get(&ends).copied().filter(|(last, answered, _)| {
                now_s - last <= if *answered { Stage::UdpAnswered } else { Stage::UdpOneWay }.timeout_s()
            });
            match before {
                None => {
                    prop_assert!(matches!(said, Ok(Opened::New(_))), "{:?}", said);
                    twin.insert(ends, (now_s, false, src));
                }
                Some((_, answered, origin)) => {
                    prop_assert!(matches!(said, Ok(Opened::Known(_))), "{:?}", said);
                    // A stream that goes on lives longer; the twin is not told, so it does not go on.
                    if answered && origin == src { return Ok(()) }
                    twin.insert(ends, (now_s, answered || origin != src, origin));
                }
            }
            let alive = |(last, answered, _): &(u32, bool, u128)| {
                now_s - last <= if *answered { Stage::UdpAnswered } else { Stage::UdpOneWay }.timeout_s()
            };
            let mut listed = 0;
            table.flows.scan(0..table.flows.places(), now_s, |_, _| listed += 1);
            prop_assert_eq!(listed, twin.values().filter(|value| alive(value)).count());
        }
    }

    /// Who asks first whether a packet is of those that nearly all are does what who always asks in full does: every answer, state, window
    /// and age.
    #[test]
    fn what_streams_passes_as_if_it_were_asked_about(ops in proptest::collection::vec(
        (any::<bool>(), 0u8..8, -3i32..70, -3i32..70, 0u32..40, 0u16..4, 0u32..3), 0..120)) {
        let (mut clever, mut dull) = (Table::new(256, false), Table::new(256, false));
        let mut next = [101u32, 501];
        for (side, flags, seq, ack) in [(0, flags::SYN, 100, 0), (1, flags::SYN | flags::ACK, 500, 101), (0, flags::ACK, 101, 501)] {
            let content = Content::Tcp(Tcp { flags, seq, ack, window: 3, ..Tcp::default() });
            let packet = if side == 0 { packet(10, 20, 6, [5, 6], content) } else { packet(20, 10, 6, [6, 5], content) };
            [&mut clever, &mut dull].into_iter().for_each(|table| _ = table.packet(&packet, 1).unwrap());
        }
        for (back, kind, seq, ack, len, window, pause) in ops {
            let side = usize::from(back);
            // Mostly they go on where they were.
            let near = |delta: i32| if delta < 60 { delta.min(0) } else { delta };
            let word = |base: u32, delta: i32| base.wrapping_add_signed(near(delta));
            let (flags, udp) = match kind {
                0 => (flags::SYN, false),
                1 => (flags::SYN | flags::ACK, false),
                2 => (flags::FIN | flags::ACK, false),
                3 | 4 => (0, true),
                _ => (flags::ACK, false),
            };
            let segment = Tcp { seq: word(next[side], seq), ack: word(next[1 - side], ack), flags, window, len, scale: None };
            let (content, protocol) = if udp { (Content::Udp, 17) } else { (Content::Tcp(segment), 6) };
            let ends = [(10, 5), (20, 6)];
            let ((src, from), (dst, to)) = (ends[side], ends[1 - side]);
            let packet = packet(src, dst, protocol, [from, to], content);
            let passed = [(&mut clever, true), (&mut dull, false)].map(|(table, asks_first)| {
                table.now_s += pause / 2;
                let seen = table.seen(&packet, 1);
                let place = table.flows.find(&seen.key);
                let goes_on = |place| streams(table.flows.record(place), &packet.content, seen.side, table.now_s);
                if asks_first && place.is_some_and(goes_on) {
                    return Ok(Opened::Known(place.unwrap()));
                }
                table.packet(&packet, 1)
            });
            prop_assert_eq!(passed[0], passed[1]);
            if passed[0].is_ok() && !udp {
                let fin = u32::from(flags & flags::FIN != 0);
                next[side] = next[side].max(segment.seq + segment.len + fin);
            }
            let all = |table: &Table| {
                let mut all = Vec::new();
                table.flows.scan(0..table.flows.places(), table.now_s, |place, entry| all.push((entry, table.flows.windows(place))));
                all
            };
            prop_assert_eq!(all(&clever), all(&dull));
        }
    }

    /// The key is the same from both sides, and says who is who.
    #[test]
    fn a_key_has_no_direction(src: u128, dst: u128, ports: [u16; 2], protocol: u8, zone: u16) {
        let there = packet(src, dst, protocol, ports, Content::Other);
        let back = packet(dst, src, protocol, [ports[1], ports[0]], Content::Other);
        let ((key, side), (key_back, side_back)) = (Key::of(&there, zone), Key::of(&back, zone));
        prop_assert_eq!(key, key_back);
        prop_assert!(side != side_back || src == dst && ports[0] == ports[1]);
        let end = key.ends()[usize::from(side)];
        prop_assert_eq!((end.ip, end.port), (src, ports[0]));
        prop_assert_eq!((key.protocol(), key.zone()), (protocol, zone));
    }
}
