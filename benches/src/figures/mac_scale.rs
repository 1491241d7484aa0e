//! [mac-scale] A table that is full of stations against one that is not. The full one (2.8 MB) is larger than many a
//! core's second-level cache and lives in the last level, which cores share: what others do there moves this figure
//! (seen: from 1.2 to 1.8 with a compiler on the other core), so its spread is shown.

use super::{Bench, Figure, Held};
use crate::cycles::median;
use crate::pipeline;
use quanta::Clock;

const BAR: f64 = 1.25;
const ROUNDS: usize = 9;
/// Seeded flows each way: as many over 100 stations as a switch of this size has at least.
const FEW_FLOWS: u32 = 1_000;
/// Pairs of stations: of the few MACs, and of the many, of which each pair has a flow each way.
const PAIRS: [u32; 2] = [50, 50_000];

/// What it is held against.
pub(super) const HELD: Held = Held::at_most("times the cost of 100 MACs", BAR);

pub(super) fn measure(_: &Bench) -> Result<Figure, String> {
    let clock = Clock::new();
    let (mut few, mut many) = (pipeline::Bench::between(FEW_FLOWS, PAIRS[0]), pipeline::Bench::new(PAIRS[1]));
    let (mut ratios, mut ticks) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        few.warm();
        let small = few.measure(&clock, 5, 400).ticks;
        many.warm();
        let large = many.measure(&clock, 5, 400).ticks;
        ratios.push(large / small);
        ticks.push((small, large));
    }
    let (small, large): (Vec<f64>, Vec<f64>) = ticks.into_iter().unzip();
    let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
    let most = ratios.iter().copied().fold(0.0, f64::max);
    let detail = format!(
        "100 MACs with {FEW_FLOWS} flows each way {:.1}, 100 000 MACs with {} {:.1} TSC ticks a packet, random order, {ROUNDS} rounds, \
         alternating, medians; ratio from {least:.2} to {most:.2}",
        median(small),
        PAIRS[1],
        median(large)
    );
    Ok(Figure::new("mac-scale", median(ratios), HELD, detail))
}
