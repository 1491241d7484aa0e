//! A capture sees what passes, says what became of it, and costs no frame when nobody takes what it has.

use super::Now;
use super::capture::{Capture, Record, Seen, Wanted};
use super::verdict::{Class, Verdict};
use crate::counter::DropReason;
use crate::port::memory::{self, MemoryPeer};
use crate::rig::{Rig, Size};
use crate::wire::bpf::{Instruction, Program};
use std::sync::Arc;
use switch_api::PortSettings;

pub(super) const NOW: Now = Now { ns: 5_000_000_000 };

/// Three ports on memory, dealt out among so many workers.
pub(super) fn rig(workers: usize) -> (Rig, Vec<MemoryPeer>) {
    let mut rig = Rig::new(Size { workers, ..Size::default() });
    let mut peers = Vec::new();
    for n in 0..3 {
        let (port, peer) = memory::wire();
        let worker = (n % workers) as u16;
        rig.add_port(&format!("p{n}"), PortSettings::default(), Box::new(port), worker).unwrap();
        peers.push(peer);
    }
    rig.settle(NOW);
    (rig, peers)
}

/// A frame between two stations; its payload repeats `src`.
pub(super) fn frame(dst: u8, src: u8, len: usize) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, dst, 2, 0, 0, 0, 0, src, 0x88, 0xb6];
    frame.resize(len, src);
    frame
}

fn wanted(ports: [bool; 3]) -> Wanted {
    let reasons = vec![false; DropReason::ALL.len()].into();
    Wanted {
        ports: ports.into(),
        inbound: true,
        outbound: true,
        reasons,
        stage: None,
        filter: None,
        snaplen: 64,
    }
}

#[allow(clippy::vec_box, reason = "as a capture gives them")]
fn taken(capture: &Capture) -> Vec<Box<Record>> {
    std::iter::from_fn(|| capture.take()).collect()
}

#[test]
fn frames_are_seen_with_what_was_decided_and_only_those_that_are_wanted() {
    for workers in [1, 2] {
        let (mut rig, peers) = rig(workers);
        let drops = DropReason::ALL.iter().map(|reason| *reason == DropReason::Hairpin).collect();
        let capture = Arc::new(Capture::new(Wanted { reasons: drops, ..wanted([true, true, false]) }));
        rig.capture(Some(capture.clone()));
        for (port, dst, src) in [(0, 2, 1), (1, 1, 2), (2, 1, 3), (0, 1, 1)] {
            assert!(peers[port].send(frame(dst, src, 100)));
            rig.settle(NOW);
        }
        let seen: Vec<_> = taken(&capture).iter().map(|record| (record.port, record.seen)).collect();
        let flood = Seen::In(Verdict::Flood(Class::UnknownUnicast));
        let hairpin = DropReason::Hairpin;
        let expected = [
            (0, flood),
            (1, Seen::Out),
            (1, Seen::In(Verdict::Port(0))),
            (0, Seen::Out),
            (0, Seen::Out),
            (0, Seen::In(Verdict::Drop(hairpin))),
            (0, Seen::Dropped(hairpin)),
        ];
        assert_eq!(seen, expected);
        assert_eq!(capture.lost(), 0);
        rig.capture(None);
        assert!(peers[0].send(frame(2, 1, 100)));
        rig.settle(NOW);
        assert!(capture.take().is_none() && Arc::strong_count(&capture) == 1, "it has ended");
        rig.assert_conserved();
    }
}

#[test]
fn a_filter_chooses_and_a_long_frame_is_cut_short() {
    let (mut rig, peers) = rig(1);
    // The last byte of the source is 1.
    let ask = |code, jt, jf, k| Instruction { code, jt, jf, k };
    let lines = [ask(0x30, 0, 0, 11), ask(0x15, 0, 1, 1), ask(0x06, 0, 0, 1), ask(0x06, 0, 0, 0)];
    let filter = Some(Program::new(&lines).unwrap());
    let capture = Arc::new(Capture::new(Wanted { filter, outbound: false, ..wanted([true; 3]) }));
    rig.capture(Some(capture.clone()));
    for src in [1, 2, 1] {
        assert!(peers[usize::from(src) - 1].send(frame(9, src, 300)));
    }
    rig.settle(NOW);
    let records = taken(&capture);
    assert!(records.iter().all(|record| (record.len, record.bytes.len(), record.now) == (300, 64, NOW)));
    assert!(records.iter().all(|record| record.bytes == frame(9, 1, 64)));
    assert_eq!(records.len(), 2);
}

#[test]
fn what_nobody_takes_is_counted_and_costs_no_frame() {
    let (mut rig, peers) = rig(1);
    let capture = Arc::new(Capture::new(Wanted { snaplen: 65_535, outbound: false, ..wanted([true; 3]) }));
    rig.capture(Some(capture.clone()));
    assert!(peers[1].send(frame(9, 2, 60)));
    rig.settle(NOW);
    let mut arrived = 0;
    for _ in 0..20 {
        (0..100).for_each(|_| assert!(peers[0].send(frame(2, 1, 60))));
        rig.settle(NOW);
        arrived += std::iter::from_fn(|| peers[1].recv()).count();
    }
    assert_eq!(arrived, 2000, "every frame went its way");
    let kept = taken(&capture);
    assert_eq!((kept.len() as u64 + capture.lost(), kept.len()), (2001, 128));
    kept.into_iter().for_each(|record| capture.give(record));
    assert!(peers[0].send(frame(2, 1, 60)));
    rig.settle(NOW);
    assert_eq!(taken(&capture).len(), 1, "and it goes on with what was given back");
    rig.assert_conserved();
}

/// Of frames that come in, those about which a stage decided; every frame is one stage's.
#[test]
fn frames_are_seen_by_the_stage_that_decided_about_them() {
    let mut seen = Vec::new();
    for stage in Capture::STAGES {
        let (mut rig, peers) = rig(1);
        // Known before: the first frame of a station is flooded.
        assert!(peers[1].send(frame(9, 2, 100)));
        rig.settle(NOW);
        let wanted = Wanted { outbound: false, stage: Some(stage), ..wanted([true; 3]) };
        let capture = Arc::new(Capture::new(wanted));
        rig.capture(Some(capture.clone()));
        let mut tagged = frame(2, 1, 100);
        tagged[12..14].copy_from_slice(&[0x81, 0]);
        let too_long = frame(2, 1, 1600);
        for sent in [frame(2, 1, 100), frame(2, 1, 10), tagged, too_long, frame(1, 1, 100)] {
            assert!(peers[0].send(sent));
        }
        rig.settle(NOW);
        seen.extend(taken(&capture).iter().map(|record| (stage.name(), record.seen)));
        // What was not wanted is there to be used again.
        assert_eq!(capture.lost(), 0);
        rig.capture(None);
        rig.assert_conserved();
    }
    let drop = |reason| Seen::In(Verdict::Drop(reason));
    let expected = [
        ("parse", drop(DropReason::Runt)),
        ("guard", drop(DropReason::VlanTagged)),
        ("forward", Seen::In(Verdict::Port(1))),
        ("forward", drop(DropReason::Hairpin)),
        ("egress", drop(DropReason::MtuExceeded)),
    ];
    assert_eq!(seen, expected);
}
