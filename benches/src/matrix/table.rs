//! The results as text: Markdown, which a terminal shows well enough.

use super::result::{Alone, Lossless, Results, Row, Run};
use std::fmt::Write;

/// Everything that there is to say.
pub fn all(results: &Results) -> String {
    let mut text = String::new();
    runs(results, &mut text);
    devices(results, &mut text);
    for task in results.each(|row| &row.task) {
        overload(results, task, &mut text);
    }
    closer(results, &mut text);
    alone(results, &mut text);
    changes(results, &mut text);
    text
}

/// What a run is called in these tables: a letter, or a number behind the last of them.
pub fn mark(results: &Results, began: &str) -> String {
    let place = results.runs.iter().position(|run| run.began == began);
    match place {
        None => "?".into(),
        Some(place) if place < 26 => char::from(b'A' + place as u8).to_string(),
        Some(place) => format!("Z{}", place - 25),
    }
}

fn runs(results: &Results, text: &mut String) {
    _ = writeln!(text, "| run | when (UTC) | machine | source | command |\n|---|---|---|---|---|");
    for Run { began, machine, revision, command, .. } in &results.runs {
        let mark = mark(results, began);
        _ = writeln!(text, "| {mark} | {began} | {machine} | {revision} | `{command}` |");
    }
    _ = writeln!(text, "\nEach ratio is of rounds of one run, and so of one machine.\n");
}

fn devices(results: &Results, text: &mut String) {
    _ = writeln!(text, "| device | version | configuration | runs |\n|---|---|---|---|");
    let mut seen: Vec<&[String; 3]> = Vec::new();
    for device in results.runs.iter().flat_map(|run| &run.devices) {
        if !seen.contains(&device) {
            seen.push(device);
        }
    }
    for device in seen {
        let of: Vec<String> = results
            .runs
            .iter()
            .filter(|run| run.devices.contains(device))
            .map(|run| mark(results, &run.began))
            .collect();
        let [name, version, configuration] = device;
        _ = writeln!(text, "| {name} | {version} | {configuration} | {} |", of.join(", "));
    }
    for skipped in &results.skipped {
        let mark = mark(results, &skipped.run);
        _ = writeln!(text, "\n**Skipped: {}** (run {mark}): {}", skipped.what, skipped.why);
    }
}

/// Packets a second at overload.
fn overload(results: &Results, task: &str, text: &mut String) {
    _ = writeln!(text, "\n### {task}: packets a second at overload\n");
    _ = writeln!(
        text,
        "| traffic | device | Mpps (least to most) | core ns a packet | switch, times this | times testpmd | run | |"
    );
    _ = writeln!(text, "|---|---|---|---|---|---|---|---|");
    let rows: Vec<&Row> = results.rows.iter().filter(|row| row.task == task).collect();
    let mut traffics: Vec<&str> = rows.iter().map(|row| row.traffic.as_str()).collect();
    traffics.dedup();
    let mut seen = Vec::new();
    traffics.retain(|traffic| {
        !seen.contains(traffic) && {
            seen.push(*traffic);
            true
        }
    });
    for traffic in traffics {
        for row in rows.iter().filter(|row| row.traffic == traffic) {
            let (mpps, least, most) = row.mpps();
            let times = |value: Option<f64>| value.map_or("–".into(), |value| format!("{value:.2}"));
            _ = writeln!(
                text,
                "| {traffic} | {} | {mpps:.2} ({least:.2} to {most:.2}) | {:.0} | {} | {} | {} | {} |",
                row.device,
                row.middle(|round| round.core_ns),
                times(results.switch_times(row)),
                times(results.times_testpmd(row)),
                mark(results, &row.run),
                remark(row)
            );
        }
    }
}

/// Of a row that is no peer's.
const UNTUNED: &str = "**invalid: less than 80 % of what it reaches beside testpmd elsewhere**";

/// What a reader must know of a row.
fn remark(row: &Row) -> String {
    let mut remarks = Vec::new();
    if !row.is_tuned {
        remarks.push(UNTUNED.to_owned());
    }
    if row.wrong() > 0 {
        remarks.push(format!("**{} packets were not as they should be**", row.wrong()));
    }
    remarks.join("; ")
}

/// Throughput without loss, latencies, and what a packet costs at parts of it.
fn closer(results: &Results, text: &mut String) {
    let rows: Vec<&Row> = results.rows.iter().filter(|row| row.lossless().is_some()).collect();
    if rows.is_empty() {
        return;
    }
    _ = writeln!(
        text,
        "\n### Without loss: throughput, latency at parts of it, and the core's nanoseconds a packet\n"
    );
    _ = writeln!(
        text,
        "| task, traffic | device | Mpps without loss: between (of all rounds) | at 10 %: p50 / p99 / p99.9 µs, core ns | at 50 % | at 90 % | run | |"
    );
    _ = writeln!(text, "|---|---|---|---|---|---|---|---|");
    for row in rows {
        let Some(lossless) = row.lossless() else { continue };
        let at = |percent| {
            let Some(core_ns) = row.at(percent, |at| Some(at.core_ns)) else { return "–".to_owned() };
            let us = |value: Option<f64>| value.map_or("?".to_owned(), |value| format!("{value:.0}"));
            match row.at(percent, |at| at.p50_us) {
                // A sink that only counts.
                None => format!("not timed, {core_ns:.0}"),
                Some(p50) => format!(
                    "{p50:.0} / {} / {}, {core_ns:.0}",
                    us(row.at(percent, |at| at.p99_us)),
                    us(row.at(percent, |at| at.p999_us))
                ),
            }
        };
        _ = writeln!(
            text,
            "| {}, {} | {} | {} | {} | {} | {} | {} | {} |",
            row.task,
            row.traffic,
            row.device,
            between(lossless),
            at(10),
            at(50),
            at(90),
            mark(results, &row.run),
            unmade(row)
        );
    }
}

/// The bounds as they are, and how far the rounds were from each other.
fn between(lossless: Lossless) -> String {
    let Lossless { lower, upper, least, most, is_upper_seen } = lossless;
    match is_upper_seen {
        true => format!("{lower:.2} and {upper:.2} ({least:.2} to {most:.2})"),
        false => format!("{lower:.2} or more ({least:.2} at the least)"),
    }
}

/// What was not made of the rates, each once.
fn unmade(row: &Row) -> String {
    let mut all: Vec<&str> = Vec::new();
    for why in row.rounds.iter().flat_map(|round| &round.unmade) {
        if !all.contains(&why.as_str()) {
            all.push(why);
        }
    }
    all.join("; ")
}

/// What a packet takes in pipelines by themselves.
fn alone(results: &Results, text: &mut String) {
    if results.alone.is_empty() {
        return;
    }
    _ = writeln!(text, "\n### The pipeline alone: nanoseconds of a core a packet, 64 B\n");
    _ = writeln!(
        text,
        "| task, flows | switch (core cycles) | OVS, of which moving frames | OVS without that, times the switch | VPP, scaled, times the switch | testpmd, null ports | run | |"
    );
    _ = writeln!(text, "|---|---|---|---|---|---|---|---|");
    let cell = |value: Option<f64>, digits: usize| {
        value.map_or("–".to_owned(), |value| format!("{value:.digits$}"))
    };
    for one in &results.alone {
        let Alone { task, flows, is_tuned, .. } = one;
        _ = writeln!(
            text,
            "| {task}, {flows} | {} ({}) | {}, {} | {} | {} | {} | {} | {} |",
            cell(one.middle(|round| Some(round.switch_ns)), 1),
            cell(one.middle(|round| Some(round.switch_cycles)), 0),
            cell(one.middle(|round| round.ovs_ns), 1),
            cell(one.middle(|round| round.moved_ns), 1),
            cell(one.ovs_times(), 2),
            cell(super::alone::vpp(task, *flows).and_then(|cycles| one.vpp_times(cycles)), 2),
            cell(one.middle(|round| round.null_ns), 1),
            mark(results, &one.run),
            if *is_tuned { "" } else { UNTUNED }
        );
    }
}

/// What is lost while a device is changed.
fn changes(results: &Results, text: &mut String) {
    if results.changes.is_empty() {
        return;
    }
    _ = writeln!(text, "\n### While it is changed\n");
    _ = writeln!(
        text,
        "| device | changes a second | packets a second beside | lost, each round | without changes | effective blocked time µs | run |"
    );
    _ = writeln!(text, "|---|---|---|---|---|---|---|");
    let list = |all: &[f64]| all.iter().map(|lost| format!("{lost:.0}")).collect::<Vec<_>>().join(", ");
    for change in &results.changes {
        _ = writeln!(
            text,
            "| {} | {} | {:.0} | {} | {} | {:.0} | {} |",
            change.device,
            change.what,
            change.rate_pps,
            list(&change.lost),
            list(&change.quiet),
            change.blocked_us(),
            mark(results, &change.run)
        );
    }
}
