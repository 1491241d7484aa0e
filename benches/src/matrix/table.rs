//! The results as text: Markdown, which a terminal shows well enough.

use super::result::{Results, Row};
use std::fmt::Write;

/// Everything that there is to say.
pub fn all(results: &Results) -> String {
    let mut text = String::new();
    devices(results, &mut text);
    for task in results.each(|row| &row.task) {
        overload(results, task, &mut text);
    }
    closer(results, &mut text);
    changes(results, &mut text);
    text
}

fn devices(results: &Results, text: &mut String) {
    _ = writeln!(text, "Measured on {} by `{}`.\n", results.machine, results.command);
    _ = writeln!(text, "| device | version | configuration |\n|---|---|---|");
    for [name, version, configuration] in &results.devices {
        _ = writeln!(text, "| {name} | {version} | {configuration} |");
    }
    for [what, why] in &results.skipped {
        _ = writeln!(text, "\n**Skipped: {what}**: {why}");
    }
}

/// Packets a second at overload.
fn overload(results: &Results, task: &str, text: &mut String) {
    _ = writeln!(text, "\n### {task}: packets a second at overload\n");
    _ = writeln!(
        text,
        "| traffic | device | Mpps (least to most) | core ns a packet | switch, times this | times testpmd | |"
    );
    _ = writeln!(text, "|---|---|---|---|---|---|---|");
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
                "| {traffic} | {} | {mpps:.2} ({least:.2} to {most:.2}) | {:.0} | {} | {} | {} |",
                row.device,
                row.middle(|round| round.core_ns),
                times(results.switch_times(row)),
                times(results.times_testpmd(row)),
                remark(row)
            );
        }
    }
}

/// What a reader must know of a row.
fn remark(row: &Row) -> String {
    let mut remarks = Vec::new();
    if !row.is_tuned {
        remarks.push("**invalid: less than 80 % of what it reaches beside testpmd elsewhere**".to_owned());
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
        "| task, traffic | device | Mpps without loss: between | at 10 %: p50 / p99 / p99.9 µs, core ns | at 50 % | at 90 % |"
    );
    _ = writeln!(text, "|---|---|---|---|---|---|");
    for row in rows {
        let Some((lower, upper)) = row.lossless() else { continue };
        let at = |percent| match row.at(percent, |at| at.p50_us) {
            None => "–".to_owned(),
            Some(p50) => {
                let of = |value: Option<f64>| value.unwrap_or(f64::NAN);
                let (p99, p999) = (of(row.at(percent, |at| at.p99_us)), of(row.at(percent, |at| at.p999_us)));
                format!("{p50:.0} / {p99:.0} / {p999:.0}, {:.0}", of(row.at(percent, |at| at.core_ns)))
            }
        };
        _ = writeln!(
            text,
            "| {}, {} | {} | {lower:.2} and {upper:.2} | {} | {} | {} |",
            row.task,
            row.traffic,
            row.device,
            at(10),
            at(50),
            at(90)
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
        "| device | changes a second | packets a second beside | lost, each round | without changes | effective blocked time µs |"
    );
    _ = writeln!(text, "|---|---|---|---|---|---|");
    let list = |all: &[f64]| all.iter().map(|lost| format!("{lost:.0}")).collect::<Vec<_>>().join(", ");
    for change in &results.changes {
        _ = writeln!(
            text,
            "| {} | {} | {:.0} | {} | {} | {:.0} |",
            change.device,
            change.what,
            change.rate_pps,
            list(&change.lost),
            list(&change.quiet),
            change.blocked_us()
        );
    }
}
