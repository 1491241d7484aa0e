//! Screens of 80×24, and what keys make of them.

use super::draw::draw;
use super::talkers::Flows;
use super::view::{Sample, View};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::KeyCode;
use switch_api::{
    DropCount, FlowEnd, FlowEntry, FrameCounts, LaneStatus, Port, PortCounters, PortKind, PortMemory,
    PortState, PortStatus, StageCost, Stats, WorkerStages, WorkerStatus,
};

fn port(name: &str, state: PortState, packets: u64, drops: u64) -> PortStatus {
    let port = Port::new(name.parse().unwrap(), "br0".parse().unwrap(), PortKind::Memory { source: None });
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

/// A flow that `port` began, `age_s` after its last packet.
fn flow(port: &str, number: u16, to: u8, age_s: u32) -> FlowEntry {
    let end = |last: u8, number| FlowEnd { address: [10, 66, 0, last].into(), number };
    FlowEntry {
        zone: "br0/1".into(),
        protocol: 6,
        from: end(2, number),
        to: end(to, 80),
        becomes: None,
        state: "established".into(),
        half_open: false,
        picked_up: false,
        port: Some(port.parse().unwrap()),
        age_s,
        left_s: 60,
    }
}

/// `busy` speaks with .3 by two flows, one of which is idle, and begins one each second; with .4 it spoke once.
fn flows(n: u64) -> Flows {
    let mut seen = vec![flow("busy", 1, 3, 0), flow("busy", 2, 3, 30), flow("lossy", 7, 4, 30)];
    seen.extend((0..n).map(|n| flow("busy", 100 + n as u16, 3, 30)));
    Flows { all: seen.len() as u32, seen }
}

/// 100 packets a second, of which `learn` costs 10 cycles and `emit` 20.
fn stages(n: u64) -> Vec<WorkerStages> {
    let cost = |stage: &str, cycles_per_packet| StageCost {
        stage: stage.into(),
        cycles_per_packet,
        packets: 100 * n,
        vectors: 10 * n,
    };
    vec![WorkerStages { worker: 0, stages: vec![cost("learn", 10.0), cost("emit", 20.0)] }]
}

/// `n` seconds after the start: `busy` has had 20 000 packets each second, `lossy` lost 5.
fn sample(n: u64) -> Sample {
    let frames = FrameCounts { total: 1536, free: 1400, ..FrameCounts::default() };
    let drop = DropCount {
        reason: "hairpin".into(),
        stage: "emit".into(),
        meaning: "the destination is behind the port".into(),
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
    let stats = Stats { frames, drops: vec![drop], worker_stages: stages(n), ..Stats::default() };
    Sample { at_s: n as f64, stats, ports, workers: vec![worker], flows: flows(n) }
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
    assert_eq!(worker, ["0", "core", "1", "75", "%", "1000", "3", "1", "1400", "30"]);
    let talkers: Vec<_> = row(&lines, "10.66.0.2").1.split_whitespace().collect();
    assert_eq!(talkers, ["10.66.0.2", "10.66.0.3", "busy", "1", "1", "5"], "{lines:#?}");
    assert!(lines[23].contains("q quit"));
}

#[test]
fn keys_sort_pause_scroll_and_end() {
    let mut view = View::default();
    (1..4).for_each(|n| view.add(sample(n)));
    assert!(view.key(KeyCode::Char('s')));
    let lines = screen(&view);
    assert!(lines[0].contains("by drops") && row(&lines, "lossy").0 < row(&lines, "busy").0, "{lines:#?}");
    assert!(view.key(KeyCode::Char('s')));
    let lines = screen(&view);
    let places = ["busy", "gone", "lossy"].map(|name| row(&lines, name).0);
    assert!(lines[0].contains("by name") && places.is_sorted(), "{lines:#?}");
    assert!(view.key(KeyCode::Char('p')));
    let before = screen(&view);
    view.add(sample(9));
    assert_eq!(screen(&view), before, "paused");
    assert!(before[0].contains("PAUSED"));
    assert!(!view.key(KeyCode::Char('q')) && !view.key(KeyCode::Esc));
}

#[test]
fn more_ports_than_there_is_room_for_scroll_with_the_chosen_one() {
    let mut view = View::default();
    let many = |n: u64| {
        let ports = (0..40).map(|p| port(&format!("p{p:02}"), PortState::Up, (100 - p) * n, 0)).collect();
        Sample { ports, ..sample(n) }
    };
    (1..3).for_each(|n| view.add(many(n)));
    let is_shown = |view: &View, name: &str| screen(view).iter().any(|line| line.starts_with(name));
    assert!(is_shown(&view, "p00") && !is_shown(&view, "p39"));
    (0..60).for_each(|_| assert!(view.key(KeyCode::Down)));
    assert!(!is_shown(&view, "p00") && is_shown(&view, "p39"));
    // It stays the chosen one where its place changes.
    assert!(view.key(KeyCode::Char('s')) && view.key(KeyCode::Enter));
    assert!(screen(&view)[0].starts_with("p39"));
    assert!(view.key(KeyCode::Esc));
    (0..60).for_each(|_| assert!(view.key(KeyCode::Up)));
    assert!(is_shown(&view, "p00") && !is_shown(&view, "p39"));
}

#[test]
fn a_port_is_opened_and_left_again() {
    let mut view = View::default();
    (1..4).for_each(|n| view.add(sample(n)));
    // By rate `busy` is the first, and chosen until another is.
    assert!(view.key(KeyCode::Enter));
    let lines = screen(&view);
    assert!(lines[0].starts_with("busy   up") && lines[1].contains("on br0"), "{lines:#?}");
    let words = |lines: &[String], name: &str| -> Vec<String> {
        row(lines, name).1.split_whitespace().map(str::to_owned).collect()
    };
    assert_eq!(words(&lines, "packets in"), ["packets", "in", "20k", "60k", "16M", "bit/s"], "{lines:#?}");
    assert_eq!(words(&lines, "nothing"), ["nothing"], "no drops");
    assert_eq!(
        words(&lines, "0 "),
        ["0", "0", "50.0", "%", "20k", "100", "60k", "0"],
        "its queue: {lines:#?}"
    );
    assert_eq!(words(&lines, "10.66.0.2"), ["10.66.0.2", "10.66.0.3", "busy", "1", "1", "5"]);
    assert!(!lines.iter().any(|line| line.contains("10.66.0.4")), "another port's: {lines:#?}");
    assert!(lines[23].contains("Esc back"), "{lines:#?}");

    // The next one, and what it drops.
    assert!(view.key(KeyCode::Down));
    let lines = screen(&view);
    assert!(lines[0].starts_with("lossy"), "{lines:#?}");
    assert_eq!(words(&lines, "hairpin")[..4], ["hairpin", "5", "15", "the"], "{lines:#?}");

    // It goes while it is looked at.
    let mut sample = sample(4);
    sample.ports.retain(|port| port.port.name.as_str() != "lossy");
    view.add(sample);
    assert!(screen(&view)[1].contains("lossy is gone; Esc goes back"));
    assert!(view.key(KeyCode::Esc) && screen(&view)[23].contains("q quit"));
    assert!(!view.key(KeyCode::Esc), "from here it ends");
}

#[test]
fn stages_of_each_worker_are_shown_in_cycles_a_packet() {
    let mut view = View::default();
    view.add(sample(1));
    assert!(
        view.key(KeyCode::Char('w')) && screen(&view).iter().any(|line| line.contains("no packet was timed"))
    );
    view.add(sample(2));
    let lines = screen(&view);
    let words = |name: &str| row(&lines, name).1.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(words("learn"), ["learn", "10.0"], "{lines:#?}");
    assert_eq!(words("emit"), ["emit", "20.0"]);
    assert_eq!(words("all"), ["all", "30.0"]);
    assert!(row(&lines, "CYCLES/PACKET").1.contains("WORKER 0"));
    assert!(view.key(KeyCode::Char('w')) && row(&screen(&view), "busy").0 > 0);
}

#[test]
fn more_flows_than_a_look_takes_are_counted() {
    let mut view = View::default();
    (1..3).for_each(|n| view.add(Sample { flows: Flows { all: 20_005, ..flows(2) }, ..sample(n) }));
    assert!(row(&screen(&view), "20k flows more").0 > row(&screen(&view), "10.66.0.2").0);
    (3..5).for_each(|n| view.add(sample(n)));
    assert!(!screen(&view).iter().any(|line| line.contains("flows more")));
}

#[test]
fn without_flows_it_says_how_to_have_them() {
    let mut view = View::default();
    (1..3).for_each(|n| view.add(Sample { flows: Flows::default(), ..sample(n) }));
    assert!(screen(&view).iter().any(|line| line.contains("--track on")));
}
