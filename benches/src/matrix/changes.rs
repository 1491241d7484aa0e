//! What is lost while a device is changed: the switch, the kernel's routing with nftables, and Open vSwitch, under the same steady flood,
//! with and without changes in turn. Routes, sets and ports change at once, each at a rate of its own.

use super::churn::{Churn, spare_pod};
use super::churn_peers::PeerChurn;
use super::result::{Change, Results, Skipped};
use super::rig::Rig;
use super::run::Plan;
use super::task::{Task, Traffic};
use super::{device, linux, merge, switch};
use crate::cycles::median;
use crate::figures::Bench;
use crate::flood::Load;
use crate::peers::ovs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use switch_lab::Node;

const TASK: Task = Task::Police(1_000);
/// Packets a second: far below what any of them carries.
pub const RATE_PPS: u64 = 100_000;
const WINDOW: Duration = Duration::from_secs(2);
/// The kernel's routing and firewall, as they are called.
const NFTABLES: &str = "nftables";
/// Who is measured.
pub const NAMES: [&str; 3] = [device::SWITCH, NFTABLES, device::OVS_XDP];

/// Ends changes, and says how many routes, blocks and ports a second there were.
pub type Finish = Box<dyn FnOnce() -> Result<[f64; 3], String>>;
/// How one of them is measured.
type Measure = fn(&Bench, usize) -> Result<Change, String>;

/// Measures those that the plan wants; the switch always.
pub fn run(bench: &Bench, plan: &Plan, began: &str, say: impl Fn(&str)) -> Results {
    let mut results = Results::default();
    let measures: [Measure; 3] = [of_switch, of_nftables, of_ovs];
    for (name, measure) in NAMES.into_iter().zip(measures) {
        if plan.interrupted.load(Relaxed) || !(name == device::SWITCH || plan.wants_named(name)) {
            continue;
        }
        say(&format!("{}: {name}", merge::CHANGES));
        let measured = catch_unwind(AssertUnwindSafe(|| measure(bench, plan.rounds)));
        match measured.unwrap_or_else(|_| Err("it could not be set up, see above".into())) {
            Ok(change) => results.changes.push(Change { run: began.into(), device: name.into(), ..change }),
            Err(why) => {
                let what = merge::of(name, merge::CHANGES);
                results.skipped.push(Skipped { run: began.into(), what, why });
            }
        }
    }
    results
}

fn of_switch(bench: &Bench, rounds: usize) -> Result<Change, String> {
    let rig = switch::xdp(bench, TASK)?;
    let spares = Node::new();
    one(&rig, rounds, || {
        let churn = Churn::start(&rig, spare_pod(&spares))?;
        Ok(Box::new(move || churn.finish().map(|rates| [rates.routes, rates.sets, rates.ports])))
    })
}

fn of_nftables(bench: &Bench, rounds: usize) -> Result<Change, String> {
    let rig = linux::own_core(bench, TASK)?;
    let node = rig.between.downcast_ref::<Node>().ok_or("no node")?;
    one(&rig, rounds, || PeerChurn::of_kernel(node)?.start())
}

fn of_ovs(bench: &Bench, rounds: usize) -> Result<Change, String> {
    let rig = device::ovs_xdp(bench, TASK)?;
    let ovs = rig.between.downcast_ref::<ovs::Between>().ok_or("no Open vSwitch")?;
    one(&rig, rounds, || PeerChurn::of_ovs(ovs)?.start())
}

fn one(rig: &Rig, rounds: usize, begin: impl Fn() -> Result<Finish, String>) -> Result<Change, String> {
    let load = Load { rate_pps: RATE_PPS, rests: true, ..Traffic::MAIN.load(rig.gateway, WINDOW) };
    let mut path = rig.path()?;
    // So that flows and neighbours are known.
    path.run(load)?;
    let (mut lost, mut quiet, mut rates) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        quiet.push(path.run(load)?.made_at(RATE_PPS as f64)?.lost as f64);
        let finish = begin()?;
        let flooded = path.run(load);
        rates.push(finish()?);
        lost.push(flooded?.made_at(RATE_PPS as f64)?.lost as f64);
    }
    let middle = |n: usize| median(rates.iter().map(|rate| rate[n]).collect());
    let what = format!("{:.0} routes, {:.0} blocks of sets, {:.0} ports", middle(0), middle(1), middle(2));
    let (run, device) = Default::default();
    Ok(Change { run, device, what, lost, quiet, rate_pps: RATE_PPS as f64 })
}
