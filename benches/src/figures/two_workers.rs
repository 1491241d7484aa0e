//! [two-workers] What two workers do against one: two pairs of memory ports, both on one worker, then one on each. The ports
//! make and take frames in memory, so that nobody else needs the cores: on a machine of two cores any generator beside
//! the switch would be measured as well. Lanes move between the measurements, under full load.

use super::{Bench, Figure, Held};
use std::time::{Duration, Instant};
use switch_api::{Done, MemorySource, PortKind, PortSet, PortSettings, Request};
use switch_lab::node::xdp_port;
use switch_lab::{Daemon, Node, Options};

const BAR: f64 = 1.8;
const FLOWS: u32 = 1000;
/// The far stations are known all the time by these few frames.
const BACK_PPS: u64 = 5_000;
const SECONDS: f64 = 2.0;
/// One, two, one, two: whatever the machine does at the time is done to both.
const ROUNDS: usize = 3;
/// Moves whose time is taken.
const MOVES: usize = 100;

/// What it is held against.
pub(super) const HELD: Held = Held::at_least("times one worker", BAR);

pub(super) fn measure(bench: &Bench) -> Result<Figure, String> {
    let node = Node::new();
    let options = Options::new(&bench.switchd).with("--cores 0,1 --frames 8192");
    let mut daemon = node.start(&options);
    for pair in 0..2 {
        daemon.bridge(&format!("br{pair}"));
        for reverse in [false, true] {
            add(&daemon, pair, reverse);
        }
    }
    let place = |worker_of: [[u16; 2]; 2]| {
        for (pair, workers) in worker_of.into_iter().enumerate() {
            workers.into_iter().enumerate().for_each(|(end, worker)| move_to(&daemon, pair, end, worker));
        }
    };
    let (mut ratios, mut one, mut two) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        place([[0, 0], [0, 0]]);
        one.push(rate(&daemon));
        place([[0, 0], [1, 1]]);
        two.push(rate(&daemon));
        ratios.push(two[two.len() - 1] / one[one.len() - 1]);
    }
    place([[0, 1], [1, 0]]);
    let crossed = rate(&daemon);
    let mut took_us: Vec<f64> = (0..MOVES).map(|n| timed_move(&daemon, (n % 2) as u16)).collect();
    let (p50, p99) = (percentile(&mut took_us, 50), percentile(&mut took_us, 99));
    daemon.assert_conserved();
    daemon.stop(true);
    let value = percentile(&mut ratios, 50);
    let detail = format!(
        "{:.2} against {:.2} million frames a second, medians of {ROUNDS}; {crossed:.2} when every frame goes from one \
         worker to the other; a lane moves in {p50:.0} µs, p99 {p99:.0} (the whole request, under full load on both cores)",
        percentile(&mut two, 50),
        percentile(&mut one, 50)
    );
    Ok(Figure::new("two-workers", value, HELD, detail))
}

fn name(pair: usize, end: usize) -> String {
    format!("m{pair}{end}")
}

/// A port that sends as much as it can, or the other half of its pair.
fn add(daemon: &Daemon, pair: usize, reverse: bool) {
    let rate_pps = if reverse { BACK_PPS } else { 0 };
    let source = MemorySource { flows: FLOWS, frame_len: 60, seed: 7 + pair as u64, reverse, rate_pps };
    let mut port = xdp_port(&name(pair, reverse.into()), &format!("br{pair}"), PortSettings::default());
    port.kind = PortKind::Memory { source: Some(source) };
    port.settings.worker = Some(0);
    let _: Done = daemon.call(&Request::PortAdd(Box::new(port)));
}

fn move_to(daemon: &Daemon, pair: usize, end: usize, worker: u16) {
    let name = name(pair, end).parse().unwrap_or_else(|error| panic!("{error}"));
    let settings = PortSettings { worker: Some(worker), ..PortSettings::default() };
    let _: Done = daemon.call(&Request::PortSet(PortSet { name, settings }));
}

fn timed_move(daemon: &Daemon, worker: u16) -> f64 {
    let start = Instant::now();
    move_to(daemon, 0, 0, worker);
    start.elapsed().as_nanos() as f64 / 1000.0
}

/// Million frames a second that left by the far ports.
fn rate(daemon: &Daemon) -> f64 {
    let left = || (0..2).map(|pair| daemon.port(&name(pair, 1)).counters.tx_packets).sum::<u64>();
    // Until every station is known again.
    std::thread::sleep(Duration::from_millis(500));
    let (before, start) = (left(), Instant::now());
    std::thread::sleep(Duration::from_secs_f64(SECONDS));
    (left() - before) as f64 / start.elapsed().as_secs_f64() / 1e6
}

fn percentile(values: &mut [f64], percent: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get((values.len() * percent / 100).min(values.len() - 1)).copied().unwrap_or(f64::NAN)
}
