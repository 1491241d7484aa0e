//! Answers in another's place: for whom, and for whom not.

use super::super::Now;
use super::super::routing_tests::{MS, OWN, arp_frame, drain, mac, rig};
use crate::host::arp;
use crate::port::memory::{self, MemoryPeer};
use crate::rig::Rig;
use switch_api::{Bridge, Mac, PortSettings, Request};

const ALL: [u8; 6] = [0xff; 6];
/// Stations 1 and 2 on br0, behind ports 0 and 2.
const ONE: (u8, [u8; 4]) = (1, [10, 0, 0, 11]);
const TWO: (u8, [u8; 4]) = (2, [10, 0, 0, 12]);

/// The rig of the routing tests with one more port on br0, whose bridge has `settings`.
fn with(settings: impl Fn(Bridge) -> Bridge) -> (Rig, Vec<MemoryPeer>) {
    let (mut rig, mut peers) = rig(1, 1024);
    let (port, peer) = memory::wire();
    rig.add_port_to("br0", "p2", PortSettings::default(), Box::new(port), 0).unwrap();
    peers.push(peer);
    let bridge = settings(Bridge { mac: Some(Mac(OWN)), ..Bridge::new("br0".parse().unwrap()) });
    rig.declare(&Request::BridgeSet(bridge)).unwrap();
    (rig, peers)
}

fn suppressing(bridge: Bridge) -> Bridge {
    Bridge { neigh_suppress: true, ..bridge }
}

/// What port `port` says to everybody, and what each port hears of it.
fn say(rig: &mut Rig, peers: &[MemoryPeer], port: usize, frame: Vec<u8>, now: Now) -> Vec<Vec<Vec<u8>>> {
    assert!(peers[port].send(frame));
    rig.settle(now);
    peers.iter().map(drain).collect()
}

/// The station that an ARP answer names, and the one that sent it.
fn answer(frame: &[u8]) -> ([u8; 6], [u8; 6]) {
    let said = arp::read(&frame[14..]).unwrap();
    assert!(!said.asks);
    (Mac::from_u64(said.sender_mac).0, frame[6..12].try_into().unwrap())
}

#[test]
fn a_known_station_is_answered_for_and_an_unknown_one_is_asked_for() {
    let now = Now { ns: 1000 * MS };
    let (mut rig, peers) = with(suppressing);
    let question = || arp_frame(true, ONE, TWO.1, ALL);
    let heard = say(&mut rig, &peers, 0, question(), now);
    assert_eq!((heard[0].len(), heard[2].len()), (0, 1), "nobody knows it yet");
    // It makes itself known, by its own question.
    say(&mut rig, &peers, 2, arp_frame(true, TWO, [10, 0, 0, 99], ALL), now);
    let heard = say(&mut rig, &peers, 0, question(), now);
    assert_eq!(heard[2].len(), 0, "the question was flooded");
    assert_eq!(answer(&heard[0][0]), (mac(2), mac(2)));
    assert_eq!(&heard[0][0][..6], mac(1));
    // Who only wants to know whether an address is free is told by its owner (RFC 5227).
    let heard = say(&mut rig, &peers, 0, arp_frame(true, (1, [0; 4]), TWO.1, ALL), now);
    assert_eq!((heard[0].len(), heard[2].len()), (0, 1));
    // An announcement is for everybody.
    let heard = say(&mut rig, &peers, 0, arp_frame(true, ONE, ONE.1, ALL), now);
    assert_eq!((heard[0].len(), heard[2].len()), (0, 1));
    rig.assert_conserved();
}

#[test]
fn nobody_is_answered_for_unless_asked_for() {
    let now = Now { ns: 1000 * MS };
    let (mut rig, peers) = with(|bridge| bridge);
    say(&mut rig, &peers, 2, arp_frame(true, TWO, [10, 0, 0, 99], ALL), now);
    let heard = say(&mut rig, &peers, 0, arp_frame(true, ONE, TWO.1, ALL), now);
    assert_eq!((heard[0].len(), heard[2].len()), (0, 1));
}

#[test]
fn who_is_not_certain_to_be_there_is_asked_itself() {
    let (mut rig, peers) = with(suppressing);
    let now = Now { ns: 1000 * MS };
    say(&mut rig, &peers, 2, arp_frame(true, TWO, [10, 0, 0, 99], ALL), now);
    // A minute later nobody has heard of it.
    let later = Now { ns: now.ns + 61_000 * MS };
    let heard = say(&mut rig, &peers, 0, arp_frame(true, ONE, TWO.1, ALL), later);
    assert_eq!(heard[0].len(), 0);
    assert!(heard[2].iter().any(|frame| frame[..6] == ALL), "the question went to everybody");
    // Behind one port they hear each other.
    let (mut rig, peers) = with(suppressing);
    say(&mut rig, &peers, 0, arp_frame(true, TWO, [10, 0, 0, 99], ALL), now);
    let heard = say(&mut rig, &peers, 0, arp_frame(true, ONE, TWO.1, ALL), now);
    assert_eq!((heard[0].len(), heard[2].len()), (0, 1));
    rig.assert_conserved();
}

#[test]
fn a_proxy_answers_for_what_it_has_a_route_to() {
    let now = Now { ns: 1000 * MS };
    let (mut rig, peers) = with(|bridge| Bridge { neigh_proxy: true, ..bridge });
    // 10.1.0.9 is on br1; 10.0.0.99 would be here; nothing leads to 192.0.2.1.
    let heard = say(&mut rig, &peers, 0, arp_frame(true, ONE, [10, 1, 0, 9], ALL), now);
    assert_eq!(answer(&heard[0][0]), (OWN, OWN));
    assert!(heard[1].is_empty() && heard[2].is_empty());
    for target in [[10, 0, 0, 99], [192, 0, 2, 1]] {
        let heard = say(&mut rig, &peers, 0, arp_frame(true, ONE, target, ALL), now);
        assert_eq!((heard[0].len(), heard[2].len()), (0, 1), "{target:?}");
    }
    rig.assert_conserved();
}
