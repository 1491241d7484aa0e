//! A view on a screen: a heading, a page, the keys in the last line. The page of everything: ports, drops, talkers, workers, one
//! below the other.

use super::pages;
use super::view::{HISTORY, Page, View, WorkerLine};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style, Stylize};
use ratatui::text::Line;
use ratatui::widgets::{Cell, Row, Table};
use switch_api::{Name, PortState};

/// Lines of drops, their heading among them.
const DROP_LINES: u16 = 5;
/// Lines of talkers, their heading among them.
const TALKER_LINES: u16 = 5;
/// Workers that are shown.
const WORKERS_MAX: usize = 4;
/// A rate, from nothing to the most of its line.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Draws.
pub fn draw(frame: &mut Frame, view: &View) {
    let lines = [Constraint::Length(1), Constraint::Min(3), Constraint::Length(1)];
    let areas = Layout::vertical(lines).split(frame.area());
    frame.render_widget(head(view), areas[0]);
    let keys = match &view.page {
        Page::Overview => {
            overview(frame, areas[1], view);
            "up/down choose   Enter port   w stages   s order   p pause   q quit"
        }
        Page::Port(name) => {
            pages::port(frame, areas[1], view, name);
            "up/down other port   Esc back   w stages   p pause   q quit"
        }
        Page::Stages => {
            pages::stages(frame, areas[1], view);
            "Esc back   p pause   q quit"
        }
    };
    frame.render_widget(Line::from(keys).dim(), areas[2]);
}

fn overview(frame: &mut Frame, area: Rect, view: &View) {
    let lines = view.workers();
    let worker_lines = lines.len().min(WORKERS_MAX) as u16 + 1;
    let areas = Layout::vertical([
        Constraint::Min(3),
        Constraint::Length(DROP_LINES),
        Constraint::Length(TALKER_LINES),
        Constraint::Length(worker_lines),
    ])
    .split(area);
    frame.render_widget(ports(view, areas[0].height.saturating_sub(1)), areas[0]);
    frame.render_widget(drops(view), areas[1]);
    frame.render_widget(talkers(view, None), areas[2]);
    frame.render_widget(workers(&lines, WORKERS_MAX), areas[3]);
}

fn head(view: &View) -> Line<'static> {
    let Some(last) = view.last() else { return Line::from("waiting for the switch") };
    let up = last.ports.iter().filter(|port| port.state == PortState::Up).count();
    let frames = &last.stats.frames;
    let paused = if view.paused { "  PAUSED" } else { "" };
    if let Page::Port(name) = &view.page {
        let state = last.ports.iter().find(|port| port.port.name == *name).map(|port| state(port.state).0);
        return Line::from(format!("{name}   {}{paused}", state.unwrap_or("gone"))).bold();
    }
    Line::from(format!(
        "{up} of {} ports up   {} of {} frames free, {} unaccounted   by {}{paused}",
        last.ports.len(),
        frames.free,
        frames.total,
        frames.unaccounted,
        view.order.name()
    ))
    .bold()
}

/// A port's state in a word, and its colour.
fn state(state: PortState) -> (&'static str, Color) {
    match state {
        PortState::Up => ("up", Color::Green),
        PortState::Down => ("down", Color::Red),
        PortState::Looped => ("looped", Color::Red),
    }
}

pub fn heading<const N: usize>(words: [&'static str; N]) -> Row<'static> {
    Row::new(words.map(Cell::from)).style(Style::new().reversed())
}

/// As many as there is room for, the one that is chosen among them.
fn ports(view: &View, room: u16) -> Table<'static> {
    let chosen = view.cursor();
    let skip = (chosen + 1).saturating_sub(room.max(1).into());
    let rows = view.ports().into_iter().enumerate().skip(skip).map(|(at, line)| {
        let (state, colour) = state(line.state);
        let style = if at == chosen { Style::new().bold().underlined() } else { Style::new() };
        Row::new([
            Cell::from(line.name.to_string()),
            Cell::from(state).style(Style::new().fg(colour)),
            number(line.rx_packets),
            number(line.rx_bits),
            number(line.tx_packets),
            number(line.tx_bits),
            number(line.drops),
            Cell::from(bars(&line.history)),
        ])
        .style(style)
    });
    let widths = [
        Constraint::Min(10),
        Constraint::Length(6),
        Constraint::Length(7),
        Constraint::Length(7),
        Constraint::Length(7),
        Constraint::Length(7),
        Constraint::Length(7),
        Constraint::Length(HISTORY as u16),
    ];
    Table::new(rows, widths)
        .header(heading(["PORT", "STATE", "RX/s", "RX bit", "TX/s", "TX bit", "DROP/s", "PACKETS"]))
}

fn drops(view: &View) -> Table<'static> {
    let rows = view.drops().into_iter().map(|line| {
        let numbers = [number(line.rate), number(line.all as f64)];
        let [now, all] = numbers;
        Row::new([Cell::from(line.reason), Cell::from(line.port.to_string()), now, all])
    });
    let widths = [Constraint::Length(24), Constraint::Min(10), Constraint::Length(8), Constraint::Length(8)];
    Table::new(rows, widths).header(heading(["DROPPED", "PORT", "NOW/s", "ALL"]))
}

/// Who speaks with whom; of one port, if one is named.
pub fn talkers(view: &View, port: Option<&Name>) -> Table<'static> {
    let talkers = view.talkers(port);
    let widths = [
        Constraint::Min(20),
        Constraint::Min(20),
        Constraint::Length(10),
        Constraint::Length(7),
        Constraint::Length(7),
        Constraint::Length(7),
    ];
    let head = heading(["TALKER", "TO", "PORT", "ACTIVE", "NEW/s", "FLOWS"]);
    if talkers.is_empty() {
        let words = "no flows are kept: `switch-ctl port set NAME --track on`";
        return Table::new([Row::new([words]).dim()], [Constraint::Min(60)]).header(head);
    }
    let rows = talkers.into_iter().map(|talker| {
        Row::new([
            Cell::from(talker.from.to_string()),
            Cell::from(talker.to.to_string()),
            Cell::from(talker.port.map_or("-".to_owned(), |port| port.to_string())),
            number(talker.active as f64),
            number(talker.new),
            number(talker.flows as f64),
        ])
    });
    let table = Table::new(rows, widths).header(head);
    match view.flows_left_out() {
        0 => table,
        more => table.footer(Row::new([format!("{} flows more", short(more.into()))]).dim()),
    }
}

/// The first of them.
pub fn workers(lines: &[WorkerLine], most: usize) -> Table<'static> {
    let rows: Vec<_> = lines
        .iter()
        .take(most)
        .map(|line| {
            let core = line.core.map_or("not pinned".into(), |core| format!("core {core}"));
            Row::new([
                Cell::from(format!("{} {core}", line.id)),
                Cell::from(format!("{:.0} %", line.busy_percent)),
                number(line.turns),
                number(line.sleeps),
                Cell::from(line.lanes.to_string()),
                Cell::from(line.free.to_string()),
                line.cycles.map_or(Cell::from("-"), number),
            ])
        })
        .collect();
    let widths = [
        Constraint::Min(14),
        Constraint::Length(6),
        Constraint::Length(8),
        Constraint::Length(8),
        Constraint::Length(6),
        Constraint::Length(8),
        Constraint::Length(10),
    ];
    let head = heading(["WORKER", "BUSY", "TURNS/s", "SLEEPS/s", "LANES", "FREE", "CYCLES/PKT"]);
    Table::new(rows, widths).header(head)
}

pub fn number(value: f64) -> Cell<'static> {
    Cell::from(short(value))
}

/// A number in at most six places.
pub fn short(value: f64) -> String {
    match value {
        v if v >= 1e10 => format!("{:.0}G", v / 1e9),
        v if v >= 1e9 => format!("{:.2}G", v / 1e9),
        v if v >= 1e7 => format!("{:.0}M", v / 1e6),
        v if v >= 1e6 => format!("{:.2}M", v / 1e6),
        v if v >= 1e4 => format!("{:.0}k", v / 1e3),
        v => format!("{v:.0}"),
    }
}

/// The highest of them is a full bar; none at all is the lowest.
pub fn bars(history: &[f64]) -> String {
    let most = history.iter().copied().fold(0.0, f64::max);
    let bar = |rate: &f64| {
        let part = if most > 0.0 { rate / most } else { 0.0 };
        BARS[((part * 7.0).round() as usize).min(7)]
    };
    history.iter().map(bar).collect()
}
