//! A flood beside established flows, in real turns of one worker with its real lanes: two memory ports of a policed switch. By the
//! first come packets of flows that never were, as many as are taken; by the second those of known flows, at a rate. What
//! the second finds no room for in its ring is lost, as it would be in a device's.

use crate::flows::{TCP, Template, UDP, flooding, workload, xorshift};
use quanta::Clock;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, PoisonError};
use switch_api::{NetworkPolicy, PortLabel, PortSettings, Request};
use switch_core::counter::{Counters, Event};
use switch_core::frame::{Area, Batch, Pool, TxQueue};
use switch_core::pipeline::Now;
use switch_core::port::{Port, Remains, Sent, Serviced};
use switch_core::rig::{Rig, Size};
use switch_core::table::flow::FLOWS_DEFAULT;

/// Packets of the established flows that may wait.
const RING: f64 = 1024.0;
/// When it begins: nothing is as old as the clock.
const START_NS: u64 = 1_000_000_000;
/// Frames of the worker.
const FRAMES: u32 = 4096;

/// What comes in by a port.
#[derive(Clone, Copy, Debug)]
pub enum Comes {
    /// Nothing.
    Nothing,
    /// Each flow once, from the first to the last.
    Each(u32, u32),
    /// New flows from so many addresses, between any ports that rules let through.
    Flood(u32),
    /// Random ones of the first so many flows, as many as are taken.
    Any(u32),
    /// The same, so many packets a nanosecond.
    Paced(u32, f64),
}

/// What a port's outside did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Done {
    /// Packets that came.
    pub offered: f64,
    /// Those that found no room in the ring.
    pub lost: f64,
    /// Packets that were taken in.
    pub taken: u64,
}

#[derive(Debug)]
struct Outside {
    comes: Comes,
    done: Done,
    waiting: f64,
    looked_ns: u64,
    seed: u64,
}

/// A port's lane.
#[derive(Debug)]
struct Door {
    number: usize,
    outside: Arc<Mutex<Outside>>,
    template: Template,
    clock: Clock,
}

/// The switch, and what is outside of it.
#[derive(Debug)]
pub struct Beside {
    rig: Rig,
    outside: [Arc<Mutex<Outside>>; 2],
    clock: Clock,
    began: u64,
}

impl Beside {
    /// Under these policies, which are about the second port.
    pub fn new(policies: &[NetworkPolicy]) -> Self {
        let mut rig = Rig::new(Size { frames: FRAMES, flows: FLOWS_DEFAULT, ..Size::default() });
        let clock = Clock::new();
        let outside = [0, 1].map(|number| {
            Arc::new(Mutex::new(Outside {
                comes: Comes::Nothing,
                done: Done::default(),
                waiting: 0.0,
                looked_ns: 0,
                seed: 1_234_567_891_011 + number as u64,
            }))
        });
        let failed = |error: switch_api::ApiError| -> ! { panic!("{error}") };
        // Policies first: they are compiled when there is somebody whom they are about, once.
        for policy in policies {
            let added = rig.declare(&Request::PolicyAdd(Box::new(policy.clone())));
            added.unwrap_or_else(|error| failed(error));
        }
        for (number, name) in ["a", "b"].into_iter().enumerate() {
            let template = Template::new();
            let door = Door { number, outside: outside[number].clone(), template, clock: clock.clone() };
            let settings = PortSettings { track: true, ..PortSettings::default() };
            rig.add_port(name, settings, Box::new(door), 0).unwrap_or_else(|error| failed(error));
        }
        let name = "b".parse().unwrap_or_else(|error| panic!("{error}"));
        let label = PortLabel { name, workload: Some(workload()) };
        rig.declare(&Request::PortLabel(label)).unwrap_or_else(|error| failed(error));
        let began = clock.raw();
        Self { rig, outside, clock, began }
    }

    fn now_ns(&self) -> u64 {
        START_NS + self.clock.delta_as_nanos(self.began, self.clock.raw())
    }

    /// Turns for so long, in milliseconds, while this comes by the two ports. What they did, and in how many nanoseconds.
    pub fn run(&mut self, comes: [Comes; 2], ms: u64) -> ([Done; 2], u64) {
        for (outside, comes) in self.outside.iter().zip(comes) {
            let mut outside = outside.lock().unwrap_or_else(PoisonError::into_inner);
            (outside.comes, outside.done, outside.waiting, outside.looked_ns) =
                (comes, Done::default(), 0.0, 0);
        }
        let start = self.now_ns();
        let (mut now, end) = (start, start + ms * 1_000_000);
        while now < end {
            self.rig.run(Now { ns: now });
            now = self.now_ns();
        }
        let done = self
            .outside
            .each_ref()
            .map(|outside| outside.lock().unwrap_or_else(PoisonError::into_inner).done);
        (done, now - start)
    }

    /// So many flows, begun by the second port and answered by the first.
    pub fn establish(&mut self, flows: u32) -> Result<(), String> {
        let each = Comes::Each(0, flows);
        // The stations make themselves known.
        for comes in [[Comes::Nothing, Comes::Each(0, 1)], [Comes::Each(0, 1), Comes::Nothing]] {
            self.run(comes, 2);
        }
        for comes in [[Comes::Nothing, each], [each, Comes::Nothing]] {
            self.run(comes, 20);
        }
        let counted = self.rig.tables.flows.counted();
        if counted.all < flows || counted.half_open > 0 {
            return Err(format!("of {flows} flows {} are there", counted.all));
        }
        Ok(())
    }

    /// New flows so far.
    pub fn new_flows(&self) -> u64 {
        self.rig.counters.iter().map(|counters| counters.event(Event::FlowNew).get()).sum()
    }
}

impl Outside {
    /// How many packets may be taken now.
    fn allowance(&mut self, now: impl Fn() -> u64) -> usize {
        match &mut self.comes {
            Comes::Nothing => 0,
            Comes::Each(next, end) => (*end - *next) as usize,
            Comes::Flood(_) | Comes::Any(_) => usize::MAX,
            Comes::Paced(_, rate) => {
                let now = now();
                let since = if self.looked_ns == 0 { 0 } else { now - self.looked_ns };
                let came = since as f64 * *rate;
                self.looked_ns = now;
                self.done.offered += came;
                self.waiting += came;
                self.done.lost += (self.waiting - RING).max(0.0);
                self.waiting = self.waiting.min(RING);
                self.waiting as usize
            }
        }
    }

    /// The next packet's flow and ports.
    fn next(&mut self) -> (u32, [u16; 2]) {
        const PORTS: [u16; 2] = [5, 6];
        match &mut self.comes {
            Comes::Nothing => (0, PORTS),
            Comes::Each(next, _) => {
                *next += 1;
                (*next - 1, PORTS)
            }
            Comes::Flood(addresses) => flooding(*addresses, &mut self.seed),
            Comes::Any(flows) | Comes::Paced(flows, _) => {
                self.waiting -= 1.0;
                ((xorshift(&mut self.seed) % u64::from(*flows)) as u32, PORTS)
            }
        }
    }
}

impl Port for Door {
    fn recv(&mut self, pool: &mut Pool, batch: &mut Batch) {
        let mut outside = self.outside.lock().unwrap_or_else(PoisonError::into_inner);
        let allowance = outside.allowance(|| self.clock.delta_as_nanos(0, self.clock.raw()));
        let protocol = if matches!(outside.comes, Comes::Flood(_)) { TCP } else { UDP };
        for _ in 0..allowance.min(batch.room()) {
            let Some(mut frame) = pool.take() else { return };
            let (flow, ports) = outside.next();
            assert!(pool.area().fill(&mut frame, self.template.write(self.number, protocol, flow, ports)));
            frame.offload.csum = switch_core::wire::checksum::Csum::Complete;
            batch.push(frame);
            outside.done.taken += 1;
        }
    }

    fn send(&mut self, pool: &mut Pool, queue: &mut TxQueue) -> Sent {
        let mut sent = Sent::default();
        for frame in queue.take(usize::MAX) {
            sent.packets += 1;
            sent.bytes += frame.len() as u64;
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
        false
    }

    fn held(&self) -> usize {
        0
    }

    fn close(self: Box<Self>, _: &Area) -> Remains {
        Remains::default()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic where it stands")]

    use super::*;

    /// What the figure is made of happens: flows stand, others begin, and what is offered is taken or lost.
    #[test]
    fn flows_stand_beside_a_flood_that_begins_others() {
        let policies = crate::figures::policy::few_policies().unwrap();
        let mut beside = Beside::new(&policies);
        beside.establish(100).unwrap();
        let ([_, alone], ns) = beside.run([Comes::Nothing, Comes::Any(100)], 5);
        assert!(alone.taken > 0);
        let (rate, before) = (0.1 * alone.taken as f64 / ns as f64, beside.new_flows());
        let ([flood, paced], _) = beside.run([Comes::Flood(1 << 20), Comes::Paced(100, rate)], 20);
        assert!(flood.taken > 0 && beside.new_flows() > before + flood.taken / 2);
        let accounted = paced.taken as f64 + paced.lost;
        assert!(paced.offered > 0.0 && (accounted - paced.offered).abs() <= RING + 1.0, "{paced:?}");
    }
}
