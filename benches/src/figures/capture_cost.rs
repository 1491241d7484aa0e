//! [capture-cost] What capturing one port costs the others: a source as fast as it goes from one port to another, with
//! and without a capture of a third port, in turns, in one run.

use super::{Bench, Figure, Held};
use std::net::Shutdown;
use std::time::{Duration, Instant};
use switch_api::{CaptureStart, CaptureStarted, Client, Done, MemorySource, Port, PortKind, Request, Stats};
use switch_lab::{Daemon, Node, Options, wait_until};

/// Pairs of windows, one with and one without.
const PAIRS: usize = 12;
const WINDOW: Duration = Duration::from_millis(1000);
/// Frames a second of the port that is captured.
const CAPTURED_PPS: u64 = 10_000;
const BAR_PERCENT: f64 = 3.0;

/// What it is held against.
pub(super) const HELD: Held = Held::at_most("%", BAR_PERCENT);

pub(super) fn measure(bench: &Bench) -> Result<Figure, String> {
    let node = Node::new();
    let mut daemon = node.start(&Options::new(&bench.switchd).with("--frames 4096"));
    let spec = MemorySource { flows: 64, frame_len: 60, seed: 7, rate_pps: 0, reverse: false };
    daemon.bridge("br0");
    daemon.bridge("br1");
    add(&daemon, "sink", "br0", None);
    add(&daemon, "fast", "br0", Some(spec));
    add(&daemon, "quiet", "br1", None);
    add(&daemon, "slow", "br1", Some(MemorySource { rate_pps: CAPTURED_PPS, ..spec }));
    std::thread::sleep(WINDOW);
    let (mut losses, mut rate, mut seen) = (Vec::new(), 0.0, 0);
    for pair in 0..PAIRS {
        // Which comes first changes, so that a machine that slows down or speeds up favours neither.
        let mut with = || -> Result<f64, String> {
            let (client, frames) = capture(&daemon)?;
            let packets = packets_a_second(&daemon);
            _ = client.shutdown(Shutdown::Write);
            seen += frames.join().unwrap_or(0);
            wait_until("the capture ends", Duration::from_secs(5), || capture_is_free(&daemon));
            Ok(packets)
        };
        let (on, off) = if pair % 2 == 0 {
            let on = with()?;
            (on, packets_a_second(&daemon))
        } else {
            let off = packets_a_second(&daemon);
            (with()?, off)
        };
        losses.push(100.0 * (1.0 - on / off));
        rate = off;
    }
    daemon.stop(true);
    losses.sort_by(f64::total_cmp);
    let median = (losses[PAIRS / 2 - 1] + losses[PAIRS / 2]) / 2.0;
    let detail = format!(
        "throughput that a port of {:.2} Mpps loses while another one of {CAPTURED_PPS} frames a second is captured, \
         median of {PAIRS} pairs ({:.1} to {:.1}); {seen} frames were captured",
        rate / 1e6,
        losses[0],
        losses[PAIRS - 1]
    );
    Ok(Figure::new("capture-cost", median, HELD, detail).only_if(seen > 0))
}

fn packets_a_second(daemon: &Daemon) -> f64 {
    let count = || {
        let stats: Stats = daemon.call(&Request::StatsGet(Default::default()));
        let fast = stats.ports.iter().find(|(name, _)| name.as_str() == "fast");
        (fast.map_or(0, |(_, counters)| counters.rx_packets), Instant::now())
    };
    let before = count();
    std::thread::sleep(WINDOW);
    let after = count();
    (after.0 - before.0) as f64 / (after.1 - before.1).as_secs_f64()
}

fn start() -> Request {
    let port = "slow".parse().unwrap_or_else(|error| panic!("{error}"));
    Request::CaptureStart(CaptureStart { ports: vec![port], ..CaptureStart::default() })
}

type Frames = std::thread::JoinHandle<u64>;

fn capture(daemon: &Daemon) -> Result<(std::os::unix::net::UnixStream, Frames), String> {
    let mut client: Client = daemon.client();
    let _: CaptureStarted = client.call(&start()).map_err(|error| error.to_string())?;
    client.listen().map_err(|error| error.to_string())?;
    let handle = client.handle().map_err(|error| error.to_string())?;
    let count = move || {
        let mut frames = 0;
        while let Ok(Some(notice)) = client.notice() {
            frames += u64::from(notice.method == "capture.frame");
        }
        frames
    };
    Ok((handle, std::thread::spawn(count)))
}

/// Whether another may begin; that one ends at once.
fn capture_is_free(daemon: &Daemon) -> bool {
    daemon.client().call::<CaptureStarted>(&start()).is_ok()
}

fn add(daemon: &Daemon, name: &str, bridge: &str, source: Option<MemorySource>) {
    let parse = |name: &str| name.parse().unwrap_or_else(|error| panic!("{error}"));
    let port = Port::new(parse(name), parse(bridge), PortKind::Memory { source });
    let _: Done = daemon.call(&Request::PortAdd(Box::new(port)));
}
