//! What a bridge remembers of stations: whose they are, for how long, and how many of them a port may have.

use super::{Now, probe};
use crate::counter::{DropReason, Event};
use crate::port::memory::{self, MemoryPeer};
use crate::rig::{Rig, Size};
use switch_api::{Bridge, PortSettings, Request};

const BROADCAST: [u8; 6] = [0xff; 6];

fn at(seconds: u64) -> Now {
    Now { ns: seconds * 1_000_000_000 }
}

fn station(n: u16) -> [u8; 6] {
    let [high, low] = n.to_be_bytes();
    [2, 0, 0, 0, high, low]
}

fn frame(dst: [u8; 6], src: [u8; 6], mark: u8) -> Vec<u8> {
    let mut frame = [&dst[..], &src, &[0x88, 0xb6]].concat();
    frame.resize(60, mark);
    frame
}

struct Lab {
    rig: Rig,
    peers: Vec<MemoryPeer>,
}

impl Lab {
    fn new(size: Size) -> Self {
        Self { rig: Rig::new(size), peers: Vec::new() }
    }

    fn port(&mut self, bridge: &str, settings: PortSettings) {
        let (port, peer) = memory::wire();
        let name = format!("p{}", self.peers.len());
        self.rig.add_port_to(bridge, &name, settings, Box::new(port), 0).unwrap();
        self.peers.push(peer);
    }

    /// By which ports a frame comes out that is sent by port `from`.
    fn send(&mut self, from: usize, frame: Vec<u8>, now: Now) -> Vec<usize> {
        assert!(self.peers[from].send(frame));
        self.rig.settle(now);
        let count = |peer: &MemoryPeer| std::iter::from_fn(|| peer.recv()).count();
        let counts = self.peers.iter().enumerate().map(|(n, peer)| (n, count(peer)));
        counts.flat_map(|(n, count)| vec![n; count]).collect()
    }

    fn events(&self, event: Event) -> u64 {
        self.rig.counters.iter().map(|counters| counters.event(event).get()).sum()
    }
}

/// One MAC on two bridges is two stations: each bridge has its own, and neither moves.
#[test]
fn the_same_station_on_two_bridges_is_two() {
    let mut lab = Lab::new(Size::default());
    lab.rig.declare(&Request::BridgeAdd(Bridge::new("br1".parse().unwrap()))).unwrap();
    for bridge in ["br0", "br0", "br0", "br1", "br1", "br1"] {
        lab.port(bridge, PortSettings::default());
    }
    let (twin, other) = (station(1), station(2));
    for round in 0..3 {
        let now = at(5 + round);
        // A broadcast stays on its bridge.
        assert_eq!(lab.send(1, frame(BROADCAST, twin, 1), now), [0, 2]);
        assert_eq!(lab.send(5, frame(BROADCAST, twin, 1), now), [3, 4]);
        assert_eq!(lab.send(0, frame(twin, other, 2), now), [1], "round {round}");
        assert_eq!(lab.send(3, frame(twin, other, 2), now), [5], "round {round}");
    }
    assert_eq!(lab.events(Event::MacMoved), 0, "one bridge's station was taken for the other's");
    assert_eq!(lab.rig.tables.fdb.entries(), 4);
    lab.rig.assert_conserved();
}

/// 300 s, unless a bridge says otherwise (IEEE 802.1Q §8.8.3): heard from within them it is known, afterwards not.
#[test]
fn a_station_is_known_for_300_seconds_by_default_and_as_long_as_its_bridge_says() {
    let bare: Bridge = serde_json::from_str(r#"{"name":"br1"}"#).unwrap();
    assert_eq!((bare.ageing_s, Bridge::new(bare.name.clone()).ageing_s), (300, 300));
    let short = Bridge { ageing_s: 10, ..bare };
    let mut lab = Lab::new(Size::default());
    lab.rig.declare(&Request::BridgeAdd(short)).unwrap();
    for bridge in ["br0", "br0", "br0", "br1", "br1", "br1"] {
        lab.port(bridge, PortSettings::default());
    }
    for (first, ageing_s) in [(0, 300), (3, 10)] {
        let (near, far, others) = (first, first + 1, [first + 1, first + 2]);
        let born_s = 1000;
        lab.send(far, frame(BROADCAST, station(9), 1), at(born_s));
        assert_eq!(lab.send(near, frame(station(9), station(8), 2), at(born_s + ageing_s)), [far]);
        assert_eq!(lab.send(near, frame(station(9), station(8), 2), at(born_s + ageing_s + 1)), others);
        // Heard from again it is known again, from then on.
        let again_s = born_s + 2 * ageing_s;
        lab.send(far, frame(BROADCAST, station(9), 1), at(again_s));
        assert_eq!(lab.send(near, frame(station(9), station(8), 2), at(again_s + ageing_s)), [far]);
    }
}

/// A port that says it has thousands of stations takes no other's place, and keeps those that it had.
#[test]
fn a_port_beyond_its_limit_harms_itself_alone() {
    let mut lab = Lab::new(Size { fdb_entries: 256, ..Size::default() });
    let limited = PortSettings { learn_limit: Some(4), ..PortSettings::default() };
    for settings in [limited, PortSettings::default(), PortSettings::default(), PortSettings::default()] {
        lab.port("br0", settings);
    }
    let now = at(5);
    lab.send(1, frame(BROADCAST, station(1001), 1), now);
    for n in 0..10 {
        lab.send(0, frame(BROADCAST, station(n), 1), now);
    }
    assert_eq!((lab.rig.tables.fdb.learned(0), lab.events(Event::LearnPortLimit)), (4, 6));
    // Of its first four the switch knows where they are; what is for the others is flooded, not lost.
    assert_eq!(lab.send(1, frame(station(3), station(1001), 2), now), [0]);
    assert_eq!(lab.send(1, frame(station(4), station(1001), 2), now), [0, 2, 3]);

    // The next one has no limit of its own and says so much that the table is full; whoever comes later has its share.
    for n in 0..2000 {
        lab.send(2, frame(BROADCAST, station(2000 + n), 1), now);
    }
    let share = 256 / 8 / 4;
    assert!(lab.rig.tables.fdb.learned(2) >= 200, "{}", lab.rig.tables.fdb.learned(2));
    for n in 0..share {
        lab.send(3, frame(BROADCAST, station(5000 + n), 1), now);
    }
    assert_eq!(lab.rig.tables.fdb.learned(3), u32::from(share), "a port was kept from its share");
    let known = (0..share).all(|n| lab.send(1, frame(station(5000 + n), station(1001), 2), now) == [3]);
    assert!(known && lab.send(3, frame(station(1001), station(5000), 2), now) == [1]);
    assert_eq!(lab.send(1, frame(station(0), station(1001), 2), now), [0], "an old station was pushed out");
    assert_eq!(lab.rig.drops(DropReason::NoMember), 0);
    lab.rig.assert_conserved();
}

/// Whoever is sent a probe can send it back with another number in it, the highest among them: that spares nobody but himself, and ends
/// nothing.
#[test]
fn a_probe_with_a_forged_number_harms_its_forger_alone() {
    for number in [1, 2, 400, u16::MAX] {
        let mut lab = Lab::new(Size::default());
        (0..3).for_each(|_| lab.port("br0", PortSettings::default()));
        let now = at(5);
        lab.send(0, frame(BROADCAST, station(1), 1), now);
        // A station that moves has its new port probed.
        assert!(lab.peers[1].send(frame(BROADCAST, station(1), 1)));
        lab.rig.settle(now);
        let mut probe =
            std::iter::from_fn(|| lab.peers[1].recv()).find(|frame| probe::looks_like_one(frame)).unwrap();
        probe[14..16].copy_from_slice(&number.to_be_bytes());
        lab.send(1, probe, now);
        let blocked: Vec<u16> = (0..3).filter(|port| lab.rig.tables.loops.is_blocked(*port, 5)).collect();
        assert_eq!((blocked, lab.events(Event::LoopFound)), (vec![1], 1), "number {number}");
        lab.rig.assert_conserved();
    }
}
