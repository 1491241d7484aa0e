//! What the fuzz targets do with their bytes. It stands here and not in `fuzz/`, so that plain `cargo test`
//! replays on it whatever was found before (`tests/regressions`).

use super::{Rig, Size};
use crate::pipeline::Now;
use crate::port::memory;
use crate::table::flow::key::Key;
use crate::wire::checksum::Csum;
use crate::wire::gro::Train;
use crate::wire::gso::{Gso, SEGMENTS_MAX, Segmenter};
use crate::wire::packet::{Content, Packet};
use crate::wire::{checksum, ethernet, ip, nat, vnet};
use etherparse::SlicedPacket;
use std::net::IpAddr;
use switch_api::{
    Flood, Limit, NextHop, PortLimits, PortSettings, Prefix, Request, Route, RouteKind, SourceGuard, Vid,
    VidRange, Vlan,
};

/// Ports of the pipeline target: every kind of membership.
const PORTS: usize = 4;

/// What flows are told by: refused, or inside the packet; an error's quote as well.
fn flow_words(packet: &[u8], version: ip::Version) {
    _ = Packet::read_quoted(packet, version);
    let Ok(read) = Packet::read(packet, version) else { return };
    let (key, side) = Key::of(&read, 1);
    assert_eq!(key.ends()[usize::from(side)].ip, read.src);
    if let Content::Error { quote_at } = read.content {
        _ = Packet::read_quoted(&packet[quote_at..], version);
    }
}

/// A frame through our parsers, with `etherparse` as the second opinion where both accept.
pub fn parser(data: &[u8]) {
    let mut copy = data.to_vec();
    if let checksum::Csum::Partial { start, field } = checksum::state(data) {
        checksum::finish(&mut copy, start, field);
        assert_eq!(copy.len(), data.len());
    }
    let Ok(header) = ethernet::parse(data) else {
        assert!(data.len() < 18, "a whole header was refused");
        return;
    };
    let sliced = SlicedPacket::from_ethernet(data);
    if let Ok(sliced) = &sliced
        && let Some(etherparse::LinkSlice::Ethernet2(link)) = &sliced.link
    {
        assert_eq!(header.dst.to_be_bytes()[2..], link.destination());
        assert_eq!(header.src.to_be_bytes()[2..], link.source());
    }
    let version = match header.ethertype {
        ethernet::IPV4 => ip::Version::V4,
        ethernet::IPV6 => ip::Version::V6,
        _ => return,
    };
    let packet = &data[header.payload_at()..];
    flow_words(packet, version);
    let ends = nat::Ends { src: 1, dst: 2, ports: [3, 4] };
    _ = nat::translate(&mut copy, header.payload_at(), version, &ends, Csum::Unknown);
    _ = nat::translate_error(&mut copy, header.payload_at(), version, 1, 2, &ends);
    let Ok(read) = ip::parse(packet, version) else { return };
    assert!(read.transport_at <= read.end && read.end <= packet.len());
    assert!(!read.later_fragment || read.fragment);
    if let Ok(sliced) = SlicedPacket::from_ip(packet)
        && version == ip::Version::V4
        && let Some(payload) = sliced.net.as_ref().and_then(|net| net.ip_payload_ref())
    {
        // The second opinion follows an authentication header in IPv4, which we leave to be payload.
        if read.protocol != 51 {
            assert_eq!(payload.ip_number.0, read.protocol);
        }
        assert_eq!(payload.fragmented, read.fragment);
    }
}

/// Bytes become ports, settings and frames; whatever they are, no stage panics and no frame is lost.
/// In debug builds every turn checks its worker's books as well.
pub fn pipeline(data: &[u8]) {
    let Some((settings, mut rest)) = data.split_first_chunk::<PORTS>() else { return };
    let workers = 1 + usize::from(settings[0] & 1);
    let mut rig = Rig::new(Size {
        workers,
        frames: 64,
        large_frames: 4,
        fdb_entries: 32,
        neighbours: 8,
        seed: u64::from(settings[1]),
        ..Size::default()
    });
    let mut peers = Vec::new();
    for (n, byte) in settings.iter().enumerate() {
        let (port, peer) = memory::wire();
        let added = rig.add_port(&format!("p{n}"), settings_of(*byte), Box::new(port), (n % workers) as u16);
        assert!(added.is_ok(), "{added:?}");
        peers.push(peer);
    }
    if settings[2] & 1 == 0 {
        route(&mut rig);
        if settings[3] & 1 == 0 {
            translate(&mut rig);
        }
    }
    let mut ns = 0;
    while let Some((head, tail)) = rest.split_first_chunk::<2>() {
        let len = usize::from(head[1]).min(tail.len());
        let (frame, tail) = tail.split_at(len);
        rest = tail;
        assert!(peers[usize::from(head[0]) % PORTS].send(frame.to_vec()));
        // Now and then time passes, up to days at once.
        ns += u64::from(head[0] >> 2).pow(8);
        if head[0] & 0x40 != 0 {
            rig.settle(Now { ns });
            peers.iter().for_each(|peer| while peer.recv().is_some() {});
        }
    }
    rig.settle(Now { ns });
    rig.assert_conserved();
}

/// Makes the switch a gateway in every VLAN of `br0`, with routes of every kind. Its MAC and networks are such
/// that a few bytes of input hit them.
pub(super) fn route(rig: &mut Rig) {
    let name = |text: &str| -> switch_api::Name { text.parse().unwrap_or_else(|error| panic!("{error}")) };
    let mac = Some(switch_api::Mac([2; 6]));
    let reverse_path = switch_api::ReversePath::Loose;
    let bridge =
        switch_api::Bridge { mac, mss_clamp: true, reverse_path, ..switch_api::Bridge::new(name("br0")) };
    let mut requests = vec![Request::BridgeSet(bridge)];
    for (n, address) in ["2.2.2.2/8", "3.3.3.3/8", "202::2/16", "303::3/16"].into_iter().enumerate() {
        requests.push(Request::AddressAdd(switch_api::BridgeAddress {
            bridge: name("br0"),
            address: address.parse().unwrap_or_else(|error| panic!("{error}")),
            vid: Vid::try_from(1 + n as u32 % 2).unwrap_or(Vid::DEFAULT),
            owner: Default::default(),
        }));
    }
    let kinds = [RouteKind::Via, RouteKind::Blackhole, RouteKind::Unreachable, RouteKind::Prohibit];
    for (n, kind) in kinds.into_iter().enumerate() {
        let hop =
            |ip: [u8; 4]| NextHop { address: IpAddr::from(ip), bridge: None, vid: Vid::DEFAULT, weight: 1 };
        let via =
            if kind == RouteKind::Via { vec![hop([2, 0, 0, 9]), hop([3, 0, 0, 9])] } else { Vec::new() };
        let prefix = switch_api::Prefix { address: IpAddr::from([4 + n as u8, 0, 0, 0]), len: 8 };
        let mtu = (kind == RouteKind::Via).then_some(1000);
        requests.push(Request::RouteAdd(Route { mtu, ..Route::new(prefix, kind, via) }));
    }
    for request in requests {
        let declared = rig.declare(&request);
        assert!(declared.is_ok(), "{request:?}: {declared:?}");
    }
}

/// Rules of translation of every kind, about addresses that a few bytes of input hit; the source ports are few.
fn translate(rig: &mut Rig) {
    let rules = r#"[
        {"name": "own", "kind": "destination", "address": "2.2.2.2", "protocol": "udp", "port": 514, "to": "3.0.0.9", "to_port": 9},
        {"name": "all4", "kind": "destination", "address": "4.4.4.4", "to": "3.0.0.9"},
        {"name": "all6", "kind": "destination", "address": "404::4", "to": "303::9"},
        {"name": "one", "kind": "one-to-one", "external": "4.0.0.1", "internal": "2.0.0.9"},
        {"name": "pool", "kind": "source", "from": ["2.0.0.0/8"], "to": ["3.9.9.9"], "ports": "514-517"},
        {"name": "mask", "kind": "source"}
    ]"#;
    let rules: Vec<switch_api::Nat> = serde_json::from_str(rules).unwrap_or_else(|error| panic!("{error}"));
    for rule in rules {
        let declared = rig.declare(&Request::NatSet(Box::new(rule)));
        assert!(declared.is_ok(), "{declared:?}");
    }
}

pub(super) fn settings_of(byte: u8) -> PortSettings {
    let vid = |n: u8| Vid::try_from(u32::from(n) + 1).unwrap_or(Vid::DEFAULT);
    let vlan = if byte & 4 == 0 {
        Vlan::Access { vid: vid(byte & 3) }
    } else {
        let vids = vec![VidRange { first: vid(0), last: vid(byte & 3) }];
        Vlan::Trunk { vids, native: (byte & 8 != 0).then(|| vid(byte >> 6)) }
    };
    PortSettings {
        vlan,
        flood: Flood { unknown_unicast: byte & 16 == 0, multicast: byte & 32 == 0, broadcast: true },
        isolated: byte & 64 != 0,
        hairpin: byte & 128 != 0,
        storm_pps: (byte & 3 == 3).then_some(u32::from(byte)),
        learn_limit: (byte & 5 == 5).then_some(u32::from(byte >> 5)),
        track: byte & 18 == 18,
        limits: PortLimits {
            rx_bytes: (byte & 9 == 9).then(|| Limit { per_s: 1000 * u64::from(byte), burst: None }),
            tx_packets: (byte & 12 == 12).then(|| Limit { per_s: u64::from(byte), burst: Some(4) }),
            ..PortLimits::default()
        },
        source_guard: (byte & 33 == 33).then(|| SourceGuard {
            macs: Vec::new(),
            addresses: vec![Prefix { address: [0; 4].into(), len: 6 + (byte >> 7) }],
        }),
        ..PortSettings::default()
    }
}

/// What a TAP hands over: ten bytes of header that may say anything, and a frame. What is believed can be finished
/// or cut inside the frame, into a bounded number of segments; and what was cut can be joined, and then cut again to the same.
pub fn vnet(data: &[u8]) {
    let Some((header, frame)) = data.split_first_chunk::<{ vnet::LEN }>() else { return };
    let (csum, gso) = match vnet::decode(header, frame) {
        Ok(read) => read,
        Err(refused) => {
            assert!(!refused.name().is_empty() && !refused.to_string().is_empty());
            return;
        }
    };
    assert_eq!(vnet::decode(&vnet::encode(csum, gso, frame), frame), Ok((csum, gso)));
    if let Csum::Partial { start, field } = csum {
        let at = usize::from(start) + usize::from(field);
        let mut finished = frame.to_vec();
        checksum::finish(&mut finished, start, field);
        finished[at..at + 2].copy_from_slice(&frame[at..at + 2]);
        assert_eq!(finished, frame, "finishing wrote beside the field");
    }
    let Some(gso) = gso else { return };
    let segments = cut(frame, csum, gso);
    let joined = join(&segments);
    let again: Vec<_> = joined
        .iter()
        .flat_map(|(frame, csum, gso)| gso.map_or_else(|| vec![frame.clone()], |gso| cut(frame, *csum, gso)))
        .collect();
    assert_eq!(again, segments);
}

fn cut(frame: &[u8], csum: Csum, gso: Gso) -> Vec<Vec<u8>> {
    let segmenter = Segmenter::new(frame, csum, gso).unwrap_or_else(|error| panic!("accepted, but {error}"));
    assert!((2..=SEGMENTS_MAX).contains(&segmenter.count()));
    let write = |i| {
        let mut segment = vec![0; segmenter.len_of(i)];
        assert_eq!(segmenter.write(i, &mut segment, true), Some(segment.len()));
        assert!(segment.len() <= frame.len());
        segment
    };
    (0..segmenter.count()).map(write).collect()
}

fn join(segments: &[Vec<u8>]) -> Vec<(Vec<u8>, Csum, Option<Gso>)> {
    let mut joined = Vec::new();
    let mut rest = segments;
    while let Some((first, mut after)) = rest.split_first() {
        // Cut segments are finished; their senders' wrong ones stay single.
        let Some(mut train) = Train::begin(first, Csum::Complete) else {
            joined.push((first.clone(), Csum::Complete, None));
            rest = after;
            continue;
        };
        let mut whole = first.clone();
        while let Some((next, further)) = after.split_first()
            && train.push(first, next, Csum::Complete)
        {
            whole.extend(&next[train.payload_at()..]);
            after = further;
        }
        let (csum, gso) = train.finish(&mut whole);
        joined.push((whole, csum, gso));
        rest = after;
    }
    joined
}

/// A line from a client: a request or a refusal, and what was understood survives being said again.
pub fn api(data: &[u8]) {
    let call = switch_api::codec::decode_request(data);
    if let Ok(request) = call.request {
        let again = switch_api::codec::decode_request(&switch_api::codec::encode_request(1, &request));
        assert_eq!(again.request.ok().as_ref(), Some(&request));
        // And the model takes it or refuses it, but does not break.
        let model = crate::config::Model::default();
        if let Ok(model) = model.apply(&request) {
            _ = crate::config::Checked::new(model, 1);
        }
    }
}
