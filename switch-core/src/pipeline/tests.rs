//! The pipeline against its dull twin: a bridge as one would write it on a blackboard, with maps and no
//! batches.

mod limits;
mod loops;
mod superframes;

use super::Now;
use super::probe;
use crate::counter::DropReason;
use crate::port::memory::{self, MemoryPeer};
use crate::rig::{Rig, Size};
use proptest::prelude::*;
use std::collections::HashMap;
use switch_api::{Flood, Mac, PortSettings, Request, StaticMac, Vid, VidRange, Vlan};

/// A bridge on a blackboard.
struct Twin {
    ports: Vec<PortSettings>,
    stations: HashMap<(u16, [u8; 6]), (usize, bool)>,
}

fn vlan_of(settings: &PortSettings, frame: &[u8]) -> Option<u16> {
    let tag = (frame[12..14] == [0x81, 0]).then(|| u16::from_be_bytes([frame[14], frame[15]]) & 0xfff);
    match (&settings.vlan, tag) {
        (Vlan::Access { vid }, None | Some(0)) => Some(vid.get()),
        (Vlan::Access { .. }, Some(_)) => None,
        (Vlan::Trunk { native, .. }, None | Some(0)) => native.map(Vid::get),
        (Vlan::Trunk { .. }, Some(vid)) => carries_tagged(settings, vid).then_some(vid),
    }
}

fn carries_tagged(settings: &PortSettings, vid: u16) -> bool {
    let Vlan::Trunk { vids, native } = &settings.vlan else { return false };
    vids.iter().any(|range| (range.first.get()..=range.last.get()).contains(&vid))
        || native.map(Vid::get) == Some(vid)
}

/// The frame as `settings` wants it in VLAN `vid`; none if the port is no member.
fn dress(settings: &PortSettings, vid: u16, frame: &[u8]) -> Option<Vec<u8>> {
    let tagged = frame[12..14] == [0x81, 0];
    let priority = if tagged { frame[14] & 0xf0 } else { 0 };
    let bare: Vec<u8> = if tagged { [&frame[..12], &frame[16..]].concat() } else { frame.to_vec() };
    let untagged = match &settings.vlan {
        Vlan::Access { vid } => vid.get(),
        Vlan::Trunk { native, .. } => native.map_or(0, Vid::get),
    };
    if untagged == vid {
        return Some(bare);
    }
    let tci = [priority | (vid >> 8) as u8, vid as u8];
    carries_tagged(settings, vid).then(|| [&bare[..12], &[0x81, 0], &tci, &bare[12..]].concat())
}

impl Twin {
    /// Where the source is from now on, and the VLAN; none: such a frame goes nowhere.
    fn learn(&mut self, from: usize, frame: &[u8]) -> Option<u16> {
        if frame.len() < 14 || (frame[12..14] == [0x81, 0] && frame.len() < 18) {
            return None;
        }
        let src: [u8; 6] = frame[6..12].try_into().unwrap();
        let vid = vlan_of(&self.ports[from], frame)?;
        if src[0] & 1 == 1 || src == [0; 6] {
            return None;
        }
        match self.stations.get(&(vid, src)) {
            Some((port, true)) if *port != from => return None,
            Some((_, true)) => {}
            _ => _ = self.stations.insert((vid, src), (from, false)),
        }
        Some(vid)
    }

    /// Which ports are given what, in order of port number.
    fn switch(&mut self, from: usize, frame: &[u8]) -> Vec<(usize, Vec<u8>)> {
        let Some(vid) = self.learn(from, frame) else { return Vec::new() };
        let (settings, dst) = (&self.ports[from], *frame.first_chunk::<6>().unwrap());
        let to: Vec<usize> = if dst[0] & 1 == 0
            && let Some((port, _)) = self.stations.get(&(vid, dst))
        {
            let allowed =
                (*port != from || settings.hairpin) && !(self.ports[*port].isolated && settings.isolated);
            if allowed { vec![*port] } else { Vec::new() }
        } else if dst[..5] == [0x01, 0x80, 0xc2, 0, 0] && dst[5] < 16 {
            Vec::new()
        } else {
            let takes = |flood: &Flood| match dst {
                [0xff, 0xff, 0xff, 0xff, 0xff, 0xff] => flood.broadcast,
                _ if dst[0] & 1 == 1 => flood.multicast,
                _ => flood.unknown_unicast,
            };
            let other = |port: &usize| *port != from && !(self.ports[*port].isolated && settings.isolated);
            (0..self.ports.len()).filter(other).filter(|port| takes(&self.ports[*port].flood)).collect()
        };
        let dressed = |port: usize| dress(&self.ports[port], vid, frame).map(|frame| (port, frame));
        to.into_iter()
            .filter_map(dressed)
            .filter(|(_, frame)| frame.len() - 14 <= 1500 + 4 * usize::from(frame[12..14] == [0x81, 0]))
            .collect()
    }
}

fn vid(n: u16) -> Vid {
    Vid::try_from(u32::from(n)).unwrap()
}

fn settings() -> impl Strategy<Value = PortSettings> {
    let vlan = prop_oneof![
        (1u16..4).prop_map(|n| Vlan::Access { vid: vid(n) }),
        (1u16..4, 0u16..3, proptest::option::of(1u16..4)).prop_map(|(first, more, native)| Vlan::Trunk {
            vids: vec![VidRange { first: vid(first), last: vid(first + more) }],
            native: native.map(vid),
        }),
    ];
    (vlan, any::<[bool; 3]>(), prop::bool::weighted(0.3), prop::bool::weighted(0.2)).prop_map(
        |(vlan, flood, isolated, hairpin)| PortSettings {
            vlan,
            flood: Flood { unknown_unicast: flood[0], multicast: flood[1], broadcast: flood[2] },
            isolated,
            hairpin,
            ..PortSettings::default()
        },
    )
}

/// Frames between few stations, now and then an odd one.
fn frame() -> impl Strategy<Value = Vec<u8>> {
    let mac = prop_oneof![
        8 => (0u8..6).prop_map(|n| [2, 0, 0, 0, 0, n]),
        1 => Just([0xff; 6]),
        1 => Just([0x01, 0, 0x5e, 0, 0, 1]),
        1 => Just([0x01, 0x80, 0xc2, 0, 0, 3]),
        1 => Just([0; 6]),
    ];
    let tag = proptest::option::of((0u16..6, 0u16..16).prop_map(|(vid, high)| vid | high << 12));
    let len = prop_oneof![9 => 46usize..200, 1 => 1490usize..1510, 1 => 0usize..4];
    (mac.clone(), mac, tag, len, any::<u8>()).prop_map(|(dst, src, tag, len, fill)| {
        let mut frame = [&dst[..], &src].concat();
        if let Some(tci) = tag {
            frame.extend([0x81, 0]);
            frame.extend(tci.to_be_bytes());
        }
        frame.extend([0x88, 0xb6]);
        frame.resize(frame.len() + len, fill);
        frame
    })
}

/// One, or a few that come in together.
fn frames() -> impl Strategy<Value = Vec<Vec<u8>>> {
    prop_oneof![proptest::collection::vec(frame(), 1..2), proptest::collection::vec(frame(), 2..6)]
}

fn rig(ports: &[PortSettings], workers: usize, seed: u64) -> (Rig, Vec<MemoryPeer>) {
    let mut rig = Rig::new(Size { workers, seed, ..Size::default() });
    let mut peers = Vec::new();
    for (n, settings) in ports.iter().enumerate() {
        let (port, peer) = memory::wire();
        rig.add_port(&format!("p{n}"), settings.clone(), Box::new(port), (n % workers) as u16).unwrap();
        peers.push(peer);
    }
    (rig, peers)
}

proptest! {
    #![proptest_config(crate::cases::cases(96))]

    /// Random ports, random frames, alone or several at once: every port is given exactly what the twin says, byte for byte and in
    /// order, and no frame is lost. Of frames that come at once all sources are known before the first of them goes on.
    #[test]
    fn switches_as_the_blackboard_does(
        ports in proptest::collection::vec(settings(), 2..5),
        traffic in proptest::collection::vec((0usize..5, frames()), 1..60),
        pinned in proptest::option::of((0u8..6, 0usize..5)),
        workers in 1usize..3,
        seed: u64,
    ) {
        let (mut rig, peers) = rig(&ports, workers, seed);
        let mut twin = Twin { ports: ports.clone(), stations: HashMap::new() };
        if let Some((station, port)) = pinned {
            let port = port % ports.len();
            let own = crate::config::model::vids_of(&ports[port].vlan).next().unwrap();
            let mac = Mac([2, 0, 0, 0, 0, station]);
            let entry = StaticMac { mac, bridge: "br0".parse().unwrap(), vid: own, port: format!("p{port}").parse().unwrap(), dst: None, owner: Default::default() };
            rig.declare(&Request::FdbAdd(entry)).unwrap();
            let fid = rig.model.fids[&(0, own)];
            rig.tables.fdb.pin(crate::table::fdb::key(mac.to_u64(), fid), port as u16);
            twin.stations.insert((own.get(), mac.0), (port, true));
        }
        let now = Now { ns: 5_000_000_000 };
        for (from, frames) in traffic {
            let from = from % ports.len();
            for frame in &frames {
                prop_assert!(peers[from].send(frame.clone()));
                twin.learn(from, frame);
            }
            rig.settle(now);
            let mut expected: Vec<_> = frames.iter().flat_map(|frame| twin.switch(from, frame)).collect();
            expected.sort_by_key(|(port, _)| *port);
            let mut got = Vec::new();
            for (port, peer) in peers.iter().enumerate() {
                // A station that moved has its new port probed: the twin knows no loops.
                let heard = std::iter::from_fn(|| peer.recv()).filter(|frame| !probe::looks_like_one(frame));
                got.extend(heard.map(|frame| (port, frame)));
            }
            prop_assert_eq!(got, expected);
        }
        rig.assert_conserved();
    }

    /// Arbitrary bytes in arbitrary batches: nothing panics, nothing is lost.
    #[test]
    fn arbitrary_frames_are_conserved(frames in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..100), 0..300)) {
        let (mut rig, peers) = rig(&[PortSettings::default(), PortSettings::default()], 2, 1);
        for (n, frame) in frames.into_iter().enumerate() {
            prop_assert!(peers[n % 2].send(frame));
        }
        rig.settle(Now { ns: 1 });
        rig.assert_conserved();
    }
}

#[test]
fn a_flow_keeps_its_order_across_workers() {
    let (mut rig, peers) = rig(&[PortSettings::default(), PortSettings::default()], 2, 1);
    for n in 0..1000u32 {
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0x88, 0xb6];
        frame.extend(n.to_be_bytes());
        frame.resize(60, 0);
        assert!(peers[0].send(frame));
    }
    rig.settle(Now { ns: 1 });
    let numbers: Vec<u32> = std::iter::from_fn(|| peers[1].recv())
        .map(|frame| u32::from_be_bytes(frame[14..18].try_into().unwrap()))
        .collect();
    assert_eq!(numbers, (0..1000).collect::<Vec<_>>());
    rig.assert_conserved();
}

#[test]
fn an_empty_pool_costs_copies_and_not_the_frame() {
    // Six ports and eight frames: a flood of eight needs forty.
    let mut rig = Rig::new(Size { frames: 8, ..Size::default() });
    let mut peers = Vec::new();
    for n in 0..6 {
        let (port, peer) = memory::wire();
        rig.add_port(&format!("p{n}"), PortSettings::default(), Box::new(port), 0).unwrap();
        peers.push(peer);
    }
    for _ in 0..8 {
        let mut frame = vec![0xff; 60];
        frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
        assert!(peers[0].send(frame));
    }
    rig.settle(Now { ns: 1 });
    let missed: u64 = rig.counters[0].event(crate::counter::Event::FloodCopyMissed).get();
    let arrived: usize = peers.iter().map(|peer| std::iter::from_fn(|| peer.recv()).count()).sum();
    assert!(missed > 0 && arrived as u64 + missed == 40, "{arrived} arrived, {missed} were missed");
    rig.assert_conserved();
}

#[test]
fn a_slow_port_drops_its_own_frames_by_name() {
    let (mut rig, peers) = rig(&[PortSettings::default(), PortSettings::default()], 1, 1);
    let mut sent = 0u64;
    // The wire holds 4 096 packets and nobody takes them out; then the queue fills, then frames drop.
    for n in 0..200u32 {
        for _ in 0..50 {
            let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0x88, 0xb6];
            frame.resize(60, n as u8);
            assert!(peers[0].send(frame));
            sent += 1;
        }
        for _ in 0..3 {
            rig.run(Now { ns: 1 });
        }
    }
    let dropped = rig.drops(DropReason::TxQueueFull);
    let waiting = crate::frame::queue::TX_QUEUE_FRAMES as u64;
    assert_eq!(sent, 4096 + waiting + dropped);
    while peers[1].recv().is_some() {}
    rig.settle(Now { ns: 1 });
    rig.assert_conserved();
}
