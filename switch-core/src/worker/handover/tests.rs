//! Handovers in simulation: workers' turns, the control thread's steps and arrivals in an order that a seed makes. A failing
//! seed is printed.

use super::Move;
use crate::config::snapshot::PortId;
use crate::counter::{Counters, DropReason};
use crate::frame::{Area, Batch, Pool, TxQueue};
use crate::pipeline::Now;
use crate::port::traffic::{client, server, udp_frame};
use crate::port::{Port, Remains, Sent, Serviced};
use crate::rig::{Rig, Size};
use proptest::prelude::*;
use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex};
use switch_api::PortSettings;

const WORKERS: u16 = 3;
/// Ports by their number of lanes. What leaves by the last is taken as slowly as the seed likes.
const LANES: [usize; 4] = [2, 3, 1, 2];
const FLOWS: u32 = 24;
/// Frames under way: fewer than a queue holds, so that none has to be dropped.
const UNDER_WAY_MAX: usize = 200;
const NUMBER_AT: usize = 42;

/// What a port's lanes have in common.
#[derive(Debug, Default)]
struct Outside {
    /// What left, in the order in which it left: flow and number.
    left: Vec<(u32, u64)>,
    room: usize,
}

#[derive(Clone, Debug, Default)]
struct Lane {
    inward: Arc<Mutex<VecDeque<Vec<u8>>>>,
    outside: Arc<Mutex<Outside>>,
}

impl Port for Lane {
    fn recv(&mut self, pool: &mut Pool, batch: &mut Batch) {
        let mut inward = self.inward.lock().unwrap();
        while !batch.is_full() && !inward.is_empty() && pool.free() > 0 {
            let (mut frame, packet) = (pool.take().unwrap(), inward.pop_front().unwrap());
            assert!(pool.area().fill(&mut frame, &packet));
            batch.push(frame);
        }
    }

    fn send(&mut self, pool: &mut Pool, queue: &mut TxQueue) -> Sent {
        let mut outside = self.outside.lock().unwrap();
        let room = outside.room.min(queue.len());
        outside.room -= room;
        let mut sent = Sent::default();
        for frame in queue.take(room) {
            let bytes = pool.area().bytes(&frame);
            let flow = u32::from_be_bytes([0, bytes[27], bytes[28], bytes[29]]);
            outside
                .left
                .push((flow, u64::from_be_bytes(bytes[NUMBER_AT..NUMBER_AT + 8].try_into().unwrap())));
            sent.packets += 1;
            pool.give(frame);
        }
        sent
    }

    fn service(&mut self, _: &mut Pool, _: bool, _: &Counters) -> Serviced {
        Serviced::WELL
    }
    fn wait_on(&self) -> Option<BorrowedFd<'_>> {
        None
    }
    fn may_sleep(&self) -> bool {
        self.inward.lock().unwrap().is_empty()
    }
    fn held(&self) -> usize {
        0
    }
    fn close(self: Box<Self>, _: &Area) -> Remains {
        Remains::default()
    }
}

struct Rng(u64);

impl Rng {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % n
    }
}

/// A flow between two ports: it comes in by one lane, always the same.
#[derive(Clone, Copy)]
struct Flow {
    from: usize,
    lane: usize,
    to: usize,
    sent: u64,
}

struct Scene {
    rig: Rig,
    rng: Rng,
    ids: Vec<PortId>,
    lanes: Vec<Vec<Lane>>,
    /// Who serves each lane.
    workers: Vec<Vec<u16>>,
    flows: Vec<Flow>,
}

impl Scene {
    fn new(seed: u64) -> Self {
        let mut rng = Rng(seed | 1);
        let mut rig = Rig::new(Size { workers: WORKERS.into(), frames: 3 * 1024, ..Size::default() });
        let (mut ids, mut all, mut workers) = (Vec::new(), Vec::new(), Vec::new());
        for (n, count) in LANES.into_iter().enumerate() {
            let outside = Arc::<Mutex<Outside>>::default();
            outside.lock().unwrap().room = usize::MAX;
            let lanes: Vec<_> =
                (0..count).map(|_| Lane { outside: outside.clone(), ..Lane::default() }).collect();
            let of: Vec<u16> = lanes.iter().map(|_| rng.below(WORKERS.into()) as u16).collect();
            let doors =
                lanes.iter().zip(&of).map(|(lane, of)| (Box::new(lane.clone()) as Box<dyn Port>, *of));
            ids.push(
                rig.add_lanes_to("br0", &format!("p{n}"), PortSettings::default(), doors.collect()).unwrap(),
            );
            all.push(lanes);
            workers.push(of);
        }
        let mut flow = |_| {
            let from = rng.below(LANES.len());
            let to = (from + 1 + rng.below(LANES.len() - 1)) % LANES.len();
            Flow { from, lane: rng.below(LANES[from]), to, sent: 0 }
        };
        let flows: Vec<Flow> = (0..FLOWS).map(&mut flow).collect();
        let mut scene = Self { rig, rng, ids, lanes: all, workers, flows };
        scene.teach();
        scene
    }

    /// Where every flow's far end is, is known, so that nothing is flooded.
    fn teach(&mut self) {
        for (n, flow) in self.flows.iter().enumerate() {
            let back = udp_frame(client(n as u32), server(n as u32), n as u32, 60);
            self.lanes[flow.to][0].inward.lock().unwrap().push_back(back);
        }
        self.rig.settle(Now::default());
        self.lanes.iter().for_each(|lanes| lanes[0].outside.lock().unwrap().left.clear());
    }

    fn left(&self) -> usize {
        self.lanes.iter().map(|lanes| lanes[0].outside.lock().unwrap().left.len()).sum()
    }

    fn arrive(&mut self) {
        let under_way = self.flows.iter().map(|flow| flow.sent as usize).sum::<usize>() - self.left();
        for _ in 0..self.rng.below(12).min(UNDER_WAY_MAX.saturating_sub(under_way)) {
            let n = self.rng.below(self.flows.len());
            let flow = &mut self.flows[n];
            let mut frame = udp_frame(server(n as u32), client(n as u32), n as u32, 60);
            frame[NUMBER_AT..NUMBER_AT + 8].copy_from_slice(&flow.sent.to_be_bytes());
            flow.sent += 1;
            self.lanes[flow.from][flow.lane].inward.lock().unwrap().push_back(frame);
        }
    }

    /// Some of what can happen next, whoever's turn it is.
    fn happen(&mut self) {
        self.arrive();
        let slow = &self.lanes[LANES.len() - 1][0].outside;
        slow.lock().unwrap().room = self.rng.below(6);
        for _ in 0..self.rng.below(4) {
            let worker = self.rng.below(WORKERS.into());
            self.rig.turns[worker].run(Now::default());
        }
    }

    /// Moves some lanes of a port anywhere, unless it is given up on the way. Whether it was not.
    fn move_some(&mut self) -> bool {
        let port = self.rng.below(LANES.len());
        let mut moves = Vec::new();
        for (queue, from) in self.workers[port].clone().into_iter().enumerate() {
            let to = self.rng.below(WORKERS.into()) as u16;
            if to != from {
                moves.push(Move { queue: queue as u16, from, to });
            }
        }
        let mut handover = self.rig.begin_to_move(self.ids[port], moves);
        let patience = if self.rng.below(8) == 0 { self.rng.below(10) } else { 500 };
        for waited in 0.. {
            if self.rig.step(self.ids[port], &mut handover) {
                break;
            }
            if waited >= patience && handover.can_be_given_up() {
                self.rig.go_on(&handover, 0);
                return false;
            }
            self.happen();
        }
        for lane in handover.done() {
            self.workers[port][usize::from(lane.queue)] = lane.to;
        }
        true
    }

    /// Every frame of every flow left by the right port, once and in order.
    fn check(&mut self) -> Result<(), TestCaseError> {
        for lanes in &self.lanes {
            lanes[0].outside.lock().unwrap().room = usize::MAX;
        }
        self.rig.settle(Now::default());
        for (n, flow) in self.flows.iter().enumerate() {
            let outside = self.lanes[flow.to][0].outside.lock().unwrap();
            let left = outside.left.iter().filter(|(of, _)| *of == n as u32).map(|(_, number)| *number);
            prop_assert_eq!(left.collect::<Vec<_>>(), (0..flow.sent).collect::<Vec<_>>(), "flow {}", n);
        }
        for reason in DropReason::ALL {
            prop_assert_eq!(self.rig.drops(*reason), 0, "{}", reason.name());
        }
        self.rig.assert_conserved();
        Ok(())
    }
}

proptest! {
    #![proptest_config(crate::cases::cases(48))]

    #[test]
    fn no_frame_is_lost_or_overtaken_while_lanes_move(seed in any::<u64>()) {
        let mut scene = Scene::new(seed);
        let mut moved = 0;
        for _ in 0..25 {
            (0..scene.rng.below(20)).for_each(|_| scene.happen());
            moved += u32::from(scene.move_some());
        }
        prop_assert!(moved > 5, "hardly anything moved");
        scene.check()?;
    }
}

/// A lane that its worker does not have moves nowhere, and everybody goes on.
#[test]
fn a_lane_that_is_not_there_stops_nobody() {
    let mut scene = Scene::new(7);
    let port = scene.ids[2];
    let elsewhere = (scene.workers[2][0] + 1) % WORKERS;
    let to = (elsewhere + 1) % WORKERS;
    let mut handover = scene.rig.begin_to_move(port, vec![Move { queue: 0, from: elsewhere, to }]);
    while !scene.rig.step(port, &mut handover) {
        scene.happen();
    }
    assert!(!handover.is_complete() && handover.done().is_empty());
    (0..100).for_each(|_| scene.happen());
    scene.check().unwrap();
}
