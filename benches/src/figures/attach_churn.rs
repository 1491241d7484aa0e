//! [attach-churn] Ports come and go under traffic.

use super::{Bar, Bench, Figure};
use switch_api::{ByName, Done, PortSettings, Request};
use switch_lab::{Daemon, Node, Options, wait_until};

const CYCLES: usize = 1000;
/// Resident memory may differ by what an allocator keeps for itself.
const MEMORY_KIB_MAX: i64 = 1024;

pub(super) fn measure(bench: &Bench) -> Result<Figure, String> {
    let node = Node::new();
    let mut daemon = node.start(&Options::new(&bench.switchd));
    daemon.bridge("br0");
    let pods: Vec<_> = (1..=3).map(|n| node.pod(n)).collect();
    for pod in &pods {
        daemon.attach(pod, "br0", PortSettings::default());
    }
    wait_until("pods reach each other", std::time::Duration::from_secs(10), || pods[0].reaches("10.66.0.2"));
    let cycle = || {
        let name = pods[1].device.parse().unwrap_or_else(|error| panic!("{error}"));
        let _: Done = daemon.call(&Request::PortDelete(ByName { name }));
        daemon.attach(&pods[1], "br0", PortSettings::default());
    };
    let load =
        [pods[0].net.spawn("ping -q -f -w 300 10.66.0.2"), pods[2].net.spawn("ping -q -f -w 300 10.66.0.1")];
    // The first cycles fill what is filled once.
    (0..20).for_each(|_| cycle());
    let (memory, descriptors) = (resident_kib(&daemon), descriptors(&daemon));
    let start = std::time::Instant::now();
    (0..CYCLES).for_each(|_| cycle());
    let seconds = start.elapsed().as_secs_f64();
    let grown = resident_kib(&daemon) - memory;
    let leaked = self::descriptors(&daemon) - descriptors;
    drop(load);
    daemon.assert_conserved();
    let lost = daemon.stats().frames.unaccounted.unsigned_abs();
    daemon.stop(true);
    let detail = format!(
        "{CYCLES} cycles in {seconds:.0} s under two floods; memory grew by {grown} KiB (bar {MEMORY_KIB_MAX}), \
         descriptors by {leaked} (bar 0)"
    );
    let figure = Figure::new("attach-churn", lost as f64, "frames lost", Bar::AtMost, 0.0, detail);
    Ok(figure.only_if(grown <= MEMORY_KIB_MAX && leaked <= 0))
}

/// VmRSS of the daemon.
pub(super) fn resident_kib(daemon: &Daemon) -> i64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or(0)
}

fn descriptors(daemon: &Daemon) -> i64 {
    std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).map_or(0, |entries| entries.count() as i64)
}
