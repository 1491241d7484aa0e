//! [l2-pipeline] The pipeline alone, and whether the running daemon says the same of itself.

use super::{Bench, Figure, Held};
use crate::cycles::{median, per_tick};
use crate::pipeline;
use quanta::Clock;
use std::time::Duration;
use switch_api::{Done, MemorySource, Port, PortKind, Request, Stats};
use switch_core::counter::Stage;
use switch_lab::{Node, Options};

/// Pairs of stations: a flow each way between each, twice as many MACs.
pub const PAIRS: u32 = 1000;
/// The first version's bar; VPP needs 48.
const BAR: f64 = 65.0;
/// How far the daemon may be from the bench.
const AGREEMENT: f64 = 0.15;

/// What it is held against.
pub(super) const HELD: Held = Held::at_most("core cycles a packet", BAR);

pub(super) fn measure(bench: &Bench) -> Result<Figure, String> {
    let clock = Clock::new();
    let mut alone = pipeline::Bench::new(PAIRS);
    let (mut cycles, mut daemons, mut ticks) = (Vec::new(), Vec::new(), Vec::new());
    let mut allocations = 0;
    // Alternating, so that whatever disturbs one disturbs the other.
    for _ in 0..5 {
        let scale = per_tick(&clock);
        let measured = alone.measure(&clock, 11, 400);
        cycles.push(measured.ticks * scale);
        ticks.push(measured.ticks);
        allocations += measured.allocations;
        daemons.push(daemon(bench)?.into_iter().map(|ticks| ticks * scale).collect::<Vec<_>>());
    }
    let (cycles, ticks) = (median(cycles), median(ticks));
    let daemon = median(daemons.iter().map(|stages| stages.iter().sum()).collect());
    let apart = (daemon - cycles).abs() / cycles;
    let detail = format!(
        "{PAIRS} pairs of stations, a seeded flow each way: {} MACs, 60-byte frames, every byte checked; {ticks:.1} TSC \
         ticks; {allocations} allocations (bar 0); the daemon's own stages add up to {daemon:.1} cycles, {:.0} % apart \
         (bar {:.0} %): {}; VPP 48, OVS 163",
        2 * PAIRS,
        apart * 100.0,
        AGREEMENT * 100.0,
        by_stage(&daemons)
    );
    let figure = Figure::new("l2-pipeline", cycles, HELD, detail);
    Ok(figure.only_if(allocations == 0 && apart <= AGREEMENT))
}

/// Where the cycles go: each stage that took some, the median of the rounds.
fn by_stage(rounds: &[Vec<f64>]) -> String {
    let of = |n: usize| median(rounds.iter().map(|stages| stages[n]).collect());
    let costs = pipeline_stages().enumerate().map(|(n, stage)| (stage.name(), of(n)));
    let costs = costs.filter(|(_, cycles)| *cycles > 0.0);
    costs.map(|(name, cycles)| format!("{name} {cycles:.1}")).collect::<Vec<_>>().join(", ")
}

fn pipeline_stages() -> impl Iterator<Item = Stage> {
    Stage::ALL.into_iter().filter(|stage| stage.is_pipeline())
}

/// Ticks a packet of each of the pipeline's stages, by the counters of a daemon on memory ports.
fn daemon(bench: &Bench) -> Result<Vec<f64>, String> {
    let node = Node::new();
    let mut daemon = node.start(&Options::new(&bench.switchd));
    daemon.bridge("br0");
    for (name, reverse) in [("a", false), ("b", true)] {
        let source = MemorySource { flows: PAIRS, frame_len: 60, seed: 7, rate_pps: 0, reverse };
        let port = Port::new(
            name.parse().map_err(|error| format!("{error}"))?,
            "br0".parse().map_err(|error| format!("{error}"))?,
            PortKind::Memory { source: Some(source) },
        );
        let _: Done = daemon.call(&Request::PortAdd(Box::new(port)));
    }
    std::thread::sleep(Duration::from_millis(300));
    let before = daemon.stats();
    std::thread::sleep(Duration::from_millis(700));
    let after = daemon.stats();
    daemon.stop(true);
    Ok(pipeline_ticks(&before, &after))
}

/// Ticks a packet between two readings, of each of the pipeline's own stages.
fn pipeline_ticks(before: &Stats, after: &Stats) -> Vec<f64> {
    let total = |stats: &Stats, stage: &str| {
        let found = stats.stages.iter().find(|cost| cost.stage == stage);
        found.map_or((0.0, 0.0), |cost| (cost.cycles_per_packet * cost.packets as f64, cost.packets as f64))
    };
    let cost = |stage: Stage| {
        let (cycles_before, packets_before) = total(before, stage.name());
        let (cycles_after, packets_after) = total(after, stage.name());
        let packets = packets_after - packets_before;
        // What nothing went through, as the stages of routing here, costs nothing.
        if packets > 0.0 { (cycles_after - cycles_before) / packets } else { 0.0 }
    };
    pipeline_stages().map(cost).collect()
}
