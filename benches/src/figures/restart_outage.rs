//! [restart-outage] The daemon stops and starts, and is killed and starts, under 100 tap pods, each of which sends a thousand datagrams a
//! second and is probed there and back, and then under 100 xdp pods: how long is any of them cut off. A TCP connection goes on all the while, and a policy that forbids a pod something never lets a
//! frame through. The worst pod is what counts. `RESTART_WORDS` are further words for the daemon.

use super::{Bench, Figure, Held};
use crate::beacons::{Beacons, RATE_MIN};
use crate::outage::{self, Outages, PROBE_MS, Probes, RESTARTS, Stream, ms};
use std::time::Duration;
use switch_api::{Done, NetworkPolicy, PortSettings, PortState, PortStatus, Request, Workload};
use switch_lab::node::{tap_port, xdp_port};
use switch_lab::{Daemon, Node, Options, Pod, wait_until};

const PODS: u8 = 100;
const BAR_MS: f64 = 300.0;
/// The kernel needs 1 to 2 s to bury a hundred sockets of AF_XDP and bind as many.
const XDP_BAR_MS: f64 = 4000.0;
const LONG: Duration = Duration::from_secs(30);

/// What it is held against.
pub(super) const HELD: Held = Held::at_most("ms", BAR_MS);

/// How pods are attached.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Tap,
    Xdp,
}

/// What became of pods of one kind.
struct Part {
    outages: Outages,
    detail: String,
    holds: bool,
}

pub(super) fn measure(bench: &Bench) -> Result<Figure, String> {
    let (taps, cables) = (part(bench, Kind::Tap)?, part(bench, Kind::Xdp)?);
    let detail = format!(
        "{PODS} tap pods (bar {BAR_MS} ms): {}; {PODS} xdp pods (bar {XDP_BAR_MS} ms): {}; a probe every {PROBE_MS} ms a pod there and \
         back, and 1 kHz from each pod; {RESTARTS} restarts each way",
        taps.detail, cables.detail
    );
    let holds = taps.holds && cables.holds && cables.outages.worst_ms() <= XDP_BAR_MS;
    Ok(Figure::new("restart-outage", taps.outages.worst_ms(), HELD, detail).only_if(holds))
}

fn part(bench: &Bench, kind: Kind) -> Result<Part, String> {
    let node = Node::new();
    let words = std::env::var("RESTART_WORDS").unwrap_or_default();
    let options = Options::new(&bench.switchd).keeping_state().with(&words);
    let daemon = node.start(&options);
    daemon.bridge("br0");
    // The prober is a pod like the others.
    let pods: Vec<_> =
        (1..=PODS + 2).map(|n| if kind == Kind::Tap { node.bare_pod(n) } else { node.pod(n) }).collect();
    let (prober, probed, closed) = (&pods[0], &pods[1..=usize::from(PODS)], &pods[usize::from(PODS) + 1]);
    for pod in &pods {
        let settings = PortSettings::default();
        let mut port = match kind {
            Kind::Tap => tap_port(pod, "br0", settings),
            Kind::Xdp => xdp_port(&pod.device, "br0", settings),
        };
        let labels =
            [("app".to_owned(), if pod.ip == closed.ip { "closed" } else { "open" }.to_owned())].into();
        // The addresses of a pod whose device is not the switch's are said.
        let addresses =
            if kind == Kind::Tap { vec![] } else { vec![pod.ip.parse().map_err(|_| "no address")?] };
        port.workload = Some(Workload { namespace: "shop".into(), labels, ports: vec![], addresses });
        let _: Done = daemon.call(&Request::PortAdd(Box::new(port)));
    }
    for pod in &pods[1..] {
        wait_until("a pod answers", LONG, || prober.reaches(&pod.ip));
    }
    close(&daemon)?;
    if prober.reaches(&closed.ip) {
        return Err("the policy does not close the pod, before any restart".into());
    }
    let leaks = received(closed)?;
    let stream = Stream::start(&probed[0], &probed[1], Duration::from_millis(1));
    let probes = Probes::start(prober, probed, &[closed]);
    let beacons = Beacons::start(probed, prober)?;
    let (mut daemon, outages) = outage::restart(daemon, &node, &options, &probes, Some(&beacons));
    let rate = beacons.stop();
    let (sent, answered) = probes.stop();
    let tcp = stream.stop();
    let leaks = received(closed)? - leaks;
    daemon.assert_conserved();
    let up = up(&daemon);
    daemon.stop(true);
    let detail = format!(
        "stopped and started {:.0} ms, killed and started {:.0} ms, silent {:.0} ms at most, with {rate:.0} datagrams a second of each \
         (bar {RATE_MIN}); the median pod {:.0} ms at worst, and the daemon \
         serves after {:.0}; {sent} probes sent, {answered} answered; {up} ports up again; a TCP connection of two pods carried {tcp} \
         chunks in order all the while; {leaks} probes came through to a pod that a policy closes (bar 0)",
        ms(outages.stopped),
        ms(outages.killed),
        ms(outages.silent),
        ms(outages.median),
        ms(outages.serving)
    );
    let holds = tcp > 0 && leaks == 0 && up == pods.len() && rate >= RATE_MIN;
    Ok(Part { outages, detail, holds })
}

/// Nothing may enter the pod labelled `closed`.
fn close(daemon: &Daemon) -> Result<(), String> {
    let spec =
        serde_json::json!({"podSelector": {"matchLabels": {"app": "closed"}}, "policyTypes": ["Ingress"]});
    let policy = serde_json::json!({"metadata": {"name": "closed", "namespace": "shop"}, "spec": spec});
    let policy: NetworkPolicy = serde_json::from_value(policy).map_err(|error| error.to_string())?;
    let _: Done = daemon.call(&Request::PolicyAdd(Box::new(policy)));
    Ok(())
}

fn up(daemon: &Daemon) -> usize {
    let ports: Vec<PortStatus> = daemon.call(&Request::PortList(Default::default()));
    ports.iter().filter(|port| port.state == PortState::Up).count()
}

/// Probes that a pod's kernel has taken in (SNMP's `InDatagrams` and `NoPorts`).
fn received(pod: &Pod) -> Result<i64, String> {
    let text = pod.net.inside(|| std::fs::read_to_string("/proc/thread-self/net/snmp")).join();
    let text = text.map_err(|_| "the reader panicked")?.map_err(|error| error.to_string())?;
    let line = text.lines().filter(|line| line.starts_with("Udp:")).nth(1).ok_or("no UDP statistics")?;
    let counts = line.split_whitespace().skip(1).take(2);
    Ok(counts.filter_map(|word| word.parse::<i64>().ok()).sum())
}
