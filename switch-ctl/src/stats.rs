//! `switch-ctl stats`.

use crate::output::{Output, bytes, thousands};
use switch_api::{ApiError, Client, FrameCounts, MemoryStatus, Nothing, Request, Stats};

pub fn run(client: &mut Client, output: &Output) -> Result<(), ApiError> {
    let stats: Stats = client.call(&Request::StatsGet(Nothing {}))?;
    output.answer(&stats, |stats| show(stats, output));
    Ok(())
}

fn show(stats: &Stats, output: &Output) -> String {
    let mut parts =
        vec![ports(stats, output), drops(stats, output), policies(stats, output), events(stats, output)];
    parts.push(stages(stats, output));
    parts.push(frames(&stats.frames));
    parts.push(memory(&stats.memory));
    parts.retain(|part| !part.is_empty());
    parts.join("\n\n")
}

fn ports(stats: &Stats, output: &Output) -> String {
    let mut table = output.table(&["PORT", "RX PACKETS", "RX BYTES", "TX PACKETS", "TX BYTES", "DROPS"]);
    for (name, counters) in &stats.ports {
        let numbers =
            [counters.rx_packets, counters.rx_bytes, counters.tx_packets, counters.tx_bytes, counters.drops];
        table.add_row(std::iter::once(name.to_string()).chain(numbers.map(thousands)));
    }
    table.to_string()
}

fn drops(stats: &Stats, output: &Output) -> String {
    if stats.drops.is_empty() {
        return "no frame was dropped".into();
    }
    let mut table = output.table(&["DROPPED", "PORT", "FRAMES", "MEANING"]);
    for drop in &stats.drops {
        let (port, frames) = (drop.port.to_string(), thousands(drop.frames));
        table.add_row(vec![drop.reason.clone(), port, frames, drop.meaning.clone()]);
    }
    table.to_string()
}

fn policies(stats: &Stats, output: &Output) -> String {
    if stats.policy_drops.is_empty() {
        return String::new();
    }
    let mut table = output.table(&["DROPPED BY POLICY", "FRAMES"]);
    for rule in &stats.policy_drops {
        table.add_row(vec![rule.rule.clone(), thousands(rule.packets)]);
    }
    table.to_string()
}

fn events(stats: &Stats, output: &Output) -> String {
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

fn stages(stats: &Stats, output: &Output) -> String {
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
        "memory: tables {} + large frames {} + packet memory {} + ports {} = {} of {}; regions: {} of {}{emptying}",
        bytes(memory.tables_bytes),
        bytes(memory.large_bytes),
        bytes(memory.packet_bytes),
        bytes(memory.ports_bytes),
        bytes(memory.used_bytes),
        bytes(memory.ceiling_bytes),
        memory.regions,
        bytes(memory.region_bytes),
    )
}

/// The conservation law, in a line.
pub fn frames(frames: &FrameCounts) -> String {
    let FrameCounts { total, free, in_rings, in_flight, unaccounted, chunk_bytes, large, large_free } =
        frames;
    format!(
        "frames: {free} free + {in_rings} in rings + {in_flight} in flight = {} of {total} ({chunk_bytes} bytes each; {large} large ones of 64 KiB, {large_free} free), {unaccounted} unaccounted for",
        free + in_rings + in_flight
    )
}
