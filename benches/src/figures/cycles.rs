//! [l2-cycles], [l3-cycles], [policy-cycles] and [nat-cycles] The pipeline alone on one core, small frames, in few and in many of whatever a lookup is
//! among. The goal is what VPP takes; it was measured elsewhere, so it is scaled by what testpmd takes between null ports here and there.

use super::{Bench, Figure, Held, Part};
use crate::cycles::{median, per_tick};
use crate::peers::null;
use crate::{pipeline, routed, vpp};
use quanta::Clock;

/// What it is held against.
pub(super) const L2_HELD: Held = Held::at_most("core cycles a packet", 65.0);
/// What it is held against.
pub(super) const L3_HELD: Held = Held::at_most("core cycles a packet", 80.0);
/// What it is held against, with [`FEW_FLOWS`].
pub(super) const POLICY_HELD: Held = Held::at_most("core cycles a packet", 140.0);
/// And with [`MANY_FLOWS`].
const MANY_FLOWS_BAR: f64 = 190.0;
/// What it is held against, with [`FEW_FLOWS`]. Twice what a policy may add (`policy-established`): a translated flow is two entries where
/// another is one, of an answer both are read, and addresses, ports and checksums are written.
pub(super) const NAT_HELD: Held = Held::at_most("core cycles more a packet", 120.0);
/// And with [`MANY_FLOWS`], for the same reason.
const NAT_MANY_FLOWS_BAR: f64 = 220.0;

/// What the picture calls VPP's own figure, and what it would be here.
pub(crate) const VPP_THERE: &str = "VPP, elsewhere";
/// Scaled.
pub(crate) const VPP_HERE: &str = "VPP, scaled";

const ROUNDS: usize = 7;
const NAT_PAIRS: usize = 31;
const BATCHES: usize = 400;
const FEW_FLOWS: usize = 1_000;
const MANY_FLOWS: usize = 100_000;
const RULES: [u32; 2] = [10, 10_000];

/// One cell: what it is, and what a packet took in each round.
struct Cell {
    name: String,
    cycles: Vec<f64>,
    ns: Vec<f64>,
    /// What VPP takes, in its own cycles.
    vpp: f64,
}

impl Cell {
    fn new(name: String, vpp: f64) -> Self {
        Self { name, cycles: Vec::new(), ns: Vec::new(), vpp }
    }

    fn keep(&mut self, clock: &Clock, scale: f64, ticks: f64) {
        self.cycles.push(ticks * scale);
        self.ns.push(ticks * clock.delta_as_nanos(0, 1_000_000) as f64 / 1e6);
    }

    fn median(&self) -> f64 {
        median(self.cycles.clone())
    }

    fn words(&self, null: &Result<f64, String>) -> String {
        let ns = median(self.ns.clone());
        let beside = match null {
            Ok(pps) => {
                let goal = vpp::here_ns(self.vpp, *pps);
                format!("; VPP's {} would be {goal:.1} ns here: {:.2} times", self.vpp, ns / goal)
            }
            Err(_) => format!("; VPP {} cycles elsewhere", self.vpp),
        };
        format!("{}: {:.1} cycles, {ns:.1} ns{beside}", self.name, self.median())
    }

    /// The same for the picture, VPP's scaled to cycles of here.
    fn part(&self, bar: f64, null: &Result<f64, String>) -> Part {
        let part = Part::new(&self.name, self.median(), Some(bar)).beside(VPP_THERE, self.vpp);
        match null {
            Ok(pps) => {
                let cycles_a_ns = self.median() / median(self.ns.clone());
                part.beside(VPP_HERE, vpp::here_ns(self.vpp, *pps) * cycles_a_ns)
            }
            Err(_) => part,
        }
    }
}

/// `bars` are of the cells, each of its own.
fn figure(id: &'static str, held: Held, cells: &[Cell], bars: &[f64], how: &str) -> Figure {
    let null = null::yardstick();
    let worst = cells.iter().map(Cell::median).fold(0.0, f64::max);
    let each: Vec<String> = cells.iter().map(|cell| cell.words(&null)).collect();
    let scale = match &null {
        Ok(pps) => {
            format!("testpmd between null ports {:.0} Mpps here, 90 where VPP was measured", pps / 1e6)
        }
        Err(error) => format!("not scaled: {error}"),
    };
    let detail = format!("{}; {how}; {ROUNDS} rounds in turn, medians; {scale}", each.join("; "));
    let parts = cells.iter().zip(bars).map(|(cell, bar)| cell.part(*bar, &null)).collect();
    Figure::new(id, worst, held, detail).with(parts)
}

pub(super) fn l2(_: &Bench) -> Result<Figure, String> {
    let clock = Clock::new();
    // A pair of stations is the least that speaks.
    let mut benches = [1, 50_000].map(pipeline::Bench::new);
    let names = ["1 pair of stations", "100 000 MACs"];
    let mut cells: Vec<Cell> =
        names.into_iter().zip(vpp::L2).map(|(name, vpp)| Cell::new(name.into(), vpp)).collect();
    let mut allocations = 0;
    for _ in 0..ROUNDS {
        let scale = per_tick(&clock);
        for (bench, cell) in benches.iter_mut().zip(&mut cells) {
            bench.warm();
            let measured = bench.measure(&clock, 5, BATCHES);
            allocations += measured.allocations;
            cell.keep(&clock, scale, measured.ticks);
        }
    }
    let how = format!("known unicast, every byte checked, {allocations} allocations");
    Ok(figure("l2-cycles", L2_HELD, &cells, &[L2_HELD.bar; 2], &how).only_if(allocations == 0))
}

pub(super) fn l3(_: &Bench) -> Result<Figure, String> {
    let routes = [10, 1_000_000];
    let mut benches = routes.map(|routes| routed::Bench::new(routes, FEW_FLOWS));
    let mut cells: Vec<Cell> =
        routes.iter().zip(vpp::L3).map(|(routes, vpp)| Cell::new(format!("{routes} routes"), vpp)).collect();
    rounds(&mut benches, &mut cells);
    let how = format!("{FEW_FLOWS} flows in random order, every byte checked");
    Ok(figure("l3-cycles", L3_HELD, &cells, &[L3_HELD.bar; 2], &how))
}

pub(super) fn policy(_: &Bench) -> Result<Figure, String> {
    let (mut benches, mut cells) = (Vec::new(), Vec::new());
    for (flows, vpp) in [FEW_FLOWS, MANY_FLOWS].into_iter().zip(vpp::POLICY) {
        for rules in RULES {
            benches.push(routed::Bench::policed(10, flows, rules)?);
            cells.push(Cell::new(format!("{flows} flows, {rules} rules"), vpp));
        }
    }
    rounds(&mut benches, &mut cells);
    let (few, many) = cells.split_at(RULES.len());
    let worst = |cells: &[Cell]| cells.iter().map(Cell::median).fold(0.0, f64::max);
    let how = format!(
        "L2 + L3 + stateful policy, established flows in random order towards the isolated port, every byte checked; bar with \
         {MANY_FLOWS} flows {MANY_FLOWS_BAR}; VPP's are without L3, with 100 rules"
    );
    let bars = [POLICY_HELD.bar, POLICY_HELD.bar, MANY_FLOWS_BAR, MANY_FLOWS_BAR];
    let Figure { id, detail, parts, .. } = figure("policy-cycles", POLICY_HELD, &cells, &bars, &how);
    let held = Figure::new(id, worst(few), POLICY_HELD, detail).with(parts);
    Ok(held.only_if(worst(many) <= MANY_FLOWS_BAR))
}

/// What translation adds to a routed packet of an established flow, both ways: the mean of what leaves and what answers it, less what
/// a packet takes that is only routed.
pub(super) fn nat(_: &Bench) -> Result<Figure, String> {
    let (clock, mut seed) = (Clock::new(), 7);
    let (mut measured, mut each) = (Vec::new(), Vec::new());
    for (flows, bar) in [(FEW_FLOWS, NAT_HELD.bar), (MANY_FLOWS, NAT_MANY_FLOWS_BAR)] {
        let mut bare = routed::Bench::new(10, flows);
        let mut masked = routed::Bench::masked(10, flows)?;
        let mut pairs = Vec::new();
        for _ in 0..NAT_PAIRS {
            let scale = per_tick(&clock);
            bare.warm(&mut seed);
            let bare = bare.measure(&clock, BATCHES, &mut seed) * scale;
            masked.warm(&mut seed);
            let out = masked.measure(&clock, BATCHES, &mut seed) * scale;
            let back = masked.measure_back(&clock, BATCHES, &mut seed) * scale;
            pairs.push([bare, out, back, (out + back) / 2.0 - bare]);
        }
        let [bare, out, back, more] = [0, 1, 2, 3].map(|n| median(pairs.iter().map(|it| it[n]).collect()));
        each.push(format!(
            "{flows} flows: {more:.1} more than {bare:.1} (bar {bar}); {out:.1} out, {back:.1} back"
        ));
        measured.push((more, bar));
    }
    let detail = format!(
        "{}; established UDP flows in random order, source and port translated, 10 routes, every byte checked; median of {NAT_PAIRS} rounds",
        each.join("; ")
    );
    let all = measured.iter().all(|(more, bar)| more <= bar);
    Ok(Figure::new("nat-cycles", measured[0].0, NAT_HELD, detail).only_if(all))
}

fn rounds(benches: &mut [routed::Bench], cells: &mut [Cell]) {
    let (clock, mut seed) = (Clock::new(), 7);
    for _ in 0..ROUNDS {
        let scale = per_tick(&clock);
        for (bench, cell) in benches.iter_mut().zip(cells.iter_mut()) {
            bench.warm(&mut seed);
            let windows = (0..5).map(|_| bench.measure(&clock, BATCHES, &mut seed)).collect();
            cell.keep(&clock, scale, median(windows));
        }
    }
}
