//! A view on a screen: ports, drops, workers, one below the other, and the keys in the last line.

use super::view::{HISTORY, View};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Style, Stylize};
use ratatui::text::Line;
use ratatui::widgets::{Cell, Row, Table};
use switch_api::PortState;

/// Lines of drops, their heading among them.
const DROP_LINES: u16 = 6;
/// Workers that are shown.
const WORKERS_MAX: usize = 4;
/// A rate, from nothing to the most of its line.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Draws.
pub fn draw(frame: &mut Frame, view: &View) {
    let workers = view.workers();
    let worker_lines = workers.len().min(WORKERS_MAX) as u16 + 1;
    let areas = Layout::vertical([
        Constraint::Length(1),
        Constraint::Min(3),
        Constraint::Length(DROP_LINES),
        Constraint::Length(worker_lines),
        Constraint::Length(1),
    ])
    .split(frame.area());
    frame.render_widget(head(view), areas[0]);
    frame.render_widget(ports(view), areas[1]);
    frame.render_widget(drops(view), areas[2]);
    frame.render_widget(self::workers(&workers), areas[3]);
    let keys = "s order   up/down scroll   p pause   q quit";
    frame.render_widget(Line::from(keys).dim(), areas[4]);
}

fn head(view: &View) -> Line<'static> {
    let Some(last) = view.last() else { return Line::from("waiting for the switch") };
    let up = last.ports.iter().filter(|port| port.state == PortState::Up).count();
    let frames = &last.stats.frames;
    let paused = if view.paused { "  PAUSED" } else { "" };
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

fn heading<const N: usize>(words: [&'static str; N]) -> Row<'static> {
    Row::new(words.map(Cell::from)).style(Style::new().reversed())
}

fn ports(view: &View) -> Table<'static> {
    let rows = view.ports().into_iter().skip(view.skip).map(|line| {
        let (state, colour) = match line.state {
            PortState::Up => ("up", Color::Green),
            PortState::Down => ("down", Color::Red),
            PortState::Looped => ("looped", Color::Red),
        };
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
    let rows = view.drops().into_iter().map(|(reason, port, rate, all)| {
        Row::new([Cell::from(reason), Cell::from(port.to_string()), number(rate), number(all as f64)])
    });
    let widths = [Constraint::Length(24), Constraint::Min(10), Constraint::Length(8), Constraint::Length(8)];
    Table::new(rows, widths).header(heading(["DROPPED", "PORT", "NOW/s", "ALL"]))
}

fn workers(lines: &[super::view::WorkerLine]) -> Table<'static> {
    let rows: Vec<_> = lines
        .iter()
        .take(WORKERS_MAX)
        .map(|line| {
            let core = line.core.map_or("not pinned".into(), |core| format!("core {core}"));
            Row::new([
                Cell::from(format!("{} {core}", line.id)),
                Cell::from(format!("{:.0} %", line.busy_percent)),
                number(line.turns),
                number(line.sleeps),
                Cell::from(line.lanes.to_string()),
                Cell::from(line.free.to_string()),
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
    ];
    Table::new(rows, widths).header(heading(["WORKER", "BUSY", "TURNS/s", "SLEEPS/s", "LANES", "FREE"]))
}

fn number(value: f64) -> Cell<'static> {
    Cell::from(short(value))
}

/// A number in at most six places.
fn short(value: f64) -> String {
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
fn bars(history: &[f64]) -> String {
    let most = history.iter().copied().fold(0.0, f64::max);
    let bar = |rate: &f64| {
        let part = if most > 0.0 { rate / most } else { 0.0 };
        BARS[((part * 7.0).round() as usize).min(7)]
    };
    history.iter().map(bar).collect()
}

#[cfg(test)]
mod tests {
    use super::super::view::Sample;
    use super::*;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use ratatui::crossterm::event::KeyCode;
    use switch_api::{
        DropCount, FrameCounts, LaneStatus, Port, PortCounters, PortKind, PortMemory, PortStatus, Stats,
        WorkerStatus,
    };

    fn port(name: &str, state: PortState, packets: u64, drops: u64) -> PortStatus {
        let port =
            Port::new(name.parse().unwrap(), "br0".parse().unwrap(), PortKind::Memory { source: None });
        let counters = PortCounters {
            rx_packets: packets,
            rx_bytes: packets * 100,
            tx_packets: packets / 2,
            tx_bytes: packets * 50,
            drops,
        };
        PortStatus {
            port,
            state,
            reason: None,
            mode: None,
            mode_reason: None,
            workers: vec![0],
            mtu: 1500,
            memory_bytes: 0,
            memory: PortMemory::default(),
            learned: 0,
            counters,
        }
    }

    /// `n` seconds after the start: `busy` has had 20 000 packets each second, `lossy` lost 5.
    fn sample(n: u64) -> Sample {
        let frames = FrameCounts { total: 1536, free: 1400, ..FrameCounts::default() };
        let drop = DropCount {
            reason: "hairpin".into(),
            meaning: String::new(),
            port: "lossy".parse().unwrap(),
            frames: 5 * n,
        };
        let lane = LaneStatus {
            port: "busy".parse().unwrap(),
            queue: 0,
            busy_percent: 50.0,
            frames_per_s: 20_000.0,
            ns_per_frame: 100.0,
            rx_packets: 20_000 * n,
            tx_packets: 0,
        };
        let worker = WorkerStatus {
            id: 0,
            core: Some(1),
            lanes: vec![lane],
            turns: 1000 * n,
            empty_turns: 250 * n,
            naps: 0,
            sleeps: 3 * n,
            generation: 1,
            frames,
            wake_latency_us: Vec::new(),
            wake_latency_sum_us: 0,
        };
        let ports = vec![
            port("lossy", PortState::Up, 10 * n, 5 * n),
            port("busy", PortState::Up, 20_000 * n, 0),
            port("gone", PortState::Down, 0, 0),
        ];
        let stats = Stats { frames, drops: vec![drop], ..Stats::default() };
        Sample { at_s: n as f64, stats, ports, workers: vec![worker] }
    }

    fn screen(view: &View) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
        terminal.draw(|frame| draw(frame, view)).unwrap();
        let buffer = terminal.backend().buffer();
        let line = |y| (0..80).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
        (0..24).map(line).collect()
    }

    fn row<'a>(lines: &'a [String], name: &str) -> (usize, &'a str) {
        let found = lines.iter().enumerate().find(|(_, line)| line.starts_with(name));
        found.map(|(at, line)| (at, line.as_str())).unwrap_or_else(|| panic!("no {name} in {lines:#?}"))
    }

    #[test]
    fn rates_drops_and_workers_fit_on_80_by_24() {
        let mut view = View::default();
        assert!(screen(&view)[0].contains("waiting"));
        (1..4).for_each(|n| view.add(sample(n)));
        let lines = screen(&view);
        assert!(lines[0].starts_with("2 of 3 ports up   1400 of 1536 frames free"), "{lines:#?}");
        let (busy, text) = row(&lines, "busy");
        let words: Vec<_> = text.split_whitespace().collect();
        assert_eq!(words, ["busy", "up", "20k", "16M", "10k", "8.00M", "0", "▁██"], "{lines:#?}");
        assert!(busy < row(&lines, "lossy").0, "the busiest first");
        let drops: Vec<_> = row(&lines, "hairpin").1.split_whitespace().collect();
        assert_eq!(drops, ["hairpin", "lossy", "5", "15"]);
        let worker: Vec<_> = row(&lines, "0 core 1").1.split_whitespace().collect();
        assert_eq!(worker, ["0", "core", "1", "75", "%", "1000", "3", "1", "1400"]);
        assert!(lines[23].contains("q quit"));
    }

    #[test]
    fn keys_sort_pause_scroll_and_end() {
        let mut view = View::default();
        (1..4).for_each(|n| view.add(sample(n)));
        assert!(view.key(KeyCode::Char('s')));
        let lines = screen(&view);
        assert!(
            lines[0].contains("by drops") && row(&lines, "lossy").0 < row(&lines, "busy").0,
            "{lines:#?}"
        );
        assert!(view.key(KeyCode::Char('s')) && view.key(KeyCode::Down));
        let lines = screen(&view);
        assert!(
            lines[0].contains("by name") && !lines.iter().any(|line| line.starts_with("busy")),
            "{lines:#?}"
        );
        assert!(view.key(KeyCode::Up) && view.key(KeyCode::Char('p')));
        let before = screen(&view);
        view.add(sample(9));
        assert_eq!(screen(&view), before, "paused");
        assert!(before[0].contains("PAUSED"));
        assert!(!view.key(KeyCode::Char('q')) && !view.key(KeyCode::Esc));
    }
}
