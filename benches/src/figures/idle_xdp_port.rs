//! [idle-xdp-port] What an idle port costs the machine: the daemon's memory, the kernel's, and the frames
//! that wait in its rings.

use super::{Bench, Figure, Held};
use crate::cycles::median;
use std::time::Duration;
use switch_api::{ByName, Done, PortSettings, Request};
use switch_lab::{Daemon, Node, Options};

/// Frames are dealt out in full to as many; more would find less and look cheaper.
const PORTS: u8 = 12;
const BAR_KIB: f64 = 512.0;

const ROUNDS: usize = 7;
/// The kernel frees what a closed socket had after a grace period and from a work queue.
const SETTLE: Duration = Duration::from_millis(1500);

/// What it is held against.
pub(super) const HELD: Held = Held::at_most("KiB", BAR_KIB);

pub(super) fn measure(bench: &Bench) -> Result<Figure, String> {
    let node = Node::new();
    let mut daemon = node.start(&Options::new(&bench.switchd));
    daemon.bridge("br0");
    let pods: Vec<_> = (1..=PORTS + 1).map(|n| node.pod(n)).collect();
    // The first port of a daemon fills what is filled once, and so does the first round.
    daemon.attach(&pods[0], "br0", PortSettings::default());
    let (mut machines, mut parked) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        std::thread::sleep(SETTLE);
        let (used, rings) = (used_kib(&daemon), daemon.stats().frames.in_rings);
        for pod in &pods[1..] {
            daemon.attach(pod, "br0", PortSettings::default());
        }
        std::thread::sleep(SETTLE);
        let frames = daemon.stats().frames;
        if round > 0 {
            machines.push((used_kib(&daemon) - used) / f64::from(PORTS));
            let chunks = (frames.in_rings - rings) * u64::from(frames.chunk_bytes);
            parked.push(chunks as f64 / 1024.0 / f64::from(PORTS));
        }
        for pod in &pods[1..] {
            let name = pod.device.parse().map_err(|error| format!("{error}"))?;
            let _: Done = daemon.call(&Request::PortDelete(ByName { name }));
        }
    }
    daemon.stop(true);
    let spread =
        machines.iter().copied().fold(f64::NAN, f64::max) - machines.iter().copied().fold(f64::NAN, f64::min);
    let (machine, frames) = (median(machines), median(parked));
    let detail = format!(
        "{PORTS} ports attached and detached {ROUNDS} times; {machine:.0} KiB a port of kernel memory (slab, vmalloc, \
         page tables, per-core) and the daemon's own (spread {spread:.0}), and {frames:.0} KiB of frames in its rings"
    );
    Ok(Figure::new("idle-xdp-port", machine + frames, HELD, detail))
}

/// KiB that the kernel has in use for itself, and the daemon for itself. Not `MemAvailable`, which moves by
/// megabytes with the page cache and with pages that wait on per-core lists.
pub(super) fn used_kib(daemon: &Daemon) -> f64 {
    let sum = |path: &str, names: &[&str]| {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let field = |line: &str| {
            let (name, rest) = line.split_once(':')?;
            names.contains(&name).then(|| rest.split_whitespace().next()?.parse::<f64>().ok())?
        };
        text.lines().filter_map(field).sum::<f64>()
    };
    let kernel = sum("/proc/meminfo", &["SUnreclaim", "VmallocUsed", "PageTables", "Percpu"]);
    kernel + sum(&format!("/proc/{}/status", daemon.pid()), &["RssAnon"])
}
