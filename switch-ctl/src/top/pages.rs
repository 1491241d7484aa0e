//! Pages that Enter and w open: one port, with its counters, drops, queues and talkers; what each stage costs each worker.

use super::draw::{bars, heading, number, short, talkers, workers};
use super::view::{PortLine, View};
use crate::port::made_of;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Stylize;
use ratatui::text::Line;
use ratatui::widgets::{Cell, Paragraph, Row, Table, Wrap};
use switch_api::{Name, PortStatus};

/// Drop reasons of a port that are shown, and its queues.
const ROWS_MAX: usize = 5;
/// Workers that are shown beside each other.
const COLUMNS_MAX: usize = 6;

/// All of one port.
pub fn port(frame: &mut Frame, area: Rect, view: &View, name: &Name) {
    let found = view.last().and_then(|last| last.ports.iter().find(|port| port.port.name == *name));
    let line = view.ports().into_iter().find(|line| line.name == *name);
    let (Some(port), Some(line)) = (found, line) else {
        frame.render_widget(Line::from(format!("{name} is gone; Esc goes back")), area);
        return;
    };
    let lanes = view.lanes(name);
    let areas = Layout::vertical([
        Constraint::Length(2),
        Constraint::Length(5),
        Constraint::Length(ROWS_MAX as u16 + 1),
        Constraint::Length(lanes.len().min(ROWS_MAX) as u16 + 1),
        Constraint::Min(2),
    ])
    .split(area);
    frame.render_widget(Paragraph::new(about(port)).wrap(Wrap { trim: true }), areas[0]);
    frame.render_widget(counters(port, &line), areas[1]);
    frame.render_widget(drops(view, name), areas[2]);
    let rows = lanes.into_iter().take(ROWS_MAX).map(|(worker, lane)| {
        Row::new([
            Cell::from(lane.queue.to_string()),
            Cell::from(worker.to_string()),
            Cell::from(format!("{:.1} %", lane.busy_percent)),
            number(lane.frames_per_s),
            number(lane.ns_per_frame),
            number(lane.rx_packets as f64),
            number(lane.tx_packets as f64),
        ])
    });
    let widths = [8, 8, 8, 10, 10, 10, 10].map(Constraint::Length);
    let head = heading(["QUEUE", "WORKER", "BUSY", "FRAMES/s", "ns/FRAME", "RX", "TX"]);
    frame.render_widget(Table::new(rows, widths).header(head), areas[3]);
    frame.render_widget(talkers(view, Some(name)), areas[4]);
}

fn about(port: &PortStatus) -> String {
    let mode = port.mode.as_ref().map_or_else(String::new, |mode| format!(" ({mode})"));
    let why = port.reason.as_ref().map_or_else(String::new, |reason| format!("   {reason}"));
    format!(
        "{} on {}{mode}   MTU {}   {} MACs behind it   {} KiB{why}",
        made_of(&port.port),
        port.port.bridge,
        port.mtu,
        port.learned,
        port.memory_bytes / 1024
    )
}

fn counters(port: &PortStatus, line: &PortLine) -> Table<'static> {
    let all = port.counters;
    let row = |what: &'static str, now: f64, all: u64, beside: String| {
        Row::new([Cell::from(what), number(now), number(all as f64), Cell::from(beside)])
    };
    let rows = [
        row("packets in", line.rx_packets, all.rx_packets, format!("{} bit/s", short(line.rx_bits))),
        row("packets out", line.tx_packets, all.tx_packets, format!("{} bit/s", short(line.tx_bits))),
        row("dropped", line.drops, all.drops, String::new()),
        row(
            "both ways",
            line.rx_packets + line.tx_packets,
            all.rx_packets + all.tx_packets,
            bars(&line.history),
        ),
    ];
    let widths = [14, 10, 10, 20].map(Constraint::Length);
    Table::new(rows, widths).header(heading(["COUNTED", "NOW/s", "ALL", ""]))
}

fn drops(view: &View, name: &Name) -> Table<'static> {
    let lines = view.drops().into_iter().filter(|line| line.port == *name).take(ROWS_MAX);
    let mut rows: Vec<_> = lines
        .map(|line| {
            let numbers = [number(line.rate), number(line.all as f64)];
            let [now, all] = numbers;
            Row::new([Cell::from(line.reason), now, all, Cell::from(line.meaning)])
        })
        .collect();
    if rows.is_empty() {
        rows.push(Row::new([Cell::from("nothing")]));
    }
    let widths = [Constraint::Length(20), Constraint::Length(7), Constraint::Length(7), Constraint::Min(10)];
    Table::new(rows, widths).header(heading(["DROPPED", "NOW/s", "ALL", "MEANING"]))
}

/// Workers, and below them what each stage costs each of them, in cycles a packet.
pub fn stages(frame: &mut Frame, area: Rect, view: &View) {
    let lines = view.workers();
    let above = lines.len().min(COLUMNS_MAX) as u16 + 1;
    let areas = Layout::vertical([Constraint::Length(above), Constraint::Min(3)]).split(area);
    frame.render_widget(workers(&lines, COLUMNS_MAX), areas[0]);
    let costs = view.stages();
    let costs: Vec<_> = costs.iter().filter(|of| !of.stages.is_empty()).take(COLUMNS_MAX).collect();
    if costs.is_empty() {
        let words = "no packet was timed: too few came; one batch in sixteen is";
        frame.render_widget(Line::from(words).dim(), areas[1]);
        return;
    }
    let mut names: Vec<&str> = Vec::new();
    for stage in costs.iter().flat_map(|of| &of.stages) {
        if !names.contains(&stage.stage.as_str()) {
            names.push(&stage.stage);
        }
    }
    let row = |name: &str| {
        let of = |worker: &&switch_api::WorkerStages| {
            let found = worker.stages.iter().find(|stage| stage.stage == name);
            Cell::from(found.map_or("-".to_owned(), |stage| format!("{:.1}", stage.cycles_per_packet)))
        };
        Row::new(std::iter::once(Cell::from(name.to_owned())).chain(costs.iter().map(of)))
    };
    let sum = costs.iter().map(|of| Cell::from(format!("{:.1}", of.cycles_per_packet())));
    let rows =
        names.iter().map(|name| row(name)).chain([Row::new(std::iter::once(Cell::from("all")).chain(sum))]);
    let head = costs.iter().map(|of| Cell::from(format!("WORKER {}", of.worker)));
    let head = Row::new(std::iter::once(Cell::from("CYCLES/PACKET")).chain(head)).reversed();
    let widths = [Constraint::Length(13)].into_iter().chain(costs.iter().map(|_| Constraint::Length(10)));
    frame.render_widget(Table::new(rows, widths).header(head), areas[1]);
}
