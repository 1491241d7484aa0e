//! [many-ports] As many ports as a node can have pods, twice: 250 of tap and 250 of xdp on one switch, all of
//! which serve; and what an idle one of each takes, by the machine's books and by the switch's.

use super::idle_xdp_port::used_kib;
use super::{Bench, Figure, Held};
use std::time::{Duration, Instant};
use switch_api::{PortSettings, Request, Status};
use switch_lab::{Daemon, Node, Options, Pod};

/// Pods of each kind: the host numbers of a /24, as far as the laboratory counts.
const PORTS: u8 = 250;
/// The pods' kernels announce themselves for a while, and what a closed descriptor had is freed later.
const SETTLE: Duration = Duration::from_secs(3);

/// What it is held against.
pub(super) const HELD: Held = Held::at_least("ports serve", PORTS as f64 * 2.0);

pub(super) fn measure(bench: &Bench) -> Result<Figure, String> {
    let node = Node::new();
    let mut daemon = node.start(&Options::new(&bench.switchd));
    daemon.bridge("taps");
    daemon.bridge("cables");
    let (taps, tap) = fill(&daemon, (1..=PORTS).map(|n| node.bare_pod(n)).collect(), |pod| {
        daemon.attach_tap(pod, "taps", PortSettings::default());
    });
    let (cables, xdp) = fill(&daemon, (1..=PORTS).map(|n| node.pod(n)).collect(), |pod| {
        daemon.attach(pod, "cables", PortSettings::default());
    });
    // Traffic of both at a time: everybody is there.
    let serving = serve(&taps) + serve(&cables);
    let memory = daemon.call::<Status>(&Request::Status(Default::default())).memory;
    daemon.assert_conserved();
    let resident = super::attach_churn::resident_kib(&daemon) / 1024;
    let mut lost = std::collections::BTreeMap::<_, u64>::new();
    daemon.stats().drops.into_iter().for_each(|drop| *lost.entry(drop.reason).or_default() += drop.frames);
    let missing: Vec<_> = lost.iter().map(|(reason, frames)| format!("{frames} {reason}")).collect();
    daemon.stop(true);
    let detail = format!(
        "of {PORTS} tap and {PORTS} xdp ports, those that reach the next one; an idle tap port takes {:.0} KiB of kernel \
         memory and the daemon's own ({:.0} by switch-ctl port), an xdp port {:.0} beside {:.0} of frames in its rings \
         ({:.0} by switch-ctl port); attached in {:.1} ms and {:.1} ms each; {} regions, {} MiB of {} MiB in use, {resident} MiB \
         resident; dropped: {}",
        tap.machine_kib,
        tap.told_kib,
        xdp.machine_kib,
        xdp.frames_kib,
        xdp.told_kib,
        tap.attach_ms,
        xdp.attach_ms,
        memory.regions,
        memory.used_bytes >> 20,
        memory.ceiling_bytes >> 20,
        if missing.is_empty() { "nothing".into() } else { missing.join(", ") }
    );
    let figure = Figure::new("many-ports", f64::from(serving), HELD, detail);
    Ok(figure.only_if(memory.used_bytes <= memory.ceiling_bytes))
}

/// What a port took, on average.
struct Taken {
    machine_kib: f64,
    told_kib: f64,
    frames_kib: f64,
    attach_ms: f64,
}

fn fill(daemon: &Daemon, pods: Vec<Pod>, attach: impl Fn(&Pod)) -> (Vec<Pod>, Taken) {
    std::thread::sleep(SETTLE);
    let (used, start) = (used_kib(daemon), Instant::now());
    pods.iter().for_each(attach);
    let attach_ms = start.elapsed().as_secs_f64() * 1000.0 / pods.len() as f64;
    std::thread::sleep(SETTLE);
    let machine_kib = (used_kib(daemon) - used) / pods.len() as f64;
    let port = daemon.port(&pods[pods.len() / 2].device);
    let kib = |bytes: u64| bytes as f64 / 1024.0;
    let taken = Taken {
        machine_kib,
        told_kib: kib(port.memory_bytes),
        frames_kib: kib(port.memory.frames_bytes),
        attach_ms,
    };
    (pods, taken)
}

/// How many pods reach the next one.
fn serve(pods: &[Pod]) -> u32 {
    let next = pods.iter().cycle().skip(1);
    // Twice: the first packet of a busy machine may take longer than a ping waits.
    let reaches = |(pod, next): (&Pod, &Pod)| pod.reaches(&next.ip) || pod.reaches(&next.ip);
    pods.iter().zip(next).filter(|pair| reaches(*pair)).count() as u32
}
