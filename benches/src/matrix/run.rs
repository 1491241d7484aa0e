//! Rounds: in each, every device is built, loaded and removed, one after the other, so that whatever the machine does at
//! the time is done to all of them. One at a time: a peer that polls would take its half of the core from the next.

use super::device::{self, Device};
use super::result::{At, Results, Round, Row};
use super::search;
use super::task::{Size, Task, Traffic};
use crate::figures::Bench;
use crate::flood::{Flooded, Load, Path};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

/// Parts of the throughput without loss at which latencies are taken.
const PERCENTS: [u32; 3] = [10, 50, 90];

/// What is run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Tasks.
    pub tasks: Vec<Task>,
    /// Loads for each.
    pub traffic: Vec<Traffic>,
    /// Rounds.
    pub rounds: usize,
    /// Seconds of each load.
    pub window: Duration,
    /// Rounds in which throughput without loss and latencies are measured too, with the main traffic.
    pub searches: usize,
    /// Tasks for which they are.
    pub searched: Vec<Task>,
    /// Only devices with this in their name; the switch and testpmd are always there.
    pub only: Option<String>,
    /// Set when it is to end with what it has, everything removed.
    pub interrupted: Arc<AtomicBool>,
}

impl Plan {
    /// A few minutes: small frames and a thousand flows; L2, L3, a thousand rules; three rounds, the first of which searches, with L2.
    pub fn quick() -> Self {
        Self {
            tasks: vec![Task::Bridge, Task::Route, Task::Police(1_000)],
            traffic: vec![Traffic::MAIN],
            rounds: 3,
            window: Duration::from_millis(700),
            searches: 1,
            searched: vec![Task::Bridge],
            only: None,
            interrupted: Arc::default(),
        }
    }

    /// Everything: more than an hour.
    pub fn full() -> Self {
        let each = |size| [1, 1_000, 100_000].map(|flows| Traffic { size, flows });
        let mut traffic: Vec<Traffic> = Size::ALL.into_iter().flat_map(each).collect();
        // First, while tables are as they come from the box.
        traffic.sort_by_key(|one| *one != Traffic::MAIN);
        let (tasks, window) = (Task::ALL.into(), Duration::from_secs(1));
        Self {
            searched: Task::ALL.into(),
            tasks,
            traffic,
            rounds: 5,
            window,
            searches: 5,
            only: None,
            interrupted: Arc::default(),
        }
    }

    fn wants(&self, device: &Device) -> bool {
        let is_always = [device::SWITCH, device::TESTPMD].contains(&device.name);
        let named = |only: &String| device.name.to_lowercase().contains(&only.to_lowercase());
        is_always || self.only.as_ref().is_none_or(named)
    }
}

/// Runs the plan; `say` is told how far it is.
pub fn run(bench: &Bench, plan: &Plan, say: impl Fn(&str)) -> Results {
    let mut results = Results::default();
    let mut there = Vec::new();
    for device in device::ALL.iter().filter(|device| plan.wants(device)) {
        match (device.version)() {
            Ok(version) => {
                results.devices.push([device.name.into(), version, device.configuration.into()]);
                there.push(device);
            }
            Err(error) => results.skipped.push([device.name.into(), error]),
        }
    }
    for task in &plan.tasks {
        for number in 0..plan.rounds {
            for device in there.iter().filter(|device| (device.does)(*task)) {
                if plan.interrupted.load(Relaxed) {
                    continue;
                }
                say(&format!("{}, round {} of {}: {}", task.name(), number + 1, plan.rounds, device.name));
                // Cables and processes are set up by a laboratory that panics where it cannot go on.
                let run = || one(bench, plan, *task, device, number);
                let done = catch_unwind(AssertUnwindSafe(run));
                match done.unwrap_or_else(|_| Err("it could not be set up, see above".into())) {
                    Ok(rounds) => {
                        rounds
                            .into_iter()
                            .for_each(|(traffic, round)| keep(&mut results, *task, traffic, device, round));
                    }
                    Err(error) => results.skipped.push([format!("{}, {}", device.name, task.name()), error]),
                }
            }
        }
    }
    judge(&mut results, plan);
    results
}

fn keep(results: &mut Results, task: Task, traffic: Traffic, device: &Device, round: Round) {
    let (task, traffic) = (task.name(), traffic.name());
    let found = results
        .rows
        .iter_mut()
        .find(|row| row.task == task && row.traffic == traffic && row.device == device.name);
    match found {
        Some(row) => row.rounds.push(round),
        None => results.rows.push(Row {
            task,
            traffic,
            device: device.name.into(),
            rounds: vec![round],
            is_tuned: true,
        }),
    }
}

/// Says of each row whether its device reached what it should.
fn judge(results: &mut Results, plan: &Plan) {
    let verdicts: Vec<bool> = results
        .rows
        .iter()
        .map(|row| {
            let device = device::ALL.iter().find(|device| device.name == row.device);
            let task = plan.tasks.iter().find(|task| task.name() == row.task);
            let traffic = plan.traffic.iter().find(|traffic| traffic.name() == row.traffic);
            match (device, task, traffic, results.times_testpmd(row)) {
                (Some(device), Some(task), Some(traffic), Some(times)) => {
                    device.is_tuned(*task, *traffic, times)
                }
                _ => true,
            }
        })
        .collect();
    results.rows.iter_mut().zip(verdicts).for_each(|(row, verdict)| row.is_tuned = verdict);
}

fn one(
    bench: &Bench,
    plan: &Plan,
    task: Task,
    device: &Device,
    number: usize,
) -> Result<Vec<(Traffic, Round)>, String> {
    let rig = (device.build)(bench, task)?;
    if rig.gateway.is_none() {
        rig.announce()?;
    }
    let mut path = rig.path()?;
    let mut rounds = Vec::with_capacity(plan.traffic.len());
    for traffic in &plan.traffic {
        let load = traffic.load(rig.gateway, plan.window);
        let flooded = path.run(load)?;
        let mut round = Round {
            number,
            pps: flooded.received_pps,
            offered_pps: flooded.offered_pps,
            core_ns: core_ns(&flooded, device.core),
            wrong: flooded.wrong,
            ..Round::default()
        };
        if *traffic == Traffic::MAIN && number < plan.searches && plan.searched.contains(&task) {
            look_closer(&mut path, load, device, &mut round)?;
        }
        rounds.push((*traffic, round));
    }
    drop(path);
    if let Some(daemon) = rig.daemon() {
        daemon.assert_conserved();
    }
    Ok(rounds)
}

/// Throughput without loss, and latencies at parts of it.
fn look_closer(path: &mut Path<'_>, load: Load, device: &Device, round: &mut Round) -> Result<(), String> {
    let bounds = search::lossless(path, load, round.pps)?;
    round.lossless = Some(bounds);
    for percent in PERCENTS {
        let rate_pps = (bounds.lower_pps * f64::from(percent) / 100.0) as u64;
        if rate_pps == 0 {
            continue;
        }
        // One that only waits for what is due keeps its core from the kernel, and little load shows that.
        let load = Load { rate_pps, rests: percent < 50, ..load };
        let flooded = path.run(load)?.made_at(rate_pps as f64)?;
        let us = |quantile| flooded.latencies.us(quantile).unwrap_or(f64::NAN);
        round.at.push(At {
            percent,
            p50_us: us(0.5),
            p99_us: us(0.99),
            p999_us: us(0.999),
            core_ns: core_ns(&flooded, device.core),
        });
    }
    Ok(())
}

fn core_ns(flooded: &Flooded, core: usize) -> f64 {
    flooded.busy_per_packet.get(core).map_or(f64::NAN, |seconds| seconds * 1e9)
}
