//! [quiet-cpu] What a packet costs the switch's core at a tenth of the load, against what it costs when there is as much as can be, and
//! how long packets take then.

use super::{Bench, Figure, Held, Part};
use crate::cycles::median;
use crate::flood::Load;
use crate::matrix::switch;
use crate::matrix::task::{Task, Traffic};
use std::time::Duration;

const ROUNDS: usize = 5;
const WINDOW: Duration = Duration::from_secs(2);
const P99_US_MAX: f64 = 200.0;
/// The worker's.
const CORE: usize = 1;
/// What it is held against.
pub(super) const HELD: Held = Held::at_most("times the CPU a packet at full load", 2.5);

pub(super) fn measure(bench: &Bench) -> Result<Figure, String> {
    let (mut ratios, mut quiet, mut full, mut p50, mut p99, mut rates) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut lost, mut wrong) = (0, 0);
    for _ in 0..ROUNDS {
        let rig = switch::xdp(bench, Task::Bridge)?;
        rig.announce()?;
        let mut path = rig.path()?;
        let load = Traffic::MAIN.load(None, WINDOW);
        let busy = path.run(load)?;
        let tenth = busy.received_pps / 10.0;
        let calm = path.run(Load { rate_pps: tenth as u64, rests: true, ..load })?.made_at(tenth)?;
        let cost =
            |packets: &crate::flood::Flooded| packets.busy_per_packet.get(CORE).copied().unwrap_or(f64::NAN);
        ratios.push(cost(&calm) / cost(&busy));
        quiet.push(cost(&calm) * 1e9);
        full.push(cost(&busy) * 1e9);
        let us = |quantile| calm.latencies.us(quantile).ok_or("no packet was timed");
        p50.push(us(0.5)?);
        p99.push(us(0.99)?);
        rates.push(busy.received_pps / 1e6);
        lost += calm.lost;
        wrong += calm.wrong + busy.wrong;
        drop(path);
        rig.daemon().ok_or("no daemon")?.assert_conserved();
    }
    let p99 = median(p99);
    let detail = format!(
        "{:.0} ns of the worker's core a packet at a tenth of {:.2} Mpps, {:.0} at all of it; at a tenth p50 {:.0} µs, p99 {p99:.0} (bar \
         {P99_US_MAX}), {lost} lost; L2 over veth, {}, default settings, a generator that rests between turns; {wrong} packets not as they should be; {ROUNDS} rounds, medians",
        median(quiet),
        median(rates),
        median(full),
        median(p50),
        Traffic::MAIN.name()
    );
    let figure = Figure::new("quiet-cpu", median(ratios), HELD, detail);
    let figure = figure.with(vec![Part::new("p99 µs then", p99, Some(P99_US_MAX))]);
    Ok(figure.only_if(p99 <= P99_US_MAX && wrong == 0))
}
