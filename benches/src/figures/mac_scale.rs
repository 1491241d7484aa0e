//! [mac-scale] A table that is full of stations against one that is not.

use super::{Bar, Bench, Figure};
use crate::cycles::median;
use crate::pipeline;
use quanta::Clock;

const BAR: f64 = 1.25;

pub(super) fn measure(_: &Bench) -> Result<Figure, String> {
    let clock = Clock::new();
    let (mut few, mut many) = (pipeline::Bench::new(50), pipeline::Bench::new(50_000));
    let (mut ratios, mut ticks) = (Vec::new(), Vec::new());
    for _ in 0..9 {
        let small = few.measure(&clock, 5, 400).ticks;
        let large = many.measure(&clock, 5, 400).ticks;
        ratios.push(large / small);
        ticks.push((small, large));
    }
    let (small, large) = ticks[ticks.len() / 2];
    let detail =
        format!("100 MACs {small:.1}, 100 000 MACs {large:.1} TSC ticks a packet, random order, alternating");
    Ok(Figure::new("mac-scale", median(ratios), "times the cost of 100 MACs", Bar::AtMost, BAR, detail))
}
