//! The trace against the switch: whatever is declared and learned, what a trace says of a frame is what the switch
//! then does with it, byte by byte; and the trace itself has changed nothing.

use super::fuzz::{route, settings_of};
use super::{Rig, Size};
use crate::config::PORTS_MAX;
use crate::config::snapshot::PortId;
use crate::counter::{DropReason, Event, Stage};
use crate::pipeline::Now;
use crate::pipeline::dry::{Dry, Traced};
use crate::pipeline::probe::looks_like_one;
use crate::pipeline::verdict::Verdict;
use crate::port::memory::{self, MemoryPeer};
use etherparse::{IpNumber, PacketBuilder, VlanId};
use proptest::prelude::*;
use std::sync::atomic::{AtomicUsize, Ordering};
use switch_api::{PortLimits, PortSettings};

const PORTS: usize = 4;
/// Between two frames: what the switch says is limited to some hundreds a second.
const STEP_NS: u64 = 20_000_000;
const OWN: [u8; 6] = [2; 6];

struct Lab {
    rig: Rig,
    peers: Vec<MemoryPeer>,
    dry: Dry,
}

/// Everything that a frame may change.
#[derive(Debug, PartialEq)]
struct State {
    stations: Vec<String>,
    neighbours: Vec<String>,
    looped: Vec<bool>,
    counted: Vec<u64>,
    held: usize,
}

impl Lab {
    fn new(settings: [u8; PORTS], routed: bool, workers: usize) -> Self {
        let size = Size { workers, frames: 2048, fdb_entries: 64, neighbours: 32, ..Size::default() };
        let (mut rig, mut peers) = (Rig::new(size), Vec::new());
        for (n, byte) in settings.into_iter().enumerate() {
            let (port, peer) = memory::wire();
            // A limit has room in a trace and may have none at a worker: that is said, and not tested.
            let settings =
                PortSettings { storm_pps: None, limits: PortLimits::default(), ..settings_of(byte) };
            rig.add_port(&format!("p{n}"), settings, Box::new(port), (n % workers) as u16).unwrap();
            peers.push(peer);
        }
        if routed {
            route(&mut rig);
        }
        rig.settle(Now { ns: 1 });
        Self { rig, peers, dry: Dry::new(2048, size.seed).unwrap() }
    }

    fn held(&self) -> usize {
        self.rig.turns.iter().map(|turn| turn.pipeline().private.holds.frames()).sum()
    }

    fn drops(&self) -> Vec<(PortId, DropReason, u64)> {
        let of = |port, reason: &DropReason| {
            let counted = self.rig.counters.iter().map(|counters| counters.drops(port, *reason));
            (port, *reason, counted.sum::<u64>())
        };
        let by_port = |port| DropReason::ALL.iter().map(move |reason| of(port, reason));
        (0..PORTS as PortId).flat_map(by_port).collect()
    }

    fn state(&self) -> State {
        let (mut stations, mut neighbours) = (Vec::new(), Vec::new());
        self.rig.tables.fdb.for_each(|mac, fid, entry| stations.push(format!("{mac:x} {fid} {entry:?}")));
        self.rig.tables.neigh.for_each(|fid, ip, entry| neighbours.push(format!("{fid} {ip:x} {entry:?}")));
        let looped = (0..PORTS as u16).map(|port| self.rig.tables.loops.is_blocked(port, 0)).collect();
        let mut counted: Vec<u64> = self.drops().into_iter().map(|(_, _, frames)| frames).collect();
        for counters in &self.rig.counters {
            counted.extend(Event::ALL.map(|event| counters.event(event).get()));
            for port in 0..PORTS_MAX as u16 {
                let traffic = counters.port(port);
                counted.extend([traffic.rx_packets.get(), traffic.rx_bytes.get(), traffic.tx_packets.get()]);
            }
        }
        State { stations, neighbours, looped, counted, held: self.held() }
    }

    fn drain(&self) -> Vec<(PortId, Vec<u8>)> {
        let all = |(port, peer): (usize, &MemoryPeer)| {
            // A probe is of the switch's own accord, not what becomes of a frame.
            let left = std::iter::from_fn(|| peer.recv()).filter(|frame| !looks_like_one(frame));
            left.map(move |frame| (port as PortId, frame)).collect::<Vec<_>>()
        };
        self.peers.iter().enumerate().flat_map(all).collect()
    }

    /// Traces a frame, sends it, and compares. What the trace said.
    fn try_one(&mut self, port: usize, frame: Vec<u8>, now: Now) -> Traced {
        self.rig.settle(now);
        self.drain();
        let before = self.state();
        let traced = self.rig.trace(&mut self.dry, port as PortId, &frame, now).unwrap();
        assert_eq!(self.state(), before, "the trace changed something");
        assert_eq!(dropped_elsewhere(&traced), None, "of {} bytes", frame.len());
        let drops = self.drops();
        assert!(self.peers[port].send(frame.clone()));
        self.rig.settle(now);
        let left = self.drain();
        let said: Vec<_> = traced.leaving.iter().map(|out| (out.port, out.bytes.clone())).collect();
        if self.held() >= before.held {
            assert_eq!(said, left, "{traced:#?} of {frame:02x?}");
        } else {
            // It was the answer that others waited for: they left with it.
            assert!(said.iter().all(|out| left.contains(out)), "{traced:#?} of {frame:02x?}");
        }
        assert_eq!(traced.held, self.held() > before.held, "{traced:#?} of {frame:02x?}");
        let grown = self.drops().into_iter().zip(drops).map(|(now, then)| (now.0, now.1, now.2 - then.2));
        let grown: Vec<_> = grown.filter(|(_, _, frames)| *frames > 0).collect();
        if self.held() >= before.held {
            assert_eq!(traced.drops, grown, "{traced:#?} of {frame:02x?}");
        }
        traced
    }
}

/// The reason and the stage of a drop that is not decided in the stage that the reason names, but for those that others may meet first.
fn dropped_elsewhere(traced: &Traced) -> Option<(DropReason, Stage)> {
    let drop = traced.steps.iter().find_map(|step| match step.note.verdict {
        Verdict::Drop(reason) => Some((reason, step.stage)),
        _ => None,
    });
    let met_first = [
        (DropReason::IpHeader, Stage::Guard),
        (DropReason::IpHeader, Stage::Track),
        (DropReason::Isolated, Stage::Route),
        (DropReason::PortClosed, Stage::Guard),
        (DropReason::PortClosed, Stage::Forward),
        (DropReason::LoopBlocked, Stage::Egress),
    ];
    // A flow is made when everybody has agreed, which is the last that is seen of `track`.
    let is_made_late = |(reason, at): &(DropReason, Stage)| {
        reason.stage() == Stage::Track && matches!(at, Stage::Rewrite | Stage::Egress)
    };
    drop.filter(|it| it.0.stage() != it.1 && !met_first.contains(it) && !is_made_late(it))
}

fn station(n: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, n % 6]
}

/// A frame of every kind the switch looks at, by a few bytes.
fn made([kind, src, dst, host, tag, ttl]: [u8; 6]) -> Vec<u8> {
    let source = station(src);
    let to = match dst % 8 {
        0..=2 => OWN,
        3 => [0xff; 6],
        4 => [0x33, 0x33, 0, 0, 0, 1],
        5 => [1, 0x80, 0xc2, 0, 0, 0],
        _ => station(dst / 8),
    };
    let addresses = [[2, 0, 0, 9], [3, 0, 0, 9], [2, 2, 2, 2], [3, 3, 3, 3], [2, 0, 0, 7], [127, 0, 0, 1]];
    let far = [
        [2, 0, 0, 9],
        [3, 0, 0, 9],
        [4, 1, 1, host],
        [5, 1, 1, 1],
        [6, 1, 1, 1],
        [7, 1, 1, 1],
        [2, 2, 2, 2],
        [9, 9, 9, 9],
        [2, 255, 255, 255],
        [224, 0, 0, 1],
    ];
    let (from, toward) = (addresses[usize::from(src) % 6], far[usize::from(host) % 10]);
    let six = |n: u8| [[0x02, 0x02], [0x03, 0x03], [0x04, 0x04], [0xfe, 0x80]][usize::from(n) % 4];
    let v6 = |n: u8| {
        let mut address = [0; 16];
        address[..2].copy_from_slice(&six(n));
        address[15] = n / 4;
        address
    };
    let link = PacketBuilder::ethernet2(source, to);
    let mut frame = Vec::new();
    let ttl = if ttl % 4 == 0 { ttl % 3 } else { 64 };
    let payload = [0x5a; 40];
    let vlan = VlanId::try_new(u16::from(tag % 4)).unwrap();
    match kind % 8 {
        0 | 1 => link.ipv4(from, toward, ttl).udp(7, 9).write(&mut frame, &payload).unwrap(),
        2 => link.ipv4(from, toward, ttl).tcp(7, 9, 1, 2).write(&mut frame, &vec![1; 1450]).unwrap(),
        3 => link.ipv4(from, toward, ttl).icmpv4_echo_request(1, 2).write(&mut frame, &payload).unwrap(),
        4 => link.ipv6(v6(src), v6(host), ttl).udp(7, 9).write(&mut frame, &payload).unwrap(),
        5 => link.ipv6(v6(src), v6(host), ttl).icmpv6_echo_request(1, 2).write(&mut frame, &payload).unwrap(),
        6 => {
            let tagged = link.single_vlan(vlan).ipv4(from, toward, ttl);
            tagged.write(&mut frame, IpNumber::UDP, &payload).unwrap();
        }
        _ => {
            frame.extend(to.iter().chain(&source).chain(&[8, 6, 0, 1, 8, 0, 6, 4, 0, 1 + ttl % 2]));
            frame.extend(source.iter().chain(&from).chain(&[0; 6]).chain(&toward));
            frame.resize(60, 0);
        }
    }
    frame
}

/// So many meet everything often enough to count; a few meet what they meet.
const CASES: u32 = 256;

static SEEN: [AtomicUsize; 4] = [const { AtomicUsize::new(0) }; 4];

fn count(traced: &Traced) {
    let is = [
        traced.leaving.iter().any(|out| out.is_itself),
        traced.leaving.iter().any(|out| !out.is_itself),
        !traced.drops.is_empty(),
        traced.held,
    ];
    SEEN.iter().zip(is).for_each(|(seen, is)| _ = seen.fetch_add(usize::from(is), Ordering::Relaxed));
}

#[test]
fn what_a_trace_says_is_what_the_switch_does() {
    let bytes = proptest::collection::vec(any::<u8>(), 0..80);
    let random = (0..PORTS, prop_oneof![4 => any::<[u8; 6]>().prop_map(made), 1 => bytes]);
    let frames = proptest::collection::vec(random, 1..40);
    let strategy = (any::<[u8; PORTS]>(), any::<bool>(), 1usize..3, frames);
    let config = crate::cases::cases(CASES);
    let drawn = config.cases;
    proptest!(config, |((settings, routed, workers, frames) in strategy)| {
        let mut lab = Lab::new(settings, routed, workers);
        for (n, (port, frame)) in frames.into_iter().enumerate() {
            count(&lab.try_one(port, frame, Now { ns: 1_000_000_000 + n as u64 * STEP_NS }));
        }
        lab.rig.assert_conserved();
    });
    let seen = SEEN.each_ref().map(|seen| seen.load(Ordering::Relaxed));
    assert!(
        drawn < CASES || seen.iter().all(|seen| *seen > 20),
        "sent, said, dropped, held: {seen:?}: too few of one to count"
    );
}

#[test]
fn every_stage_says_what_it_made_of_the_frame() {
    let mut lab = Lab::new([0, 0, 0, 0], true, 1);
    let mut frame = Vec::new();
    let link = PacketBuilder::ethernet2(station(1), OWN);
    link.ipv4([2, 0, 0, 9], [3, 0, 0, 9], 64).udp(7, 9).write(&mut frame, &[0; 20]).unwrap();
    let traced = lab.try_one(0, frame, Now { ns: 1_000_000_000 });
    let stages: Vec<_> = traced.steps.iter().map(|step| step.stage).collect();
    // Nobody keeps flows here, nobody is isolated, nothing is translated, and there is no tunnel.
    let elsewhere =
        |stage: &Stage| matches!(stage, Stage::Track | Stage::Admit | Stage::Translate | Stage::Tunnel);
    let here = |stage: &Stage| stage.is_pipeline() && !elsewhere(stage);
    let expected = Stage::ALL.into_iter().filter(here);
    assert!(expected.clone().all(|stage| stages.contains(&stage)), "{stages:?}");
    assert!(traced.held && traced.events.contains(&Event::NeighAsked), "{traced:#?}");
    assert!(traced.steps[2].events.contains(&Event::MacLearned), "{traced:#?}");
}
