//! Routing in trouble: circles, next hops that lead nowhere, tables that overlap, storms of errors, headers without end.

use super::Now;
use super::routing_tests::{MS, OWN, arp_frame, drain, events, mac, rig};
use crate::config::gateway::to_bits;
use crate::counter::{DropReason, Event};
use crate::port::memory::{self, MemoryPeer};
use crate::rig::Rig;
use crate::table::neigh;
use crate::wire::ethernet::set_addresses;
use crate::wire::hop;
use crate::wire::ip::{self, Version};
use etherparse::PacketBuilder;
use switch_api::{
    Bridge, BridgeAddress, Mac, Name, NextHop, PortSettings, Request, Route, RouteKind, Vid, VidRange, Vlan,
};

const NOW: Now = Now { ns: 1000 * MS };

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn route(rig: &mut Rig, prefix: &str, hop: &str, vrf: &str) -> Result<(), switch_api::ApiError> {
    let hop = NextHop { address: hop.parse().unwrap(), bridge: None, vid: Vid::DEFAULT, weight: 1 };
    let route = Route::new(prefix.parse().unwrap(), RouteKind::Via, vec![hop]);
    rig.declare(&Request::RouteAdd(Route { vrf: name(vrf), ..route }))
}

fn udp(from: u8, src: [u8; 4], dst: [u8; 4], ttl: u8) -> Vec<u8> {
    let mut frame = Vec::new();
    let packet = PacketBuilder::ethernet2(mac(from), OWN).ipv4(src, dst, ttl).udp(7, 9);
    packet.write(&mut frame, &[7; 20]).unwrap();
    frame
}

/// The station `n` behind a port has an address.
fn hear(rig: &mut Rig, peer: &MemoryPeer, n: u8, address: [u8; 4], gateway: [u8; 4]) {
    assert!(peer.send(arp_frame(true, (n, address), gateway, [0xff; 6])));
    rig.settle(NOW);
    drain(peer);
}

/// A router that sends back what it is sent: each packet goes round until its TTL ends it, and no longer; its sender is told,
/// and of a thousand in the circle no more than the limit on errors lets.
#[test]
fn a_routing_loop_ends_with_the_ttl() {
    let (mut rig, peers) = rig(1, 4096);
    hear(&mut rig, &peers[1], 9, [10, 1, 0, 9], [10, 1, 0, 1]);
    route(&mut rig, "99.0.0.0/8", "10.1.0.9", "main").unwrap();
    for _ in 0..500 {
        assert!(peers[0].send(udp(0, [10, 0, 0, 9], [99, 0, 0, 1], 64)));
    }
    let (mut crossed, mut rounds) = (0, 0);
    loop {
        rig.settle(NOW);
        let packets: Vec<_> = drain(&peers[1]).into_iter().filter(|frame| frame[23] == ip::UDP).collect();
        if packets.is_empty() {
            break;
        }
        rounds += 1;
        crossed += packets.len();
        assert!(rounds <= 32, "it goes round without end");
        for mut frame in packets {
            hop::step(&mut frame[14..], Version::V4);
            set_addresses(&mut frame, Mac(OWN).to_u64(), Mac(mac(9)).to_u64());
            assert!(peers[1].send(frame));
        }
    }
    // Both routers take one of it: half of the 64 crossings are the switch's, the last of which is the end.
    assert_eq!((rounds, crossed, rig.drops(DropReason::TtlExpired)), (32, 32 * 500, 500));
    assert_eq!(events(&rig, Event::ErrorTold) + events(&rig, Event::ErrorUntold), 500);
    assert!(events(&rig, Event::ErrorTold) <= 20, "a tenth of a second's worth");
    rig.assert_conserved();
}

/// What a route names as the way is a neighbour, whatever other routes there are to it: one step, so that no circle of them
/// is gone round. A next hop that is no neighbour, and the switch itself, are refused.
#[test]
fn next_hops_are_neighbours_and_not_looked_up_again() {
    let (mut rig, peers) = rig(1, 1024);
    for n in [8, 9] {
        hear(&mut rig, &peers[1], n, [10, 1, 0, n], [10, 1, 0, 1]);
    }
    // To itself, and each to the other.
    route(&mut rig, "10.1.0.8/32", "10.1.0.9", "main").unwrap();
    route(&mut rig, "10.1.0.9/32", "10.1.0.8", "main").unwrap();
    route(&mut rig, "10.1.0.7/32", "10.1.0.7", "main").unwrap();
    route(&mut rig, "99.0.0.0/8", "10.1.0.9", "main").unwrap();
    hear(&mut rig, &peers[1], 7, [10, 1, 0, 7], [10, 1, 0, 1]);
    for (dst, station) in [([10, 1, 0, 8], 9), ([10, 1, 0, 9], 8), ([10, 1, 0, 7], 7), ([99, 0, 0, 1], 9)] {
        assert!(peers[0].send(udp(0, [10, 0, 0, 9], dst, 64)));
        rig.settle(NOW);
        let arrived = drain(&peers[1]);
        assert_eq!(arrived.len(), 1, "{dst:?}");
        assert_eq!((&arrived[0][..6], arrived[0][22]), (&mac(station)[..], 63), "{dst:?}");
    }
    // A network that only another route leads to, and the switch's own address.
    let refused = route(&mut rig, "50.0.0.0/8", "99.0.0.1", "main").unwrap_err();
    assert!(refused.message.contains("99.0.0.1 is in no gateway's network"), "{refused:?}");
    let refused = route(&mut rig, "50.0.0.0/8", "10.1.0.1", "main").unwrap_err();
    assert!(refused.message.contains("10.1.0.1 is the switch itself"), "{refused:?}");
    rig.assert_conserved();
}

/// Two tables with the same networks, gateways and neighbours' addresses: a packet stays in the table it came into.
#[test]
fn tables_with_the_same_networks_do_not_meet() {
    let (mut rig, mut peers) = rig(1, 1024);
    for n in 0..2u8 {
        let (bridge, (port, peer)) = (format!("red{n}"), memory::wire());
        let object = Bridge { mac: Some(Mac(OWN)), vrf: name("red"), ..Bridge::new(name(&bridge)) };
        rig.declare(&Request::BridgeAdd(object)).unwrap();
        let (bridge_name, address) = (name(&bridge), format!("10.{n}.0.1/16").parse().unwrap());
        let own =
            BridgeAddress { bridge: bridge_name, address, vid: Vid::DEFAULT, owner: Default::default() };
        rig.declare(&Request::AddressAdd(own)).unwrap();
        rig.add_port_to(&bridge, &format!("r{n}"), PortSettings::default(), Box::new(port), 0).unwrap();
        peers.push(peer);
    }
    // The same address at other stations, and the same network by other next hops.
    for (peer, station) in [(1, 21), (3, 31)] {
        hear(&mut rig, &peers[peer], station, [10, 1, 0, 9], [10, 1, 0, 1]);
    }
    for (peer, station) in [(1, 22), (3, 32)] {
        hear(&mut rig, &peers[peer], station, [10, 1, 0, 8], [10, 1, 0, 1]);
    }
    route(&mut rig, "99.0.0.0/8", "10.1.0.9", "main").unwrap();
    route(&mut rig, "99.0.0.0/8", "10.1.0.8", "red").unwrap();
    route(&mut rig, "98.0.0.0/8", "10.1.0.9", "red").unwrap();
    let cases = [
        (0, [10, 1, 0, 9], Some((1, 21))),
        (2, [10, 1, 0, 9], Some((3, 31))),
        (0, [99, 0, 0, 1], Some((1, 21))),
        (2, [99, 0, 0, 1], Some((3, 32))),
        (2, [98, 0, 0, 1], Some((3, 31))),
        // That is the other's alone.
        (0, [98, 0, 0, 1], None),
    ];
    for (from, dst, to) in cases {
        assert!(peers[from].send(udp(from as u8, [10, 0, 0, 9], dst, 64)));
        rig.settle(NOW);
        for (n, peer) in peers.iter().enumerate() {
            let arrived: Vec<_> = drain(peer).into_iter().filter(|frame| frame[23] == ip::UDP).collect();
            let stations: Vec<u8> = arrived.iter().map(|frame| frame[5]).collect();
            let expected: Vec<u8> =
                to.iter().filter(|(at, _)| *at == n).map(|(_, station)| *station).collect();
            assert_eq!(stations, expected, "from {from} to {dst:?} at {n}");
        }
    }
    assert_eq!(rig.drops(DropReason::NoRoute), 1);
    rig.assert_conserved();
}

/// The neighbour's port is gone: dropped by name, and its own again when it is back.
#[test]
fn a_next_hop_behind_a_dead_port_is_dropped_by_name() {
    let (mut rig, peers) = rig(1, 1024);
    hear(&mut rig, &peers[1], 9, [10, 1, 0, 9], [10, 1, 0, 1]);
    route(&mut rig, "99.0.0.0/8", "10.1.0.9", "main").unwrap();
    let port = rig.model.ports[&name("p1")].id;
    for (is_up, arrives) in [(false, 0), (true, 1), (false, 0)] {
        rig.set_up(port, is_up);
        assert!(peers[0].send(udp(0, [10, 0, 0, 9], [99, 0, 0, 1], 64)));
        rig.settle(NOW);
        assert_eq!(drain(&peers[1]).len(), arrives);
    }
    assert_eq!(rig.drops(DropReason::PortClosed), 2);
    rig.assert_conserved();
}

/// Errors about errors are not told, however many there are; and one port's storm takes nothing of another's.
#[test]
fn a_storm_of_errors_stays_one() {
    let (mut rig, peers) = rig(1, 1024);
    for (peer, n) in [(0, 0), (1, 1)] {
        hear(&mut rig, &peers[peer], n, [10, n, 0, 9], [10, n, 0, 1]);
    }
    let inner = udp(0, [99, 0, 0, 1], [10, 0, 0, 9], 64);
    for kind in [3, 4, 5, 11, 12] {
        for (dst, ttl) in [([99, 0, 0, 1], 64), ([10, 1, 0, 9], 1), ([10, 0, 0, 1], 64)] {
            for _ in 0..100 {
                let mut frame = Vec::new();
                let packet = PacketBuilder::ethernet2(mac(0), OWN).ipv4([10, 0, 0, 9], dst, ttl);
                packet.icmpv4_raw(kind, 0, [0; 4]).write(&mut frame, &inner[14..42]).unwrap();
                assert!(peers[0].send(frame));
            }
            rig.settle(NOW);
        }
    }
    assert_eq!((drain(&peers[0]).len(), drain(&peers[1]).len()), (0, 0));
    assert_eq!((events(&rig, Event::ErrorTold), events(&rig, Event::ErrorUntold)), (0, 0));
    // What is told of is limited; and so much that one port is told nothing more does not silence the other.
    for _ in 0..1000 {
        assert!(peers[0].send(udp(0, [10, 0, 0, 9], [99, 0, 0, 1], 64)));
    }
    rig.settle(NOW);
    let told = drain(&peers[0]).len();
    assert!((1..=20).contains(&told), "{told}");
    assert!(peers[1].send(udp(1, [10, 1, 0, 9], [99, 0, 0, 1], 64)));
    rig.settle(NOW);
    assert_eq!(drain(&peers[1]).len(), 1);
    rig.assert_conserved();
}

/// A router looks at no header behind the first: a chain of them, however long or wrong, goes through; for the switch itself
/// it is not followed, and nothing is said of it.
#[test]
fn chains_of_headers_without_end_are_carried_and_not_followed() {
    let (mut rig, peers) = rig(1, 1024);
    add_v6(&mut rig);
    let fid = rig.model.fids[&(rig.model.bridges[&name("br1")].id, Vid::DEFAULT)];
    let far = "fd01::9".parse().unwrap();
    assert!(rig.tables.neigh.pin(neigh::key(fid, to_bits(far)), Mac(mac(1)).to_u64()));
    // Two next hops, so that flows are told apart by what can be read.
    let hop = |address: &str| NextHop {
        address: address.parse().unwrap(),
        bridge: None,
        vid: Vid::DEFAULT,
        weight: 1,
    };
    let two = Route::new("fd99::/64".parse().unwrap(), RouteKind::Via, vec![hop("fd01::9"), hop("fd01::8")]);
    rig.declare(&Request::RouteAdd(two)).unwrap();
    assert!(rig.tables.neigh.pin(neigh::key(fid, to_bits("fd01::8".parse().unwrap())), Mac(mac(2)).to_u64()));
    let chain = |dst: &str, hops: u8, kind: u8, len: u8, headers: usize| {
        let mut frame = vec![0; 54 + 8 * headers];
        set_addresses(&mut frame, Mac(OWN).to_u64(), Mac(mac(0)).to_u64());
        frame[12..15].copy_from_slice(&[0x86, 0xdd, 0x60]);
        frame[18..20].copy_from_slice(&(8 * headers as u16).to_be_bytes());
        (frame[20], frame[21]) = (kind, hops);
        frame[22..38].copy_from_slice(&to_bits("fd00::9".parse().unwrap()).to_be_bytes());
        frame[38..54].copy_from_slice(&to_bits(dst.parse().unwrap()).to_be_bytes());
        for header in frame[54..].chunks_exact_mut(8) {
            header[..2].copy_from_slice(&[kind, len]);
        }
        frame
    };
    // Hop-by-hop again and again, routing, fragments of fragments, destination options; each as short as it can be, or
    // longer than the packet.
    let mut sent = 0;
    for kind in [0, 43, 44, 51, 60, 135, 139, 140] {
        for (len, headers) in [(0, 180), (255, 180), (255, 1), (0, 1)] {
            for (dst, hops, arrives) in
                [("fd01::9", 64, 1), ("fd99::1", 64, 1), ("fd00::1", 64, 0), ("fd01::9", 1, 0)]
            {
                assert!(peers[0].send(chain(dst, hops, kind, len, headers)));
                rig.settle(Now { ns: NOW.ns + sent * 10 * MS });
                sent += 1;
                let arrived = drain(&peers[1])
                    .into_iter()
                    .filter(|frame| frame[12..14] == [0x86, 0xdd] && frame[20] == kind);
                assert_eq!(arrived.count(), arrives, "{kind} of {len}, {headers} of them, to {dst}");
                // An error or an answer at most, never more.
                assert!(drain(&peers[0]).len() <= 1);
            }
        }
    }
    rig.assert_conserved();
}

/// What goes back by the link that it came from goes there, one hop older, and its sender is not told of the shorter way: who
/// believes redirects can be led astray, and the next hop may not be for it (RFC 1812 §5.2.7.2 lets a router be silent).
#[test]
fn nobody_is_redirected() {
    let (mut rig, peers) = rig(1, 1024);
    add_v6(&mut rig);
    let fid = rig.model.fids[&(rig.model.bridges[&name("br0")].id, Vid::DEFAULT)];
    for address in ["10.0.0.5", "fd00::5"] {
        let key = neigh::key(fid, to_bits(address.parse().unwrap()));
        assert!(rig.tables.neigh.pin(key, Mac(mac(5)).to_u64()));
    }
    // Heard once, so that it is known where it is.
    hear(&mut rig, &peers[0], 5, [10, 0, 0, 5], [10, 0, 0, 1]);
    route(&mut rig, "99.0.0.0/8", "10.0.0.5", "main").unwrap();
    route(&mut rig, "fd99::/64", "fd00::5", "main").unwrap();
    for (dst, ttl_at) in [("99.0.0.1", 22), ("10.0.0.5", 22), ("fd99::1", 21), ("fd00::5", 21)] {
        let sent = match dst.parse().unwrap() {
            std::net::IpAddr::V4(to) => udp(0, [10, 0, 0, 9], to.octets(), 64),
            std::net::IpAddr::V6(_) => udp_v6("fd00::9", dst),
        };
        assert!(peers[0].send(sent));
        rig.settle(NOW);
        let heard = drain(&peers[0]);
        assert_eq!(heard.len(), 1, "{dst}: the packet, and nothing said of it");
        assert_eq!((&heard[0][..6], heard[0][ttl_at]), (&mac(5)[..], 63), "{dst}");
    }
    rig.assert_conserved();
}

/// A link-local source is not carried to another link, and is told so (RFC 4443 §3.1, code 2); back to its own it may be.
#[test]
fn link_local_sources_stay_on_their_link() {
    let (mut rig, peers) = rig(1, 1024);
    add_v6(&mut rig);
    for (n, address) in [(0, "fd00::5"), (1, "fd01::9")] {
        let fid = rig.model.fids[&(rig.model.bridges[&name(&format!("br{n}"))].id, Vid::DEFAULT)];
        let key = neigh::key(fid, to_bits(address.parse().unwrap()));
        assert!(rig.tables.neigh.pin(key, Mac(mac(5)).to_u64()));
    }
    // Heard once, so that it is known where it is.
    hear(&mut rig, &peers[0], 5, [10, 0, 0, 5], [10, 0, 0, 1]);
    assert!(peers[0].send(udp_v6("fe80::9", "fd01::9")));
    rig.settle(NOW);
    assert_eq!((drain(&peers[1]).len(), rig.drops(DropReason::LinkScope)), (0, 1));
    let told = drain(&peers[0]);
    assert_eq!(told.len(), 1);
    assert_eq!((told[0][20], &told[0][54..56]), (ip::ICMPV6, &[1, 2][..]));
    // A router's own link-local address is on each of its links, and nobody else's is reached by it.
    assert!(peers[0].send(udp_v6("fd00::9", "fe80::99")));
    rig.settle(NOW);
    assert_eq!((drain(&peers[1]).len(), rig.drops(DropReason::MartianDestination)), (0, 1));
    assert!(peers[0].send(udp_v6("fe80::9", "fd00::5")));
    rig.settle(NOW);
    let heard = drain(&peers[0]);
    assert_eq!((heard.len(), rig.drops(DropReason::LinkScope)), (1, 1));
    assert_eq!((&heard[0][..6], heard[0][21]), (&mac(5)[..], 63));
    rig.assert_conserved();
}

/// Gateways of IPv6 on both bridges.
fn add_v6(rig: &mut Rig) {
    for n in 0..2 {
        let (bridge, address) = (name(&format!("br{n}")), format!("fd0{n}::1/64").parse().unwrap());
        let own = BridgeAddress { bridge, address, vid: Vid::DEFAULT, owner: Default::default() };
        rig.declare(&Request::AddressAdd(own)).unwrap();
    }
}

fn udp_v6(src: &str, dst: &str) -> Vec<u8> {
    let bytes = |text: &str| to_bits(text.parse().unwrap()).to_be_bytes();
    let mut frame = Vec::new();
    let packet = PacketBuilder::ethernet2(mac(0), OWN).ipv6(bytes(src), bytes(dst), 64).udp(7, 9);
    packet.write(&mut frame, &[7; 20]).unwrap();
    frame
}
/// In one batch, on two VLANs of one port: an address is the switch's own on one of them alone.
#[test]
fn a_source_is_looked_at_on_each_bridge() {
    let (mut rig, mut peers) = rig(1, 1024);
    let five = Vid::try_from(5u32).unwrap();
    let address = "10.5.0.1/16".parse().unwrap();
    let own = BridgeAddress { bridge: name("br0"), address, vid: five, owner: Default::default() };
    rig.declare(&Request::AddressAdd(own)).unwrap();
    let (port, peer) = memory::wire();
    let vlan = Vlan::Trunk { vids: vec![VidRange { first: five, last: five }], native: Some(Vid::DEFAULT) };
    rig.add_port("p2", PortSettings { vlan, ..PortSettings::default() }, Box::new(port), 0).unwrap();
    peers.push(peer);
    hear(&mut rig, &peers[1], 1, [10, 1, 0, 9], [10, 1, 0, 1]);
    let untagged = udp(2, [10, 5, 0, 1], [10, 1, 0, 9], 64);
    let tagged = [&untagged[..12], &[0x81, 0, 0, 5], &untagged[12..]].concat();
    for frame in [&untagged, &tagged, &untagged, &untagged, &tagged] {
        assert!(peers[2].send(frame.clone()));
    }
    rig.settle(NOW);
    assert_eq!(rig.drops(DropReason::MartianSource), 2);
    assert_eq!(drain(&peers[1]).len(), 3);
    rig.assert_conserved();
}
