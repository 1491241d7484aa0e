//! `switch-ctl stats`.

use crate::output::{Output, bytes, thousands};
use clap::{Args, Subcommand};
use std::time::Duration;
use switch_api::{
    ApiError, Client, FrameCounts, MemoryStatus, Nothing, PacketCounts, Request, StageCost, Stats as Reading,
    WorkerStages,
};

/// What to say of all that is counted.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  switch-ctl stats
  switch-ctl --json stats | jq .drops")]
pub struct Stats {
    #[command(subcommand)]
    verb: Option<Verb>,
}

/// What else can be said of it.
#[derive(Debug, Subcommand)]
enum Verb {
    /// What each stage costs each worker: packets, the vectors they came in, cycles a packet.
    ///
    /// One batch in sixteen is timed, always; what is said rests on those. Cycles are of the time-stamp counter.
    Stages(Stages),
}

/// Of when.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  switch-ctl stats stages
  switch-ctl stats stages --seconds 0     # since the daemon started")]
struct Stages {
    /// Over so many seconds from now; 0: since the daemon started.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=3600))]
    seconds: u32,
}

pub fn run(stats: &Stats, client: &mut Client, output: &Output) -> Result<(), ApiError> {
    if let Some(Verb::Stages(Stages { seconds })) = stats.verb {
        let before = match seconds {
            0 => Vec::new(),
            _ => read(client)?.worker_stages,
        };
        std::thread::sleep(Duration::from_secs(seconds.into()));
        let workers = since(&before, read(client)?.worker_stages);
        output.answer(&workers, |workers| by_worker(workers, output));
        return Ok(());
    }
    let stats = read(client)?;
    output.answer(&stats, |stats| show(stats, output));
    Ok(())
}

fn read(client: &mut Client) -> Result<Reading, ApiError> {
    client.call(&Request::StatsGet(Nothing {}))
}

/// What happened between two readings.
pub fn since(before: &[WorkerStages], mut after: Vec<WorkerStages>) -> Vec<WorkerStages> {
    for worker in &mut after {
        let Some(then) = before.iter().find(|then| then.worker == worker.worker) else { continue };
        for stage in &mut worker.stages {
            let Some(then) = then.stages.iter().find(|then| then.stage == stage.stage) else { continue };
            *stage = difference(then, stage);
        }
        worker.stages.retain(|stage| stage.packets > 0);
    }
    after
}

fn difference(before: &StageCost, after: &StageCost) -> StageCost {
    let cycles = |cost: &StageCost| cost.cycles_per_packet * cost.packets as f64;
    // A daemon that was started anew in between counts from nothing.
    let packets = after.packets.saturating_sub(before.packets);
    let more = (cycles(after) - cycles(before)).max(0.0);
    StageCost {
        stage: after.stage.clone(),
        cycles_per_packet: if packets > 0 { more / packets as f64 } else { 0.0 },
        packets,
        vectors: after.vectors.saturating_sub(before.vectors),
    }
}

fn by_worker(workers: &[WorkerStages], output: &Output) -> String {
    if workers.iter().all(|worker| worker.stages.is_empty()) {
        return "no packet was timed: too few came; one batch in sixteen is".into();
    }
    let mut table =
        output.table(&["WORKER", "STAGE", "PACKETS", "VECTORS", "PACKETS A VECTOR", "CYCLES A PACKET"]);
    for worker in workers {
        for stage in &worker.stages {
            let size = stage.packets as f64 / stage.vectors.max(1) as f64;
            table.add_row(vec![
                worker.worker.to_string(),
                stage.stage.clone(),
                thousands(stage.packets),
                thousands(stage.vectors),
                format!("{size:.1}"),
                format!("{:.1}", stage.cycles_per_packet),
            ]);
        }
        table.add_row(vec![
            worker.worker.to_string(),
            "all".into(),
            String::new(),
            String::new(),
            String::new(),
            format!("{:.1}", worker.cycles_per_packet()),
        ]);
    }
    table.to_string()
}

fn show(stats: &Reading, output: &Output) -> String {
    let mut parts =
        vec![ports(stats, output), drops(stats, output), policies(stats, output), events(stats, output)];
    parts.push(stages(stats, output));
    parts.push(packets(&stats.packets));
    parts.push(frames(&stats.frames));
    parts.push(memory(&stats.memory));
    parts.retain(|part| !part.is_empty());
    parts.join("\n\n")
}

fn ports(stats: &Reading, output: &Output) -> String {
    let mut table = output.table(&["PORT", "RX PACKETS", "RX BYTES", "TX PACKETS", "TX BYTES", "DROPS"]);
    for (name, counters) in &stats.ports {
        let numbers =
            [counters.rx_packets, counters.rx_bytes, counters.tx_packets, counters.tx_bytes, counters.drops];
        table.add_row(std::iter::once(name.to_string()).chain(numbers.map(thousands)));
    }
    table.to_string()
}

fn drops(stats: &Reading, output: &Output) -> String {
    if stats.drops.is_empty() {
        return "no frame was dropped".into();
    }
    let mut table = output.table(&["DROPPED", "STAGE", "PORT", "FRAMES", "MEANING"]);
    for drop in &stats.drops {
        let (port, frames) = (drop.port.to_string(), thousands(drop.frames));
        table.add_row(vec![drop.reason.clone(), drop.stage.clone(), port, frames, drop.meaning.clone()]);
    }
    table.to_string()
}

fn policies(stats: &Reading, output: &Output) -> String {
    if stats.policy_drops.is_empty() {
        return String::new();
    }
    let mut table = output.table(&["DROPPED BY POLICY", "FRAMES"]);
    for rule in &stats.policy_drops {
        table.add_row(vec![rule.rule.clone(), thousands(rule.packets)]);
    }
    table.to_string()
}

fn events(stats: &Reading, output: &Output) -> String {
    let mut table = output.table(&["EVENT", "TIMES"]);
    let seen: Vec<_> = stats.events.iter().filter(|(_, count)| *count > 0).collect();
    if seen.is_empty() {
        return String::new();
    }
    for (name, count) in seen {
        table.add_row(vec![name.clone(), thousands(*count)]);
    }
    table.to_string()
}

fn stages(stats: &Reading, output: &Output) -> String {
    if stats.stages.is_empty() {
        return String::new();
    }
    let mut table = output.table(&["STAGE", "CYCLES A PACKET", "PACKETS SAMPLED"]);
    for stage in &stats.stages {
        let cycles = format!("{:.1}", stage.cycles_per_packet);
        table.add_row(vec![stage.stage.clone(), cycles, thousands(stage.packets)]);
    }
    table.to_string()
}

/// What memory is spent on, in a line.
pub fn memory(memory: &MemoryStatus) -> String {
    let emptying = match memory.regions_emptying {
        0 => String::new(),
        n => format!(", {n} more on the way back to the kernel"),
    };
    format!(
        "memory: tables {} + large frames {} + packet memory {} + ports {} + policies and lists {} = {} of {}; regions: {} of {}{emptying}",
        bytes(memory.tables_bytes),
        bytes(memory.large_bytes),
        bytes(memory.packet_bytes),
        bytes(memory.ports_bytes),
        bytes(memory.rules_bytes),
        bytes(memory.used_bytes),
        bytes(memory.ceiling_bytes),
        memory.regions,
        bytes(memory.region_bytes),
    )
}

/// The law of packets, in a line.
pub fn packets(packets: &PacketCounts) -> String {
    let PacketCounts { received, outside, copied, generated, .. } = packets;
    let PacketCounts { sent, consumed, dropped, waiting, unaccounted, .. } = packets;
    format!(
        "packets: {received} in + {outside} dropped outside + {copied} copies + {generated} generated = {sent} out + {consumed} for the switch + {dropped} dropped in all + {waiting} waiting, {unaccounted} unaccounted for"
    )
}

/// The law of frames, in a line.
pub fn frames(frames: &FrameCounts) -> String {
    let FrameCounts { total, free, in_rings, in_flight, unaccounted, chunk_bytes, large, large_free } =
        frames;
    format!(
        "frames: {free} free + {in_rings} in rings + {in_flight} in flight = {} of {total} ({chunk_bytes} bytes each; {large} large ones of 64 KiB, {large_free} free), {unaccounted} unaccounted for",
        free + in_rings + in_flight
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cost(packets: u64, vectors: u64, cycles_per_packet: f64) -> StageCost {
        StageCost { stage: "learn".into(), cycles_per_packet, packets, vectors }
    }

    fn worker(stages: Vec<StageCost>) -> Vec<WorkerStages> {
        vec![WorkerStages { worker: 0, stages }]
    }

    #[test]
    fn between_two_readings_only_what_came_in_between_counts() {
        // 100 packets at 10 cycles, then 100 more at 30.
        let told = since(&worker(vec![cost(100, 2, 10.0)]), worker(vec![cost(200, 6, 20.0)]));
        assert_eq!(told, worker(vec![cost(100, 4, 30.0)]));
        // Nothing came, or a daemon that was started anew.
        assert_eq!(
            since(&worker(vec![cost(100, 2, 10.0)]), worker(vec![cost(100, 2, 10.0)])),
            worker(vec![])
        );
        assert_eq!(since(&worker(vec![cost(100, 2, 10.0)]), worker(vec![cost(50, 2, 10.0)])), worker(vec![]));
        // A stage that nothing went through before.
        assert_eq!(since(&worker(vec![]), worker(vec![cost(64, 1, 5.0)])), worker(vec![cost(64, 1, 5.0)]));
    }
}
