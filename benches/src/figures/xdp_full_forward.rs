//! [xdp-full-forward] Generator → switch → sink over veth, the switch bridging, routing and policing statefully with its default
//! configuration and one worker, beside testpmd, which does none of it.

use super::{Bench, Figure, Held};
use crate::cycles::median;
use crate::matrix::device::{ALL, Device, SWITCH, TESTPMD};
use crate::matrix::task::{Task, Traffic};
use crate::peers::{Testpmd, testpmd::CONFIGURATION};
use std::time::Duration;

const TASK: Task = Task::Police(1_000);
const ROUNDS: usize = 5;
const WINDOW: Duration = Duration::from_secs(2);
/// What it is held against.
pub(super) const HELD: Held = Held::at_least("times testpmd", 1.0);

pub(super) fn measure(bench: &Bench) -> Result<Figure, String> {
    let version = Testpmd::version()?;
    let (mut ratios, mut ours, mut theirs, mut wrong) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for _ in 0..ROUNDS {
        let (switch, bad) = through(bench, named(SWITCH)?, TASK)?;
        let (testpmd, _) = through(bench, named(TESTPMD)?, TASK)?;
        ratios.push(switch / testpmd);
        ours.push(switch / 1e6);
        theirs.push(testpmd / 1e6);
        wrong += bad;
    }
    let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
    let most = ratios.iter().copied().fold(0.0, f64::max);
    let detail = format!(
        "switch {:.2} Mpps ({}, {}, default settings), {version} {CONFIGURATION}, {:.2} Mpps; {ROUNDS} rounds, alternating, medians, ratio \
         from {least:.2} to {most:.2}; a sixteenth of the packets looked at, {wrong} not as they should be",
        median(ours),
        TASK.name(),
        Traffic::MAIN.name(),
        median(theirs)
    );
    Ok(Figure::new("xdp-full-forward", median(ratios), HELD, detail).only_if(wrong == 0))
}

pub(super) fn named(name: &str) -> Result<&'static Device, String> {
    ALL.iter().find(|device| device.name == name).ok_or_else(|| format!("no device {name}"))
}

/// Packets a second, and those that were not as they should be.
pub(super) fn through(bench: &Bench, device: &Device, task: Task) -> Result<(f64, u64), String> {
    let rig = (device.build)(bench, task)?;
    if rig.gateway.is_none() {
        rig.announce()?;
    }
    let flooded = rig.path()?.run(Traffic::MAIN.load(rig.gateway, WINDOW))?;
    if let Some(daemon) = rig.daemon() {
        daemon.assert_conserved();
    }
    Ok((flooded.received_pps, flooded.wrong))
}
