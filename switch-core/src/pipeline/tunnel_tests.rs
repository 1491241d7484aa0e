//! Tunnels without kernels: what goes in is byte for byte what somebody else would have written, what comes out is what went in, and
//! what may not come out does not.

use super::Now;
use super::routing_tests::{MS, OWN, drain, mac, rig};
use crate::config::gateway::to_bits;
use crate::counter::{DropReason, Event, Stage};
use crate::frame::Offload;
use crate::pipeline::dry::Dry;
use crate::pipeline::verdict::{Verdict, Why};
use crate::port::memory::MemoryPeer;
use crate::rig::Rig;
use crate::table::neigh;
use crate::wire::checksum::{Csum, fold, sum};
use crate::wire::gso::{Gso, GsoKind};
use crate::wire::{ip, vxlan};
use etherparse::{IpHeaders, Ipv4Header, PacketBuilder, SlicedPacket};
use proptest::prelude::*;
use std::net::IpAddr;
use std::num::NonZeroU16;
use switch_api::{
    Bridge, BridgeAddress, Mac, Name, NextHop, PortKind, Request, Route, RouteDelete, RouteKind, StaticMac,
    Vid,
};

pub(super) const NOW: Now = Now { ns: 1000 * MS };
/// The switch at the other end, inside.
pub(super) const FAR: [u8; 6] = [2, 0, 0, 0, 9, 2];
const VNI: u32 = 4096;
const PORT: u16 = 4789;
/// Ends, outside: ours, and theirs behind p1.
const ENDS: [([&str; 2], bool); 2] = [(["10.1.0.1", "10.1.0.7"], true), (["fd01::1", "fd01::7"], false)];

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn own(bridge: &str, address: &str) -> Request {
    let (bridge, address) = (name(bridge), address.parse().unwrap());
    Request::AddressAdd(BridgeAddress { bridge, address, vid: Vid::DEFAULT, owner: Default::default() })
}

fn route(prefix: &str, hop: &str) -> Request {
    let hop = NextHop { address: hop.parse().unwrap(), bridge: None, vid: Vid::DEFAULT, weight: 1 };
    Request::RouteAdd(Route::new(prefix.parse().unwrap(), RouteKind::Via, vec![hop]))
}

fn pin(rig: &Rig, bridge: &str, address: &str, mac: [u8; 6]) {
    let fid = rig.model.fids[&(rig.model.bridges[&name(bridge)].id, Vid::DEFAULT)];
    let key = neigh::key(fid, to_bits(address.parse().unwrap()));
    assert!(rig.tables.neigh.pin(key, Mac(mac).to_u64()));
}

/// Pods behind p0 (10.0.0.0/16), the world outside behind p1 (10.1.0.0/16, fd01::/64), and a tunnel by which 10.2.0.0/16 and fd02::/64
/// are reached, whose ends are of one IP version or the other.
fn tunnelled(v4: bool) -> (Rig, Vec<MemoryPeer>) {
    let (mut rig, peers) = rig(1, 1024);
    let ([local, remote], _) = ENDS[usize::from(!v4)];
    rig.declare(&own("br1", "fd01::1/64")).unwrap();
    rig.declare(&own("br0", "fd00::1/64")).unwrap();
    rig.declare(&Request::BridgeAdd(Bridge { mac: Some(Mac(OWN)), ..Bridge::new(name("over")) })).unwrap();
    rig.declare(&own("over", "10.255.0.1/24")).unwrap();
    rig.declare(&own("over", "fd55::1/64")).unwrap();
    let kind = PortKind::vxlan(VNI, local.parse().unwrap());
    rig.add_tunnel("over", "vx", kind).unwrap();
    let station = StaticMac {
        mac: Mac(FAR),
        bridge: name("over"),
        vid: Vid::DEFAULT,
        port: name("vx"),
        dst: Some(remote.parse().unwrap()),
        owner: Default::default(),
    };
    rig.declare(&Request::FdbAdd(station)).unwrap();
    rig.declare(&route("10.2.0.0/16", "10.255.0.2")).unwrap();
    rig.declare(&route("fd02::/64", "fd55::2")).unwrap();
    for address in ["10.255.0.2", "fd55::2"] {
        pin(&rig, "over", address, FAR);
    }
    pin(&rig, "br0", "10.0.0.9", mac(0));
    pin(&rig, "br0", "fd00::9", mac(0));
    // Their stations are heard.
    for (peer, n) in [(&peers[0], 0), (&peers[1], 7)] {
        let mut hello = Vec::new();
        let link = PacketBuilder::ethernet2(mac(n), [0xff; 6]);
        link.ipv4([0, 0, 0, 1], [255; 4], 1).udp(1, 1).write(&mut hello, &[]).unwrap();
        assert!(peer.send(hello));
    }
    rig.settle(NOW);
    peers.iter().for_each(|peer| _ = drain(peer));
    assert_eq!(rig.drops(DropReason::NoMember), 2);
    (rig, peers)
}

/// The far end outside is known.
pub(super) fn ready(v4: bool) -> (Rig, Vec<MemoryPeer>) {
    let (rig, peers) = tunnelled(v4);
    pin(&rig, "br1", ENDS[usize::from(!v4)].0[1], mac(7));
    (rig, peers)
}

/// A packet from a pod to one on the other node, or back.
pub(super) fn inner(v4: bool, to_far: bool, tos: u8, ttl: u8, payload: &[u8]) -> Vec<u8> {
    let (src, dst) = if to_far { (mac(0), OWN) } else { (FAR, OWN) };
    let far = [2, 0, 0, 9];
    let (here, there) = ([10, 0, 0, 9], [10, far[0], 0, 9]);
    let (from, to) = if to_far { (here, there) } else { (there, here) };
    let ip = if v4 {
        let mut ip = Ipv4Header::new(0, ttl, etherparse::IpNumber::UDP, from, to).unwrap();
        (ip.dscp, ip.ecn) = ((tos >> 2).try_into().unwrap(), (tos & 3).try_into().unwrap());
        IpHeaders::Ipv4(ip, Default::default())
    } else {
        let of = |n: u8| -> [u8; 16] {
            let ip: std::net::Ipv6Addr = if n == 0 { "fd00::9" } else { "fd02::9" }.parse().unwrap();
            ip.octets()
        };
        let header = etherparse::Ipv6Header {
            traffic_class: tos,
            hop_limit: ttl,
            source: of(from[1]),
            destination: of(to[1]),
            ..Default::default()
        };
        IpHeaders::Ipv6(header, Default::default())
    };
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(src, dst).ip(ip).udp(7, 9).write(&mut frame, payload).unwrap();
    frame
}

/// What the outer headers are.
#[derive(Clone, Copy)]
pub(super) struct Around {
    from: IpAddr,
    to: IpAddr,
    tos: u8,
    ttl: u8,
    port: u16,
    src_port: u16,
    vni: u32,
    flags: u8,
}

impl Around {
    /// From the far end to ours.
    pub fn back(v4: bool) -> Self {
        let ([local, remote], _) = ENDS[usize::from(!v4)];
        let (from, to) = (remote.parse().unwrap(), local.parse().unwrap());
        Self { from, to, tos: 0, ttl: 64, port: PORT, src_port: 50_000, vni: VNI, flags: 8 }
    }

    /// From our end to the far one.
    fn there(v4: bool, src_port: u16, tos: u8) -> Self {
        let back = Self::back(v4);
        Self { from: back.to, to: back.from, src_port, tos, ..back }
    }

    /// The whole frame, by somebody else.
    pub fn put(&self, (src, dst): ([u8; 6], [u8; 6]), inner: &[u8]) -> Vec<u8> {
        let mut payload = vec![self.flags, 0, 0, 0];
        payload.extend_from_slice(&(self.vni << 8).to_be_bytes());
        payload.extend_from_slice(inner);
        let ip = match (self.from, self.to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let udp = etherparse::IpNumber::UDP;
                let mut ip = Ipv4Header::new(0, self.ttl, udp, from.octets(), to.octets()).unwrap();
                ip.dont_fragment = true;
                (ip.dscp, ip.ecn) = ((self.tos >> 2).try_into().unwrap(), (self.tos & 3).try_into().unwrap());
                IpHeaders::Ipv4(ip, Default::default())
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let header = etherparse::Ipv6Header {
                    traffic_class: self.tos,
                    hop_limit: self.ttl,
                    source: from.octets(),
                    destination: to.octets(),
                    ..Default::default()
                };
                IpHeaders::Ipv6(header, Default::default())
            }
            _ => panic!("two versions"),
        };
        let mut frame = Vec::new();
        let link = PacketBuilder::ethernet2(src, dst).ip(ip).udp(self.src_port, self.port);
        link.write(&mut frame, &payload).unwrap();
        if self.from.is_ipv4() {
            frame[40..42].fill(0);
        }
        frame
    }
}

/// One hop further: from the switch to `dst`, a TTL less.
pub(super) fn onwards(frame: &[u8], dst: [u8; 6]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame[..6].copy_from_slice(&dst);
    frame[6..12].copy_from_slice(&OWN);
    if frame[12..14] == [8, 0] {
        frame[22] -= 1;
        frame[24..26].fill(0);
        let checksum = !fold(sum(&frame[14..34]));
        frame[24..26].copy_from_slice(&checksum.to_be_bytes());
    } else {
        frame[21] -= 1;
    }
    frame
}

fn source_port_of(frame: &[u8], v4: bool) -> u16 {
    let at = if v4 { 34 } else { 54 };
    u16::from_be_bytes([frame[at], frame[at + 1]])
}

#[test]
fn what_goes_in_is_byte_for_byte_what_somebody_else_would_write() {
    for v4 in [true, false] {
        let (mut rig, peers) = ready(v4);
        for (inner_v4, tos) in [(true, 0), (true, 0xb9), (false, 0), (false, 0x2b)] {
            let sent = inner(inner_v4, true, tos, 64, b"hello");
            assert!(peers[0].send(sent.clone()));
            rig.settle(NOW);
            let out = drain(&peers[1]);
            let [out] = &out[..] else { panic!("{out:02x?}, {:?}", told(&rig)) };
            let src_port = source_port_of(out, v4);
            assert!(src_port >= vxlan::SOURCE_PORT_MIN);
            let around = Around::there(v4, src_port, tos);
            assert_eq!(
                *out,
                around.put((OWN, mac(7)), &onwards(&sent, FAR)),
                "outer v4 {v4}, inner {inner_v4}"
            );
        }
        let id = rig.model.ports[&name("vx")].id;
        let traffic = rig.counters[0].port(id);
        let bytes = (2 * (14 + 20 + 8 + 5) + 2 * (14 + 40 + 8 + 5)) as u64;
        assert_eq!((traffic.tx_packets.get(), traffic.tx_bytes.get()), (4, bytes));
        rig.assert_conserved();
    }
}

/// All that was dropped, by name, but for what stations were heard by.
pub(super) fn told(rig: &Rig) -> Vec<(&'static str, u64)> {
    let all = DropReason::ALL.iter().filter(|reason| **reason != DropReason::NoMember);
    let drops = all.map(|reason| (reason.name(), rig.drops(*reason)));
    drops.filter(|(_, count)| *count > 0).collect()
}

#[test]
fn what_comes_out_goes_on_to_the_pod() {
    for v4 in [true, false] {
        let (mut rig, peers) = ready(v4);
        for inner_v4 in [true, false] {
            let sent = inner(inner_v4, false, 0, 64, b"hello");
            // Behind its end is what some link put there.
            let mut frame = Around::back(v4).put((mac(7), OWN), &sent);
            frame.extend_from_slice(b"padding");
            assert!(peers[1].send(frame));
            rig.settle(NOW);
            assert_eq!(
                drain(&peers[0]),
                [onwards(&sent, mac(0))],
                "outer {v4}, inner {inner_v4}: {:?}",
                told(&rig)
            );
        }
        let id = rig.model.ports[&name("vx")].id;
        assert_eq!(rig.counters[0].port(id).rx_packets.get(), 2);
        assert_eq!(told(&rig), []);
        rig.assert_conserved();
    }
}

/// What may not come out, and by which name it is dropped; none: it is for somebody else.
#[test]
fn only_known_ends_are_listened_to() {
    type Change = fn(&mut Around);
    let cases: [(&str, Change, Option<DropReason>); 5] = [
        ("another VNI", |around| around.vni = 5, Some(DropReason::TunnelVni)),
        ("no VNI", |around| around.flags = 0, Some(DropReason::TunnelHeader)),
        ("another port", |around| around.port = 4790, Some(DropReason::HostIgnored)),
        ("congestion", |around| around.tos = 3, Some(DropReason::TunnelEcn)),
        (
            "a stranger",
            |around| {
                around.from = if around.from.is_ipv4() { "10.1.0.8" } else { "fd01::8" }.parse().unwrap()
            },
            Some(DropReason::TunnelStranger),
        ),
    ];
    for v4 in [true, false] {
        for (what, change, reason) in &cases {
            let (mut rig, peers) = ready(v4);
            let mut around = Around::back(v4);
            change(&mut around);
            assert!(peers[1].send(around.put((mac(7), OWN), &inner(true, false, 0, 64, b"hello"))));
            rig.settle(NOW);
            assert_eq!(drain(&peers[0]), [[0u8; 0]; 0], "{what}");
            let wanted: Vec<_> = reason.iter().map(|reason| (reason.name(), 1)).collect();
            assert_eq!(told(&rig), wanted, "{what}, outer v4 {v4}");
            rig.assert_conserved();
        }
    }
}

#[test]
fn pieces_do_not_come_out() {
    let (mut rig, peers) = ready(true);
    let whole = Around::back(true).put((mac(7), OWN), &inner(true, false, 0, 64, &[1; 200]));
    for (flags, offset) in [(0x20, 0), (0, 8), (0x20, 16)] {
        let mut piece = whole.clone();
        (piece[20], piece[21]) = (flags, offset);
        piece[24..26].fill(0);
        let checksum = !fold(sum(&piece[14..34]));
        piece[24..26].copy_from_slice(&checksum.to_be_bytes());
        assert!(peers[1].send(piece));
    }
    rig.settle(NOW);
    assert_eq!(told(&rig), [("tunnel-fragment", 3)]);
    assert_eq!(drain(&peers[0]), [[0u8; 0]; 0]);
    rig.assert_conserved();
}

/// By whatever address it says.
#[test]
fn nobody_on_another_bridge_speaks_as_a_far_end() {
    let (mut rig, peers) = ready(true);
    // A tunnel ends there as well, so that somebody looks.
    rig.declare(&Request::BridgeAdd(Bridge::new(name("over2")))).unwrap();
    rig.declare(&own("over2", "10.254.0.1/24")).unwrap();
    rig.add_tunnel("over2", "vx2", PortKind::vxlan(VNI, "10.0.0.1".parse().unwrap())).unwrap();
    assert_eq!(rig.snapshot().tunnels.len(), 2);
    assert!(peers[0].send(Around::back(true).put((mac(0), OWN), &inner(true, false, 0, 64, b"x"))));
    rig.settle(NOW);
    assert_eq!(told(&rig), [("host-ignored", 1)]);
    assert_eq!(rig.counters[0].port(rig.model.ports[&name("vx")].id).rx_packets.get(), 0);
}

/// RFC 6040: congestion outside is congestion inside.
#[test]
fn congestion_outside_comes_in() {
    let (mut rig, peers) = ready(true);
    for inner_v4 in [true, false] {
        let sent = inner(inner_v4, false, 2, 64, b"x");
        let around = Around { tos: 3, ..Around::back(true) };
        assert!(peers[1].send(around.put((mac(7), OWN), &sent)));
        rig.settle(NOW);
        let marked = inner(inner_v4, false, 3, 64, b"x");
        assert_eq!(drain(&peers[0]), [onwards(&marked, mac(0))], "inner {inner_v4}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    /// What goes into one end comes out of the other as it went in, two hops older.
    #[test]
    fn what_goes_in_comes_out(v4: bool, inner_v4: bool, tos: u8, ttl in 3u8..=255, payload in proptest::collection::vec(any::<u8>(), 0..1300)) {
        let (mut rig, peers) = ready(v4);
        let sent = inner(inner_v4, true, tos, ttl, &payload);
        prop_assert!(peers[0].send(sent.clone()));
        rig.settle(NOW);
        let out = drain(&peers[1]);
        prop_assert_eq!(out.len(), 1);
        // The same packet as if the far end had sent it to a pod here.
        let at = if v4 { 50 } else { 70 };
        let mut there = out[0][at..].to_vec();
        prop_assert_eq!(&there, &onwards(&sent, FAR));
        there[..6].copy_from_slice(&OWN);
        there[6..12].copy_from_slice(&FAR);
        let back = inner(inner_v4, false, tos, ttl - 1, &payload);
        let mut whole = Around { tos, ..Around::back(v4) }.put((mac(7), OWN), &back);
        prop_assert_eq!(whole.len(), out[0].len());
        whole.truncate(out[0].len());
        prop_assert!(peers[1].send(whole));
        rig.settle(NOW);
        prop_assert_eq!(drain(&peers[0]), [onwards(&back, mac(0))]);
        rig.assert_conserved();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]
    /// Whatever comes to the end of a tunnel costs no frame, and what comes out is what is inside.
    #[test]
    fn what_is_broken_costs_no_frame(v4: bool, inner_v4: bool, flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6), cut in 0usize..160) {
        let (mut rig, peers) = ready(v4);
        let mut frame = Around::back(v4).put((mac(7), OWN), &inner(inner_v4, false, 0, 64, &[7; 60]));
        for (at, bits) in flips {
            // Addresses of stations stay: it is meant for us.
            let at = 12 + at.index(frame.len() - 12);
            frame[at] ^= bits;
        }
        frame.truncate(frame.len() - cut.min(frame.len() - 14));
        prop_assert!(peers[1].send(frame));
        rig.settle(NOW);
        for out in drain(&peers[0]) {
            prop_assert!(out.len() <= 14 + 40 + 8 + 60, "{:02x?}", out);
        }
        rig.assert_conserved();
    }
}

/// Where the tunnel's bridge asks for it, TCP fits from the beginning.
#[test]
fn segments_are_offered_as_they_fit() {
    let (mut rig, peers) = ready(true);
    let bridge = Bridge { mac: Some(Mac(OWN)), mss_clamp: true, ..Bridge::new(name("over")) };
    rig.declare(&Request::BridgeSet(bridge)).unwrap();
    let mut syn = Vec::new();
    let link = PacketBuilder::ethernet2(mac(0), OWN).ipv4([10, 0, 0, 9], [10, 2, 0, 9], 64);
    let offer = [etherparse::TcpOptionElement::MaximumSegmentSize(1460)];
    link.tcp(1000, 2000, 7, 4096).syn().options(&offer).unwrap().write(&mut syn, &[]).unwrap();
    assert!(peers[0].send(syn));
    rig.settle(NOW);
    let out = drain(&peers[1]);
    assert_eq!((out.len(), &out[0][50 + 54..50 + 58]), (1, &[2, 4, 5, 130][..]), "1410 bytes");
}

/// The pod is told how long a packet may be, by the tunnel's MTU: what carries it less what is put in front.
#[test]
fn what_does_not_fit_is_told() {
    for (v4, mtu) in [(true, 1450), (false, 1430)] {
        let (mut rig, peers) = ready(v4);
        for (len, passes) in [(mtu, true), (mtu + 1, false)] {
            let mut frame = inner(true, true, 0, 64, &vec![0; len - 28]);
            frame[20] = 0x40;
            frame[24..26].fill(0);
            let checksum = !fold(sum(&frame[14..34]));
            frame[24..26].copy_from_slice(&checksum.to_be_bytes());
            assert!(peers[0].send(frame));
            rig.settle(NOW);
            let out = drain(&peers[1]);
            assert_eq!(
                out.iter().map(Vec::len).collect::<Vec<_>>(),
                if passes { vec![1514] } else { vec![] }
            );
            let said = drain(&peers[0]);
            match &said[..] {
                [] => assert!(passes),
                [said] => {
                    assert_eq!((said[23], &said[34..36]), (ip::ICMP, &[3, 4][..]));
                    assert_eq!(usize::from(u16::from_be_bytes([said[40], said[41]])), mtu);
                }
                more => panic!("{more:02x?}"),
            }
        }
        assert_eq!(told(&rig), [("mtu-exceeded", 1)]);
    }
}

/// A superframe is cut first, and each segment goes in by itself, its checksum finished.
#[test]
fn a_superframe_goes_in_in_segments() {
    let (mut rig, peers) = ready(true);
    let payload: Vec<u8> = (0..30_000).map(|n| (n * n / 7) as u8).collect();
    let mut frame = Vec::new();
    let link = PacketBuilder::ethernet2(mac(0), OWN).ipv4([10, 0, 0, 9], [10, 2, 0, 9], 64);
    link.tcp(1000, 2000, 7, 4096).write(&mut frame, &payload).unwrap();
    let pseudo = fold(sum(&frame[26..34]) + 6 + (frame.len() - 34) as u64);
    frame[50..52].copy_from_slice(&pseudo.to_be_bytes());
    let gso = Gso { kind: GsoKind::Tcp4, ecn: false, size: NonZeroU16::new(1400).unwrap() };
    let offload = Offload { csum: Csum::Partial { start: 34, field: 16 }, gso: Some(gso) };
    assert!(peers[0].send_offload(frame, offload));
    rig.settle(NOW);
    let mut bytes = Vec::new();
    let mut ports = std::collections::BTreeSet::new();
    while let Some((frame, offload)) = peers[1].recv_offload() {
        assert_eq!(offload, Offload { csum: Csum::Complete, gso: None });
        assert!(frame.len() <= 1514);
        ports.insert(source_port_of(&frame, true));
        let sliced = SlicedPacket::from_ethernet(&frame[50..]).unwrap();
        let Some(etherparse::TransportSlice::Tcp(tcp)) = &sliced.transport else { panic!("{sliced:?}") };
        let Some(etherparse::NetSlice::Ipv4(ip)) = &sliced.net else { panic!("{sliced:?}") };
        let right = tcp.to_header().calc_checksum_ipv4(&ip.header().to_header(), tcp.payload()).unwrap();
        assert_eq!(right, tcp.checksum());
        bytes.extend_from_slice(tcp.payload());
    }
    assert_eq!((bytes == payload, ports.len()), (true, 1), "{:?}", told(&rig));
    rig.assert_conserved();
}

/// What has to wait until the far end's neighbour is known, waits, and goes in order.
#[test]
fn packets_wait_for_the_neighbour_outside() {
    let (mut rig, peers) = tunnelled(true);
    for n in 0..5u8 {
        assert!(peers[0].send(inner(true, true, 0, 64, &[n; 10])));
    }
    rig.settle(NOW);
    let asked = drain(&peers[1]);
    assert!(asked.iter().all(|frame| frame[12..14] == [8, 6]) && asked.len() == 1, "{asked:02x?}");
    assert_eq!(rig.turns[0].pipeline().private.holds.frames(), 5);
    // Until then nothing is told, and what comes out goes on.
    assert!(peers[1].send(Around::back(true).put((mac(7), OWN), &inner(true, false, 0, 64, b"in"))));
    rig.settle(NOW);
    assert_eq!(drain(&peers[0]).len(), 1);
    pin(&rig, "br1", "10.1.0.7", mac(7));
    rig.settle(Now { ns: NOW.ns + MS });
    let order: Vec<_> = drain(&peers[1]).iter().map(|frame| frame[50 + 14 + 28]).collect();
    assert_eq!(order, [0, 1, 2, 3, 4], "{:?}", told(&rig));
    rig.assert_conserved();
}

#[test]
fn a_station_that_nobody_declared_and_a_way_that_leads_back_are_named() {
    let (mut rig, peers) = ready(true);
    pin(&rig, "over", "10.255.0.3", [2, 0, 0, 0, 9, 3]);
    rig.declare(&route("10.3.0.0/16", "10.255.0.3")).unwrap();
    let mut lost = inner(true, true, 0, 64, b"x");
    lost[31] = 3;
    lost[24..26].fill(0);
    let checksum = !fold(sum(&lost[14..34]));
    lost[24..26].copy_from_slice(&checksum.to_be_bytes());
    assert!(peers[0].send(lost));
    rig.settle(NOW);
    assert_eq!(told(&rig), [("tunnel-station", 1)]);
    // A far end further away, and its own route goes.
    let (mut rig, peers) = ready(true);
    rig.declare(&route("192.0.2.7/32", "10.1.0.7")).unwrap();
    let station = StaticMac {
        mac: Mac(FAR),
        bridge: name("over"),
        vid: Vid::DEFAULT,
        port: name("vx"),
        dst: Some("192.0.2.7".parse().unwrap()),
        owner: Default::default(),
    };
    rig.declare(&Request::FdbAdd(station)).unwrap();
    rig.declare(&route("192.0.2.0/24", "10.255.0.2")).unwrap();
    assert!(peers[0].send(inner(true, true, 0, 64, b"x")));
    rig.settle(NOW);
    assert_eq!((drain(&peers[1]).len(), told(&rig)), (1, vec![]));
    let prefix = "192.0.2.7/32".parse().unwrap();
    rig.declare(&Request::RouteDelete(RouteDelete { prefix, vrf: Name::main(), metric: None })).unwrap();
    assert!(peers[0].send(inner(true, true, 0, 64, b"x")));
    rig.settle(NOW);
    assert_eq!(told(&rig), [("tunnel-loop", 1)]);
    rig.assert_conserved();
}

/// Where there is no tunnel any more its address and port are what they were.
#[test]
fn a_tunnel_that_is_gone_takes_nothing() {
    let (mut rig, peers) = ready(true);
    rig.set_up(rig.model.ports[&name("vx")].id, false);
    assert!(peers[1].send(Around::back(true).put((mac(7), OWN), &inner(true, false, 0, 64, b"x"))));
    assert!(peers[0].send(inner(true, true, 0, 64, b"x")));
    rig.settle(NOW);
    assert_eq!(told(&rig), [("host-ignored", 1), ("port-closed", 1)]);
    assert!(rig.snapshot().tunnels.is_empty());
    rig.assert_conserved();
}

/// A trace goes along: into a tunnel, and out of one.
#[test]
fn a_trace_goes_through_tunnels() {
    let (rig, _) = ready(true);
    let mut dry = Dry::new(2048, 1).unwrap();
    let id = |port: &str| rig.model.ports[&name(port)].id;
    let traced = rig.trace(&mut dry, id("p0"), &inner(true, true, 0, 64, b"x"), NOW).unwrap();
    let stages: Vec<_> = traced.steps.iter().map(|step| step.stage).collect();
    let first = stages.iter().position(|stage| *stage == Stage::Tunnel).unwrap();
    assert!(stages[..first].contains(&Stage::Emit) && stages[first..].contains(&Stage::Emit), "{stages:?}");
    assert_eq!(traced.steps[first - 1].note.verdict, Verdict::Port(id("vx")));
    let [leaving] = &traced.leaving[..] else { panic!("{traced:#?}") };
    assert!((leaving.port, leaving.is_itself) == (id("p1"), true) && leaving.bytes.len() == 50 + 14 + 28 + 1);
    let packet = Around::back(true).put((mac(7), OWN), &inner(true, false, 0, 64, b"x"));
    let traced = rig.trace(&mut dry, id("p1"), &packet, NOW).unwrap();
    assert!(traced.steps.iter().any(|step| step.note.verdict == Verdict::Aside(Why::Tunnel)), "{traced:#?}");
    let [leaving] = &traced.leaving[..] else { panic!("{traced:#?}") };
    assert!((leaving.port, leaving.is_itself) == (id("p0"), true));
    assert!(traced.drops.is_empty() && !traced.events.contains(&Event::ErrorTold));
}
