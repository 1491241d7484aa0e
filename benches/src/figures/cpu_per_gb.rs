//! [cpu-per-gb] What a gigabyte of TCP from pod to pod costs the node: both ends, their kernels and the switch,
//! beside the Linux bridge. Client and server have core 0, the switch has core 1.

use super::{Bench, Figure, Held};
use crate::cpu::busy_during;
use crate::cycles::median;
use crate::iperf::{self, Load};
use crate::pair::Pair;
use crate::peers::{Bridge, Kind};
use switch_lab::Pod;

const ROUNDS: usize = 5;
const BAR: f64 = 1.3;

/// What it is held against.
pub(super) const HELD: Held = Held::at_most("times the bridge", BAR);

pub(super) fn measure(bench: &Bench) -> Result<Figure, String> {
    let (switch, bridge) = (Pair::start(bench, Kind::Tap), Bridge::build());
    let (mut ratios, mut ours, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (a, b) = (seconds_per_gb(&switch.pods)?, seconds_per_gb(&bridge.pods)?);
        ratios.push(a.total / b.total);
        ours.push(a);
        theirs.push(b);
    }
    switch.daemon.assert_conserved();
    let middle = |costs: &[Cost], of: fn(&Cost) -> f64| median(costs.iter().map(of).collect());
    let detail = format!(
        "core seconds a gigabyte, the whole machine's: {:.2} ({:.2} of it on the switch's core, {:.1} Gb/s) against {:.2} \
         ({:.1} Gb/s); tap ports, one stream, IPv4, MTU 1500, iperf3, {ROUNDS} rounds in turn, medians",
        middle(&ours, |cost| cost.total),
        middle(&ours, |cost| cost.core1),
        middle(&ours, |cost| cost.rate),
        middle(&theirs, |cost| cost.total),
        middle(&theirs, |cost| cost.rate),
    );
    Ok(Figure::new("cpu-per-gb", median(ratios), HELD, detail))
}

/// What was carried, and for what.
struct Cost {
    /// Gb/s.
    rate: f64,
    /// Core seconds a gigabyte, all cores.
    total: f64,
    /// Core seconds a gigabyte, core 1.
    core1: f64,
}

fn seconds_per_gb(pods: &[Pod; 2]) -> Result<Cost, String> {
    let (carried, busy) = busy_during(|| iperf::run(pods, &Load::default()))?;
    let gigabytes = carried.bytes / 1e9;
    let core1 = busy.get(1).copied().unwrap_or(0.0);
    Ok(Cost { rate: carried.gbps, total: busy.iter().sum::<f64>() / gigabytes, core1: core1 / gigabytes })
}
