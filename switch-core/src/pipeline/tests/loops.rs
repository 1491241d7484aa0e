//! Two ports that are patched together: found, blocked both ways, at one end only.

use super::*;
use crate::frame::{Area, AreaSize, Pool};
use crate::pipeline::probe::{LoopWatch, looks_like_one};
use crate::table::loops::HOLD_S;

const NOW: Now = Now { ns: 5_000_000_000 };
/// What a turn of a busy worker takes, and a veth.
const TURN_NS: u64 = 50_000;
/// A tenth of half a second.
const TURNS: u64 = 1000;

/// A pod on port 0; ports 1 and 2 are the ends of one cable.
struct Cable {
    rig: Rig,
    peers: Vec<MemoryPeer>,
    /// Whether it carries what leaves by port 2, too.
    both_ways: bool,
    /// Frames it carried, probes not counted.
    carried: u64,
    heard_by_pod: u64,
}

impl Cable {
    fn new(ends: [PortSettings; 2], workers: usize, both_ways: bool) -> Self {
        let [one, other] = ends;
        let (rig, peers) = rig(&[PortSettings::default(), one, other], workers, 1);
        Self { rig, peers, both_ways, carried: 0, heard_by_pod: 0 }
    }

    /// A turn of every worker, then the cable's.
    fn turn(&mut self, now: Now) {
        self.rig.run(now);
        let heard = std::iter::from_fn(|| self.peers[0].recv()).filter(|frame| !looks_like_one(frame));
        self.heard_by_pod += heard.count() as u64;
        for (from, to) in [(1, 2), (2, 1)] {
            let frames: Vec<_> = std::iter::from_fn(|| self.peers[from].recv()).collect();
            for frame in frames.into_iter().filter(|_| from == 1 || self.both_ways) {
                self.carried += u64::from(!looks_like_one(&frame));
                assert!(self.peers[to].send(frame));
            }
        }
    }

    /// Half a second passes; how many frames the cable still carried in the last tenth of it.
    fn pass(&mut self) -> u64 {
        let mut late = 0;
        for tenth in 0..10 {
            let before = self.carried;
            for step in 0..TURNS {
                self.turn(Now { ns: NOW.ns + (tenth * TURNS + step) * TURN_NS });
            }
            late = self.carried - before;
        }
        late
    }

    fn blocked(&self, now: Now) -> Vec<u16> {
        (0..3).filter(|port| self.rig.tables.loops.is_blocked(*port, now.s())).collect()
    }
}

fn said(to: [u8; 6], from: u8) -> Vec<u8> {
    let mut frame = [&to[..], &[2, 0, 0, 0, 0, from], &[0x88, 0xb6]].concat();
    frame.resize(60, from);
    frame
}

const ALL: [u8; 6] = [0xff; 6];

fn mute() -> PortSettings {
    PortSettings {
        flood: Flood { unknown_unicast: false, multicast: false, broadcast: false },
        ..PortSettings::default()
    }
}

fn trunk() -> PortSettings {
    let vlan = Vlan::Trunk { vids: vec![VidRange { first: Vid::DEFAULT, last: Vid::DEFAULT }], native: None };
    PortSettings { vlan, ..PortSettings::default() }
}

#[test]
fn a_loop_dies_and_one_end_of_it_stays() {
    for workers in [1, 2, 3] {
        for (ends, stations) in [
            ([PortSettings::default(), PortSettings::default()], 1),
            ([PortSettings::default(), PortSettings::default()], 7),
            ([PortSettings::default(), mute()], 1),
            ([mute(), PortSettings::default()], 7),
            ([trunk(), trunk()], 3),
        ] {
            let words = format!("{workers} workers, {stations} stations, {ends:?}");
            let mut cable = Cable::new(ends, workers, true);
            for station in 1..=stations {
                assert!(cable.peers[0].send(said(ALL, station)));
            }
            assert_eq!(cable.pass(), 0, "frames go on circling: {words}");
            let blocked = cable.blocked(NOW);
            assert!(blocked == [1] || blocked == [2], "blocked are {blocked:?}: {words}");
            // A broadcast goes out by the other end and comes to its end there.
            let (carried, heard) = (cable.carried, cable.heard_by_pod);
            assert!(cable.peers[0].send(said(ALL, 1)));
            assert_eq!(cable.pass(), 0, "{words}");
            assert!(cable.carried - carried <= 1 && cable.heard_by_pod == heard, "{words}");
            cable.rig.assert_conserved();
        }
    }
}

#[test]
fn a_known_station_behind_a_blocked_port_is_not_sent_to() {
    let (mut rig, peers) = rig(&[PortSettings::default(), PortSettings::default()], 1, 1);
    let to_it = || said([2, 0, 0, 0, 0, 9], 1);
    assert!(peers[1].send(said(ALL, 9)));
    rig.settle(NOW);
    rig.tables.loops.found(1, 1, NOW.s());
    assert!(peers[0].send(to_it()));
    assert!(peers[0].send(said(ALL, 1)));
    rig.settle(NOW);
    assert_eq!((rig.drops(DropReason::LoopBlocked), peers[1].recv()), (2, None));
    // And again when it is open.
    let later = Now { ns: NOW.ns + u64::from(HOLD_S) * 1_000_000_000 };
    assert!(peers[0].send(to_it()));
    rig.settle(later);
    assert_eq!(peers[1].recv(), Some(to_it()));
    rig.assert_conserved();
}

/// No station hops: what is left is that frames are flooded without end.
#[test]
fn frames_that_are_flooded_without_end_are_suspicious() {
    let mut cable = Cable::new([PortSettings::default(), mute()], 1, true);
    // The station is known where the frame comes back: it was there before.
    assert!(cable.peers[2].send(said(ALL, 1)));
    cable.rig.settle(NOW);
    assert!(cable.peers[0].recv().is_some() && cable.peers[1].recv().is_some());
    // What a cable carries from its middle.
    assert!(cable.peers[2].send(said(ALL, 1)));
    assert_eq!(cable.pass(), 0);
    assert_eq!(cable.blocked(NOW).len(), 1);
    cable.rig.assert_conserved();
}

/// A pod that makes its neighbour's MAC hop has no loop behind it, and blocks nobody.
#[test]
fn hopping_alone_blocks_nobody() {
    let (mut rig, peers) = rig(&[PortSettings::default(), PortSettings::default()], 2, 1);
    let mut probes = 0;
    for step in 0..1000 {
        let now = Now { ns: NOW.ns + step * 1_000_000 };
        assert!(peers[step as usize % 2].send(said(ALL, 1)));
        rig.settle(now);
        for peer in &peers {
            probes += std::iter::from_fn(|| peer.recv()).filter(|frame| looks_like_one(frame)).count();
        }
    }
    assert!((2..=20).contains(&probes), "{probes} probes in a second");
    assert!((0..2).all(|port| !rig.tables.loops.is_blocked(port, NOW.s())));
    rig.assert_conserved();
}

/// Nobody is blocked by a pod's probe but that pod, whatever port it says it left by.
#[test]
fn a_forged_probe_blocks_who_sent_it() {
    let (mut rig, peers) = rig(&[PortSettings::default(), PortSettings::default(), mute()], 1, 1);
    for port in [0, 1, 0] {
        assert!(peers[port].send(said(ALL, 1)));
        rig.settle(NOW);
    }
    let mut probe = std::iter::from_fn(|| peers[0].recv()).find(|frame| looks_like_one(frame)).unwrap();
    probe[15] = 2;
    assert!(peers[0].send(probe));
    rig.settle(NOW);
    let blocked: Vec<u16> = (0..3).filter(|port| rig.tables.loops.is_blocked(*port, NOW.s())).collect();
    assert_eq!(blocked, [0]);
}

/// What circles may have all the frames there are.
#[test]
fn a_probe_waits_for_a_frame_to_go_in() {
    let (rig, _peers) = rig(&[PortSettings::default(), PortSettings::default()], 1, 1);
    let size = AreaSize { chunk_bytes: 2048, chunks: 4, large: 0 };
    let (area, frames) = Area::new(size).unwrap();
    let mut pool = Pool::deal(std::sync::Arc::new(area), frames, 1).pop().unwrap();
    let mut watch = LoopWatch::new(2, 1);
    watch.suspect(1, rig.snapshot().port(1).unwrap().vlans.untagged.0, NOW);
    let mut taken: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
    assert!(watch.next(rig.snapshot(), &mut pool).is_none());
    pool.give(taken.pop().unwrap());
    let (port, frame) = watch.next(rig.snapshot(), &mut pool).expect("it is not forgotten");
    assert!(port == 1 && looks_like_one(pool.area().bytes(&frame)));
    taken.push(frame);
    assert!(watch.next(rig.snapshot(), &mut pool).is_none(), "once is enough");
    taken.into_iter().for_each(|frame| pool.give(frame));
}
