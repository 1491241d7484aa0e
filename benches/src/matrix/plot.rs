//! The results as a picture: a panel a question, a bar a device, the switch's in another colour; and a dot for each load.

use super::canvas::{
    Bar, Canvas, FAINT, GOAL, INK, INVALID, MUTED, OURS, Panel, Pen, THEIRS, grouped, picture,
};
use super::device::{SWITCH, TESTPMD};
use super::merge;
use super::result::{Results, Row};
use super::task::{Task, Traffic};
use plotters::prelude::RGBColor;

/// Of all pictures.
pub const WIDTH: i32 = 1080;
/// At either side.
pub const MARGIN: i32 = 24;
/// What stands above the panels.
const HEADER: i32 = 84;
/// Of a panel that has half of the width.
pub const HALF: i32 = (WIDTH - 3 * MARGIN) / 2;
const WHOLE: i32 = WIDTH - 2 * MARGIN;
/// What a device's name has of that.
const LABELS: i32 = 176;
/// Of a row of dots.
const ROW: i32 = 20;
/// Of the switch's packets a second by another's, what the dots' axis shows.
const RATIOS: (f64, f64) = (0.5, 8.0);
/// Where it has lines.
const TICKS: [f64; 5] = [0.5, 1.0, 2.0, 4.0, 8.0];
/// What labels and values have beside dots.
const DOTS_LABELS: i32 = 330;
const DOTS_VALUES: i32 = 120;
/// Above the first row of dots, and below the last.
const DOTS_ABOVE: i32 = 66;
const DOTS_BELOW: i32 = 26;

/// Draws it; an SVG.
pub fn svg(results: &Results) -> Result<String, String> {
    let (halves, wholes, dots) = (halves(results), wholes(results), dots(results));
    // A row is as high as its higher panel.
    let rows: Vec<&[Panel]> = halves.chunks(2).collect();
    let row_height = |row: &[Panel]| row.iter().map(Panel::height).max().unwrap_or(0);
    let dots_height = if dots.is_empty() { 0 } else { DOTS_ABOVE + DOTS_BELOW + ROW * dots.len() as i32 };
    let height = HEADER
        + rows.iter().map(|row| row_height(row)).sum::<i32>()
        + dots_height
        + wholes.iter().map(Panel::height).sum::<i32>();
    picture((WIDTH, height), |canvas| {
        header(canvas, "The switch beside what one would run instead", &lines(results))?;
        let mut y = HEADER;
        for row in &rows {
            for (panel, n) in row.iter().zip(0..) {
                panel.draw(canvas, (MARGIN + n * (HALF + MARGIN), y), HALF)?;
            }
            y += row_height(row);
        }
        draw_dots(canvas, &dots, y)?;
        y += dots_height;
        for panel in &wholes {
            panel.draw(canvas, (MARGIN, y), WHOLE)?;
            y += panel.height();
        }
        Ok(())
    })
}

/// A picture's title, and lines below it.
pub fn header(canvas: &Canvas<'_>, title: &str, lines: &[String]) -> Result<(), String> {
    canvas.text(title, (MARGIN, 26), Pen::new(22.0, INK).bold())?;
    for (line, n) in lines.iter().zip(0..) {
        canvas.text(line, (MARGIN, 48 + 16 * n), Pen::new(11.5, MUTED))?;
    }
    Ok(())
}

/// Where and when, by how many runs.
fn lines(results: &Results) -> Vec<String> {
    let Some(last) = results.runs.last() else { return vec!["nothing was measured".into()] };
    let machines = results.runs.iter().filter(|run| run.machine == last.machine).count();
    let others = match results.runs.len() - machines {
        0 => String::new(),
        n => format!("; {n} more elsewhere, see the tables"),
    };
    let source = format!("{}, the last at {} of source {}", runs(machines), last.began, last.revision);
    vec![
        format!("on {}", last.machine),
        format!("{source}{others}; made again by cargo xtask peers --write. Ratios are of the same run."),
    ]
}

fn runs(count: usize) -> String {
    if count == 1 { "1 run".into() } else { format!("{count} runs") }
}

/// Tasks at overload, and how long packets take.
fn halves(results: &Results) -> Vec<Panel> {
    let main = Traffic::MAIN.name();
    let mut panels: Vec<Panel> = Task::ALL
        .iter()
        .map(|task| {
            let rows = results.shown(&task.name(), &main);
            Panel {
                title: format!("{} at overload", grouped(&task.name())),
                notes: vec![format!("{}; line: testpmd, which looks at no frame", grouped(&main))],
                ..forwarding(results, &rows)
            }
        })
        .collect();
    for task in Task::ALL {
        let rows = results.shown(&task.name(), &main);
        panels.push(latencies(task, &rows));
    }
    // What was not measured, as latencies without a search, has no place.
    panels.retain(|panel| !panel.bars.is_empty());
    panels
}

/// Rows as multiples of testpmd's packets a second in their run.
pub fn forwarding(results: &Results, rows: &[&Row]) -> Panel {
    let bar = |row: &&Row| {
        let times =
            |row: &Row, mpps: f64| results.times_testpmd(row).map(|times| times / row.mpps().0 * mpps);
        let (mpps, least, most) = row.mpps();
        let value = results.times_testpmd(row);
        let cells = vec![
            match row.is_tuned {
                true => value.map_or("–".into(), |value| format!("{value:.2}")),
                false => "invalid".into(),
            },
            format!("{mpps:.2}"),
            format!("{:.0}", row.middle(|round| round.core_ns)),
        ];
        let range = times(row, least).zip(times(row, most));
        Bar { range, cells, ..Bar::new(row.device.clone(), value, color(row)) }
    };
    Panel {
        heads: ["× testpmd", "Mpps", "core ns"].map(str::to_owned).into(),
        labels_px: LABELS,
        line: rows.iter().any(|row| row.device == TESTPMD).then_some(1.0),
        bars: rows.iter().map(bar).collect(),
        ..Panel::default()
    }
}

fn latencies(task: Task, rows: &[&Row]) -> Panel {
    let bars = rows.iter().filter_map(|row| {
        let (p50, p99) = (row.at(50, |at| at.p50_us)?, row.at(50, |at| at.p99_us)?);
        let lossless = row.lossless().map_or("–".into(), |lossless| format!("{:.2}", lossless.lower));
        let cells = vec![format!("{p50:.0}"), format!("{p99:.0}"), lossless];
        Some(Bar { range: Some((p50, p99)), cells, ..Bar::new(row.device.clone(), Some(p50), color(row)) })
    });
    Panel {
        title: format!("{}: µs to the sink at half load", grouped(&task.name())),
        notes: vec!["half of what goes through without loss (last column); bar: p50, line: to p99".into()],
        heads: ["p50", "p99", "of Mpps"].map(str::to_owned).into(),
        bars: bars.collect(),
        labels_px: LABELS,
        ..Panel::default()
    }
}

/// The pipelines by themselves, and what changes cost.
fn wholes(results: &Results) -> Vec<Panel> {
    let mut panels = Vec::new();
    let bars = results.alone.iter().map(|one| {
        let cell = |value: Option<f64>, digits: usize| {
            value.map_or("–".to_owned(), |value| format!("{value:.digits$}"))
        };
        let (ours, theirs) = (
            one.middle(|round| Some(round.switch_ns)),
            one.middle(|round| Some(round.ovs_ns? - round.moved_ns?)),
        );
        let times = match one.is_tuned {
            true => cell(one.ovs_times(), 1),
            false => "invalid".into(),
        };
        let cells = vec![cell(ours, 1), cell(theirs, 1), times];
        let name = grouped(&format!("{}, {} flows", one.task, one.flows));
        Bar { below: theirs, cells, ..Bar::new(name, ours, OURS) }
    });
    panels.push(Panel {
        title: "The pipeline alone: ns of a core a packet, 64 B".into(),
        notes: vec![
            "blue: the switch; grey: Open vSwitch's userspace datapath replaying frames from memory, without what moving them takes".into(),
        ],
        heads: ["switch", "OVS", "× switch"].map(str::to_owned).into(),
        bars: bars.collect(),
        labels_px: 285,
        ..Panel::default()
    });
    panels.push(changes(results, 285));
    panels.retain(|panel| !panel.bars.is_empty());
    panels
}

/// What is lost while devices are changed.
pub fn changes(results: &Results, labels_px: i32) -> Panel {
    let bars = results.changes.iter().map(|change| {
        let lost = crate::cycles::median(change.lost.clone());
        let quiet = crate::cycles::median(change.quiet.clone());
        let cells = vec![format!("{:.0}", change.blocked_us()), format!("{lost:.0}"), format!("{quiet:.0}")];
        let color = if change.device == SWITCH { OURS } else { THEIRS };
        Bar { cells, ..Bar::new(change.device.clone(), Some(change.blocked_us()), color) }
    });
    let each = results.changes.iter().map(|change| format!("{}: {} a second", change.device, change.what));
    let rate = results.changes.first().map_or(0.0, |change| change.rate_pps);
    let mut notes =
        vec![grouped(&format!("lost of {rate:.0} packets a second, as time that the device stood still"))];
    notes.extend(each);
    Panel {
        title: format!("While routes, sets and ports change ({})", merge::CHANGES),
        notes,
        heads: ["blocked µs", "lost", "without"].map(str::to_owned).into(),
        bars: bars.collect(),
        labels_px,
        ..Panel::default()
    }
}

/// A device at a task: under each load, how many times its packets a second the switch does.
struct Dots {
    label: String,
    times: Vec<(f64, bool)>,
}

fn dots(results: &Results) -> Vec<Dots> {
    let mut all: Vec<Dots> = Vec::new();
    for task in Task::ALL {
        let mut of_task: Vec<Dots> = Vec::new();
        let mut traffics: Vec<&str> = Vec::new();
        for row in results.rows.iter().filter(|row| row.task == task.name()) {
            if !traffics.contains(&row.traffic.as_str()) {
                traffics.push(&row.traffic);
            }
        }
        for row in traffics.iter().flat_map(|traffic| results.shown(&task.name(), traffic)) {
            let Some(times) = results.switch_times(row).filter(|_| row.device != SWITCH) else { continue };
            let name = format!("{}: {}", grouped(&task.name()), row.device);
            match of_task.iter_mut().find(|dots| dots.label == name) {
                Some(dots) => dots.times.push((times, row.is_tuned)),
                None => of_task.push(Dots { label: name, times: vec![(times, row.is_tuned)] }),
            }
        }
        all.extend(of_task);
    }
    // One load is what the bars show.
    if all.iter().any(|dots| dots.times.len() > 1) { all } else { Vec::new() }
}

fn draw_dots(canvas: &Canvas<'_>, all: &[Dots], top: i32) -> Result<(), String> {
    if all.is_empty() {
        return Ok(());
    }
    let title = "Under every load: the switch's packets a second, times each device's";
    canvas.text(title, (MARGIN, top + 10), Pen::new(15.0, INK).bold())?;
    let note = "a dot for each size (64, 512, 1514 B, IMIX) and number of flows (1, 1 000, 100 000); right of 1 the switch is ahead; pale: invalid";
    canvas.text(note, (MARGIN, top + 31), Pen::new(11.0, MUTED))?;
    let (from, to) = (MARGIN + DOTS_LABELS, WIDTH - MARGIN - DOTS_VALUES);
    let x = |times: f64| {
        let (least, most) = RATIOS;
        let part = (times.clamp(least, most) / least).ln() / (most / least).ln();
        from + (part * f64::from(to - from)).round() as i32
    };
    let (first, end) = (top + DOTS_ABOVE, top + DOTS_ABOVE + ROW * all.len() as i32);
    for tick in TICKS {
        let color = if tick == 1.0 { GOAL } else { FAINT };
        canvas.line([(x(tick), first - 6), (x(tick), end)], color, 1)?;
        canvas.text(&format!("{tick}×"), (x(tick), first - 14), Pen::new(11.0, MUTED).middle())?;
    }
    canvas.text("least to most", (WIDTH - MARGIN, first - 14), Pen::new(11.0, MUTED).right())?;
    for (dots, n) in all.iter().zip(0..) {
        let y = first + n * ROW + ROW / 2;
        canvas.text(&dots.label, (MARGIN, y), Pen::new(12.0, INK))?;
        canvas.line([(from, y), (to, y)], FAINT, 1)?;
        for (times, is_tuned) in &dots.times {
            canvas.dot((x(*times), y), 4, if *is_tuned { OURS } else { INVALID })?;
        }
        let valid = || dots.times.iter().filter(|(_, is_tuned)| *is_tuned).map(|(times, _)| *times);
        let range = match valid().next() {
            None => "invalid".to_owned(),
            Some(first) => {
                format!("{:.2} to {:.2}", valid().fold(first, f64::min), valid().fold(first, f64::max))
            }
        };
        canvas.text(&range, (WIDTH - MARGIN, y), Pen::new(12.0, INK).right())?;
    }
    Ok(())
}

fn color(row: &Row) -> RGBColor {
    match (row.is_tuned, row.device.as_str()) {
        (false, _) => INVALID,
        (_, SWITCH | "switch, tap ports") => OURS,
        _ => THEIRS,
    }
}
