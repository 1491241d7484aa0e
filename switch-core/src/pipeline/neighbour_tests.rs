//! Neighbours over time and in trouble: who is used is asked before he is forgotten, and nobody is kept busy or robbed by what is
//! said without end.

use super::Now;
use super::routing_tests::{MS, OWN, arp_frame, drain, events, mac, rig};
use crate::config::gateway::to_bits;
use crate::counter::{DropReason, Event};
use crate::host::nd;
use crate::port::memory::MemoryPeer;
use crate::rig::Rig;
use crate::table::neigh::{FRESH_S, PROBES_MAX, STALE_MAX_S};
use crate::wire::ethernet::{self, IPV6};
use crate::wire::ip;
use etherparse::PacketBuilder;
use switch_api::{BridgeAddress, Mac, Request, Vid};

const ALL: [u8; 6] = [0xff; 6];

fn udp(src: [u8; 4], dst: [u8; 4]) -> Vec<u8> {
    let mut frame = Vec::new();
    let packet = PacketBuilder::ethernet2(mac(src[1]), OWN).ipv4(src, dst, 64).udp(7, 9);
    packet.write(&mut frame, &[7; 20]).unwrap();
    frame
}

/// What arrived of UDP, and the stations of whom somebody was asked by ARP.
fn sorted(frames: &[Vec<u8>]) -> (usize, Vec<[u8; 6]>) {
    let udp = frames.iter().filter(|frame| frame[12..14] == [8, 0] && frame[23] == ip::UDP);
    let asked = frames.iter().filter(|frame| frame[12..14] == [8, 6] && frame[20..22] == [0, 1]);
    (udp.count(), asked.map(|frame| frame[..6].try_into().unwrap()).collect())
}

/// A neighbour that is used for long is asked now and then, itself and nobody else, and no packet waits for that. One that
/// falls silent is asked for of everybody; one that nobody uses is forgotten.
#[test]
fn who_is_used_is_asked_before_he_is_forgotten() {
    let (mut rig, peers) = rig(1, 1024);
    let mut s = 1000;
    let now = |s: u32| Now { ns: u64::from(s) * 1000 * MS };
    let host = [10, 1, 0, 9];
    let says = |asks| arp_frame(asks, (1, host), [10, 1, 0, 1], if asks { ALL } else { OWN });
    assert!(peers[1].send(says(true)));
    rig.settle(now(s));
    drain(&peers[1]);
    let mut probed = 0;
    let end = s + 3 * STALE_MAX_S;
    while s < end {
        s += 5;
        assert!(peers[0].send(udp([10, 0, 0, 9], host)));
        rig.settle(now(s));
        let (arrived, asked) = sorted(&drain(&peers[1]));
        assert_eq!(arrived, 1, "after {s} s");
        assert!(asked.iter().all(|station| *station == mac(1)), "everybody was asked after {s} s");
        probed += asked.len() as u32;
        if !asked.is_empty() {
            assert!(peers[1].send(says(false)));
            rig.settle(now(s));
        }
    }
    // At the first packet after each half minute.
    let most = 3 * STALE_MAX_S / FRESH_S;
    assert!((most / 2..=most).contains(&probed), "{probed} questions");
    // Nothing is heard of him any more: what is sent goes on until he was asked often enough, and then waits.
    s += FRESH_S + 1;
    for n in 0..PROBES_MAX + 2 {
        assert!(peers[0].send(udp([10, 0, 0, 9], host)));
        rig.settle(now(s));
        let (arrived, asked) = sorted(&drain(&peers[1]));
        let expected = match n {
            0..PROBES_MAX => (1, vec![mac(1)]),
            // Who has this one sees that the last question went unanswered.
            PROBES_MAX => (1, vec![]),
            _ => (0, vec![ALL]),
        };
        assert_eq!((arrived, asked), expected, "packet {n}");
        s += 1;
    }
    assert!(peers[1].send(says(false)));
    rig.settle(now(s));
    assert_eq!(sorted(&drain(&peers[1])).0, 1, "what waited arrives");
    // Nobody uses him.
    s += STALE_MAX_S + 1;
    assert!(peers[0].send(udp([10, 0, 0, 9], host)));
    rig.settle(now(s));
    assert_eq!(sorted(&drain(&peers[1])), (0, vec![ALL]), "he was forgotten");
    rig.assert_conserved();
}

/// Packets of several ports wait for one neighbour, in turn: they all arrive when he answers, each port's in its order.
#[test]
fn packets_of_several_ports_wait_for_one_neighbour() {
    let (mut rig, mut peers) = rig(1, 1024);
    let (port, peer) = crate::port::memory::wire();
    rig.add_port_to("br0", "p2", Default::default(), Box::new(port), 0).unwrap();
    peers.push(peer);
    let mut now = Now { ns: 1000 * MS };
    let host = [10, 1, 0, 9];
    for n in 0..10u8 {
        for (peer, own) in [(0, 9), (2, 8)] {
            let mut frame = udp([10, 0, 0, own], host);
            frame[6..12].copy_from_slice(&mac(own));
            let last = frame.len() - 1;
            frame[last] = n;
            assert!(peers[peer].send(frame));
        }
        rig.settle(now);
    }
    assert_eq!(rig.turns[0].pipeline().private.holds.frames(), 20);
    drain(&peers[1]);
    assert!(peers[1].send(arp_frame(false, (1, host), [10, 1, 0, 1], OWN)));
    now.ns += MS;
    rig.settle(now);
    let arrived = drain(&peers[1]);
    for own in [9, 8] {
        let of = arrived.iter().filter(|frame| frame[12..14] == [8, 0] && frame[29] == own);
        assert_eq!(of.map(|frame| frame[frame.len() - 1]).collect::<Vec<_>>(), (0..10).collect::<Vec<u8>>());
    }
    rig.assert_conserved();
}

/// IPv6 gateways on both bridges.
fn with_v6() -> (Rig, Vec<MemoryPeer>) {
    let (mut rig, peers) = rig(1, 1024);
    for n in 0..2 {
        let bridge = format!("br{n}").parse().unwrap();
        let address = format!("fd0{n}::1/64").parse().unwrap();
        let own = BridgeAddress { bridge, address, vid: Vid::DEFAULT, owner: Default::default() };
        rig.declare(&Request::AddressAdd(own)).unwrap();
    }
    (rig, peers)
}

fn v6(text: &str) -> u128 {
    to_bits(text.parse().unwrap())
}

fn discovery(dst: u64, station: u8, write: impl FnOnce(&mut [u8]) -> usize) -> Vec<u8> {
    let mut frame = vec![0; 14 + nd::LEN];
    ethernet::set_addresses(&mut frame, dst, Mac(mac(station)).to_u64());
    frame[12..14].copy_from_slice(&IPV6.to_be_bytes());
    let len = write(&mut frame[14..]);
    frame.truncate(14 + len);
    frame
}

/// The station says that the address is its own: asked by nobody, as an answer, and by asking something itself.
fn claims(station: u8, address: u128, gateway: u128) -> [Vec<u8>; 3] {
    let (own, mac) = (Mac(OWN).to_u64(), Mac(mac(station)).to_u64());
    let (all, group) = (nd::group_mac(nd::ALL_NODES), nd::solicited_node(gateway));
    [
        discovery(all, station, |out| nd::advert(out, nd::ALL_NODES, address, mac, false, false)),
        discovery(own, station, |out| nd::advert(out, gateway, address, mac, false, true)),
        discovery(nd::group_mac(group), station, |out| nd::solicit(out, address, group, gateway, mac)),
    ]
}

/// An address of IPv6 may end in as many zeros as one of IPv4 has bits.
#[test]
fn whoever_has_an_address_that_ends_in_zeros_is_heard() {
    let now = Now { ns: 1000 * MS };
    for address in ["fd01::9", "fd01::1:0:0", "fd01::1:0:0:0"] {
        let ((mut rig, peers), host, gateway) = (with_v6(), v6(address), v6("fd01::1"));
        let packet = PacketBuilder::ethernet2(mac(0), OWN)
            .ipv6(v6("fd00::9").to_be_bytes(), host.to_be_bytes(), 64)
            .udp(7, 9);
        let mut frame = Vec::new();
        packet.write(&mut frame, &[7; 20]).unwrap();
        assert!(peers[0].send(frame));
        rig.settle(now);
        assert_eq!(drain(&peers[1]).len(), 1, "{address} is asked for");
        let [_, answers, _] = claims(1, host, gateway);
        assert!(peers[1].send(answers));
        rig.settle(now);
        let arrived = drain(&peers[1]);
        assert!(arrived.len() == 1 && arrived[0][20] == ip::UDP, "{address} answered: {arrived:02x?}");
        rig.assert_conserved();
    }
}

/// The same for neighbour discovery as `floods_of_claims_overwrite_nothing` for ARP: claims of every kind, some for the address of
/// another station, some for such that nobody asked for.
#[test]
fn floods_of_advertisements_overwrite_nothing() {
    let (mut rig, peers) = with_v6();
    let (host, gateway) = (v6("fd01::9"), v6("fd01::1"));
    let mut now = Now { ns: 1000 * MS };
    let [_, answers, asks] = claims(1, host, gateway);
    assert!(peers[1].send(asks));
    rig.settle(now);
    let entries = rig.tables.neigh.entries();
    assert!(entries >= 1);
    let packet = PacketBuilder::ethernet2(mac(0), OWN)
        .ipv6(v6("fd00::9").to_be_bytes(), host.to_be_bytes(), 64)
        .udp(7, 9);
    let mut frame = Vec::new();
    packet.write(&mut frame, &[7; 20]).unwrap();
    for round in 0..50 {
        for n in 0..20 {
            for claim in claims(7, host, gateway) {
                assert!(peers[1].send(claim));
            }
            // Whoever asks will be talked to, and so has a place; the others nobody asked for.
            let [announces, answers, _] = claims(7, v6("fd01::7:0") + round * 20 + n, gateway);
            assert!(peers[1].send(announces) && peers[1].send(answers));
        }
        rig.settle(now);
        drain(&peers[0]);
        drain(&peers[1]);
        now.ns += MS;
        assert!(peers[0].send(frame.clone()));
        rig.settle(now);
        let arrived = drain(&peers[1]);
        let packet = arrived.iter().find(|frame| frame[20] == ip::UDP).expect("the packet arrives");
        assert_eq!(packet[..6], mac(1), "at the station that had the address");
        // It is asked, and answers.
        assert!(peers[1].send(answers.clone()));
        rig.settle(now);
    }
    assert!(events(&rig, Event::NeighDisputed) > 0);
    assert_eq!(rig.tables.neigh.entries(), entries, "nobody asked for the others");
    rig.assert_conserved();
}

/// Whoever asks without end, for stations or by pings, is answered so many times a second; another port does not notice.
#[test]
fn who_asks_without_end_is_answered_within_limits() {
    let (mut rig, peers) = with_v6();
    let now = Now { ns: 1000 * MS };
    let question = |n: u8| arp_frame(true, (n, [10, n, 0, 9]), [10, n, 0, 1], ALL);
    let solicit = |n: u8| {
        let (own, host) = (v6(&format!("fd0{n}::1")), v6(&format!("fd0{n}::9")));
        let [_, _, asks] = claims(n, host, own);
        asks
    };
    let ping = |n: u8| {
        let mut frame = Vec::new();
        let packet = PacketBuilder::ethernet2(mac(n), OWN).ipv4([10, n, 0, 9], [10, n, 0, 1], 64);
        packet.icmpv4_echo_request(1, 1).write(&mut frame, &[7; 20]).unwrap();
        frame
    };
    let kinds: [&dyn Fn(u8) -> Vec<u8>; 3] = [&question, &solicit, &ping];
    for (n, kind) in kinds.into_iter().enumerate() {
        // A second later every bucket is full again.
        let now = Now { ns: now.ns + n as u64 * 2000 * MS };
        let limited = rig.drops(DropReason::HostLimit);
        for round in 0..40 {
            (0..50).for_each(|_| assert!(peers[0].send(kind(0)), "round {round}"));
            rig.settle(now);
        }
        let told = drain(&peers[0]).len() as u64;
        assert!((50..=110).contains(&told), "{told} answers at one moment: a tenth of a second's worth");
        assert_eq!(told + rig.drops(DropReason::HostLimit) - limited, 2000);
        drain(&peers[1]);
        assert!(peers[1].send(kind(1)));
        rig.settle(now);
        assert_eq!(drain(&peers[1]).len(), 1, "another port is answered");
    }
    rig.assert_conserved();
}
