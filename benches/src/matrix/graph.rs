//! The README's picture: what was promised of speed, in one look. Figures by themselves, and the peers beside them; each panel says whether what
//! was promised holds.

use super::canvas::{Bar, Canvas, GOAL, INK, MUTED, OURS, Panel, Pen, grouped, picture};
use super::plot::{HALF, MARGIN, WIDTH, changes, forwarding, header};
use super::result::Results;
use super::task::{Task, Traffic};
use crate::figures::Part;
use crate::figures::cycles::{VPP_HERE, VPP_THERE};
use crate::figures::kept::{Kept, One};

const HEADER: i32 = 84;
const FOOTER: i32 = 26;
/// What a line of explanation has room for.
const WORDS_MAX: usize = 80;

/// Draws it; an SVG.
pub fn svg(kept: &Kept, results: &Results) -> Result<String, String> {
    let cycles = cycles(kept, results);
    let halves = [[forward(kept, results), skipped(results)], [blocked(kept, results), quiet(kept)]];
    let column = |panels: &[Panel; 2]| panels.iter().map(Panel::height).sum::<i32>();
    let below = halves.iter().map(column).max().unwrap_or(0);
    let size = (WIDTH, HEADER + cycles.height() + below + FOOTER);
    picture(size, |canvas| {
        header(canvas, "What was promised of speed, and what is", &lines(kept, results))?;
        cycles.draw(canvas, (MARGIN, HEADER), WIDTH - 2 * MARGIN)?;
        for (panels, n) in halves.iter().zip(0..) {
            let (x, mut y) = (MARGIN + n * (HALF + MARGIN), HEADER + cycles.height());
            for panel in panels.iter().filter(|panel| !panel.title.is_empty()) {
                panel.draw(canvas, (x, y), HALF)?;
                y += panel.height();
            }
        }
        legend(canvas, size.1 - 16)
    })
}

/// What marks mean.
fn legend(canvas: &Canvas<'_>, y: i32) -> Result<(), String> {
    let pen = Pen::new(11.0, MUTED);
    canvas.line([(MARGIN + 4, y - 8), (MARGIN + 4, y + 8)], INK, 2)?;
    canvas.text("what was promised at most", (MARGIN + 14, y), pen)?;
    canvas.diamond((MARGIN + 190, y), 6, GOAL)?;
    canvas.text("what VPP takes where it was measured: the goal", (MARGIN + 204, y), pen)?;
    canvas.line([(MARGIN + 490, y - 8), (MARGIN + 490, y + 8)], GOAL, 1)?;
    canvas.text("what testpmd does, which looks at no frame", (MARGIN + 500, y), pen)
}

/// Where and when, and how it is made again.
fn lines(kept: &Kept, results: &Results) -> Vec<String> {
    let mut machines: Vec<&str> = Vec::new();
    let all = kept.0.iter().map(|one| one.machine.as_str());
    for machine in all.chain(results.runs.iter().map(|run| run.machine.as_str())) {
        if !machines.contains(&machine) {
            machines.push(machine);
        }
    }
    let last =
        kept.0.iter().map(|one| one.when.as_str()).chain(results.runs.iter().map(|run| &*run.began)).max();
    vec![
        format!("on {}", machines.join("; and on ")),
        format!("the last of it at {}; made again by cargo xtask graph", last.unwrap_or("no time")),
    ]
}

/// Whether the figures of these names hold.
fn verdict(kept: &Kept, ids: &[&str]) -> Option<(String, Option<bool>)> {
    let all: Vec<Option<&One>> = ids.iter().map(|id| kept.get(id)).collect();
    let broken: Vec<&str> =
        all.iter().flatten().filter(|one| one.value.is_some() && !one.ok).map(|one| &*one.id).collect();
    let unknown = all.iter().any(|one| one.is_none_or(|one| one.value.is_none()));
    Some(match (broken.is_empty(), unknown) {
        (false, _) if ids.len() == 1 => ("does not hold".into(), Some(false)),
        (false, _) => (format!("{}: does not hold", broken.join(", ")), Some(false)),
        (true, true) => ("not known".into(), None),
        (true, false) => ("holds".into(), Some(true)),
    })
}

fn cell(value: Option<f64>, digits: usize) -> String {
    value.map_or("–".to_owned(), |value| format!("{value:.digits$}"))
}

/// The pipeline alone.
fn cycles(kept: &Kept, results: &Results) -> Panel {
    let ids = ["l2-cycles", "l3-cycles", "policy-cycles"];
    let names = ["L2", "L3", "L3 + policy"];
    let mut bars = Vec::new();
    for (id, name) in ids.iter().zip(names) {
        for part in kept.get(id).map(|one| one.parts.as_slice()).unwrap_or_default() {
            bars.push(cycles_bar(name, part, results));
        }
    }
    Panel {
        title: "The pipeline alone: core cycles a packet (one core, 64 B, learning and all counters on)".into(),
        verdict: verdict(kept, &ids),
        notes: vec![
            "VPP, times: how many times as long it would take here, scaled by testpmd over null ports in the same run".into(),
            "OVS, times: how many times as long its userspace datapath takes beside it under the same load, moving frames not counted".into(),
        ],
        heads: ["cycles", "promised", "VPP there", "VPP, times", "OVS, times"].map(str::to_owned).into(),
        bars,
        labels_px: 275,
        ..Panel::default()
    }
}

fn cycles_bar(task: &str, part: &Part, results: &Results) -> Bar {
    let beside = |name: &str| part.beside.iter().find(|(known, _)| known == name).map(|(_, value)| *value);
    let (there, here) = (beside(VPP_THERE), beside(VPP_HERE));
    let ovs = alone(task, &part.name).and_then(|(task, flows)| {
        let one = results.alone.iter().find(|one| one.task == task && one.flows == flows)?;
        one.ovs_times().filter(|_| one.is_tuned)
    });
    let cells = vec![
        cell(Some(part.value), 1),
        part.bar.map_or("–".into(), |bar| format!("≤ {bar:.0}")),
        cell(there, 0),
        cell(here.map(|here| here / part.value), 1),
        cell(ovs, 1),
    ];
    let label = grouped(&format!("{task}, {}", part.name));
    Bar { limit: part.bar, goal: there, cells, ..Bar::new(label, Some(part.value), OURS) }
}

/// The same load where the pipelines are beside each other: a task and a number of flows. Of stations and routes by the many there is none.
fn alone(task: &str, part: &str) -> Option<(String, u32)> {
    match (task, part) {
        ("L2", "1 pair of stations") => Some((Task::Bridge.name(), 1)),
        ("L3", "10 routes") => Some((Task::Route.name(), 1_000)),
        ("L3 + policy", _) => {
            let mut numbers = part.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse().ok());
            let (flows, rules) = (numbers.next()?, numbers.next()?);
            Some((Task::Police(rules).name(), flows))
        }
        _ => None,
    }
}

/// Over cables, doing everything.
fn forward(kept: &Kept, results: &Results) -> Panel {
    let task = Task::Police(1_000).name();
    let rows = results.shown(&task, &Traffic::MAIN.name());
    let mut notes =
        vec![grouped(&format!("{}, over veth; promised: as many as testpmd", Traffic::MAIN.name()))];
    notes.extend(said(kept, "xdp-full-forward", "times testpmd"));
    Panel {
        title: format!("On the wire, {}", grouped(&task)),
        verdict: verdict(kept, &["xdp-full-forward"]),
        notes,
        ..forwarding(results, &rows)
    }
}

/// What a figure said, or why it said nothing.
fn said(kept: &Kept, id: &str, of: &str) -> Option<String> {
    let one = kept.get(id)?;
    Some(match one.value {
        Some(value) => format!("figure {id}: {value:.2} {of} (bar {})", one.bar),
        None => short(&format!("figure {id}: {}", one.detail)),
    })
}

fn short(text: &str) -> String {
    match text.char_indices().nth(WORDS_MAX) {
        None => text.into(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

/// While it is changed.
fn blocked(kept: &Kept, results: &Results) -> Panel {
    let mut panel = changes(results, 150);
    panel.verdict = verdict(kept, &["blocked-time"]);
    panel.title = "While routes, sets and ports change".into();
    panel.notes.truncate(usize::from(!results.changes.is_empty()));
    panel.notes.push("promised: none lost of a steady flood".into());
    if results.changes.is_empty() {
        panel.notes.push("peers: not measured yet (cargo xtask peers --task changes --write)".into());
    }
    panel.notes.extend(said(kept, "blocked-time", "packets lost"));
    panel
}

/// At a tenth of the load: each as a part of what is promised.
fn quiet(kept: &Kept) -> Panel {
    let mut bars = Vec::new();
    let mut notes = vec!["L2 over veth; each bar as a part of what was promised".to_owned()];
    if let Some(one) = kept.get("quiet-cpu") {
        match one.value {
            None => notes.push(short(&format!("figure quiet-cpu: {}", one.detail))),
            Some(value) => bars.push(part_of("CPU a packet, × full load", value, one.bar, 2)),
        }
        let parts = one.parts.iter().filter_map(|part| Some((part, part.bar?)));
        bars.extend(parts.map(|(part, bar)| part_of(&part.name, part.value, bar, 0)));
    }
    Panel {
        title: "At a tenth of the load".into(),
        verdict: verdict(kept, &["quiet-cpu"]),
        notes,
        heads: ["measured", "promised"].map(str::to_owned).into(),
        bars,
        labels_px: 210,
        ..Panel::default()
    }
}

fn part_of(name: &str, value: f64, bar: f64, digits: usize) -> Bar {
    let cells = vec![cell(Some(value), digits), format!("≤ {bar}")];
    Bar { limit: Some(1.0), cells, ..Bar::new(name.into(), Some(value / bar), OURS) }
}

/// What was not measured: nothing is left out in silence.
fn skipped(results: &Results) -> Panel {
    if results.skipped.is_empty() {
        return Panel::default();
    }
    let line = |one: &super::result::Skipped| short(&format!("{}: {}", one.what, one.why));
    Panel {
        title: "Not measured".into(),
        notes: results.skipped.iter().map(line).collect(),
        ..Panel::default()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic where it stands")]

    use super::super::result::{Alone, AloneRound, Change, Round, Row, Run, Skipped};
    use super::*;
    use crate::figures::{ALL, Figure};

    fn one(id: &str, measured: Result<(f64, Vec<Part>), &str>) -> One {
        let entry = ALL.iter().find(|(known, ..)| *known == id).unwrap();
        let figure = |(value, parts)| Figure::new(entry.0, value, entry.2, "how".into()).with(parts);
        One::now(entry, &measured.map(figure).map_err(str::to_owned))
    }

    /// What is promised and what is not known is told apart, and what peers reach stands where it is of the same load.
    #[test]
    fn every_panel_says_whether_its_promise_holds() {
        let mut kept = Kept::default();
        let policy = Part::new("1000 flows, 10 rules", 128.0, Some(140.0));
        let policy = policy.beside(VPP_THERE, 103.0).beside(VPP_HERE, 512.0);
        kept.put(one("l2-cycles", Ok((20.0, vec![Part::new("1 pair of stations", 20.0, Some(65.0))]))));
        kept.put(one("l3-cycles", Ok((67.0, vec![Part::new("10 routes", 67.0, Some(80.0))]))));
        kept.put(one("policy-cycles", Ok((128.0, vec![policy]))));
        kept.put(one("xdp-full-forward", Ok((0.97, Vec::new()))));
        kept.put(one("blocked-time", Err("2600 packets a second were made, not 100000")));
        kept.put(one("quiet-cpu", Ok((1.6, vec![Part::new("p99 µs", 120.0, Some(200.0))]))));
        let began = "2026-11-29T16:00:00Z".to_owned();
        let row = |device: &str, pps: f64| Row {
            run: began.clone(),
            task: Task::Police(1_000).name(),
            traffic: Traffic::MAIN.name(),
            device: device.into(),
            rounds: vec![Round { pps, ..Round::default() }],
            is_tuned: true,
        };
        let round = AloneRound {
            switch_ns: 40.0,
            ovs_ns: Some(200.0),
            moved_ns: Some(20.0),
            ..AloneRound::default()
        };
        let results = Results {
            runs: vec![Run { began: began.clone(), machine: "a machine".into(), ..Run::default() }],
            rows: vec![row(super::super::device::SWITCH, 0.9e6), row(super::super::device::TESTPMD, 1e6)],
            alone: vec![Alone {
                run: began.clone(),
                task: Task::Police(10).name(),
                flows: 1_000,
                rounds: vec![round],
                is_tuned: true,
            }],
            changes: vec![Change {
                run: began.clone(),
                device: "nftables".into(),
                what: "10 routes".into(),
                lost: vec![500.0],
                quiet: vec![0.0],
                rate_pps: 100_000.0,
            }],
            skipped: vec![Skipped { run: began, what: "a peer".into(), why: "missing".into() }],
        };
        let text = svg(&kept, &results).unwrap();
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        for wanted in [
            "holds",
            "does not hold",
            "not known",
            "128.0",
            "≤ 140",
            "4.0",
            "4.5",
            "0.90",
            "5000",
            "120",
            "a peer: missing",
            "figure blocked-time: 2600 packets a second were made, not 100000",
        ] {
            assert!(lines.contains(&wanted), "{wanted:?} is not in {text}");
        }
        assert!(svg(&Kept::default(), &Results::default()).is_ok());
    }

    #[test]
    fn open_vswitch_stands_beside_the_same_load_only() {
        let named = |task, part| alone(task, part);
        assert_eq!(named("L2", "100 000 MACs"), None);
        assert_eq!(named("L3", "1000000 routes"), None);
        let rules = Some(("L3 + policy, 10000 rules".to_owned(), 100_000));
        assert_eq!(named("L3 + policy", "100000 flows, 10000 rules"), rules);
    }
}
