//! The pipelines by themselves, one core, small frames from memory to nowhere: the switch's, Open vSwitch's userspace datapath over DPDK's
//! `net_pcap` and `net_null`, and testpmd, which does nothing, between the same devices and between two null ports. Behind a veth all of them
//! wait for the kernel; here is what they cost themselves. Null ports give frames of zeros, which nothing routes: so those that a switch gets are
//! of a capture.

use super::device::TUNED;
use super::merge;
use super::result::{Alone, AloneRound, Results, Run, Skipped};
use super::run::Plan;
use super::task::{Task, Traffic};
use crate::cycles::{median, per_tick};
use crate::peers::ovs_memory::{self, Capture};
use crate::peers::{Testpmd, null};
use crate::{pipeline, routed, vpp};
use quanta::Clock;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering::Relaxed;

/// Of each reading of the switch.
const BATCHES: usize = 400;
const WINDOWS: usize = 5;
/// Routes of the switch.
const ROUTES: usize = 10;
/// Mpps of testpmd from a capture, to which Open vSwitch's usual ratios are.
const MOVED_MPPS: f64 = 39.0;
/// How devices are called here.
const OVS: &str = "OVS over net_pcap and net_null";
const MOVED: &str = "testpmd over the same";
const NULL: &str = "testpmd over null ports";

/// The switch's pipeline, whichever is asked for.
enum Ours {
    Bridged(Box<pipeline::Bench>),
    Routed(Box<routed::Bench>),
}

impl Ours {
    fn new(task: Task, flows: u32) -> Result<Self, String> {
        let routed = |bench| Self::Routed(Box::new(bench));
        Ok(match task {
            Task::Bridge => {
                let pairs = flows.min(Traffic::stations_max());
                Self::Bridged(Box::new(pipeline::Bench::between(flows, pairs)))
            }
            Task::Route => routed(routed::Bench::new(ROUTES, flows as usize)),
            Task::Police(rules) => routed(routed::Bench::policed(ROUTES, flows as usize, rules)?),
        })
    }

    /// Ticks a packet.
    fn measure(&mut self, clock: &Clock, seed: &mut u64) -> f64 {
        match self {
            Self::Bridged(bench) => {
                bench.warm();
                bench.measure(clock, WINDOWS, BATCHES).ticks
            }
            Self::Routed(bench) => {
                bench.warm(seed);
                median((0..WINDOWS).map(|_| bench.measure(clock, BATCHES, seed)).collect())
            }
        }
    }
}

/// What is measured, and with how many flows.
struct Cell {
    task: Task,
    flows: u32,
    ours: Ours,
    rounds: Vec<AloneRound>,
}

/// Open vSwitch's packets a second as a multiple of testpmd's from a capture, as measured elsewhere on this kind of machine.
fn usual(task: Task, flows: u32) -> Option<f64> {
    let mpps = match (task, flows) {
        (Task::Bridge, 1) => 19.6,
        (Task::Bridge, 1_000) => 16.0,
        (Task::Bridge, 100_000) => 5.8,
        (Task::Police(_), 1) => 6.5,
        (Task::Police(_), 1_000) => 3.5,
        (Task::Police(_), 100_000) => 1.9,
        _ => return None,
    };
    Some(mpps / MOVED_MPPS)
}

/// VPP's cycles for a task of this name, as far as they are known: of its stateful lists without routing, with 100 rules.
pub fn vpp(task: &str, flows: u32) -> Option<f64> {
    let task = Task::ALL.into_iter().find(|one| one.name() == task)?;
    let (few, many) = (flows == 1_000, flows == 100_000);
    match task {
        Task::Bridge => Some(vpp::L2[usize::from(many)]),
        Task::Route => Some(vpp::L3[usize::from(many)]),
        Task::Police(_) => (few || many).then(|| vpp::POLICY[usize::from(many)]),
    }
}

/// Measures every task with each number of flows that the plan has.
pub fn run(plan: &Plan, run: &mut Run, say: impl Fn(&str)) -> Results {
    let (mut results, began) = (Results::default(), run.began.clone());
    let mut skip = |device: &str, why: String| {
        let skipped = Skipped { run: began.clone(), what: format!("{}: {device}", merge::ALONE), why };
        if !results.skipped.contains(&skipped) {
            results.skipped.push(skipped);
        }
    };
    introduce(run, &mut skip);
    let mut flows: Vec<u32> = plan.traffic.iter().map(|traffic| traffic.flows).collect();
    flows.sort_unstable();
    flows.dedup();
    let mut cells = Vec::new();
    for (task, flows) in Task::ALL.iter().flat_map(|task| flows.iter().map(move |flows| (*task, *flows))) {
        let (name, rounds) = (format!("{}, {flows} flows", task.name()), Vec::new());
        let ours = catch_unwind(|| Ours::new(task, flows));
        match ours.unwrap_or_else(|_| Err("it could not be set up, see above".into())) {
            Ok(ours) => cells.push(Cell { task, flows, ours, rounds }),
            Err(why) => skip(&format!("the switch, {name}"), why),
        }
    }
    let (clock, mut seed) = (Clock::new(), 7);
    for number in 0..plan.rounds {
        let mut told = |device: &str, came: std::thread::Result<Result<f64, String>>| {
            let came = came.unwrap_or_else(|_| Err("it could not be set up, see above".into()));
            came.map_err(|why| skip(device, why)).ok()
        };
        if plan.interrupted.load(Relaxed) {
            break;
        }
        say(&format!("{}, round {} of {}: {NULL}", merge::ALONE, number + 1, plan.rounds));
        let null_ns = told(NULL, catch_unwind(|| null::yardstick().map(|pps| 1e9 / pps)));
        for flows in &flows {
            say(&format!("{}, round {} of {}: {flows} flows", merge::ALONE, number + 1, plan.rounds));
            let moved = || Capture::new(Task::Route, *flows)?.moved();
            let moved_ns = told(&format!("{MOVED}, {flows} flows"), catch_unwind(moved));
            for cell in cells.iter_mut().filter(|cell| cell.flows == *flows) {
                if plan.interrupted.load(Relaxed) {
                    break;
                }
                let through = AssertUnwindSafe(|| Capture::new(cell.task, *flows)?.through_ovs());
                let name = format!("{OVS}, {}, {flows} flows", cell.task.name());
                let ovs_ns = told(&name, catch_unwind(through));
                let scale = per_tick(&clock);
                let ticks = cell.ours.measure(&clock, &mut seed);
                let switch_ns = ticks * clock.delta_as_nanos(0, 1_000_000) as f64 / 1e6;
                let switch_cycles = ticks * scale;
                cell.rounds.push(AloneRound { switch_ns, switch_cycles, ovs_ns, moved_ns, null_ns });
            }
        }
    }
    results.alone = cells.into_iter().map(|cell| judged(cell, &run.began)).collect();
    results
}

/// Says which they are, and which of them are not there.
fn introduce(run: &mut Run, skip: &mut impl FnMut(&str, String)) {
    let us = format!("this tree, {}", env!("CARGO_PKG_VERSION"));
    let how = "the pipeline as a worker runs it, one core, learning and all counters on, every byte that comes out checked";
    run.devices.push(["switch, pipeline alone".into(), us, how.into()]);
    let theirs: [(&str, Result<String, String>, &str); 3] = [
        (
            OVS,
            ovs_memory::version_of_it(),
            "userspace datapath, frames replayed from memory, one PMD thread on core 1; L2 NORMAL with known stations, else OpenFlow with dec_ttl and ct",
        ),
        (MOVED, Testpmd::version(), "io mode, one core: what moving the frames takes"),
        (NULL, Testpmd::version(), "io mode, one core: the yardstick between machines"),
    ];
    for (name, version, how) in theirs {
        match version {
            Ok(version) => run.devices.push([name.into(), version, how.into()]),
            Err(why) => skip(name, why),
        }
    }
}

fn judged(cell: Cell, run: &str) -> Alone {
    let Cell { task, flows, rounds, .. } = cell;
    let mut alone = Alone { run: run.into(), task: task.name(), flows, rounds, is_tuned: true };
    let reached = alone.middle(|round| Some(round.moved_ns? / round.ovs_ns?));
    alone.is_tuned = usual(task, flows).zip(reached).is_none_or(|(usual, reached)| reached >= TUNED * usual);
    alone
}
