//! Two workers and the flow table, every way their steps can fall.

use super::keeper::Keeper;
use super::key::Key;
use super::record::{Decision, Records, many};
use super::state::{Stage, State};
use super::*;
use crate::wire::packet::{Content, Packet};
use loom::sync::Arc;
use loom::thread;

#[cfg(all(test, loom))]
fn explore(name: &str, body: impl Fn() + Sync + Send + 'static) {
    let executions = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counter = executions.clone();
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(move || {
        counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        body();
    });
    println!("{name}: {} executions", executions.load(std::sync::atomic::Ordering::Relaxed));
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
        assert!(flows.kill(0));
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
        let records: Arc<Box<Records>> = Arc::new(many(1));
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
