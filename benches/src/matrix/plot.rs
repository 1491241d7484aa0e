//! The results as a picture: a panel a question, a bar a device, the switch's in another colour.

use super::device::SWITCH;
use super::result::{Results, Row};
use super::task::Traffic;
use plotters::prelude::*;

const WIDTH: u32 = 1080;
/// What stands above the panels.
const HEADER: u32 = 80;
/// Panels beside each other.
const COLUMNS: usize = 2;
const OURS: RGBColor = RGBColor(0x1f, 0x6f, 0xb4);
const THEIRS: RGBColor = RGBColor(0xb8, 0xb8, 0xb8);
const INVALID: RGBColor = RGBColor(0xec, 0xdc, 0xdc);
const INK: RGBColor = RGBColor(0x22, 0x22, 0x22);
/// Of a panel's width, what labels have.
const LABELS: i32 = 205;
/// And what stands behind the longest bar.
const VALUES: i32 = 110;
const LINE: i32 = 28;
/// Of a panel's height, what its title has.
const TITLE: i32 = 34;
/// And what is left below its bars.
const BELOW: i32 = 14;

/// A question and its answers.
struct Panel {
    title: String,
    unit: &'static str,
    bars: Vec<Bar>,
}

struct Bar {
    label: String,
    value: f64,
    range: Option<(f64, f64)>,
    color: RGBColor,
}

/// Draws it; an SVG.
pub fn svg(results: &Results) -> Result<String, String> {
    let panels = panels(results);
    // A row is as high as its longest panel, so that the picture has no holes.
    let height = |row: &[Panel]| {
        let bars = row.iter().map(|panel| panel.bars.len()).max().unwrap_or(0);
        (TITLE + bars as i32 * LINE + BELOW) as u32
    };
    let heights: Vec<u32> = panels.chunks(COLUMNS).map(height).collect();
    let mut text = String::new();
    {
        let size = (WIDTH, HEADER + heights.iter().sum::<u32>());
        let area = SVGBackend::with_string(&mut text, size).into_drawing_area();
        area.fill(&WHITE).map_err(said)?;
        let (header, mut rest) = area.split_vertically(HEADER);
        write(&header, "The switch beside what one would run instead", (16, 10), 25)?;
        write(&header, &results.machine, (16, 38), 15)?;
        write(&header, &format!("made by {}", results.command), (16, 57), 15)?;
        for (row, height) in panels.chunks(COLUMNS).zip(heights) {
            let (this, below) = rest.split_vertically(height);
            for (panel, area) in row.iter().zip(this.split_evenly((1, COLUMNS))) {
                draw(panel, &area)?;
            }
            rest = below;
        }
        area.present().map_err(said)?;
    }
    Ok(text)
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

fn said<E: std::fmt::Debug>(error: E) -> String {
    format!("the plot: {error:?}")
}

fn write(area: &Area<'_>, text: &str, at: (i32, i32), size: i32) -> Result<(), String> {
    let style = ("sans-serif", size).into_font().color(&INK);
    area.draw(&Text::new(text.to_owned(), at, style)).map_err(said)
}

fn draw(panel: &Panel, area: &Area<'_>) -> Result<(), String> {
    write(area, &panel.title, (16, 8), 19)?;
    let most = panel.bars.iter().map(|bar| bar.range.map_or(bar.value, |range| range.1)).fold(0.0, f64::max);
    let (width, _) = area.dim_in_pixel();
    let room = f64::from(width as i32 - LABELS - VALUES);
    let x = |value: f64| LABELS + (value / most.max(f64::MIN_POSITIVE) * room) as i32;
    for (n, bar) in panel.bars.iter().enumerate() {
        let top = TITLE + n as i32 * LINE;
        write(area, &bar.label, (16, top + 3), 16)?;
        let rectangle = Rectangle::new([(LABELS, top), (x(bar.value), top + LINE - 8)], bar.color.filled());
        area.draw(&rectangle).map_err(said)?;
        let middle = top + (LINE - 8) / 2;
        let mut end = bar.value;
        if let Some((least, most)) = bar.range {
            let line = PathElement::new([(x(least), middle), (x(most), middle)], INK);
            area.draw(&line).map_err(said)?;
            end = most.max(end);
        }
        let digits = if bar.value < 10.0 { 2 } else { 0 };
        write(area, &format!("{:.digits$} {}", bar.value, panel.unit), (x(end) + 6, top + 3), 16)?;
    }
    Ok(())
}

/// Three tasks at overload, and how long packets take at half of what is carried without loss.
fn panels(results: &Results) -> Vec<Panel> {
    let main = Traffic::MAIN.name();
    let tasks = ["L2", "L3", "L3 + policy, 1000 rules"];
    let mut panels: Vec<Panel> = tasks
        .iter()
        .map(|task| {
            let rows = results.rows.iter().filter(|row| row.task == *task && row.traffic == main);
            let bars = rows.map(|row| {
                let (value, least, most) = row.mpps();
                Bar { label: label(row), value, range: Some((least, most)), color: color(row) }
            });
            Panel { title: format!("{task}, {main}, overload"), unit: "Mpps", bars: bars.collect() }
        })
        .collect();
    let rows = results.rows.iter().filter(|row| row.task == "L2" && row.traffic == main);
    let bars = rows.filter_map(|row| {
        let (value, most) = (row.at(50, |at| at.p50_us)?, row.at(50, |at| at.p99_us)?);
        let range = value.is_finite().then_some((value, most))?;
        Some(Bar { label: label(row), value, range: Some(range), color: color(row) })
    });
    let title = "L2, latency at half of what is carried without loss: p50, line to p99".into();
    panels.push(Panel { title, unit: "µs", bars: bars.collect() });
    // What was not measured, as latencies without a search, has no place.
    panels.retain(|panel| !panel.bars.is_empty());
    panels
}

fn label(row: &Row) -> String {
    if row.is_tuned { row.device.clone() } else { format!("{} (invalid)", row.device) }
}

fn color(row: &Row) -> RGBColor {
    match (row.is_tuned, row.device.as_str()) {
        (false, _) => INVALID,
        (_, SWITCH | "switch, tap ports") => OURS,
        _ => THEIRS,
    }
}
