//! [control-latency] and [change-loss] A thousand changes a second on a switch with 250 ports under load: how long each takes, and
//! whether flows that no change is about lose anything by it.

use super::{Bench, Figure, Held};
use crate::changes;

const BAR_MS: f64 = 5.0;

/// What it is held against.
pub(super) const LATENCY_HELD: Held = Held::at_most("ms, p99", BAR_MS);
/// What it is held against.
pub(super) const LOSS_HELD: Held = Held::at_most("lost or overtaken", 0.0);

pub(super) fn latency(bench: &Bench) -> Result<Figure, String> {
    let measured = changes::measure(&bench.switchd)?;
    let figure = Figure::new("control-latency", measured.ms(0.99), LATENCY_HELD, measured.detail());
    Ok(figure.only_if(measured.is_enough()))
}

pub(super) fn loss(bench: &Bench) -> Result<Figure, String> {
    let measured = changes::measure(&bench.switchd)?;
    let worse = (measured.tally.lost + measured.tally.overtaken) as f64;
    let figure = Figure::new("change-loss", worse, LOSS_HELD, measured.detail());
    // What is asked here is whether changes cost frames: however many a second there were, there were some, and datagrams beside.
    Ok(figure.only_if(measured.tally.sent > 1_000 && measured.times.len() > 1_000))
}
