//! What the number of rules does to a packet: the same traffic under ten rules and under a hundred thousand, of whatever kind they are. Time is measured
//! in turn; probes are counted, and are the same in every run.

use super::Held;
use crate::cycles::{median, per_tick};
use crate::flows::{Bench, Probes};
use quanta::Clock;
use std::fmt;
use switch_core::frame::BATCH_FRAMES;

/// Pairs of few rules and many.
const PAIRS: usize = 31;
/// Batches of each.
pub(super) const BATCHES: usize = 500;
const ESTABLISHED_BAR: f64 = 1.03;
const NEW_BAR: f64 = 1.10;

/// What it is held against.
pub(super) const HELD: Held = Held::at_most("times the cost", ESTABLISHED_BAR);

/// Times the cost under ten rules.
pub(super) struct Scale {
    flows: u32,
    pub established: f64,
    new: f64,
    /// Core cycles of a new flow's packet under ten rules.
    base: f64,
}

impl Scale {
    pub fn holds(&self) -> bool {
        self.new <= NEW_BAR
    }
}

impl fmt::Display for Scale {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Self { flows, established, new, base } = self;
        write!(
            f,
            "established flows ({flows}) {established:.3} times 10 rules, new ones {new:.3} times (bar {NEW_BAR}; {base:.0} core \
             cycles with 10 rules; median of {PAIRS} pairs)"
        )
    }
}

/// Under few rules and under many, among so many established flows. `begun`: ticks a packet of [`BATCHES`] of new ones.
pub(super) fn measure(
    benches: &mut [Bench; 2],
    flows: u32,
    begun: impl Fn(&mut Bench, &Clock, &mut u64) -> f64,
) -> Result<Scale, String> {
    let (clock, mut seed) = (Clock::new(), 1_234_567_891_011);
    let mut both = |benches: &mut [Bench; 2], ticks: &dyn Fn(&mut Bench, &mut u64) -> f64| {
        let [few, many] = benches;
        let base = ticks(few, &mut seed);
        (base, ticks(many, &mut seed) / base)
    };
    let random = |bench: &mut Bench, seed: &mut u64| {
        bench.warm(flows, seed);
        bench.random(&clock, flows, BATCHES, seed)
    };
    let established = (0..PAIRS).map(|_| both(benches, &random).1).collect();
    let before = [0, 1].map(|n| benches[n].new_flows());
    let new = (0..PAIRS).map(|_| both(benches, &|bench, seed| begun(bench, &clock, seed)));
    let (base, new) = new.unzip();
    let admitted = [0, 1].map(|n| benches[n].new_flows() - before[n]);
    let sent = (PAIRS * BATCHES * BATCH_FRAMES) as u64;
    // A source that comes again within a flow's life begins none.
    if admitted.iter().any(|admitted| *admitted < sent / 100 * 98) {
        return Err(format!("of {sent} new flows {admitted:?} were admitted"));
    }
    let base = median(base) * per_tick(&clock);
    Ok(Scale { flows, established: median(established), new: median(new), base })
}

/// Probes of a new flow under few rules and under many.
pub(super) struct Counts([Probes; 2]);

impl Counts {
    /// No packet took more than any may take with ten rules: what is allowed does not grow.
    pub fn hold(&self) -> bool {
        self.0.iter().all(|probes| probes.largest <= self.0[0].bound)
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let [few, many] = &self.0;
        write!(
            f,
            "{:.2} probes a new flow and at most {} with 10 rules, {:.2} and at most {} with all (bar {})",
            few.mean, few.largest, many.mean, many.largest, few.bound
        )
    }
}

/// The judgement of SYNs from these addresses by these ports, counted.
pub(super) fn probes<I: Iterator<Item = (u32, [u16; 2])>>(
    benches: &[Bench; 2],
    all: impl Fn() -> I,
) -> Result<Counts, String> {
    let [few, many] = benches;
    Ok(Counts([few.probes(all())?, many.probes(all())?]))
}
