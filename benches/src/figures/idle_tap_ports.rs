//! [idle-110-ports] What a node's worth of idle tap ports costs: memory and CPU of the daemon.

use super::idle_cpu::cpu_percent;
use super::{Bench, Figure, Held};
use std::time::Duration;
use switch_api::PortSettings;
use switch_lab::{Daemon, Node, Options};

/// Pods that Kubernetes puts on a node unless told otherwise.
const PORTS: u8 = 110;
const BAR_MIB: f64 = 64.0;
const PERCENT_MAX: f64 = 1.0;
/// The pods' kernels announce themselves for a while.
const SETTLE: Duration = Duration::from_secs(10);

/// What it is held against.
pub(super) const HELD: Held = Held::at_most("MiB", BAR_MIB);

pub(super) fn measure(bench: &Bench) -> Result<Figure, String> {
    let node = Node::new();
    let mut daemon = node.start(&Options::new(&bench.switchd));
    daemon.bridge("br0");
    let empty = resident_mib(&daemon);
    let pods: Vec<_> = (1..=PORTS).map(|n| node.bare_pod(n)).collect();
    for pod in &pods {
        daemon.attach_tap(pod, "br0", PortSettings::default());
    }
    std::thread::sleep(SETTLE);
    let percent = cpu_percent(&daemon);
    let resident = resident_mib(&daemon);
    let works = pods[0].reaches(&pods[usize::from(PORTS) - 1].ip);
    daemon.stop(true);
    let detail = format!(
        "resident memory of the daemon with {PORTS} tap ports, {empty:.1} MiB without; {percent:.2} % of a core when \
         idle (bar {PERCENT_MAX})"
    );
    let figure = Figure::new("idle-110-ports", resident, HELD, detail);
    Ok(figure.only_if(percent <= PERCENT_MAX && works))
}

fn resident_mib(daemon: &Daemon) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok());
    kib.map_or(f64::NAN, |kib| kib / 1024.0)
}
