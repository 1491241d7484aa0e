//! [tcp-vs-bridge] TCP from pod to pod: tap ports beside the Linux bridge with veth, in turn. Client and server
//! have core 0, the switch has core 1; the bridge does its work wherever the sender runs.

use super::{Bar, Bench, Figure};
use crate::cycles::median;
use std::time::Duration;
use switch_api::PortSettings;
use switch_lab::net::Background;
use switch_lab::{Daemon, Net, Node, Options, Pod, wait_until};

const ROUNDS: usize = 5;
const SECONDS: u32 = 2;
const BAR_ONE: f64 = 0.9;
const BAR_FOUR: f64 = 1.0;
pub(super) const PATIENCE: Duration = Duration::from_secs(20);
/// Cores of the client and the server.
pub(super) const SAME: (u32, u32) = (0, 0);
const APART: (u32, u32) = (0, 1);

pub(super) fn measure(bench: &Bench) -> Result<Figure, String> {
    let switch = Switch::start(bench);
    let bridge = Bridge::build();
    let (ours, theirs) = (&switch.pods, &bridge.pods);
    let (one, [one_ours, one_theirs]) = compare(ours, theirs, SAME, 1)?;
    let (four, [four_ours, four_theirs]) = compare(ours, theirs, SAME, 4)?;
    let (apart, [apart_ours, apart_theirs]) = compare(ours, theirs, APART, 1)?;
    let (_, drops) = (switch.daemon.assert_conserved(), switch.daemon.stats().drops);
    let drops: Vec<_> = drops.iter().map(|drop| format!("{} {}", drop.frames, drop.reason)).collect();
    let detail = format!(
        "Gb/s, client and server on core 0, switch on core 1: one stream {one_ours:.1} against {one_theirs:.1}, four \
         {four_ours:.1} against {four_theirs:.1} = {four:.2} (bar {BAR_FOUR}); server on core 1: {apart_ours:.1} against \
         {apart_theirs:.1} = {apart:.2}; IPv4, MTU 1500, iperf3 for {SECONDS} s, {ROUNDS} rounds in turn, medians; \
         drops of the whole run: {}",
        if drops.is_empty() { "none".into() } else { drops.join(", ") }
    );
    let figure = Figure::new("tcp-vs-bridge", one, "times the bridge", Bar::AtLeast, BAR_ONE, detail);
    Ok(figure.only_if(four >= BAR_FOUR))
}

/// Median ratio, and the medians of both.
pub(super) fn compare(
    ours: &[Net],
    theirs: &[Net],
    cores: (u32, u32),
    streams: u32,
) -> Result<(f64, [f64; 2]), String> {
    let (mut ratios, mut switch, mut bridge) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (a, b) = (iperf(ours, cores, streams)?, iperf(theirs, cores, streams)?);
        ratios.push(a / b);
        switch.push(a);
        bridge.push(b);
    }
    Ok((median(ratios), [median(switch), median(bridge)]))
}

/// Gb/s that arrived.
pub(super) fn iperf(pods: &[Net], (client, server): (u32, u32), streams: u32) -> Result<f64, String> {
    let _server: Background = pods[1].spawn(&format!("taskset -c {server} iperf3 -s -1"));
    let listens = || !pods[1].run("ss -Hltn sport = :5201").trim().is_empty();
    wait_until("iperf3 listens", PATIENCE, listens);
    let line = format!("taskset -c {client} iperf3 -J -c 10.66.0.2 -t {SECONDS} -P {streams}");
    let said = pods[0].try_run(&line);
    let answer: serde_json::Value =
        serde_json::from_slice(&said.stdout).map_err(|error| format!("iperf3: {error}"))?;
    let rate = answer["end"]["sum_received"]["bits_per_second"].as_f64();
    rate.map(|rate| rate / 1e9).ok_or_else(|| format!("iperf3: {}", answer["error"]))
}

struct Switch {
    pods: Vec<Net>,
    daemon: Daemon,
    _node: Node,
}

impl Switch {
    fn start(bench: &Bench) -> Self {
        let node = Node::new();
        let daemon = node.start(&Options::new(&bench.switchd).with("--cores 1"));
        daemon.bridge("br0");
        let pods: [Pod; 2] = [node.bare_pod(1), node.bare_pod(2)];
        for pod in &pods {
            daemon.attach_tap(pod, "br0", PortSettings::default());
        }
        wait_until("ping", PATIENCE, || pods[0].reaches("10.66.0.2"));
        Self { pods: pods.map(|pod| pod.net).into(), daemon, _node: node }
    }
}

pub(super) struct Bridge {
    pub(super) pods: Vec<Net>,
    _node: Net,
}

impl Bridge {
    pub(super) fn build() -> Self {
        let node = Net::new("bridge");
        node.ip("link add br0 type bridge");
        node.ip("link set br0 up");
        let pods = (1..=2).map(|n| {
            let pod = Net::new(&format!("veth{n}"));
            node.ip(&format!("link add pod{n} type veth peer name eth0 netns {}", pod.name()));
            node.ip(&format!("link set pod{n} master br0 up"));
            pod.ip("link set eth0 up");
            pod.ip(&format!("addr add 10.66.0.{n}/24 dev eth0"));
            pod
        });
        let pods: Vec<_> = pods.collect();
        let reaches = || pods[0].try_run("ping -n -c 1 -W 1 10.66.0.2").status.success();
        wait_until("ping over the bridge", PATIENCE, reaches);
        Self { pods, _node: node }
    }
}
