//! [attach-churn] and [attach-churn-tap] Ports come and go under traffic. `CHURN_CYCLES` says how often, for soaks.

use super::{Bench, Figure, Held};
use crate::cycles::median;
use std::time::{Duration, Instant};
use switch_api::{ByName, Done, PortSettings, Request};
use switch_lab::{Daemon, Node, Options, Pod, wait_until};

const CYCLES: usize = 1000;
/// Resident memory may differ by what an allocator keeps for itself.
const MEMORY_KIB_MAX: i64 = 1024;

/// What it is held against.
pub(super) const HELD: Held = Held::at_most("frames lost", 0.0);

pub(super) fn measure(bench: &Bench) -> Result<Figure, String> {
    churn(bench, "attach-churn", Node::pod, Daemon::attach)
}

pub(super) fn measure_tap(bench: &Bench) -> Result<Figure, String> {
    churn(bench, "attach-churn-tap", Node::bare_pod, Daemon::attach_tap)
}

fn churn(
    bench: &Bench,
    id: &'static str,
    pod: fn(&Node, u8) -> Pod,
    attach: fn(&Daemon, &Pod, &str, PortSettings),
) -> Result<Figure, String> {
    let cycles = std::env::var("CHURN_CYCLES").ok().and_then(|n| n.parse().ok()).unwrap_or(CYCLES);
    let node = Node::new();
    let mut daemon = node.start(&Options::new(&bench.switchd));
    daemon.bridge("br0");
    let pods: Vec<_> = (1..=3).map(|n| pod(&node, n)).collect();
    for pod in &pods {
        attach(&daemon, pod, "br0", PortSettings::default());
    }
    wait_until("pods reach each other", Duration::from_secs(10), || pods[0].reaches("10.66.0.2"));
    // How long it took to take the port off, and to put it on again.
    let cycle = || {
        let name = pods[1].device.parse().unwrap_or_else(|error| panic!("{error}"));
        let start = Instant::now();
        let _: Done = daemon.call(&Request::PortDelete(ByName { name }));
        let off = start.elapsed();
        attach(&daemon, &pods[1], "br0", PortSettings::default());
        (off, start.elapsed() - off)
    };
    // Without a time limit: with one, ping also ends at the first error that the network reports, such as a
    // station that nobody answers for because its port is being changed.
    let flood = |from: usize, to: &str| pods[from].net.spawn(&format!("ping -q -f {to}"));
    let mut load = [flood(0, "10.66.0.2"), flood(2, "10.66.0.1")];
    // The first cycles fill what is filled once.
    (0..20).for_each(|_| _ = cycle());
    let (memory, descriptors) = (resident_kib(&daemon), descriptors(&daemon));
    let carried = carried(&daemon, &pods[0]);
    let start = Instant::now();
    let (off, on): (Vec<_>, Vec<_>) = (0..cycles).map(|_| cycle()).unzip();
    let seconds = start.elapsed().as_secs_f64();
    let grown = resident_kib(&daemon) - memory;
    let leaked = self::descriptors(&daemon) - descriptors;
    let carried = self::carried(&daemon, &pods[0]) - carried;
    let was_flooded = load.iter_mut().all(|flood| flood.is_running());
    drop(load);
    daemon.assert_conserved();
    let lost = daemon.stats().frames.unaccounted.unsigned_abs();
    daemon.stop(true);
    if !was_flooded || carried == 0 {
        return Err("a flood ended before the cycles did".into());
    }
    let ms = |times: Vec<Duration>| median(times.iter().map(|time| time.as_secs_f64() * 1000.0).collect());
    let detail = format!(
        "{cycles} cycles in {seconds:.0} s under two floods, which carried {carried} frames meanwhile; off {:.0} ms, \
         on {:.0} ms (medians); memory grew by {grown} KiB (bar {MEMORY_KIB_MAX}), descriptors by {leaked} (bar 0)",
        ms(off),
        ms(on)
    );
    let figure = Figure::new(id, lost as f64, HELD, detail);
    Ok(figure.only_if(grown <= MEMORY_KIB_MAX && leaked <= 0))
}

/// Frames that left by the port that stays.
fn carried(daemon: &Daemon, pod: &Pod) -> u64 {
    daemon.port(&pod.device).counters.tx_packets
}

/// VmRSS of the daemon.
pub(super) fn resident_kib(daemon: &Daemon) -> i64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or(0)
}

/// Files that the daemon has open.
pub(super) fn descriptors(daemon: &Daemon) -> i64 {
    std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).map_or(0, |entries| entries.count() as i64)
}
