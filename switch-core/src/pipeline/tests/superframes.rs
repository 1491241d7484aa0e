//! Superframes cross as one frame, and are cut up on the way out where they must.

use super::*;
use crate::frame::Offload;
use crate::wire::checksum::{Csum, fold, sum};
use crate::wire::gso::{Gso, GsoKind};
use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use std::num::NonZeroU16;

pub(super) const MSS: u16 = 1000;

/// A TCP superframe from station `from` to station `to`, its checksum left to whoever sends it.
pub(super) fn train(from: u8, to: u8, payload: &[u8], size: u16) -> (Vec<u8>, Offload) {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2([2, 0, 0, 0, 0, from], [2, 0, 0, 0, 0, to])
        .ipv4([10, 0, 0, from], [10, 0, 0, to], 64)
        .tcp(1000, 2000, 7, 4096)
        .write(&mut frame, payload)
        .unwrap();
    let pseudo = fold(sum(&frame[26..34]) + 6 + (frame.len() - 34) as u64);
    frame[50..52].copy_from_slice(&pseudo.to_be_bytes());
    let gso = Gso { kind: GsoKind::Tcp4, ecn: false, size: NonZeroU16::new(size).unwrap() };
    (frame, Offload { csum: Csum::Partial { start: 34, field: 16 }, gso: Some(gso) })
}

/// The payloads of finished TCP frames, one after another; every checksum is right and none exceeds `mtu`.
fn payloads(peer: &MemoryPeer, mtu: usize) -> (usize, Vec<u8>) {
    let (mut frames, mut bytes) = (0, Vec::new());
    while let Some(frame) = peer.recv() {
        let sliced = SlicedPacket::from_ethernet(&frame).unwrap();
        let (Some(NetSlice::Ipv4(ip)), Some(TransportSlice::Tcp(tcp))) = (&sliced.net, &sliced.transport)
        else {
            panic!("{sliced:?}")
        };
        assert!(usize::from(ip.header().total_len()) <= mtu);
        let header = ip.header().to_header();
        assert_eq!(tcp.to_header().calc_checksum_ipv4(&header, tcp.payload()).unwrap(), tcp.checksum());
        assert_eq!(tcp.sequence_number(), 7 + bytes.len() as u32);
        bytes.extend_from_slice(tcp.payload());
        frames += 1;
    }
    (frames, bytes)
}

pub(super) fn noise(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n * n / 7) as u8).collect()
}

/// Port 0 sends; port 1 takes superframes, port 2 does not, port 3 is a trunk that takes them.
fn four() -> (Rig, Vec<MemoryPeer>) {
    let trunk =
        Vlan::Trunk { vids: vec![VidRange { first: Vid::DEFAULT, last: Vid::DEFAULT }], native: None };
    let trunk = PortSettings { vlan: trunk, ..PortSettings::default() };
    let (mut rig, peers) =
        rig(&[PortSettings::default(), PortSettings::default(), PortSettings::default(), trunk], 1, 1);
    for port in [1, 3] {
        rig.takes_superframes(port);
    }
    (rig, peers)
}

#[test]
fn a_port_that_takes_it_is_given_it_whole_and_another_in_segments() {
    let (mut rig, peers) = four();
    let payload = noise(60_000);
    let (frame, offload) = train(1, 9, &payload, MSS);
    // Nobody knows station 9: everybody is given a copy, each as it can take it.
    assert!(peers[0].send_offload(frame.clone(), offload));
    rig.settle(Now { ns: 1 });
    assert_eq!(peers[1].recv_offload(), Some((frame.clone(), offload)));
    assert_eq!(payloads(&peers[2], 1500), (60, payload.clone()));
    let (tagged, offload_tagged) = peers[3].recv_offload().unwrap();
    assert_eq!((&tagged[12..16], &tagged[18..]), (&[0x81, 0, 0, 1][..], &frame[14..]));
    assert_eq!(offload_tagged, Offload { csum: Csum::Partial { start: 38, field: 16 }, ..offload });
    rig.assert_conserved();

    // Known stations: no copy, the same ways.
    for (port, station) in [(1, 11), (2, 12)] {
        let (hello, _) = train(station, 1, b"here", MSS);
        assert!(peers[port].send(hello));
        rig.settle(Now { ns: 2 });
        assert!(peers[0].recv().is_some());
        let (frame, offload) = train(1, station, &payload, MSS);
        assert!(peers[0].send_offload(frame.clone(), offload));
        rig.settle(Now { ns: 3 });
        if port == 1 {
            assert_eq!(peers[1].recv_offload(), Some((frame, offload)));
        } else {
            assert_eq!(payloads(&peers[2], 1500), (60, payload.clone()));
        }
    }
    assert!(peers.iter().all(|peer| peer.recv().is_none()));
    rig.assert_conserved();
}

#[test]
fn the_mtu_is_held_against_the_segments() {
    let (mut rig, peers) = four();
    let (frame, offload) = train(1, 9, &noise(3000), 1461);
    assert!(peers[0].send_offload(frame, offload));
    rig.settle(Now { ns: 1 });
    assert!(peers.iter().all(|peer| peer.recv().is_none()));
    assert_eq!(rig.drops(DropReason::MtuExceeded), 3);
    let (frame, offload) = train(1, 9, &noise(3000), 1460);
    assert!(peers[0].send_offload(frame, offload));
    rig.settle(Now { ns: 2 });
    assert_eq!(payloads(&peers[2], 1500), (3, noise(3000)));
    rig.assert_conserved();
}

#[test]
fn a_storm_is_counted_in_segments() {
    let settings = PortSettings { storm_pps: Some(10), ..PortSettings::default() };
    let (mut rig, peers) = rig(&[settings, PortSettings::default()], 1, 1);
    rig.takes_superframes(1);
    let (frame, offload) = train(1, 9, &noise(10 * usize::from(MSS)), MSS);
    // Ten segments are what a second brings.
    for (second, passes) in [(1, true), (1, false), (2, true), (2, false)] {
        assert!(peers[0].send_offload(frame.clone(), offload));
        rig.settle(Now { ns: second * 1_000_000_000 });
        assert_eq!(peers[1].recv_offload().is_some(), passes, "second {second}");
    }
}

#[test]
fn without_frames_to_cut_into_segments_are_lost_by_name() {
    let mut rig = Rig::new(Size { frames: 20, ..Size::default() });
    let mut peers = Vec::new();
    for n in 0..2 {
        let (port, peer) = memory::wire();
        rig.add_port(&format!("p{n}"), PortSettings::default(), Box::new(port), 0).unwrap();
        peers.push(peer);
    }
    let (frame, offload) = train(1, 9, &noise(30_000), MSS);
    assert!(peers[0].send_offload(frame, offload));
    rig.settle(Now { ns: 1 });
    assert_eq!(std::iter::from_fn(|| peers[1].recv()).count(), 20);
    assert_eq!(rig.drops(DropReason::NoSegmentFrame), 10);
    rig.assert_conserved();
}
