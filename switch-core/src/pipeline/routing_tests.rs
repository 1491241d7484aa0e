//! Routing without kernels: what waits, what is refused, and what a hostile pod can do to others.

use super::Now;
use crate::counter::{DropReason, Event};
use crate::host::arp::{self, Arp};
use crate::port::memory::{self, MemoryPeer};
use crate::rig::{Rig, Size};
use crate::wire::hop::V4_MAPPED;
use crate::wire::{ethernet, hop, ip};
use etherparse::PacketBuilder;
use switch_api::{Bridge, BridgeAddress, Mac, NextHop, PortSettings, Request, Route, RouteKind, Vid};

pub(super) const MS: u64 = 1_000_000;
/// The switch on both bridges.
pub(super) const OWN: [u8; 6] = [2, 0, 0, 0, 0, 0xfe];
/// The station behind port `n`.
pub(super) fn mac(n: u8) -> [u8; 6] {
    [2, 0, 0, 0, 1, n]
}

/// Two bridges, 10.0.0.1/16 and 10.1.0.1/16, and a port on each, each of its own worker if there are two.
pub(super) fn rig(workers: usize, frames: u32) -> (Rig, Vec<MemoryPeer>) {
    rig_of(Size { workers, frames, neighbours: 4096, seed: 3, ..Size::default() })
}

/// The same of any size.
pub(super) fn rig_of(size: Size) -> (Rig, Vec<MemoryPeer>) {
    let (workers, mut rig) = (size.workers, Rig::new(size));
    let name = |text: &str| -> switch_api::Name { text.parse().unwrap() };
    let bridge = |text: &str| Bridge { mac: Some(Mac(OWN)), ..Bridge::new(name(text)) };
    rig.declare(&Request::BridgeSet(bridge("br0"))).unwrap();
    rig.declare(&Request::BridgeAdd(bridge("br1"))).unwrap();
    let mut peers = Vec::new();
    for n in 0..2 {
        let (bridge, (port, peer)) = (format!("br{n}"), memory::wire());
        let address = format!("10.{n}.0.1/16").parse().unwrap();
        let gateway =
            BridgeAddress { bridge: name(&bridge), address, vid: Vid::DEFAULT, owner: Default::default() };
        rig.declare(&Request::AddressAdd(gateway)).unwrap();
        let (settings, worker) = (PortSettings::default(), (n % workers) as u16);
        rig.add_port_to(&bridge, &format!("p{n}"), settings, Box::new(port), worker).unwrap();
        peers.push(peer);
    }
    (rig, peers)
}

pub(super) fn udp(src: [u8; 4], dst: [u8; 4], ttl: u8, number: u16) -> Vec<u8> {
    let mut frame = Vec::new();
    let packet = PacketBuilder::ethernet2(mac(src[1]), OWN).ipv4(src, dst, ttl).udp(number, 9);
    packet.write(&mut frame, &number.to_be_bytes()).unwrap();
    frame
}

pub(super) fn arp_frame(asks: bool, sender: (u8, [u8; 4]), target: [u8; 4], dst: [u8; 6]) -> Vec<u8> {
    let word = |mac: [u8; 6]| Mac(mac).to_u64();
    let ip = |ip: [u8; 4]| V4_MAPPED | u128::from(u32::from_be_bytes(ip));
    let (sender_mac, sender) = (word(mac(sender.0)), ip(sender.1));
    let mut frame = vec![0; 60];
    ethernet::set_addresses(&mut frame, word(dst), sender_mac);
    frame[12..14].copy_from_slice(&ethernet::ARP.to_be_bytes());
    arp::write(&mut frame[14..], &Arp { asks, sender_mac, sender, target_mac: 0, target: ip(target) });
    frame
}

pub(super) fn drain(peer: &MemoryPeer) -> Vec<Vec<u8>> {
    std::iter::from_fn(|| peer.recv()).collect()
}

/// The numbers of the UDP packets among what arrived, each with its destination.
fn numbers(frames: &[Vec<u8>]) -> Vec<([u8; 4], u16)> {
    let udp = frames.iter().filter(|frame| frame[12..14] == [8, 0] && frame[23] == ip::UDP);
    udp.map(|frame| (frame[30..34].try_into().unwrap(), u16::from_be_bytes([frame[34], frame[35]]))).collect()
}

pub(super) fn events(rig: &Rig, event: Event) -> u64 {
    rig.counters.iter().map(|counters| counters.event(event).get()).sum()
}

/// What waits for a neighbour moves with the lane it came in by: whatever comes after it by the new worker stays behind it,
/// also when the neighbour answers at once.
#[test]
fn what_waits_for_a_neighbour_moves_with_its_lane() {
    let (mut rig, peers) = rig(2, 1024);
    let mut now = Now { ns: 1000 * MS };
    let mut number = 0;
    let mut send = |n| {
        for _ in 0..n {
            number += 1;
            assert!(peers[0].send(udp([10, 0, 0, 9], [10, 1, 0, 7], 64, number)));
        }
    };
    let port = rig.model.ports[&"p0".parse::<switch_api::Name>().unwrap()].id;
    let held = |rig: &Rig| [0, 1].map(|worker: usize| rig.turns[worker].pipeline().private.holds.frames());
    let move_it = |rig: &mut Rig, from: u16| {
        let lane = crate::rig::Move { queue: 0, from, to: 1 - from };
        let mut handover = rig.begin_to_move(port, vec![lane]);
        while !rig.step(port, &mut handover) {
            rig.run(now);
        }
    };
    send(3);
    rig.settle(now);
    assert_eq!(held(&rig), [3, 0]);
    move_it(&mut rig, 0);
    send(2);
    rig.settle(now);
    assert_eq!(held(&rig), [0, 5]);
    // Its answer is heard by the worker that has both lanes by then, before and after the move back.
    assert!(peers[1].send(arp_frame(false, (1, [10, 1, 0, 7]), [10, 1, 0, 1], OWN)));
    rig.turns[1].run(now);
    move_it(&mut rig, 1);
    send(3);
    now.ns += MS;
    rig.settle(now);
    let arrived: Vec<u16> = numbers(&drain(&peers[1])).into_iter().map(|(_, number)| number).collect();
    assert_eq!(arrived, [1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(held(&rig), [0, 0]);
    rig.assert_conserved();
}

/// [first-packet]: of 1 000 flows, each to another neighbour that is not known, 1 000 first packets arrive, and
/// before what follows them. The answers come in by the other worker.
#[test]
fn a_thousand_first_packets_arrive_in_order() {
    let (mut rig, peers) = rig(2, 16_384);
    let host = |n: u16| [10, 1, 1 + (n >> 8) as u8, n as u8];
    let mut now = Now { ns: 1000 * MS };
    for n in 0..1000 {
        assert!(peers[0].send(udp([10, 0, 0, 9], host(n), 64, 1)));
    }
    rig.settle(now);
    let asked: Vec<Vec<u8>> = drain(&peers[1]);
    assert_eq!(asked.iter().filter(|frame| frame[12..14] == [8, 6]).count(), 1000, "each is asked for once");
    assert_eq!(numbers(&asked), []);
    for n in 0..1000 {
        assert!(peers[1].send(arp_frame(false, (1, host(n)), [10, 1, 0, 1], OWN)));
    }
    now.ns += MS;
    // What follows comes while half of them still wait.
    while rig.turns[0].pipeline().private.holds.frames() > 500 {
        rig.run(now);
    }
    for n in (0..1000).rev() {
        assert!(peers[0].send(udp([10, 0, 0, 9], host(n), 64, 2)));
    }
    rig.settle(now);
    let arrived = numbers(&drain(&peers[1]));
    assert_eq!(arrived.len(), 2000);
    for n in 0..1000 {
        let flow: Vec<u16> =
            arrived.iter().filter(|(dst, _)| *dst == host(n)).map(|(_, number)| *number).collect();
        assert_eq!(flow, [1, 2], "flow {n}");
    }
    rig.assert_conserved();
}

#[test]
fn a_routed_packet_is_one_hop_older_and_has_new_addresses() {
    let (mut rig, peers) = rig(1, 1024);
    let now = Now { ns: 1000 * MS };
    assert!(peers[1].send(arp_frame(true, (1, [10, 1, 0, 9]), [10, 1, 0, 1], [0xff; 6])));
    rig.settle(now);
    let answer = drain(&peers[1]);
    assert_eq!(answer.len(), 1);
    let heard = arp::read(&answer[0][14..]).unwrap();
    assert_eq!((heard.asks, heard.sender_mac, answer[0][..6] == mac(1)), (false, Mac(OWN).to_u64(), true));
    let sent = udp([10, 0, 0, 9], [10, 1, 0, 9], 64, 7);
    assert!(peers[0].send(sent.clone()));
    rig.settle(now);
    let arrived = drain(&peers[1]);
    assert_eq!(arrived.len(), 1);
    assert_eq!((&arrived[0][..6], &arrived[0][6..12]), (&mac(1)[..], &OWN[..]));
    let hop = hop::read(&arrived[0][14..], ip::Version::V4).unwrap();
    assert_eq!(hop.ttl, 63);
    assert_eq!(arrived[0][26..], sent[26..], "nothing else changed");
    rig.assert_conserved();
}

#[test]
fn silence_ends_in_an_error_and_loses_no_frame() {
    let (mut rig, peers) = rig(1, 1024);
    let mut now = Now { ns: 1000 * MS };
    for number in 0..100 {
        assert!(peers[0].send(udp([10, 0, 0, 9], [10, 1, 0, 77], 64, number)));
    }
    for _ in 0..5 {
        rig.settle(now);
        now.ns += 1000 * MS;
    }
    assert_eq!(drain(&peers[1]).len(), 3, "three questions");
    let held = super::hold::HELD_A_NEIGHBOUR_MAX as u64;
    assert_eq!((rig.drops(DropReason::NeighbourFailed), rig.drops(DropReason::HoldFull)), (held, 100 - held));
    let told = drain(&peers[0]);
    assert!(told.iter().all(|frame| frame[23] == ip::ICMP && frame[34..36] == [3, 1]), "host unreachable");
    assert!(!told.is_empty());
    rig.assert_conserved();
}

#[test]
fn floods_of_claims_overwrite_nothing() {
    let (mut rig, peers) = rig(1, 1024);
    let mut now = Now { ns: 1000 * MS };
    assert!(peers[1].send(arp_frame(true, (1, [10, 1, 0, 9]), [10, 1, 0, 1], [0xff; 6])));
    rig.settle(now);
    let entries = rig.tables.neigh.entries();
    for round in 0..50u16 {
        for n in 0..40u8 {
            // Another station says that it has the address, and a thousand more that nobody asked for.
            assert!(peers[1].send(arp_frame(round % 2 == 0, (7, [10, 1, 0, 9]), [10, 1, 0, 9], [0xff; 6])));
            assert!(peers[1].send(arp_frame(false, (7, [10, 1, 9, n]), [10, 1, 0, 1], OWN)));
        }
        rig.settle(now);
        drain(&peers[0]);
        drain(&peers[1]);
        now.ns += MS;
        assert!(peers[0].send(udp([10, 0, 0, 9], [10, 1, 0, 9], 64, round)));
        rig.settle(now);
        let arrived = drain(&peers[1]);
        let packet = arrived.iter().find(|frame| frame[12..14] == [8, 0]).expect("the packet arrives");
        assert_eq!(packet[..6], mac(1), "at the station that had the address");
        // It is asked, and answers.
        assert!(peers[1].send(arp_frame(false, (1, [10, 1, 0, 9]), [10, 1, 0, 1], OWN)));
        rig.settle(now);
    }
    assert!(events(&rig, Event::NeighDisputed) > 0);
    assert_eq!(rig.tables.neigh.entries(), entries, "nobody asked for the others");
    rig.assert_conserved();
}

#[test]
fn errors_are_told_but_not_without_end() {
    let (mut rig, peers) = rig(1, 1024);
    let now = Now { ns: 1000 * MS };
    for number in 0..2000 {
        assert!(peers[0].send(udp([10, 0, 0, 9], [10, 1, 0, 9], 1, number)));
        assert!(peers[0].send(udp([10, 0, 0, 9], [99, 1, 0, 9], 64, number)));
        if number % 32 == 31 {
            rig.settle(now);
        }
    }
    rig.settle(now);
    assert_eq!((rig.drops(DropReason::TtlExpired), rig.drops(DropReason::NoRoute)), (2000, 2000));
    let told = drain(&peers[0]).len() as u64;
    assert!((1..=20).contains(&told), "{told} errors at one moment: a tenth of a second's worth is the most");
    assert_eq!(told + events(&rig, Event::ErrorUntold), 4000);
    rig.assert_conserved();
}

#[test]
fn what_no_router_forwards_is_dropped_by_name() {
    let (mut rig, peers) = rig(1, 1024);
    let now = Now { ns: 1000 * MS };
    let cases = [
        (DropReason::MartianSource, udp([0, 0, 0, 0], [10, 1, 0, 9], 64, 1)),
        (DropReason::MartianSource, udp([127, 0, 0, 1], [10, 1, 0, 9], 64, 1)),
        (DropReason::MartianSource, udp([10, 0, 0, 1], [10, 1, 0, 9], 64, 1)),
        (DropReason::MartianSource, udp([224, 0, 0, 1], [10, 1, 0, 9], 64, 1)),
        (DropReason::MartianDestination, udp([10, 0, 0, 9], [127, 0, 0, 1], 64, 1)),
        (DropReason::MartianDestination, udp([10, 0, 0, 9], [239, 0, 0, 1], 64, 1)),
        (DropReason::DirectedBroadcast, udp([10, 0, 0, 9], [10, 1, 255, 255], 64, 1)),
        (DropReason::IpChecksum, {
            let mut frame = udp([10, 0, 0, 9], [10, 1, 0, 9], 64, 1);
            frame[24] ^= 1;
            frame
        }),
        (DropReason::NotRouted, {
            let mut frame = udp([10, 0, 0, 9], [10, 1, 0, 9], 64, 1);
            frame[12] = 0x99;
            frame
        }),
        (DropReason::SourceOurs, {
            let mut frame = udp([10, 0, 0, 9], [10, 1, 0, 9], 64, 1);
            frame[6..12].copy_from_slice(&OWN);
            frame
        }),
    ];
    for (reason, frame) in cases {
        let before = rig.drops(reason);
        assert!(peers[0].send(frame));
        rig.settle(now);
        assert_eq!(rig.drops(reason), before + 1, "{reason:?}");
    }
    assert!(drain(&peers[1]).is_empty());
    rig.assert_conserved();
}

#[test]
fn flows_share_next_hops_and_keep_theirs() {
    let (mut rig, peers) = rig(1, 1024);
    let hop = |n: u8| NextHop { address: [10, 1, 0, n].into(), bridge: None, vid: Vid::DEFAULT, weight: 1 };
    let route = Route::new("99.0.0.0/8".parse().unwrap(), RouteKind::Via, vec![hop(11), hop(12)]);
    rig.declare(&Request::RouteAdd(route)).unwrap();
    let now = Now { ns: 1000 * MS };
    for n in [11, 12] {
        assert!(peers[1].send(arp_frame(true, (n, [10, 1, 0, n]), [10, 1, 0, 1], [0xff; 6])));
    }
    rig.settle(now);
    drain(&peers[1]);
    let mut ways = Vec::new();
    for _ in 0..2 {
        for number in 0..200 {
            assert!(peers[0].send(udp([10, 0, 0, 9], [99, 1, 2, 3], 64, number)));
        }
        rig.settle(now);
        let arrived = drain(&peers[1]);
        assert_eq!(arrived.len(), 200);
        ways.push(arrived.iter().map(|frame| frame[5]).collect::<Vec<u8>>());
    }
    assert_eq!(ways[0], ways[1], "a flow changed its way");
    let first = ways[0].iter().filter(|way| **way == 11).count();
    assert!((60..140).contains(&first), "{first} of 200 flows by the first next hop");
    rig.assert_conserved();
}

/// One of two next hops is lost, by its port or by its silence: its flows go by the other, nobody else's move, and they come back
/// with it. What waited for it meanwhile is not lost.
#[test]
fn flows_of_a_lost_next_hop_move_and_come_back() {
    let (mut rig, mut peers) = rig(1, 1024);
    let (port, peer) = memory::wire();
    let lost = rig.add_port_to("br1", "p2", PortSettings::default(), Box::new(port), 0).unwrap();
    peers.push(peer);
    let hop = |n: u8| NextHop { address: [10, 1, 0, n].into(), bridge: None, vid: Vid::DEFAULT, weight: 1 };
    let route = Route::new("99.0.0.0/8".parse().unwrap(), RouteKind::Via, vec![hop(11), hop(12)]);
    rig.declare(&Request::RouteAdd(route)).unwrap();
    let mut now = Now { ns: 1000 * MS };
    let says =
        |n: u8, asks| arp_frame(asks, (n, [10, 1, 0, n]), [10, 1, 0, 1], if asks { [0xff; 6] } else { OWN });
    for (peer, n) in [(1, 11), (2, 12)] {
        assert!(peers[peer].send(says(n, true)));
    }
    rig.settle(now);
    // Which of 100 flows arrive at each, and how many questions for the second are heard.
    let sent = |rig: &mut Rig, now: Now| {
        peers.iter().for_each(|peer| drop(drain(peer)));
        for number in 0..100 {
            assert!(peers[0].send(udp([10, 0, 0, 9], [99, 1, 2, 3], 64, number)));
        }
        rig.settle(now);
        let arrived = [1, 2].map(|peer: usize| drain(&peers[peer]));
        let asked =
            arrived[0].iter().filter(|frame| frame[12..14] == [8, 6] && frame[38..42] == [10, 1, 0, 12]);
        let asked = asked.count();
        (
            arrived.map(|frames| numbers(&frames).into_iter().map(|(_, number)| number).collect::<Vec<_>>()),
            asked,
        )
    };
    let ([first, second], _) = sent(&mut rig, now);
    assert!(first.len() + second.len() == 100 && (30..=64).contains(&second.len()), "{second:?}");
    let all: Vec<u16> = (0..100).collect();
    // Its port is closed, and opened again.
    rig.set_up(lost, false);
    assert_eq!(sent(&mut rig, now).0, [all.clone(), vec![]]);
    rig.set_up(lost, true);
    assert_eq!(sent(&mut rig, now).0, [first.clone(), second.clone()]);
    // It falls silent. The first goes on answering.
    let answers_first = |rig: &mut Rig, now: Now| {
        assert!(peers[1].send(says(11, false)));
        rig.settle(now);
    };
    now.ns += 31_000 * MS;
    for _ in 0..3 {
        assert_eq!(sent(&mut rig, now).0, [first.clone(), second.clone()], "it may be there still");
        answers_first(&mut rig, now);
        now.ns += 1000 * MS;
    }
    // The last that goes to it. Then it is asked for of everybody, and its packets wait.
    assert!(peers[0].send(udp([10, 0, 0, 9], [99, 1, 2, 3], 64, second[0])));
    rig.settle(now);
    let ([by_first, by_second], _) = sent(&mut rig, now);
    assert_eq!((by_first, by_second.len()), (first.clone(), 0));
    peers.iter().for_each(|peer| drop(drain(peer)));
    for _ in 0..4 {
        now.ns += 1000 * MS;
        rig.settle(now);
    }
    let mut waited: Vec<u16> = numbers(&drain(&peers[1])).into_iter().map(|(_, number)| number).collect();
    waited.sort_unstable();
    assert_eq!(
        (waited, drain(&peers[0]).len()),
        (second.clone(), 0),
        "what waited goes the other way, and nobody is told"
    );
    // Nothing waits for it any more, and it is asked for once a second.
    for n in 0..8 {
        let (ways, asked) = sent(&mut rig, now);
        assert_eq!(ways, [all.clone(), vec![]], "{n}");
        assert!(asked <= 1 && (n < 4 || asked == 1), "{asked} questions in second {n}");
        answers_first(&mut rig, now);
        now.ns += 1000 * MS;
    }
    assert!(peers[2].send(says(12, false)));
    rig.settle(now);
    assert_eq!(sent(&mut rig, now).0, [first, second], "it is back");
    rig.assert_conserved();
}

/// What a SYN offers as its largest segment is made to fit the narrower of both ports, where one of the bridges asks for it; the
/// first packet, that waits for its neighbour, like any other.
#[test]
fn what_a_syn_offers_fits_both_ways() {
    use etherparse::{TcpHeader, TcpHeaderSlice, TcpOptionElement};
    let (mut rig, peers) = rig(1, 1024);
    let mut now = Now { ns: 1000 * MS };
    let tcp = |mss: u16, syn: bool| {
        let mut tcp = TcpHeader::new(1000, 80, 7, 8);
        tcp.syn = syn;
        tcp.set_options(&[TcpOptionElement::Noop, TcpOptionElement::MaximumSegmentSize(mss)]).unwrap();
        let packet = PacketBuilder::ethernet2(mac(0), OWN).ipv4([10, 0, 0, 9], [10, 1, 0, 9], 64);
        let mut frame = Vec::new();
        packet.tcp_header(tcp).write(&mut frame, &[]).unwrap();
        frame
    };
    let offered = |frame: &[u8]| {
        let tcp = TcpHeaderSlice::from_slice(&frame[34..]).unwrap();
        let ip = etherparse::Ipv4HeaderSlice::from_slice(&frame[14..]).unwrap();
        assert_eq!(tcp.calc_checksum_ipv4(&ip, &[]).unwrap(), tcp.checksum());
        let mss = tcp.options_iterator().find_map(|option| match option {
            Ok(TcpOptionElement::MaximumSegmentSize(mss)) => Some(mss),
            _ => None,
        });
        mss.unwrap()
    };
    let narrow = PortSettings { mtu: Some(1400), ..PortSettings::default() };
    let narrow = switch_api::PortSet { name: "p1".parse().unwrap(), settings: narrow };
    rig.declare(&Request::PortSet(narrow)).unwrap();
    for (n, clamps) in [(0, true), (0, false), (1, true)].into_iter().enumerate() {
        let name = format!("br{}", clamps.0);
        let bridge = |name: &str, mss_clamp| Bridge {
            mac: Some(Mac(OWN)),
            mss_clamp,
            ..Bridge::new(name.parse().unwrap())
        };
        for other in ["br0", "br1"] {
            rig.declare(&Request::BridgeSet(bridge(other, clamps.1 && other == name))).unwrap();
        }
        if n == 0 {
            // Before the neighbour is known.
            assert!(peers[0].send(tcp(1460, true)));
            rig.settle(now);
            drain(&peers[1]);
            assert!(peers[1].send(arp_frame(false, (1, [10, 1, 0, 9]), [10, 1, 0, 1], OWN)));
            now.ns += MS;
            rig.settle(now);
            assert_eq!(drain(&peers[1]).iter().map(|frame| offered(frame)).collect::<Vec<_>>(), [1360]);
        }
        for (mss, syn) in [(1460, true), (1361, true), (1360, true), (500, true), (1460, false)] {
            assert!(peers[0].send(tcp(mss, syn)));
            rig.settle(now);
            let arrived = drain(&peers[1]);
            let expected = if syn && clamps.1 { mss.min(1360) } else { mss };
            assert_eq!(arrived.iter().map(|frame| offered(frame)).collect::<Vec<_>>(), [expected]);
        }
    }
    assert_eq!(events(&rig, Event::MssClamped), 5);
    rig.assert_conserved();
}

/// Sources are held against the routes: which of them may come by br0, by mode.
#[test]
fn sources_come_the_way_that_leads_back() {
    use switch_api::ReversePath::{self, Loose, Off, Strict};
    let (mut rig, peers) = rig(1, 1024);
    let now = Now { ns: 1000 * MS };
    let hop = |n: u8| NextHop { address: [10, n, 0, 11].into(), bridge: None, vid: Vid::DEFAULT, weight: 1 };
    let routes = [
        ("99.0.0.0/8", RouteKind::Via, vec![hop(0), hop(1)]),
        ("98.0.0.0/8", RouteKind::Via, vec![hop(1)]),
        ("97.0.0.0/8", RouteKind::Via, vec![hop(0)]),
        ("96.0.0.0/8", RouteKind::Blackhole, vec![]),
        ("95.0.0.0/8", RouteKind::Unreachable, vec![]),
        ("94.0.0.0/8", RouteKind::Prohibit, vec![]),
    ];
    for (prefix, kind, via) in routes {
        rig.declare(&Request::RouteAdd(Route::new(prefix.parse().unwrap(), kind, via))).unwrap();
    }
    assert!(peers[1].send(arp_frame(true, (1, [10, 1, 0, 9]), [10, 1, 0, 1], [0xff; 6])));
    rig.settle(now);
    // From, and the modes in which it passes.
    let cases: [(_, &[ReversePath]); 10] = [
        ([10, 0, 0, 9], &[Off, Loose, Strict]),
        ([97, 0, 0, 9], &[Off, Loose, Strict]),
        // One of several ways is enough.
        ([99, 0, 0, 9], &[Off, Loose, Strict]),
        ([10, 1, 0, 7], &[Off, Loose]),
        ([98, 0, 0, 9], &[Off, Loose]),
        ([96, 0, 0, 9], &[Off]),
        ([95, 0, 0, 9], &[Off]),
        ([94, 0, 0, 9], &[Off]),
        ([10, 0, 255, 255], &[Off]),
        ([50, 0, 0, 9], &[Off]),
    ];
    for mode in [Off, Loose, Strict, Off] {
        let name = "br0".parse().unwrap();
        let bridge = Bridge { mac: Some(Mac(OWN)), reverse_path: mode, ..Bridge::new(name) };
        rig.declare(&Request::BridgeSet(bridge)).unwrap();
        // All in one batch, and each keeps its own verdict.
        let dropped = rig.drops(DropReason::ReversePath);
        drain(&peers[1]);
        for (number, (src, _)) in (0..).zip(&cases) {
            let mut frame = udp(*src, [10, 1, 0, 9], 64, number);
            frame[6..12].copy_from_slice(&mac(0));
            assert!(peers[0].send(frame));
        }
        rig.settle(now);
        let arrived: Vec<u16> = numbers(&drain(&peers[1])).into_iter().map(|(_, number)| number).collect();
        let passes = (0..).zip(&cases).filter(|(_, (_, modes))| modes.contains(&mode));
        assert_eq!(arrived, passes.map(|(number, _)| number).collect::<Vec<_>>(), "{mode:?}");
        let dropped = rig.drops(DropReason::ReversePath) - dropped;
        assert_eq!(dropped, (cases.len() - arrived.len()) as u64, "{mode:?}");
    }
    rig.assert_conserved();
}

/// A host that asks is told, and nobody else; its question goes on to other routers. Without the setting nothing is said.
#[test]
fn a_host_that_asks_for_a_router_is_told() {
    use smoltcp::wire::{EthernetAddress, Icmpv6Packet, Icmpv6Repr, Ipv6Address, NdiscRepr};
    let (mut rig, peers) = rig(1, 1024);
    let (port, other) = memory::wire();
    rig.add_port_to("br0", "p2", PortSettings::default(), Box::new(port), 0).unwrap();
    let address = BridgeAddress {
        bridge: "br0".parse().unwrap(),
        address: "fd00::1/64".parse().unwrap(),
        vid: Vid::DEFAULT,
        owner: Default::default(),
    };
    rig.declare(&Request::AddressAdd(address)).unwrap();
    let own: Ipv6Address = "fe80::5".parse().unwrap();
    let solicit = |src: Ipv6Address| {
        let dst: Ipv6Address = "ff02::2".parse().unwrap();
        let lladdr = (src == own).then(|| EthernetAddress(mac(0)).into());
        let repr = Icmpv6Repr::Ndisc(NdiscRepr::RouterSolicit { lladdr });
        let mut frame = vec![0; 54 + repr.buffer_len()];
        frame[..6].copy_from_slice(&[0x33, 0x33, 0, 0, 0, 2]);
        frame[6..12].copy_from_slice(&mac(0));
        frame[12..20].copy_from_slice(&[0x86, 0xdd, 0x60, 0, 0, 0, 0, repr.buffer_len() as u8]);
        frame[20..22].copy_from_slice(&[58, 255]);
        frame[22..38].copy_from_slice(&src.octets());
        frame[38..54].copy_from_slice(&dst.octets());
        repr.emit(&src, &dst, &mut Icmpv6Packet::new_unchecked(&mut frame[54..]), &Default::default());
        frame
    };
    let is_advert = |frame: &Vec<u8>| frame[12..14] == [0x86, 0xdd] && frame[54] == 134;
    let mut now = Now { ns: 1000 * MS };
    for (advertises, src) in [(false, own), (true, own), (true, Ipv6Address::UNSPECIFIED)] {
        let router_advert = advertises.then(switch_api::RouterAdvert::default);
        let bridge = Bridge { mac: Some(Mac(OWN)), router_advert, ..Bridge::new("br0".parse().unwrap()) };
        rig.declare(&Request::BridgeSet(bridge)).unwrap();
        assert!(peers[0].send(solicit(src)));
        now.ns += 1000 * MS;
        rig.settle(now);
        let (told, heard) = (drain(&peers[0]), drain(&other));
        assert_eq!(heard, [solicit(src)], "another router hears the question, and no answer");
        assert_eq!(told.len(), usize::from(advertises));
        if let [told] = &told[..] {
            let dst = if src == own { src } else { "ff02::1".parse().unwrap() };
            assert!(is_advert(told) && told[..6] == mac(0) && told[38..54] == dst.octets(), "{told:02x?}");
        }
    }
    // A flood of questions is not one of answers.
    for _ in 0..200 {
        assert!(peers[0].send(solicit(own)));
    }
    now.ns += MS;
    rig.settle(now);
    let told = drain(&peers[0]).len();
    assert!((1..=2).contains(&told), "{told} answers at one moment: a tenth of a second's worth is the most");
    // Everybody is told unasked, and for the last time.
    let fid =
        rig.model.fids[&(rig.model.bridges[&"br0".parse::<switch_api::Name>().unwrap()].id, Vid::DEFAULT)];
    for last in [None, Some(Mac(OWN).to_u64())] {
        drain(&other);
        rig.advertise(0, super::Advertising { fid, last, ..Default::default() });
        rig.settle(now);
        for peer in [&peers[0], &other] {
            let told = drain(peer);
            assert!(told.len() == 1 && is_advert(&told[0]), "{told:02x?}");
            let lifetime_s = u16::from_be_bytes([told[0][60], told[0][61]]);
            assert_eq!(lifetime_s, if last.is_some() { 0 } else { 1800 });
        }
    }
    rig.assert_conserved();
}
