//! The memory of ways against its dull twin, a switch that remembers none: whatever is sent, said, declared and forgotten, both do
//! the same, frame by frame and count by count.

use super::Now;
use super::routing_tests::{MS, OWN, arp_frame, drain, mac, rig, udp};
use super::ways::{Way, Ways};
use crate::counter::{DropReason, Event};
use crate::pipeline::probe::looks_like_one;
use crate::port::memory::{self, MemoryPeer};
use crate::rig::Rig;
use crate::wire::ip;
use etherparse::PacketBuilder;
use proptest::prelude::*;
use switch_api::{NextHop, PortSet, PortSettings, Request, Route, RouteApply, RouteKind, Vid};

/// What may happen.
#[derive(Clone, Debug)]
enum Op {
    /// Packets from br0 that come in together: each to one of the destinations, so long, with such a TTL.
    Send(Vec<(usize, usize, u8)>),
    /// A host says by one of br1's ports that it has an address: one of two stations, two addresses, asking or answering.
    Say { port: usize, station: u8, address: u8, asks: bool },
    /// A station of br1 is heard behind a port, and nothing is said of addresses.
    Move { port: usize, station: u8 },
    /// Seconds pass.
    Wait(u64),
    /// A network has another next hop, and MTU.
    Lead { network: u8, hop: u8, mtu: Option<u16> },
    /// A port of br1 is isolated or not, takes packets of this length, and loops back to nobody.
    Set { port: usize, isolated: bool, mtu: u16 },
}

fn op() -> impl Strategy<Value = Op> {
    let (port, station) = (1usize..3, 1u8..3);
    let lens = prop_oneof![Just(40), Just(600), Just(1300)];
    let packet = (0usize..DESTINATIONS.len(), lens, prop_oneof![9 => Just(64u8), 1 => 0u8..3]);
    prop_oneof![
        10 => proptest::collection::vec(packet, 1..7).prop_map(Op::Send),
        4 => (port.clone(), station.clone(), 7u8..9, any::<bool>())
            .prop_map(|(port, station, address, asks)| Op::Say { port, station, address, asks }),
        2 => (port.clone(), station).prop_map(|(port, station)| Op::Move { port, station }),
        2 => prop_oneof![3 => Just(1u64), 2 => Just(20), 1 => Just(31), 1 => Just(301), 1 => Just(700)].prop_map(Op::Wait),
        1 => (98u8..100, 7u8..9, prop_oneof![Just(None), Just(Some(576))])
            .prop_map(|(network, hop, mtu)| Op::Lead { network, hop, mtu }),
        1 => (port, any::<bool>(), prop_oneof![Just(576u16), Just(1500)])
            .prop_map(|(port, isolated, mtu)| Op::Set { port, isolated, mtu }),
    ]
}

/// Two neighbours, and several behind each of two routes: the first of them is looked up, and the next ones follow.
const DESTINATIONS: [[u8; 4]; 8] = [
    [10, 1, 0, 7],
    [10, 1, 0, 8],
    [98, 1, 1, 1],
    [98, 2, 2, 2],
    [98, 3, 3, 3],
    [99, 1, 1, 1],
    [99, 2, 2, 2],
    [99, 3, 3, 3],
];

/// A switch: p0 on br0, p1 and p2 on br1, two networks behind br1's hosts.
struct Lab {
    rig: Rig,
    peers: Vec<MemoryPeer>,
    remembers: bool,
    /// Packets sent so far; each carries its number.
    sent: u8,
}

impl Lab {
    fn new(remembers: bool) -> Self {
        let (mut rig, mut peers) = rig(1, 1024);
        let (port, peer) = memory::wire();
        rig.add_port_to("br1", "p2", PortSettings::default(), Box::new(port), 0).unwrap();
        peers.push(peer);
        rig.counters[0].make_routes(8);
        let mut lab = Self { rig, peers, remembers, sent: 0 };
        [98, 99].into_iter().for_each(|network| lab.lead(network, 7, None));
        lab
    }

    fn lead(&mut self, network: u8, hop: u8, mtu: Option<u16>) {
        let prefix = format!("{network}.0.0.0/8").parse().unwrap();
        let hop = NextHop { address: [10, 1, 0, hop].into(), bridge: None, vid: Vid::DEFAULT, weight: 1 };
        let route = Route { mtu, count: network == 98, ..Route::new(prefix, RouteKind::Via, vec![hop]) };
        let apply = RouteApply { replace: vec![route], ..RouteApply::default() };
        self.rig.declare(&Request::RouteApply(apply)).unwrap();
    }

    /// Does it, and says all that can be seen from outside.
    fn go(&mut self, op: &Op, now: Now) -> (Vec<Vec<Vec<u8>>>, Vec<u64>) {
        match *op {
            Op::Send(ref all) => {
                for (to, len, ttl) in all {
                    let to = DESTINATIONS[*to];
                    let mut frame = Vec::new();
                    let packet =
                        PacketBuilder::ethernet2(mac(0), OWN).ipv4([10, 0, 0, 9], to, *ttl).udp(1, 2);
                    self.sent = self.sent.wrapping_add(1);
                    packet.write(&mut frame, &vec![self.sent; *len]).unwrap();
                    assert!(self.peers[0].send(frame));
                }
            }
            Op::Say { port, station, address, asks } => {
                let says = arp_frame(asks, (station, [10, 1, 0, address]), [10, 1, 0, 1], OWN);
                assert!(self.peers[port].send(says));
            }
            Op::Move { port, station } => {
                let mut frame = [[0xff; 6], mac(station)].concat();
                frame.extend([0x88, 0xb5]);
                frame.resize(60, 0);
                assert!(self.peers[port].send(frame));
            }
            Op::Wait(_) => {}
            Op::Lead { network, hop, mtu } => self.lead(network, hop, mtu),
            Op::Set { port, isolated, mtu } => {
                for (name, settings) in [
                    (
                        format!("p{port}"),
                        PortSettings { isolated, mtu: Some(mtu), ..PortSettings::default() },
                    ),
                    ("p0".to_owned(), PortSettings { isolated, ..PortSettings::default() }),
                ] {
                    self.rig
                        .declare(&Request::PortSet(PortSet { name: name.parse().unwrap(), settings }))
                        .unwrap();
                }
            }
        }
        if !self.remembers {
            self.rig.turns[0].pipeline_mut().private.ways = Ways::new(1);
        }
        let untold = self.rig.counters[0].event(Event::ErrorUntold).get();
        self.rig.settle(now);
        let counters = &self.rig.counters[0];
        let is_too_much = counters.event(Event::ErrorUntold).get() > untold;
        // Which drops are told is chance as well, of those that come in no order; all of them are counted below.
        let events = Event::ALL.iter().filter(|event| !Event::ABOUT_DROPS.contains(event));
        let mut counts: Vec<u64> = events.map(|event| counters.event(*event).get()).collect();
        for port in 0..3 {
            counts.extend(DropReason::ALL.iter().map(|reason| counters.drops(port, *reason)));
            counts.push(counters.port(port).tx_packets.get());
        }
        let counted = (1..4).filter_map(|counter| counters.route(std::num::NonZeroU16::new(counter)?));
        counts.extend(counted.flat_map(|route| [route.packets.get(), route.bytes.get()]));
        let left = |peer| {
            let left = drain(peer).into_iter().filter(|frame| !looks_like_one(frame));
            let mut left: Vec<_> = left.collect();
            // Neighbours are given up in no order of theirs: of more errors than may be told, which ones are is chance.
            left.retain(|frame| !(is_too_much && frame[23] == ip::ICMP));
            // Neighbours are asked, let go of and given up in no order of theirs; what goes to one of them is in order, and so is
            // what is told about one: an error quotes where the packet was to go.
            left.sort_by_key(|frame| match (frame[12..14] == [8, 6], frame[23] == ip::ICMP) {
                (true, _) => frame[38..42].to_vec(),
                (_, true) => frame[58..62].to_vec(),
                _ => frame[30..34].to_vec(),
            });
            left
        };
        (self.peers.iter().map(left).collect(), counts)
    }
}

proptest! {
    #![proptest_config(crate::cases::cases(96))]

    #[test]
    fn who_remembers_ways_does_what_who_looks_them_up_does(ops in proptest::collection::vec(op(), 20..160)) {
        let (mut clever, mut dull) = (Lab::new(true), Lab::new(false));
        let mut now = Now { ns: 1000 * MS };
        for op in ops {
            now.ns += MS;
            if let Op::Wait(seconds) = op {
                now.ns += seconds * 1000 * MS;
            }
            prop_assert_eq!(clever.go(&op, now), dull.go(&op, now), "{:?}", op);
        }
        clever.rig.assert_conserved();
    }
}

fn way(port: u16) -> Way {
    Way { until_s: 9, port, ..Way::default() }
}

#[test]
fn a_set_keeps_the_two_youngest_and_none_of_another_epoch_table_or_time() {
    let mut ways = Ways::new(5);
    let keep = |ways: &mut Ways, dst: u128| {
        let number = ways.keep(way(dst as u16));
        ways.lead(3, 0, dst, number);
    };
    let port = |ways: &Ways, dst, vrf, now_s| ways.find(3, vrf, dst, now_s).map(|found| ways.way(found).port);
    ways.turn_to(7);
    (1..=3).for_each(|dst| keep(&mut ways, dst));
    assert_eq!([1, 2, 3].map(|dst| port(&ways, dst, 0, 9)), [None, Some(2), Some(3)]);
    assert_eq!(port(&ways, 3, 1, 9), None, "another table's");
    assert_eq!(port(&ways, 3, 0, 10), None, "too old");
    // What is kept again takes its own place; what does not hold any more makes way first.
    keep(&mut ways, 3);
    ways.turn_to(7);
    assert_eq!([2, 3].map(|dst| port(&ways, dst, 0, 9)), [Some(2), Some(3)]);
    ways.turn_to(8);
    assert_eq!([2, 3].map(|dst| port(&ways, dst, 0, 9)), [None; 2], "made of something else");
    keep(&mut ways, 4);
    assert_eq!([2, 3, 4].map(|dst| port(&ways, dst, 0, 9)), [None, None, Some(4)]);
}

/// What it was before an epoch may be left behind it.
#[test]
fn what_is_kept_again_after_an_epoch_is_found_behind_whichever_sign_it_had() {
    let mut ways = Ways::new(5);
    for epoch in 7..9 {
        ways.turn_to(epoch);
        for dst in [2, 3] {
            let number = ways.keep(way(dst as u16));
            ways.lead(3, 0, dst, number);
            assert_eq!(ways.find(3, 0, dst, 9), Some(number), "{dst} in {epoch}");
        }
    }
}

/// Two hosts of different networks that have one number there share half of their addresses.
#[test]
fn all_of_an_address_is_compared() {
    let mut ways = Ways::new(5);
    let hosts = [0x2001_0db8_0000_0001_u128, 0x2001_0db8_0000_0002].map(|network| network << 64 | 1);
    for (host, port) in hosts.into_iter().zip(1..) {
        assert_eq!(ways.find(3, 0, host, 9), None, "{host:x}");
        let number = ways.keep(way(port));
        ways.lead(3, 0, host, number);
        assert_eq!(ways.find(3, 0, host, 9), Some(number), "{host:x}");
    }
    assert!(hosts.iter().all(|host| ways.find(3, 0, *host, 9).is_some()));
}

/// Who goes by the same way shares it; whoever's way was taken for another one has none.
#[test]
fn a_way_is_shared_and_its_place_is_used_again() {
    let mut ways = Ways::new(5);
    let to = |station: u64| Way { mac: station, ..way(1) };
    let first = ways.keep(to(1));
    ways.lead(3, 0, 1, first);
    assert_eq!([ways.keep(to(1)), ways.keep(Way { port: 2, ..to(1) })], [first, first + 1]);
    let mut lost_at = None;
    for station in 2..10_000 {
        let number = ways.keep(to(station));
        assert_eq!(*ways.way(number), to(station));
        match ways.find(3, 0, 1, 9) {
            Some(found) => assert_eq!((found, *ways.way(found), lost_at), (first, to(1), None)),
            None => lost_at = lost_at.or(Some(number)),
        }
    }
    assert!(lost_at.is_some_and(|number| number - first == 4096), "{lost_at:?}");
    // What holds no more is not shared either.
    let number = ways.keep(to(5));
    ways.turn_to(1);
    assert!(ways.keep(to(5)) > number);
}

#[test]
fn a_routes_way_is_no_destinations_and_one_in_a_few_packets_leaves_one() {
    let mut ways = Ways::new(5);
    ways.turn_to(7);
    let number = ways.keep(way(9));
    ways.lead_route(4, number);
    assert_eq!(ways.of_route(4, 9), Some(number));
    assert!(ways.of_route(5, 9).is_none() && ways.of_route(4, 10).is_none());
    let found = |dst| ways.find(ways.set(0, dst), 0, dst, 9).is_some();
    assert!(!found(4) && !found(9));
    ways.turn_to(8);
    assert!(ways.of_route(4, 9).is_none());
    let due = (0..1300).filter(|_| ways.is_due()).count();
    assert_eq!(due, 100);
}

#[test]
fn while_routes_lead_most_of_a_batch_they_are_asked_first() {
    let mut ways = Ways::new(5);
    let mut first_after = |led, packets| {
        ways.note_batch(led, packets);
        ways.are_routes_first()
    };
    assert!(!first_after(0, 0) && !first_after(32, 64));
    assert!(first_after(33, 64));
    // Destinations have their turn however many are led by their routes meanwhile.
    let batches = 1 + (0..100).take_while(|_| first_after(64, 64)).count();
    assert_eq!(batches, 15);
    assert!(first_after(64, 64));
}

/// Of one batch some packets are routed and some are the bridge's, also where those that are routed follow others at once.
#[test]
fn a_batch_is_routed_in_part() {
    let (mut rig, mut peers) = rig(1, 1024);
    let (port, peer) = memory::wire();
    rig.add_port_to("br0", "p2", PortSettings::default(), Box::new(port), 0).unwrap();
    peers.push(peer);
    let (now, stations) = (Now { ns: 1000 * MS }, [[10, 0, 0, 9], [10, 1, 0, 7], [10, 0, 0, 5]]);
    for (n, station) in (0u8..).zip(stations) {
        let gateway = [10, station[1], 0, 1];
        assert!(peers[usize::from(n)].send(arp_frame(true, (n, station), gateway, OWN)));
    }
    rig.settle(now);
    let routed = |number| udp(stations[0], stations[1], 64, number);
    let mut bridged = udp(stations[0], stations[2], 64, 1);
    bridged[..6].copy_from_slice(&mac(2));
    for round in 1..4 {
        peers.iter().for_each(|peer| _ = drain(peer));
        for frame in [routed(round), bridged.clone(), routed(round)] {
            assert!(peers[0].send(frame));
        }
        rig.settle(now);
        assert_eq!([1, 2].map(|n: usize| drain(&peers[n]).len()), [2, 1], "round {round}");
    }
    rig.assert_conserved();
}
