//! [flows-1m] and [new-flows]: what flows cost when there are many, and when there are more every moment.

use super::{Bench, Figure, Held, policy};
use crate::beside::{Beside, Comes};
use crate::cycles::{median, per_tick};
use crate::flows;
use quanta::Clock;
use switch_core::table::flow::FLOWS_DEFAULT;

const MANY: u32 = 1_000_000;
/// Three quarters of a table may be any port's, the rest is dealt out: room for a million.
const ROOM: usize = 1_340_000;
const BYTES_BAR: u64 = 128;
const CYCLES_BAR: f64 = 300.0;
const ROUNDS: usize = 9;
const BATCHES: usize = 2000;

const NEW_BAR: f64 = 2.0;
/// Established flows beside the flood.
const ESTABLISHED: u32 = 1000;
/// What they ask of the core.
const LOAD: f64 = 0.3;
const KEPT_BAR: f64 = 0.95;
/// How long they are alone, and how long beside the flood.
const ALONE_MS: u64 = 20;
const BESIDE_MS: u64 = 200;

/// What it is held against.
pub(super) const MANY_HELD: Held = Held::at_most("core cycles a packet", CYCLES_BAR);
/// What it is held against.
pub(super) const NEW_HELD: Held = Held::at_least("million new flows a second", NEW_BAR);

pub(super) fn many(_: &Bench) -> Result<Figure, String> {
    let clock = Clock::new();
    let (mut bench, mut bare) = (flows::Bench::new(ROOM, true), flows::Bench::new(4096, false));
    bench.make(MANY);
    let counted = bench.tables.flows.counted();
    if counted.all < MANY {
        return Err(format!("only {} flows are there", counted.all));
    }
    let bytes = bench.bytes(counted.all) / u64::from(counted.all);
    let (mut cycles, mut without, mut seed) = (Vec::new(), Vec::new(), 88_172_645_463_325_252);
    for _ in 0..ROUNDS {
        let scale = per_tick(&clock);
        bench.warm(MANY, &mut seed);
        cycles.push(bench.random(&clock, MANY, BATCHES, &mut seed) * scale);
        bare.warm(MANY, &mut seed);
        without.push(bare.random(&clock, MANY, BATCHES, &mut seed) * scale);
    }
    let (cycles, without) = (median(cycles), median(without));
    let detail = format!(
        "{} UDP flows, {bytes} bytes a flow (bar {BYTES_BAR}: index and entries), random order, whole pipeline; \
         without flows {without:.1} cycles",
        counted.all
    );
    let figure = Figure::new("flows-1m", cycles, MANY_HELD, detail);
    Ok(figure.only_if(bytes <= BYTES_BAR))
}

/// New flows under 100 000 rules, and what established ones keep beside them.
pub(super) fn new(_: &Bench) -> Result<Figure, String> {
    let clock = Clock::new();
    let policies = policy::many()?;
    let mut bench = flows::Bench::policed(FLOWS_DEFAULT, &policies);
    let mut beside = Beside::new(&policies);
    beside.establish(ESTABLISHED)?;
    let (mut rates, mut kept, mut beside_rates, mut seed) =
        (Vec::new(), Vec::new(), Vec::new(), 1_234_567_891_011);
    for _ in 0..ROUNDS {
        let (mut ticks, before) = (0, bench.new_flows());
        for _ in 0..BATCHES {
            ticks += bench.flood(&clock, policy::ADDRESSES, &mut seed);
        }
        let seconds = clock.delta_as_nanos(0, ticks) as f64 / 1e9;
        rates.push((bench.new_flows() - before) as f64 / seconds / 1e6);
        let (share, rate) = keep(&mut beside);
        kept.push(share);
        beside_rates.push(rate);
    }
    let (rate, kept, beside) = (median(rates), median(kept), median(beside_rates));
    let counted = bench.tables.flows.counted();
    let detail = format!(
        "SYNs of random addresses and ports, {} rules, whole pipeline; {} half-open flows stand (limit {}); {ESTABLISHED} \
         established flows at {:.0} % load beside them on the same worker keep {:.1} % of their throughput (bar {:.0} %), and \
         the flood has {beside:.1} million flows a second",
        policies.iter().map(|policy| policy.spec.ingress.len() + policy.spec.egress.len()).sum::<usize>(),
        counted.half_open,
        bench.tables.flows.limits().half_open,
        LOAD * 100.0,
        kept * 100.0,
        KEPT_BAR * 100.0
    );
    let figure = Figure::new("new-flows", rate, NEW_HELD, detail);
    Ok(figure.only_if(kept >= KEPT_BAR))
}

/// What established flows keep beside a flood that never ends, in turns of one worker, and the flows that the flood begins
/// meanwhile, in millions a second. Their packets come at the rate that is their load when nobody disturbs.
fn keep(beside: &mut Beside) -> (f64, f64) {
    let ([_, alone], ns) = beside.run([Comes::Nothing, Comes::Any(ESTABLISHED)], ALONE_MS);
    let rate = LOAD * alone.taken as f64 / ns as f64;
    let before = beside.new_flows();
    let ([_, done], ns) =
        beside.run([Comes::Flood(policy::ADDRESSES), Comes::Paced(ESTABLISHED, rate)], BESIDE_MS);
    let flood = (beside.new_flows() - before) as f64 / ns as f64 * 1e3;
    // What still waits is not lost.
    (1.0 - done.lost / done.offered, flood)
}
