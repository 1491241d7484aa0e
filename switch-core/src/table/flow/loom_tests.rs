//! Two workers and the flow table, every way their steps can fall.

use super::bound::{Binding, Rules, Unbound};
use super::keeper::Keeper;
use super::key::{End, Key};
use super::places::Chunks;
use super::record::{Decision, Records};
use super::state::{Stage, State};
use super::*;
use crate::wire::packet::{Content, Packet, Plain};
use loom::sync::Arc;
use loom::thread;

/// Every order in which one thread is interrupted so often.
#[cfg(all(test, loom))]
fn explore_with(preemptions: usize, name: &str, body: impl Fn() + Sync + Send + 'static) {
    let executions = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counter = executions.clone();
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(preemptions);
    model.check(move || {
        counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        body();
    });
    println!("{name}: {} executions", executions.load(std::sync::atomic::Ordering::Relaxed));
}

fn explore(name: &str, body: impl Fn() + Sync + Send + 'static) {
    explore_with(3, name, body);
}

fn packet(src: u128, dst: u128) -> Packet {
    let (ports, content) = ([5, 5], Content::Udp);
    Packet { src, dst, protocol: 17, ports, icmp: [0; 2], content, fragment: None }
}

fn open(flows: &Flows, packet: &Packet, place: u32) -> Result<Opened, Refusal> {
    let mut keeper = Keeper::with_places(1, place..place + 1);
    let (key, side) = Key::of(packet, 1);
    let seen = Seen { packet, key, hash: flows.hash(&key), side, port: 0, now_s: 1 };
    flows.open(&mut keeper, &seen, Decision::NONE)
}

/// The first packets of both directions, on two workers at once: one flow.
#[test]
fn loom_two_first_packets_make_one_flow() {
    explore("two_first_packets_make_one_flow", || {
        let flows = Arc::new(Flows::new(2, 1, [1, 2], false));
        let other = flows.clone();
        let thread = thread::spawn(move || open(&other, &packet(2, 1), 1));
        let here = open(&flows, &packet(1, 2), 0);
        let there = thread.join().unwrap();
        let places = [here, there].map(|opened| match opened {
            Ok(Opened::New(place) | Opened::Known(place)) => Some(place),
            Err(Refusal::Busy | Refusal::PortLimit) => None,
            other => panic!("{other:?}"),
        });
        if let [Some(here), Some(there)] = places {
            assert_eq!(here, there, "two flows");
        }
        assert!(flows.counted().all <= 1, "{:?}", flows.counted());
    });
}

/// A flow was ended; its owner takes the place back while another worker's packet begins it anew. Either the flow is
/// there and counted, or it is not and is not.
#[test]
fn loom_a_place_is_not_taken_back_from_a_flow_that_begins() {
    explore("a_place_is_not_taken_back_from_a_flow_that_begins", || {
        let flows = Arc::new(Flows::new(2, 1, [1, 2], false));
        let mut keeper = Keeper::with_places(1, 0..1);
        let first = packet(1, 2);
        let (key, side) = Key::of(&first, 1);
        let seen = Seen { packet: &first, key, hash: flows.hash(&key), side, port: 0, now_s: 1 };
        assert_eq!(flows.open(&mut keeper, &seen, Decision::NONE), Ok(Opened::New(0)));
        assert!(flows.kill_at(0));
        let other = flows.clone();
        let thread = thread::spawn(move || open(&other, &packet(2, 1), 1));
        keeper.unqueue(&flows, 0);
        keeper.look_at(&flows, 0, 1);
        _ = thread.join().unwrap();
        let alive = (0..2).filter(|place| flows.entry(*place, 1).is_some()).count();
        let found = flows.find(&key).is_some_and(|place| flows.is_alive(place, 1));
        assert_eq!((flows.counted().all as usize, usize::from(found)), (alive, alive));
    });
}

/// A place is given to another flow while somebody compares its key.
#[test]
fn loom_a_place_that_is_used_again_is_not_mistaken() {
    explore("a_place_that_is_used_again_is_not_mistaken", || {
        let records = Arc::new(Records::new(1));
        let key = |a: u64, b: u64| Key { words: [0, a, 0, b, 7] };
        let state = State { stage: Stage::UdpOneWay, ..State::DEAD };
        records.at(0).begin(&key(1, 1), state, 1, Default::default(), Decision::NONE, None);
        let reader = records.clone();
        // Half of the one key and half of the other: nobody's.
        let seen = thread::spawn(move || (reader.at(0).holds(&key(2, 1)), reader.at(0).holds(&key(1, 2))));
        records.at(0).begin(&key(2, 2), state, 1, Default::default(), Decision::NONE, None);
        assert_eq!(seen.join().unwrap(), (false, false), "a torn key");
        assert!(records.at(0).holds(&key(2, 2)));
    });
}

/// Opens the flow between two ends, whose packets become ones between two others.
fn bind(flows: &Flows, keeper: &mut Keeper, from: [u128; 2], to: [u128; 2]) -> Result<Opened, Unbound> {
    let (packet, becomes) = (packet(from[0], from[1]), packet(to[0], to[1]));
    let ((key, side), (reply, reply_side)) = (Key::of(&packet, 1), Key::of(&becomes, 1));
    let seen = Seen { packet: &packet, key, hash: flows.hash(&key), side, port: 0, now_s: 1 };
    let rules = Rules { destination: 0, source: 1 };
    let binding = Binding { key: reply, hash: flows.hash(&reply), side: reply_side, rules };
    flows.open_bound(keeper, &seen, Decision::NONE, &binding)
}

fn key(src: u128, dst: u128) -> Key {
    Key::of(&packet(src, dst), 1).0
}

/// Two packets of one flow, on two workers at once, of which each would choose another source: one binding stands, both of its halves
/// are there, and of the other one nothing is.
#[test]
fn loom_a_binding_is_made_once() {
    explore_with(2, "a_binding_is_made_once", || {
        let flows = Arc::new(Flows::new(16, 1, [1, 2], false));
        let other = flows.clone();
        let thread = thread::spawn(move || {
            let mut keeper = Keeper::with_places(1, 0..2);
            (bind(&other, &mut keeper, [1, 9], [7, 9]), keeper)
        });
        let mut keeper = Keeper::with_places(1, 2..4);
        let here = bind(&flows, &mut keeper, [1, 9], [8, 9]);
        let (there, mut others) = thread.join().unwrap();
        for opened in [here, there] {
            let is_expected = matches!(
                opened,
                Ok(Opened::New(_) | Opened::Known(_)) | Err(Unbound::Refused(Refusal::Busy))
            );
            assert!(is_expected, "{opened:?}");
        }
        // What could not be taken out of the index at once is when its turn comes.
        [&mut keeper, &mut others].into_iter().for_each(|keeper| keeper.settle(&flows));
        let place = flows.find(&key(1, 9));
        let replies = [key(7, 9), key(8, 9)].map(|reply| flows.find(&reply).map(|at| (at, reply)));
        let replies: Vec<_> = replies.into_iter().flatten().collect();
        assert_eq!(
            (replies.len(), flows.counted().all),
            place.map_or((0, 0), |_| (1, 2)),
            "{here:?} {there:?}"
        );
        if let Some(place) = place {
            let (reply, of) = replies[0];
            let (bound, own) = flows.original(reply, &of).unwrap();
            assert_eq!((bound.other, own), (place, key(1, 9)));
        }
    });
}

/// A translated flow ends, and its owner makes another in its two places, while another worker asks `ask` of the first. One interruption is
/// all that it takes to mistake the one for the other.
fn end_and_begin(name: &str, ask: impl Fn(&Flows) + Copy + Sync + Send + 'static) {
    explore_with(1, name, move || {
        let flows = Arc::new(Flows::new(16, 1, [1, 2], false));
        let mut keeper = Keeper::with_places(1, 0..2);
        assert_eq!(bind(&flows, &mut keeper, [1, 9], [7, 9]), Ok(Opened::New(0)));
        assert!(flows.kill_at(0));
        keeper.unqueue(&flows, 0);
        let other = flows.clone();
        let thread = thread::spawn(move || ask(&other));
        keeper.look_at(&flows, 0, 1);
        assert_eq!(bind(&flows, &mut keeper, [2, 9], [8, 9]), Ok(Opened::New(0)));
        thread.join().unwrap();
        // About the next one nothing was decided.
        assert_eq!((flows.counted().all, flows.decision(0)), (2, Decision::NONE));
    });
}

/// What is decided about a flow that ended is decided about nobody.
#[test]
fn loom_what_is_decided_about_one_that_ended_is_not_of_the_next() {
    end_and_begin("what_is_decided_about_one_that_ended", |flows| {
        flows.decide(0, &key(1, 9), Decision { epoch: 7 });
    });
}

/// Who ends one that ended does not end the next.
#[test]
fn loom_who_ends_one_that_ended_does_not_end_the_next() {
    end_and_begin("who_ends_one_that_ended", |flows| {
        assert!(!flows.kill(0, &key(1, 9)));
    });
}

/// What a packet of it becomes: what it said, or nothing; never what the next one says.
#[test]
fn loom_a_binding_that_ended_is_not_the_next() {
    end_and_begin("a_binding_that_ended_is_not_the_next", |flows| {
        let side = Key::of(&packet(1, 9), 1).1;
        let becomes = flows.becomes(0, &key(1, 9), side);
        let ends = [End { ip: 7, port: 5 }, End { ip: 9, port: 5 }];
        assert!(becomes.is_none_or(|it| it == ends), "{becomes:?}");
    });
}

/// The same by one look at both entries, from either.
#[test]
fn loom_one_look_at_a_binding_that_ended_is_not_the_next() {
    let plain = |src, dst| Plain { src, dst, ports: [5, 5], protocol: 17 };
    end_and_begin("one_look_at_a_binding_that_ended", move |flows| {
        let going = flows.going(flows.record(0), &key(1, 9), Key::of(&packet(1, 9), 1).1);
        assert!(going.is_none_or(|it| it.becomes == Some(plain(7, 9))), "{going:?}");
    });
    end_and_begin("one_look_at_a_reply_that_ended", move |flows| {
        let going = flows.going(flows.record(1), &key(7, 9), Key::of(&packet(9, 7), 1).1);
        assert!(going.is_none_or(|it| (it.flow.place(), it.becomes) == (0, Some(plain(9, 1)))), "{going:?}");
    });
}

/// A translated flow that ended begins anew in its place: none of its packets is taken for one that stays as it is.
#[test]
fn loom_a_translated_flow_that_begins_anew_is_translated() {
    explore_with(1, "a_translated_flow_that_begins_anew_is_translated", || {
        let flows = Arc::new(Flows::new(16, 1, [1, 2], false));
        let mut keeper = Keeper::with_places(1, 0..2);
        assert_eq!(bind(&flows, &mut keeper, [1, 9], [7, 9]), Ok(Opened::New(0)));
        assert!(flows.kill_at(0));
        keeper.unqueue(&flows, 0);
        keeper.look_at(&flows, 0, 1);
        let other = flows.clone();
        let thread = thread::spawn(move || {
            let going = other.going(other.record(0), &key(1, 9), Key::of(&packet(1, 9), 1).1);
            (other.is_unbound(0, &key(1, 9)), going.is_some_and(|it| it.becomes.is_none()))
        });
        assert_eq!(bind(&flows, &mut keeper, [1, 9], [8, 9]), Ok(Opened::New(0)));
        assert_eq!(thread.join().unwrap(), (false, false));
    });
}

/// Whose flow answers belong to: the one that they answer, or none.
#[test]
fn loom_an_answer_to_one_that_ended_is_not_the_nexts() {
    end_and_begin("an_answer_to_one_that_ended_is_not_the_nexts", |flows| {
        let found = flows.original(1, &key(7, 9)).map(|(bound, key)| (bound.other, key));
        assert!(found.is_none_or(|it| it == (0, key(1, 9))), "{found:?}");
    });
}

/// A chunk goes back and is dealt again: it is one worker's at a time, who sees what the one before left in its places, and none is lost.
#[test]
fn loom_a_chunk_is_one_workers_at_a_time() {
    explore("a_chunk_is_one_workers_at_a_time", || {
        let table = Arc::new((Chunks::new(1), AtomicU32::new(0)));
        let use_once = |(chunks, place): &(Chunks, AtomicU32)| {
            let Some(chunk) = chunks.deal() else { return 0 };
            place.store(place.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
            chunks.put(chunk);
            1
        };
        let other = table.clone();
        let thread = thread::spawn(move || use_once(&other) + use_once(&other));
        let uses = use_once(&table);
        let uses = uses + thread.join().unwrap();
        assert_eq!(table.0.deal(), Some(0), "it was lost");
        assert_eq!(table.1.load(Ordering::Relaxed), uses);
    });
}
