//! [route-scale] A full table against one of ten routes, at as many flows; and what one change of a route costs in
//! each.

use super::{Bench, Figure, Held};
use crate::cycles::median;
use crate::routed;
use quanta::Clock;

const FEW: usize = 10;
const MANY: usize = 1_000_000;
const FLOWS: usize = 1_000;
const BAR: f64 = 1.25;
const ROUNDS: usize = 15;
const BATCHES: usize = 1_000;
const CHANGES: usize = 1_000;

/// What it is held against.
pub(super) const HELD: Held = Held::at_most("times the cost of 10 routes", BAR);

pub(super) fn measure(_: &Bench) -> Result<Figure, String> {
    let clock = Clock::new();
    let (mut few, mut many) = (routed::Bench::new(FEW, FLOWS), routed::Bench::new(MANY, FLOWS));
    let mut seed = 7;
    let (mut ratios, mut small, mut large) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        few.warm(&mut seed);
        small.push(few.measure(&clock, BATCHES, &mut seed));
        many.warm(&mut seed);
        large.push(many.measure(&clock, BATCHES, &mut seed));
        ratios.push(large[large.len() - 1] / small[small.len() - 1]);
    }
    let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
    let most = ratios.iter().copied().fold(0.0, f64::max);
    let among = |bench: &mut routed::Bench, count| {
        let mut times = bench.changes(&routed::full_table(count), CHANGES);
        times.sort_by(f64::total_cmp);
        (times[times.len() / 2], times[times.len() * 99 / 100])
    };
    let ((few_us, _), (many_us, p99_us)) = (among(&mut few, FEW), among(&mut many, MANY));
    let detail = format!(
        "{FLOWS} flows, {FEW} routes {:.1}, {MANY} routes {:.1} TSC ticks a packet, {ROUNDS} rounds, alternating, medians; \
         ratio from {least:.2} to {most:.2}; one route changed, checked and in the next snapshot: {few_us:.0} µs among \
         {FEW}, {many_us:.0} among {MANY} (p99 {p99_us:.0})",
        median(small),
        median(large)
    );
    Ok(Figure::new("route-scale", median(ratios), HELD, detail))
}
