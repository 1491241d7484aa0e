//! A route's MTU: the smaller of it and the port's is what a packet is held against, cut to, and told of.

use super::Now;
use super::nat_rig::{destination, ip as ip_of};
use super::routing_tests::{MS, OWN, arp_frame, drain, events, mac, rig, rig_of};
use crate::config::gateway::to_bits;
use crate::counter::{DropReason, Event};
use crate::frame::Offload;
use crate::port::memory::MemoryPeer;
use crate::rig::{Rig, Size};
use crate::table::neigh;
use crate::wire::checksum::{Csum, fold, sum};
use crate::wire::gso::{Gso, GsoKind};
use crate::wire::ip;
use etherparse::{IpFragOffset, Ipv4Header, PacketBuilder, TcpHeader, TcpOptionElement};
use std::num::NonZeroU16;
use switch_api::{
    Bridge, BridgeAddress, Mac, Name, NextHop, PortSet, PortSettings, Request, Route, RouteKind, Vid,
};

const NOW: Now = Now { ns: 1000 * MS };

fn route(prefix: &str, hop: &str, mtu: Option<u16>) -> Request {
    let hop = NextHop { address: hop.parse().unwrap(), bridge: None, vid: Vid::DEFAULT, weight: 1 };
    Request::RouteAdd(Route { mtu, ..Route::new(prefix.parse().unwrap(), RouteKind::Via, vec![hop]) })
}

/// The router 10.1.0.9 behind p1, and routes by it: each network has its MTU.
fn routed() -> (Rig, Vec<MemoryPeer>) {
    let (mut rig, peers) = rig(1, 1024);
    for (prefix, mtu) in [
        ("99.0.0.0/8", Some(1000)),
        ("98.0.0.0/8", None),
        ("97.0.0.0/8", Some(9000)),
        ("96.0.0.0/8", Some(68)),
    ] {
        rig.declare(&route(prefix, "10.1.0.9", mtu)).unwrap();
    }
    assert!(peers[1].send(arp_frame(true, (1, [10, 1, 0, 9]), [10, 1, 0, 1], [0xff; 6])));
    rig.settle(NOW);
    drain(&peers[1]);
    (rig, peers)
}

fn port_mtu(rig: &mut Rig, mtu: u16) {
    let settings = PortSettings { mtu: Some(mtu), ..PortSettings::default() };
    rig.declare(&Request::PortSet(PortSet { name: "p1".parse().unwrap(), settings })).unwrap();
}

/// A neighbour on br1 whose station is known, wherever that is.
fn pin(rig: &Rig, address: &str, station: u8) {
    let fid = rig.model.fids[&(rig.model.bridges[&"br1".parse::<Name>().unwrap()].id, Vid::DEFAULT)];
    let key = neigh::key(fid, to_bits(address.parse().unwrap()));
    assert!(rig.tables.neigh.pin(key, Mac(mac(station)).to_u64()));
}

/// A UDP packet of `len` bytes, IP header included.
fn packet(dst: [u8; 4], len: usize, may_be_cut: bool) -> Vec<u8> {
    let mut header = Ipv4Header::new(0, 64, etherparse::IpNumber::UDP, [10, 0, 0, 9], dst).unwrap();
    (header.dont_fragment, header.fragment_offset) = (!may_be_cut, IpFragOffset::ZERO);
    let payload: Vec<u8> = (0..len - 28).map(|n| (n * 7) as u8).collect();
    let mut frame = Vec::new();
    let builder =
        PacketBuilder::ethernet2(mac(0), OWN).ip(etherparse::IpHeaders::Ipv4(header, Default::default()));
    builder.udp(7, 9).write(&mut frame, &payload).unwrap();
    frame
}

/// What a sender was told: the MTU of an ICMP "fragmentation needed".
fn told(peer: &MemoryPeer) -> Vec<u16> {
    let told = drain(peer);
    assert!(told.iter().all(|frame| frame[23] == ip::ICMP && frame[34..36] == [3, 4]), "{told:02x?}");
    told.iter().map(|frame| u16::from_be_bytes([frame[40], frame[41]])).collect()
}

#[test]
fn the_smaller_of_the_routes_and_the_ports_mtu_holds() {
    let (mut rig, peers) = routed();
    let mut now = NOW;
    for (port, dst, mtu) in
        [(1500, 99, 1000), (1500, 98, 1500), (1500, 97, 1500), (900, 99, 900), (1500, 96, 68)]
    {
        port_mtu(&mut rig, port);
        for (len, passes) in [(mtu, true), (mtu + 1, false)] {
            now.ns += 100 * MS;
            assert!(peers[0].send(packet([dst, 0, 0, 1], usize::from(len), false)));
            rig.settle(now);
            let what = format!("{len} bytes to {dst}.0.0.1 over a port of {port}");
            assert_eq!(drain(&peers[1]).len(), usize::from(passes), "{what}");
            assert_eq!(told(&peers[0]), if passes { vec![] } else { vec![mtu] }, "{what}");
        }
    }
    assert_eq!(rig.drops(DropReason::MtuExceeded), 5);
    rig.assert_conserved();
}

#[test]
fn what_may_be_cut_is_cut_to_the_routes_mtu() {
    let (mut rig, peers) = routed();
    let whole = packet([99, 0, 0, 1], 1500, true);
    assert!(peers[0].send(whole.clone()));
    rig.settle(NOW);
    let pieces = drain(&peers[1]);
    let mut payload = Vec::new();
    for piece in &pieces {
        let (header, rest) = Ipv4Header::from_slice(&piece[14..]).unwrap();
        assert!(header.total_len <= 1000, "{header:?}");
        assert_eq!(usize::from(header.fragment_offset.value()) * 8, payload.len());
        payload.extend_from_slice(&rest[..usize::from(header.payload_len().unwrap())]);
    }
    assert_eq!((pieces.len(), payload == whole[34..]), (2, true));
    assert!(told(&peers[0]).is_empty());
    rig.assert_conserved();
}

/// Pieces of a jumbo packet may be too long for an ordinary frame. Where too few large ones are left nothing is begun, and the packet is
/// dropped by name.
#[test]
fn a_packet_is_cut_whole_or_not_at_all() {
    // Of 9 000 bytes three pieces are large; the packet itself has a frame of them as well. Where the neighbour is nobody knows, so that the
    // route alone says how long they may be, and the port takes the last one only.
    for (large_frames, arrived, dropped) in [(4, 1, 3), (3, 0, 1), (1, 0, 1)] {
        let (mut rig, peers) = rig_of(Size { large_frames, ..Size::default() });
        pin(&rig, "10.1.0.8", 8);
        rig.declare(&route("99.0.0.0/8", "10.1.0.8", Some(3000))).unwrap();
        assert!(peers[0].send(packet([99, 0, 0, 1], 9000, true)));
        rig.settle(NOW);
        assert_eq!(drain(&peers[1]).len(), arrived, "{large_frames} large frames");
        assert_eq!(rig.drops(DropReason::MtuExceeded), dropped, "{large_frames} large frames");
        rig.assert_conserved();
    }
}

/// The neighbour is known, its port is not: every port would be given a copy.
#[test]
fn also_what_would_be_flooded_is_held_against_it() {
    let (mut rig, peers) = rig(1, 1024);
    pin(&rig, "10.1.0.8", 8);
    rig.declare(&route("99.0.0.0/8", "10.1.0.8", Some(1000))).unwrap();
    for (len, passes) in [(1000, true), (1001, false)] {
        assert!(peers[0].send(packet([99, 0, 0, 1], len, false)));
        rig.settle(NOW);
        assert_eq!(drain(&peers[1]).len(), usize::from(passes), "{len}");
        assert_eq!(told(&peers[0]), if passes { vec![] } else { vec![1000] }, "{len}");
    }
    rig.assert_conserved();
}

/// Of a superframe the segments are what the route's MTU is about.
#[test]
fn a_superframe_passes_if_its_segments_fit() {
    let (mut rig, peers) = routed();
    for (size, passes) in [(960, true), (961, false)] {
        let mut frame = Vec::new();
        let payload = vec![7; 9000];
        let packet = PacketBuilder::ethernet2(mac(0), OWN).ipv4([10, 0, 0, 9], [99, 0, 0, 1], 64);
        packet.tcp(1000, 80, 7, 8).write(&mut frame, &payload).unwrap();
        let gso = Gso { kind: GsoKind::Tcp4, ecn: false, size: NonZeroU16::new(size).unwrap() };
        let csum = Csum::Partial { start: 34, field: 16 };
        assert!(peers[0].send_offload(frame, Offload { csum, gso: Some(gso) }));
        rig.settle(NOW);
        let segments = drain(&peers[1]);
        assert_eq!(segments.len(), if passes { 9000usize.div_ceil(960) } else { 0 }, "{size}");
        assert!(segments.iter().all(|segment| segment.len() <= 14 + 1000));
        assert_eq!(told(&peers[0]), if passes { vec![] } else { vec![1000] }, "{size}");
    }
    rig.assert_conserved();
}

/// One whose header says that it is short is held against the MTU by what it is, also where others of its destination go already.
#[test]
fn a_superframe_that_says_it_is_short_is_none_the_shorter() {
    let (mut rig, peers) = routed();
    for _ in 0..2 {
        assert!(peers[0].send(packet([99, 0, 0, 1], 100, false)));
        rig.settle(NOW);
        assert_eq!(drain(&peers[1]).len(), 1, "others go there");
    }
    let mut frame = packet([99, 0, 0, 1], 9000, false);
    frame[16..18].copy_from_slice(&100u16.to_be_bytes());
    frame[24..26].copy_from_slice(&[0; 2]);
    let sum = !fold(sum(&frame[14..34]));
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    let gso = Gso { kind: GsoKind::Udp, ecn: false, size: NonZeroU16::new(1400).unwrap() };
    let csum = Csum::Partial { start: 34, field: 6 };
    assert!(peers[0].send_offload(frame, Offload { csum, gso: Some(gso) }));
    rig.settle(NOW);
    assert_eq!((drain(&peers[1]).len(), told(&peers[0])), (0, vec![1000]));
    rig.assert_conserved();
}

/// A UDP superframe: datagrams of `size` bytes of payload, one after another.
fn datagrams(size: u16, payload: &[u8], may_be_cut: bool) -> (Vec<u8>, Offload) {
    let mut frame = packet([99, 0, 0, 1], 28 + payload.len(), may_be_cut);
    frame[42..].copy_from_slice(payload);
    let pseudo = fold(sum(&frame[26..34]) + u64::from(ip::UDP) + (frame.len() - 34) as u64);
    frame[40..42].copy_from_slice(&pseudo.to_be_bytes());
    let gso = Gso { kind: GsoKind::Udp, ecn: false, size: NonZeroU16::new(size).unwrap() };
    (frame, Offload { csum: Csum::Partial { start: 34, field: 6 }, gso: Some(gso) })
}

/// A superframe whose segments do not fit either is cut into these, and each into pieces: put together again they are its
/// datagrams, each with its own number and a right checksum. What must not be cut is refused as before.
#[test]
fn segments_that_do_not_fit_are_cut_as_well() {
    let (mut rig, peers) = routed();
    let payload: Vec<u8> = (0..20_500usize).map(|n| (n * n / 7) as u8).collect();
    for (mtu, pieces) in [(1000, 2), (400, 4)] {
        port_mtu(&mut rig, mtu);
        let (frame, offload) = datagrams(1400, &payload, true);
        assert!(peers[0].send_offload(frame, offload));
        rig.settle(NOW);
        let arrived = drain(&peers[1]);
        assert_eq!(told(&peers[0]), [] as [u16; 0], "over {mtu}");
        // Fourteen whole ones, and what is left fits.
        let rest = 20_500 % 1400;
        assert_eq!(arrived.len(), 14 * pieces + (28usize + rest).div_ceil(usize::from(mtu)), "over {mtu}");
        let mut whole = std::collections::BTreeMap::<u16, Vec<u8>>::new();
        for piece in &arrived {
            let (header, rest) = Ipv4Header::from_slice(&piece[14..]).unwrap();
            assert!(header.total_len <= mtu && header.header_checksum == header.calc_header_checksum());
            let datagram = whole.entry(header.identification).or_default();
            assert_eq!(usize::from(header.fragment_offset.value()) * 8, datagram.len());
            datagram.extend_from_slice(&rest[..usize::from(header.payload_len().unwrap())]);
        }
        assert_eq!(whole.len(), 15);
        let numbers: Vec<u16> = whole.keys().copied().collect();
        assert!(numbers.windows(2).all(|two| two[1] == two[0] + 1), "{numbers:?}");
        for datagram in whole.values() {
            let pseudo = sum(&[10, 0, 0, 9, 99, 0, 0, 1]) + u64::from(ip::UDP) + datagram.len() as u64;
            assert_eq!(fold(pseudo + sum(datagram)), 0xffff, "a checksum is wrong");
            assert_eq!(usize::from(u16::from_be_bytes([datagram[4], datagram[5]])), datagram.len());
        }
        let carried: Vec<u8> = whole.values().flat_map(|datagram| datagram[8..].to_vec()).collect();
        assert!(carried == payload, "over {mtu}");
        let (frame, offload) = datagrams(1400, &payload, false);
        assert!(peers[0].send_offload(frame, offload));
        rig.settle(NOW);
        assert_eq!((drain(&peers[1]).len(), told(&peers[0])), (0, vec![mtu]));
    }
    rig.assert_conserved();
}

#[test]
fn an_ipv6_sender_is_told_too() {
    let (mut rig, peers) = rig(1, 1024);
    for (bridge, address) in [("br0", "fd00::1/64"), ("br1", "fd01::1/64")] {
        let (bridge, address) = (bridge.parse().unwrap(), address.parse().unwrap());
        let own = BridgeAddress { bridge, address, vid: Vid::DEFAULT, owner: Default::default() };
        rig.declare(&Request::AddressAdd(own)).unwrap();
    }
    pin(&rig, "fd01::9", 1);
    let refused = rig.declare(&route("fd99::/64", "fd01::9", Some(1279))).unwrap_err();
    assert!(refused.message.contains("1279 bytes are too few"), "{refused:?}");
    rig.declare(&route("fd99::/64", "fd01::9", Some(1280))).unwrap();
    let ip = |text: &str| text.parse::<std::net::Ipv6Addr>().unwrap().octets();
    for (len, passes) in [(1280, true), (1281, false)] {
        let mut frame = Vec::new();
        let packet = PacketBuilder::ethernet2(mac(0), OWN).ipv6(ip("fd00::9"), ip("fd99::1"), 64);
        packet.udp(7, 9).write(&mut frame, &vec![0; len - 48]).unwrap();
        assert!(peers[0].send(frame));
        rig.settle(NOW);
        assert_eq!(drain(&peers[1]).len(), usize::from(passes), "{len}");
        let told = drain(&peers[0]);
        assert_eq!(told.len(), usize::from(!passes), "{len}");
        for told in told {
            assert_eq!((told[20], told[54], &told[58..62]), (ip::ICMPV6, 2, &1280u32.to_be_bytes()[..]));
        }
    }
    rig.assert_conserved();
}

/// A SYN that offers 1460 bytes.
fn syn(src: [u8; 4], dst: [u8; 4]) -> Vec<u8> {
    let mut tcp = TcpHeader::new(1000, 80, 7, 8);
    tcp.syn = true;
    tcp.set_options(&[TcpOptionElement::MaximumSegmentSize(1460)]).unwrap();
    let mut frame = Vec::new();
    let packet = PacketBuilder::ethernet2(mac(0), OWN).ipv4(src, dst, 64);
    packet.tcp_header(tcp).write(&mut frame, &[]).unwrap();
    frame
}

/// What is translated goes by the route to where it really goes, and what it offers fits that.
#[test]
fn what_a_syn_offers_fits_the_route_to_where_it_is_translated() {
    let (mut rig, peers) = routed();
    let bridge = Bridge { mac: Some(Mac(OWN)), mss_clamp: true, ..Bridge::new("br0".parse().unwrap()) };
    rig.declare(&Request::BridgeSet(bridge)).unwrap();
    let rule = destination("far", ip_of("10.8.0.1"), None, ip_of("99.0.0.1"), None);
    rig.declare(&Request::NatSet(Box::new(rule))).unwrap();
    assert!(peers[0].send(syn([10, 0, 0, 9], [10, 8, 0, 1])));
    rig.settle(NOW);
    let arrived: Vec<_> = drain(&peers[1]);
    let offered: Vec<_> =
        arrived.iter().map(|frame| (&frame[30..34], u16::from_be_bytes([frame[56], frame[57]]))).collect();
    assert_eq!(offered, [(&[99, 0, 0, 1][..], 960)]);
}

/// What a SYN offers fits the routes of both its ends, where a bridge asks for it.
#[test]
fn what_a_syn_offers_fits_the_routes() {
    let (mut rig, peers) = routed();
    rig.declare(&route("89.0.0.0/8", "10.0.0.9", Some(900))).unwrap();
    let near = [10, 0, 0, 9];
    for (clamps, src, dst, mss) in [
        (false, near, [99, 0, 0, 1], 1460),
        (true, near, [99, 0, 0, 1], 960),
        (true, near, [98, 0, 0, 1], 1460),
        // The answer goes back by the other's route.
        (true, [89, 0, 0, 1], [98, 0, 0, 1], 860),
        (true, [89, 0, 0, 1], [99, 0, 0, 1], 860),
    ] {
        let bridge = Bridge { mac: Some(Mac(OWN)), mss_clamp: clamps, ..Bridge::new("br0".parse().unwrap()) };
        rig.declare(&Request::BridgeSet(bridge)).unwrap();
        assert!(peers[0].send(syn(src, dst)));
        rig.settle(NOW);
        let offered: Vec<u16> =
            drain(&peers[1]).iter().map(|frame| u16::from_be_bytes([frame[56], frame[57]])).collect();
        assert_eq!(offered, [mss], "{clamps} {src:?} {dst:?}");
    }
    assert_eq!(events(&rig, Event::MssClamped), 3);
    rig.assert_conserved();
}
