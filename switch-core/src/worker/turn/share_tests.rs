//! Shares in simulation, where a frame costs what the test says, held against what is fair by the book; and real turns with a
//! lane that costs too much.

use super::{AHEAD_NS, Account, Shares};
use crate::counter::{Counters, LOAD_SAMPLE_EVERY};
use crate::frame::{Area, BATCH_FRAMES, Batch, Pool, TxQueue};
use crate::pipeline::Now;
use crate::port::memory::{MemoryPeer, MemoryPort, wire};
use crate::port::traffic::{client, server, udp_frame};
use crate::port::{Port, Remains, Sent, Serviced};
use crate::rig::{Rig, Size};
use proptest::prelude::*;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};
use switch_api::PortSettings;

/// What a turn takes beside its batches.
const TURN_NS: f64 = 150.0;

#[derive(Clone, Debug)]
struct Sim {
    /// What a frame of it costs, nanoseconds.
    frame_ns: f64,
    /// What it asks of the core.
    demand: f64,
    /// Frames that may wait; more is lost.
    ring: f64,
    waiting: f64,
    offered: f64,
    lost: f64,
    served_ns: f64,
    batches: u64,
    turns_waited: u64,
    account: Account,
}

impl Sim {
    fn new(frame_ns: f64, demand: f64, ring: f64) -> Self {
        Self {
            frame_ns,
            demand,
            ring,
            waiting: 0.0,
            offered: 0.0,
            lost: 0.0,
            served_ns: 0.0,
            batches: 0,
            turns_waited: 0,
            account: Account::default(),
        }
    }

    fn arrive(&mut self, ns: f64) {
        let came = ns * self.demand / self.frame_ns;
        self.offered += came;
        self.waiting += came;
        self.lost += (self.waiting - self.ring).max(0.0);
        self.waiting = self.waiting.min(self.ring);
    }

    fn kept(&self) -> f64 {
        1.0 - self.lost / self.offered
    }
}

struct World {
    lanes: Vec<Sim>,
    shares: Shares,
    now_ns: f64,
}

impl World {
    fn new(lanes: &[Sim]) -> Self {
        Self { lanes: lanes.to_vec(), shares: Shares::new(), now_ns: 0.0 }
    }

    fn pass(&mut self, ns: f64) {
        self.now_ns += ns;
        self.lanes.iter_mut().for_each(|lane| lane.arrive(ns));
    }

    fn serve(&mut self, n: usize) -> usize {
        let lane = &mut self.lanes[n];
        let frames = (lane.waiting as usize).min(BATCH_FRAMES);
        if frames == 0 {
            return 0;
        }
        let ns = frames as f64 * lane.frame_ns;
        lane.waiting -= frames as f64;
        lane.served_ns += ns;
        lane.batches += 1;
        if lane.batches.is_multiple_of(LOAD_SAMPLE_EVERY) {
            lane.account.measured(frames, ns as u64);
        }
        self.shares.served(&mut lane.account, frames, frames == BATCH_FRAMES);
        self.pass(ns);
        frames
    }

    /// As a worker does it. Nobody rests while somebody has something to do.
    fn turn(&mut self) {
        let had_some = self.lanes.iter().any(|lane| lane.waiting >= 1.0);
        let (mut frames, mut waits) = (0, false);
        for n in 0..self.lanes.len() {
            if self.shares.is_ahead(&self.lanes[n].account) {
                self.shares.waits(&self.lanes[n].account);
                self.lanes[n].turns_waited += 1;
                waits = true;
            } else {
                frames += self.serve(n);
            }
        }
        if waits && frames == 0 {
            for n in 0..self.lanes.len() {
                if self.shares.is_ahead(&self.lanes[n].account) {
                    frames += self.serve(n);
                }
            }
        }
        self.shares.end_turn();
        assert!(frames > 0 || !had_some, "a turn went by with nothing done");
        self.pass(TURN_NS);
    }

    fn run(&mut self, ns: f64) {
        let end = self.now_ns + ns;
        while self.now_ns < end {
            self.turn();
        }
    }
}

/// The dull twin: what everybody gets of `all` who asks for so much, if who asks for less than an equal part gets it and the
/// others share the rest alike.
fn fair(demands: &[f64], all: f64) -> Vec<f64> {
    let (mut got, mut rest) = (vec![0.0; demands.len()], all);
    let mut asking: Vec<usize> = (0..demands.len()).collect();
    asking.sort_by(|one, other| demands[*one].total_cmp(&demands[*other]));
    for (n, lane) in asking.iter().enumerate() {
        got[*lane] = demands[*lane].min(rest / (asking.len() - n) as f64);
        rest -= got[*lane];
    }
    got
}

#[test]
fn a_flood_of_dear_frames_takes_nothing_from_who_asks_for_less_than_his_part() {
    for (cost, ring) in [(120.0, 1024.0), (250.0, 1024.0), (900.0, 4096.0)] {
        let mut world = World::new(&[Sim::new(cost, 3.0, 1024.0), Sim::new(30.0, 0.3, ring)]);
        world.run(20e6);
        let [flood, other] = [0, 1].map(|n| world.lanes[n].clone());
        assert!(other.kept() > 0.999, "at {cost} ns a frame {:.3} is kept", other.kept());
        // And the flood has what is left.
        assert!(flood.served_ns / world.now_ns > 0.6, "{flood:?}");
    }
}

#[test]
fn who_is_alone_or_costs_as_much_as_the_others_never_waits() {
    let mut alone = World::new(&[Sim::new(900.0, 5.0, 1024.0)]);
    alone.run(5e6);
    assert_eq!(alone.lanes[0].turns_waited, 0);
    // Neighbours who have little to do are no reason to wait either.
    let mut quiet = World::new(&[Sim::new(900.0, 5.0, 1024.0), Sim::new(30.0, 0.001, 1024.0)]);
    quiet.run(5e6);
    assert_eq!(quiet.lanes.iter().map(|lane| lane.turns_waited).sum::<u64>(), 0);
    let mut alike = World::new(&vec![Sim::new(40.0, 2.0, 1024.0); 4]);
    alike.run(5e6);
    assert_eq!(alike.lanes.iter().map(|lane| lane.turns_waited).sum::<u64>(), 0);
}

#[test]
fn what_somebody_had_while_nobody_wanted_it_is_not_held_against_him() {
    let mut world = World::new(&[Sim::new(200.0, 3.0, 1024.0), Sim::new(200.0, 0.0, 1024.0)]);
    world.run(20e6);
    world.lanes[1].demand = 3.0;
    let before = world.lanes[0].served_ns;
    world.run(2e6);
    let share = (world.lanes[0].served_ns - before) / 2e6;
    assert!((0.45..0.55).contains(&share), "{share}");
    // Nor may who was quiet take at once all that he has not had.
    let longest = AHEAD_NS as f64 + 2.0 * 200.0 * BATCH_FRAMES as f64;
    let had = [0, 1].map(|n| world.lanes[n].account.had as f64 / super::PARTS as f64);
    assert!((had[0] - had[1]).abs() <= longest, "{had:?}");
}

#[test]
fn a_core_that_was_taken_away_for_a_while_is_not_what_frames_cost() {
    let mut account = Account::default();
    (0..10).for_each(|_| account.measured(BATCH_FRAMES, 30 * BATCH_FRAMES as u64));
    let before = account.a_frame;
    account.measured(BATCH_FRAMES, 4_000_000);
    assert!(account.a_frame <= 250 * super::PARTS, "{account:?}");
    account.measured(BATCH_FRAMES, 30 * BATCH_FRAMES as u64);
    assert_eq!(account.a_frame, before);
}

fn lane() -> impl Strategy<Value = Sim> {
    (20.0..2000.0, 0.02..2.0).prop_map(|(frame_ns, demand)| Sim::new(frame_ns, demand, 1e9))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn everybody_gets_what_is_fair(lanes in prop::collection::vec(lane(), 1..7)) {
        let mut world = World::new(&lanes);
        // Costs become known.
        world.run(20e6);
        let before: Vec<f64> = world.lanes.iter().map(|lane| lane.served_ns).collect();
        let began = world.now_ns;
        world.run(100e6);
        let all = world.now_ns - began;
        let got: Vec<f64> = world.lanes.iter().zip(before).map(|(lane, had)| (lane.served_ns - had) / all).collect();
        let busy = got.iter().sum::<f64>();
        let demands: Vec<f64> = lanes.iter().map(|lane| lane.demand).collect();
        for (got, fair) in got.iter().zip(fair(&demands, busy)) {
            prop_assert!(*got > fair * 0.95 - 0.005, "{got} for {fair}: {world:?}", world = world.lanes);
        }
    }
}

/// A memory port by which a batch takes long.
#[derive(Debug)]
struct Dear(MemoryPort, Duration);

impl Port for Dear {
    fn recv(&mut self, pool: &mut Pool, batch: &mut Batch) {
        self.0.recv(pool, batch);
        let began = Instant::now();
        while !batch.is_empty() && began.elapsed() < self.1 {}
    }
    fn send(&mut self, pool: &mut Pool, queue: &mut TxQueue) -> Sent {
        self.0.send(pool, queue)
    }
    fn service(&mut self, pool: &mut Pool, busy: bool, counters: &Counters) -> Serviced {
        self.0.service(pool, busy, counters)
    }
    fn wait_on(&self) -> Option<BorrowedFd<'_>> {
        None
    }
    fn may_sleep(&self) -> bool {
        self.0.may_sleep()
    }
    fn held(&self) -> usize {
        0
    }
    fn close(self: Box<Self>, area: &Area) -> Remains {
        Box::new(self.0).close(area)
    }
}

fn keep_full(peer: &MemoryPeer, flow: u32) {
    while peer.waiting() < 512 {
        assert!(peer.send(udp_frame(server(flow), client(flow), flow, 60)));
    }
}

/// In real turns: who costs a thousand times as much has few batches while another has some, waits in his own ring, and loses
/// nothing there; and all that waited is served when the other has no more.
#[test]
fn turns_are_shared_by_what_they_cost() {
    let mut rig = Rig::new(Size::default());
    let (dear, dear_peer) = wire();
    let (cheap, cheap_peer) = wire();
    let (sink, sink_peer) = wire();
    let long = Duration::from_millis(2);
    rig.add_port("dear", PortSettings::default(), Box::new(Dear(dear, long)), 0).unwrap();
    rig.add_port("cheap", PortSettings::default(), Box::new(cheap), 0).unwrap();
    rig.add_port("sink", PortSettings::default(), Box::new(sink), 0).unwrap();
    // The sink's station makes itself known for both flows.
    for flow in [1, 2] {
        assert!(sink_peer.send(udp_frame(client(flow), server(flow), flow, 60)));
    }
    rig.settle(Now::default());
    let mut came = [0u64; 3];
    let take = |came: &mut [u64; 3]| {
        while let Some(frame) = sink_peer.recv() {
            came[usize::from(frame[29].min(2))] += 1;
        }
        while dear_peer.recv().is_some() || cheap_peer.recv().is_some() {}
    };
    for _ in 0..400 {
        keep_full(&dear_peer, 1);
        keep_full(&cheap_peer, 2);
        rig.run(Now::default());
        take(&mut came);
    }
    let [_, of_dear, of_cheap] = came;
    assert!(of_cheap > 300 * BATCH_FRAMES as u64, "{came:?}");
    // Its cost is found out by doubling; then it has next to nothing.
    assert!(of_dear > 0 && of_dear < of_cheap / 4, "{came:?}");
    assert_eq!(dear_peer.waiting(), 512 - BATCH_FRAMES * usize::from(dear_peer.waiting() < 512));
    let before = of_dear + dear_peer.waiting() as u64;
    rig.settle(Now::default());
    take(&mut came);
    assert_eq!((came[1], dear_peer.waiting()), (before, 0));
    assert_eq!(rig.drops(crate::counter::DropReason::TxQueueFull), 0);
}

/// Who waits does so for a lane with a batch waiting. When that proves to be empty, he is served in the same turn.
#[test]
fn nothing_is_idle_while_somebody_waits() {
    let mut rig = Rig::new(Size::default());
    let (one, one_peer) = wire();
    let (other, other_peer) = wire();
    rig.add_port("one", PortSettings::default(), Box::new(one), 0).unwrap();
    rig.add_port("other", PortSettings::default(), Box::new(other), 0).unwrap();
    rig.settle(Now::default());
    rig.turns[0].lanes[0].account.had = 1 << 40;
    let batches = |peer: &MemoryPeer, count: usize| {
        for _ in 0..count * BATCH_FRAMES {
            assert!(peer.send(udp_frame(server(1), client(1), 1, 60)));
        }
    };
    batches(&one_peer, 2);
    batches(&other_peer, 2);
    // Nobody has had too much yet; then the one that has had so much waits.
    for wanted in [(2, 1, 1), (1, 1, 0), (1, 0, 0)] {
        let served = rig.run(Now::default()) / BATCH_FRAMES;
        let left = [&one_peer, &other_peer].map(|peer| peer.waiting() / BATCH_FRAMES);
        assert_eq!((served, left[0], left[1]), wanted);
    }
}
