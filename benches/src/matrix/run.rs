//! Rounds: in each, every device is built, loaded and removed, one after the other, so that whatever the machine does at
//! the time is done to all of them. One at a time: a peer that polls would take its half of the core from the next.

use super::device::{self, Device};
use super::merge;
use super::part::Part;
use super::result::{At, Results, Round, Row, Run, Skipped};
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
    /// What of the whole.
    pub parts: Vec<Part>,
    /// Loads for each task.
    pub traffic: Vec<Traffic>,
    /// Rounds.
    pub rounds: usize,
    /// Seconds of each load.
    pub window: Duration,
    /// Rounds in which throughput without loss and latencies are measured too, with the main traffic.
    pub searches: usize,
    /// And with all other traffic.
    pub searches_beside: usize,
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
        let tasks = [Task::Bridge, Task::Route, Task::Police(1_000)];
        Self {
            parts: tasks.map(Part::Task).into_iter().chain([Part::Alone, Part::Changes]).collect(),
            traffic: vec![Traffic::MAIN],
            rounds: 3,
            window: Duration::from_millis(700),
            searches: 1,
            searches_beside: 0,
            searched: vec![Task::Bridge],
            only: None,
            interrupted: Arc::default(),
        }
    }

    /// Everything: about two hours.
    pub fn full() -> Self {
        let each = |size| [1, 1_000, 100_000].map(|flows| Traffic { size, flows });
        let mut traffic: Vec<Traffic> = Size::ALL.into_iter().flat_map(each).collect();
        // First, while tables are as they come from the box.
        traffic.sort_by_key(|one| *one != Traffic::MAIN);
        Self {
            parts: Part::all(),
            searched: Task::ALL.into(),
            traffic,
            rounds: 5,
            window: Duration::from_secs(1),
            searches: 5,
            searches_beside: 1,
            only: None,
            interrupted: Arc::default(),
        }
    }

    /// The tasks among the parts.
    pub fn tasks(&self) -> impl Iterator<Item = Task> + '_ {
        self.parts.iter().filter_map(|part| match part {
            Part::Task(task) => Some(*task),
            Part::Alone | Part::Changes => None,
        })
    }

    /// Whether a device of this name is wanted.
    pub fn wants_named(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|only| name.to_lowercase().contains(&only.to_lowercase()))
    }

    /// In how many rounds the throughput without loss is looked for.
    fn searches(&self, task: Task, traffic: Traffic) -> usize {
        match (self.searched.contains(&task), traffic == Traffic::MAIN) {
            (false, _) => 0,
            (true, true) => self.searches.min(self.rounds),
            (true, false) => self.searches_beside.min(self.rounds),
        }
    }

    fn wants(&self, device: &Device) -> bool {
        let is_always = [device::SWITCH, device::TESTPMD].contains(&device.name);
        is_always || self.wants_named(device.name)
    }
}

/// The devices that are wanted and there, and those that are not there.
pub fn devices(plan: &Plan, run: &mut Run) -> (Vec<&'static Device>, Vec<Skipped>) {
    let (mut there, mut skipped) = (Vec::new(), Vec::new());
    for device in device::ALL.iter().filter(|device| plan.wants(device)) {
        match (device.version)() {
            Ok(version) => {
                run.devices.push([device.name.into(), version, device.configuration.into()]);
                there.push(device);
            }
            Err(why) => skipped.push(Skipped { run: run.began.clone(), what: device.name.into(), why }),
        }
    }
    (there, skipped)
}

/// Loads of the plan that a task was not measured under: of some device there is no row from this machine with so many rounds.
pub fn missing(kept: &Results, plan: &Plan, task: Task, there: &[&Device], machine: &str) -> Vec<Traffic> {
    let is_there = |device: &Device, traffic: Traffic| {
        let is_it = |row: &&Row| {
            (&row.task, &row.traffic, row.device.as_str()) == (&task.name(), &traffic.name(), device.name)
                && kept.run(&row.run).is_some_and(|run| run.machine == machine)
                && row.rounds.len() >= plan.rounds
        };
        let searches = plan.searches(task, traffic);
        let searched = |row: &Row| row.rounds.iter().filter(|round| round.lossless.is_some()).count();
        kept.rows.iter().filter(is_it).any(|row| searched(row) >= searches)
    };
    let mut loads = plan.traffic.clone();
    loads.retain(|traffic| there.iter().any(|device| (device.does)(task) && !is_there(device, *traffic)));
    loads
}

/// Whether the pipelines by themselves, or the changes, were not measured on this machine as the plan wants them.
pub fn is_missing(kept: &Results, plan: &Plan, part: Part, machine: &str) -> bool {
    let is_here = |run: &str| kept.run(run).is_some_and(|run| run.machine == machine);
    match part {
        Part::Task(_) => true,
        Part::Alone => {
            let is_there = |task: &Task, flows: u32| {
                kept.alone.iter().any(|one| {
                    (one.task == task.name() && one.flows == flows)
                        && (one.rounds.len() >= plan.rounds && is_here(&one.run))
                })
            };
            let every = |task| plan.traffic.iter().all(|traffic| is_there(task, traffic.flows));
            !Task::ALL.iter().all(every)
        }
        Part::Changes => {
            let is_there = |name: &str| {
                kept.changes
                    .iter()
                    .any(|one| one.device == name && one.lost.len() >= plan.rounds && is_here(&one.run))
            };
            let wanted = super::changes::NAMES;
            !wanted
                .iter()
                .filter(|name| **name == device::SWITCH || plan.wants_named(name))
                .all(|name| is_there(name))
        }
    }
}

/// Measures a task; `say` is told how far it is.
pub fn task(
    bench: &Bench,
    plan: &Plan,
    task: Task,
    there: &[&Device],
    began: &str,
    say: impl Fn(&str),
) -> Results {
    let mut results = Results::default();
    for number in 0..plan.rounds {
        for device in there.iter().filter(|device| (device.does)(task)) {
            if plan.interrupted.load(Relaxed) {
                continue;
            }
            say(&format!("{}, round {} of {}: {}", task.name(), number + 1, plan.rounds, device.name));
            // Cables and processes are set up by a laboratory that panics where it cannot go on.
            let run = || one(bench, plan, task, device, number);
            let done = catch_unwind(AssertUnwindSafe(run));
            match done.unwrap_or_else(|_| Err("it could not be set up, see above".into())) {
                Ok(rounds) => {
                    rounds
                        .into_iter()
                        .for_each(|(traffic, round)| keep(&mut results, began, task, traffic, device, round));
                }
                Err(why) => {
                    let what = merge::of(device.name, &task.name());
                    results.skipped.push(Skipped { run: began.into(), what, why });
                }
            }
        }
    }
    judge(&mut results, plan);
    results
}

fn keep(results: &mut Results, run: &str, task: Task, traffic: Traffic, device: &Device, round: Round) {
    let (task, traffic) = (task.name(), traffic.name());
    let found = results
        .rows
        .iter_mut()
        .find(|row| row.task == task && row.traffic == traffic && row.device == device.name);
    match found {
        Some(row) => row.rounds.push(round),
        None => results.rows.push(Row {
            run: run.into(),
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
            let task = plan.tasks().find(|task| task.name() == row.task);
            let traffic = plan.traffic.iter().find(|traffic| traffic.name() == row.traffic);
            match (device, task, traffic, results.times_testpmd(row)) {
                (Some(device), Some(task), Some(traffic), Some(times)) => {
                    device.is_tuned(task, *traffic, times)
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
        if number < plan.searches(task, *traffic) {
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
        let flooded = path.run(Load { rate_pps, rests: percent < 50, ..load })?;
        let flooded = match flooded.made_at(rate_pps as f64) {
            Ok(flooded) => flooded,
            Err(why) => {
                round.unmade.push(format!("at {percent} %: {why}"));
                continue;
            }
        };
        let us = |quantile| flooded.latencies.us(quantile);
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic where it stands")]

    use super::*;

    #[test]
    fn only_what_this_machine_has_not_measured_is_missing() {
        let mut plan = Plan::full();
        (plan.rounds, plan.searches, plan.searches_beside) = (2, 1, 0);
        let device = device::ALL.iter().find(|device| device.name == device::TESTPMD).unwrap();
        let there = [device];
        let is_missing = |kept: &Results, plan: &Plan, machine: &str| {
            let loads = missing(kept, plan, Task::Route, &there, machine);
            (loads.len(), loads.contains(&Traffic::MAIN))
        };
        let mut kept = Results::default();
        assert_eq!(is_missing(&kept, &plan, "this"), (12, true));
        kept.runs.push(Run { began: "1".into(), machine: "this".into(), ..Run::default() });
        for number in 0..2 {
            let lossless = (number == 0).then(search::Bounds::default);
            let round = Round { number, lossless, ..Round::default() };
            keep(&mut kept, "1", Task::Route, Traffic::MAIN, device, round);
        }
        assert_eq!(is_missing(&kept, &plan, "this"), (11, false));
        assert_eq!(is_missing(&kept, &plan, "another"), (12, true));
        // And where no throughput without loss was looked for, it is.
        keep(&mut kept, "1", Task::Route, Traffic { size: Size::Imix, flows: 1 }, device, Round::default());
        plan.rounds = 1;
        assert_eq!(is_missing(&kept, &plan, "this"), (10, false));
        plan.searches_beside = 1;
        assert_eq!(is_missing(&kept, &plan, "this"), (11, false));
        (plan.rounds, plan.searches_beside) = (2, 0);
        // Of more rounds than there were, or more searches, there are too few.
        plan.searches = 2;
        assert_eq!(is_missing(&kept, &plan, "this"), (12, true));
        (plan.rounds, plan.searches) = (3, 1);
        assert_eq!(is_missing(&kept, &plan, "this"), (12, true));
    }
}
