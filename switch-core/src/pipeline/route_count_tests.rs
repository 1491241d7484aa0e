//! Routes that are counted: each packet once, however often it was looked at, and nothing of other routes.

use super::Now;
use super::routing_tests::{MS, OWN, arp_frame, drain, mac, rig};
use crate::config::ROUTE_COUNTERS;
use crate::config::routes::Place;
use crate::frame::Offload;
use crate::rig::Rig;
use crate::wire::checksum::Csum;
use crate::wire::gso::{Gso, GsoKind};
use etherparse::{IpHeaders, Ipv4Header, PacketBuilder};
use std::num::NonZeroU16;
use switch_api::{Name, NextHop, Request, Route, RouteKind, Vid};

fn route(prefix: &str, kind: RouteKind, mtu: Option<u16>, count: bool) -> Request {
    let hop = NextHop { address: [10, 1, 0, 9].into(), bridge: None, vid: Vid::DEFAULT, weight: 1 };
    let via = if kind == RouteKind::Via { vec![hop] } else { Vec::new() };
    Request::RouteAdd(Route { mtu, count, ..Route::new(prefix.parse().unwrap(), kind, via) })
}

/// What was counted of a route, packets and bytes.
fn counted(rig: &Rig, prefix: &str) -> (u64, u64) {
    let place = Place { prefix: prefix.parse().unwrap(), metric: 0 };
    let counter = rig.model.routes.counter(&Name::main(), place).unwrap();
    let each = rig.counters.iter().map(|counters| counters.route(counter).unwrap());
    each.fold((0, 0), |sum, traffic| (sum.0 + traffic.packets.get(), sum.1 + traffic.bytes.get()))
}

fn packet(dst: [u8; 4], payload: usize) -> Vec<u8> {
    let mut frame = Vec::new();
    let mut header = Ipv4Header::new(0, 64, etherparse::IpNumber::UDP, [10, 0, 0, 9], dst).unwrap();
    // It may be cut up.
    header.dont_fragment = false;
    let packet = PacketBuilder::ethernet2(mac(0), OWN).ip(IpHeaders::Ipv4(header, Default::default()));
    packet.udp(7, 9).write(&mut frame, &vec![7; payload]).unwrap();
    frame
}

#[test]
fn each_packet_of_a_counted_route_counts_once() {
    let (mut rig, peers) = rig(2, 1024);
    rig.counters.iter().for_each(|counters| counters.make_routes(ROUTE_COUNTERS));
    for (prefix, kind, mtu, count) in [
        ("99.0.0.0/8", RouteKind::Via, None, true),
        ("98.0.0.0/8", RouteKind::Via, None, false),
        ("97.0.0.0/8", RouteKind::Via, Some(1000), true),
        ("96.0.0.0/8", RouteKind::Blackhole, None, true),
        ("95.0.0.0/8", RouteKind::Prohibit, None, true),
        ("94.0.0.0/8", RouteKind::Blackhole, None, false),
    ] {
        rig.declare(&route(prefix, kind, mtu, count)).unwrap();
    }
    let mut now = Now { ns: 1000 * MS };
    let mut settle = |rig: &mut Rig| {
        now.ns += MS;
        rig.settle(now);
    };
    // It waits for its neighbour, and is counted when it goes on.
    assert!(peers[0].send(packet([99, 0, 0, 1], 58)));
    settle(&mut rig);
    assert_eq!(counted(&rig, "99.0.0.0/8"), (0, 0));
    assert!(peers[1].send(arp_frame(false, (1, [10, 1, 0, 9]), [10, 1, 0, 1], OWN)));
    settle(&mut rig);
    assert_eq!(counted(&rig, "99.0.0.0/8"), (1, 100));
    // In one batch with what is not counted, and what is refused.
    for dst in [99, 98, 96, 95, 94, 99, 50] {
        assert!(peers[0].send(packet([dst, 0, 0, 1], 58)));
    }
    settle(&mut rig);
    assert_eq!(counted(&rig, "99.0.0.0/8"), (3, 300));
    assert_eq!(counted(&rig, "96.0.0.0/8"), (1, 100));
    assert_eq!(counted(&rig, "95.0.0.0/8"), (1, 100));
    // In two pieces that are the packet that was too long.
    drain(&peers[1]);
    assert!(peers[0].send(packet([97, 0, 0, 1], 1400)));
    settle(&mut rig);
    let pieces = drain(&peers[1]);
    let bytes = pieces.iter().map(Vec::len).sum::<usize>() as u64;
    assert_eq!((pieces.len(), counted(&rig, "97.0.0.0/8")), (2, (2, bytes)));
    // A superframe counts as what it is on the wire.
    let mut frame = Vec::new();
    let train = PacketBuilder::ethernet2(mac(0), OWN).ipv4([10, 0, 0, 9], [99, 0, 0, 1], 64);
    train.tcp(1000, 80, 7, 8).write(&mut frame, &[7; 5000]).unwrap();
    let gso = Gso { kind: GsoKind::Tcp4, ecn: false, size: NonZeroU16::new(1000).unwrap() };
    assert!(
        peers[0]
            .send_offload(frame, Offload { csum: Csum::Partial { start: 34, field: 16 }, gso: Some(gso) })
    );
    settle(&mut rig);
    assert_eq!(drain(&peers[1]).len(), 5);
    assert_eq!(counted(&rig, "99.0.0.0/8"), (3 + 5, 300 + 5 * 1054));
    rig.assert_conserved();
}
