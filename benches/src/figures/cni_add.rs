//! [cni-add] A container is attached before its runtime notices, and a thousand that come and go leave nothing behind.
//! `CHURN_PODS` says how many, for soaks.

use super::{Bench, Figure, Held};
use crate::containers::{self, Runtime};
use std::time::{Duration, Instant};
use switch_api::PortSettings;
use switch_lab::{Daemon, Net, Node, Options};

/// Pods that are there already.
const PRESENT: usize = 100;
/// ADDs that are timed, one after another.
const TIMED: usize = 100;
/// ADDs that follow several at a time.
const AT_ONCE: usize = 200;
const RUNTIMES: usize = 8;
/// Pods that come and go.
const CHURN: usize = 1_000;
/// The first pods of a daemon fill what is filled once.
const WARM_UP: usize = 32;
const BAR_MS: f64 = 15.0;
const P99_MS_MAX: f64 = 50.0;
const XDP_P50_MS_MAX: f64 = 60.0;
/// Frames of a closed socket come home within moments, and regions of packet memory that nobody needs go back one after the other.
const SETTLE: Duration = Duration::from_secs(60);

/// What it is held against.
pub(super) const HELD: Held = Held::at_most("ms (p50)", BAR_MS);

pub(super) fn measure(bench: &Bench) -> Result<Figure, String> {
    let (tap, many) = with_tap_ports(bench)?;
    let xdp = with_xdp_ports(bench)?;
    let detail = format!(
        "ADD with {PRESENT} to {} tap pods present, dual stack, masqueraded, process and its synced write included: p99 {:.1} ms \
         (bar {P99_MS_MAX}); {many}; with as many xdp pods present: p50 {:.1} ms (bar {XDP_P50_MS_MAX}), p99 {:.1}, left after \
         DEL of all: {}",
        PRESENT + TIMED,
        tap.p99,
        xdp.p50,
        xdp.p99,
        xdp.left.text
    );
    let figure = Figure::new("cni-add", tap.p50, HELD, detail);
    let clean = tap.left.is_nothing && xdp.left.is_nothing;
    Ok(figure.only_if(tap.p99 <= P99_MS_MAX && xdp.p50 <= XDP_P50_MS_MAX && clean))
}

/// How long an ADD took, and what is left in the end.
struct Measured {
    p50: f64,
    p99: f64,
    left: Left,
}

/// A daemon with a way out, by which each container is masqueraded, as on a node.
fn daemon(bench: &Bench, node: &Node, words: &str) -> Result<Daemon, String> {
    let daemon = node.start(&Options::new(&bench.switchd).with(words).keeping_state());
    daemon.bridge("br0");
    containers::host_port(&daemon, PortSettings::default())?;
    Ok(daemon)
}

fn with_tap_ports(bench: &Bench) -> Result<(Measured, String), String> {
    let node = Node::new();
    let daemon = daemon(bench, &node, "--frames 8192")?;
    let runtime = Runtime::new(bench, &node, &daemon, "");
    let (pods, p50, p99) = timed(&runtime)?;
    let many = (0..AT_ONCE).map(|n| Net::new(&format!("m{n}"))).collect::<Vec<_>>();
    let start = Instant::now();
    let mut failed = runtime.at_once(RUNTIMES, &many, |pod| runtime.add(pod).map(drop));
    let rate = AT_ONCE as f64 / start.elapsed().as_secs_f64();
    let gone = [&many[..], &pods[PRESENT..]];
    let detached: usize = gone.iter().map(|pods| delete(&runtime, pods)).sum();
    drop(many);
    // Beside those that stay.
    let wanted = std::env::var("CHURN_PODS").ok().and_then(|n| n.parse().ok()).unwrap_or(CHURN);
    failed += churn(&runtime, WARM_UP);
    let before = Books::of(&daemon, &node)?;
    let start = Instant::now();
    let churned = churn(&runtime, wanted);
    let seconds = start.elapsed().as_secs_f64();
    let mut left = before.left(&daemon, &node)?;
    let last = delete(&runtime, &pods[..PRESENT]);
    daemon.assert_conserved();
    let (ports, leases) = containers::count(&daemon);
    left.is_nothing &= failed + detached + churned + last + ports + leases == 0;
    let text = format!(
        "{AT_ONCE} ADDs, {RUNTIMES} at a time: {failed} failed, {rate:.0} a second; {wanted} pods that came and went, {RUNTIMES} at a time, \
         beside the {PRESENT}, in {seconds:.0} s: {churned} failed, left behind: {}; after DEL of all {} failed, {ports} ports and \
         {leases} leases are there",
        left.text,
        detached + last
    );
    Ok((Measured { p50, p99, left }, text))
}

fn with_xdp_ports(bench: &Bench) -> Result<Measured, String> {
    let node = Node::new();
    // An xdp port has its own share of frames, which grows with the region's.
    let daemon = daemon(bench, &node, "")?;
    let runtime = Runtime::new(bench, &node, &daemon, r#""driver":"xdp","#);
    if churn(&runtime, WARM_UP) > 0 {
        return Err("xdp pods cannot be attached".into());
    }
    let before = Books::of(&daemon, &node)?;
    let (pods, p50, p99) = timed(&runtime)?;
    let failed = delete(&runtime, &pods);
    let mut left = before.left(&daemon, &node)?;
    left.is_nothing &= failed == 0;
    daemon.assert_conserved();
    Ok(Measured { p50, p99, left })
}

/// Attaches [`PRESENT`] pods and then [`TIMED`], whose p50 and p99 count.
fn timed(runtime: &Runtime) -> Result<(Vec<Net>, f64, f64), String> {
    let pods = (0..PRESENT + TIMED).map(|n| Net::new(&format!("t{n}"))).collect::<Vec<_>>();
    let mut times = Vec::new();
    for (n, pod) in pods.iter().enumerate() {
        let start = Instant::now();
        runtime.run("ADD", pod)?;
        if n >= PRESENT {
            times.push(start.elapsed().as_secs_f64() * 1000.0);
        }
    }
    times.sort_by(f64::total_cmp);
    Ok((pods, times[times.len() / 2], times[times.len() * 99 / 100]))
}

fn delete(runtime: &Runtime, pods: &[Net]) -> usize {
    runtime.at_once(RUNTIMES, pods, |pod| runtime.run("DEL", pod).map(drop))
}

/// Pods that come and go, several at a time; how many could not, or kept a device.
fn churn(runtime: &Runtime, pods: usize) -> usize {
    let numbers: Vec<usize> = (0..pods).collect();
    runtime.at_once(RUNTIMES, &numbers, |n| {
        let pod = Net::new(&format!("c{n}"));
        runtime.add(&pod)?;
        runtime.run("DEL", &pod)?;
        match containers::devices(&pod)?.as_slice() {
            [] => Ok(()),
            left => Err(format!("pod {n} keeps {}", left.join(", "))),
        }
    })
}

/// What the node has on its books.
struct Books {
    ports: usize,
    leases: usize,
    devices: Vec<String>,
    /// Frames that are not in a pool.
    frames_out: u64,
    descriptors: i64,
}

/// What is on them later and was not before.
struct Left {
    is_nothing: bool,
    text: String,
}

impl Books {
    fn of(daemon: &Daemon, node: &Node) -> Result<Self, String> {
        let (ports, leases) = containers::count(daemon);
        let frames = daemon.stats().frames;
        Ok(Self {
            ports,
            leases,
            devices: containers::devices(&node.net)?,
            frames_out: frames.total - frames.free,
            descriptors: super::attach_churn::descriptors(daemon),
        })
    }

    /// What was left since. Frames may still be on their way home, and a connection may not be closed yet.
    fn left(&self, daemon: &Daemon, node: &Node) -> Result<Left, String> {
        let deadline = Instant::now() + SETTLE;
        loop {
            let left = self.compare(&Self::of(daemon, node)?);
            if left.is_nothing || Instant::now() > deadline {
                return Ok(left);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn compare(&self, now: &Self) -> Left {
        let ports = now.ports as i64 - self.ports as i64;
        let leases = now.leases as i64 - self.leases as i64;
        let devices = now.devices.iter().filter(|device| !self.devices.contains(device)).count();
        let frames = now.frames_out as i64 - self.frames_out as i64;
        let descriptors = now.descriptors - self.descriptors;
        let is_nothing = (ports, leases, devices) == (0, 0, 0) && frames <= 0 && descriptors <= 0;
        let text = format!(
            "{ports} ports, {leases} leases, {devices} devices, {frames} frames, {descriptors} descriptors (bars 0)"
        );
        Left { is_nothing, text }
    }
}
