//! [stage-counters-cost] What the counters of cycles a stage cost, which are always on: the pipeline alone with them as a worker has
//! them (one batch of so many has its time taken), and without, in turns, in one run.

use super::{Bench, Figure, Held};
use crate::pipeline;
use quanta::Clock;
use switch_core::counter::stage::SAMPLE_EVERY;

/// As in `l2-pipeline`.
const PAIRS: u32 = 1000;
/// Windows with and without, each of so many batches.
const WINDOWS: usize = 301;
const BATCHES: usize = 16 * SAMPLE_EVERY as usize;
const BAR_PERCENT: f64 = 1.0;

/// What it is held against.
pub(super) const HELD: Held = Held::at_most("%", BAR_PERCENT);

pub(super) fn measure(_: &Bench) -> Result<Figure, String> {
    let clock = Clock::new();
    let mut bench = pipeline::Bench::new(PAIRS);
    let (mut costs, mut ticks) = (Vec::with_capacity(WINDOWS), 0.0);
    for window in 0..WINDOWS {
        // Which comes first changes, so that a machine that slows down or speeds up favours neither.
        let (with, without) = if window % 2 == 0 {
            let with = bench.window(&clock, BATCHES, Some(SAMPLE_EVERY));
            (with, bench.window(&clock, BATCHES, None))
        } else {
            let without = bench.window(&clock, BATCHES, None);
            (bench.window(&clock, BATCHES, Some(SAMPLE_EVERY)), without)
        };
        costs.push(100.0 * (with / without - 1.0));
        ticks = without;
    }
    costs.sort_by(f64::total_cmp);
    let (median, quarter) = (costs[WINDOWS / 2], WINDOWS / 4);
    let sampled = bench.sampled();
    let detail = format!(
        "more ticks a packet with one batch in {SAMPLE_EVERY} timed at every stage than with none, {PAIRS} pairs of stations, 60-byte \
         frames ({ticks:.1} TSC ticks), median of {WINDOWS} pairs of windows (half of them {:.2} to {:.2}); {sampled} packets were \
         sampled",
        costs[quarter],
        costs[WINDOWS - 1 - quarter]
    );
    let figure = Figure::new("stage-counters-cost", median, HELD, detail);
    Ok(figure.only_if(sampled > 0))
}
