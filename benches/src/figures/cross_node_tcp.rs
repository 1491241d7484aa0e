//! [cross-node-tcp] TCP from a pod to a pod of another node, nodes joined by a veth. With the kernel as uplink, each node's switch
//! beside two nodes whose kernels route to veth pods themselves; with uplinks that share the veth's ends (`uplink = xdp`), beside
//! Open vSwitch's userspace datapath over a veth, whatever kind of port for pods suits it better. Client and server have core 0,
//! the switches core 1; a kernel does its work wherever the sender runs.

use super::{Bench, Figure, Held};
use crate::iperf::{Compared, Load, PATIENCE, ROUNDS, compare};
use crate::peers::{Kind, Ovs};
use switch_lab::cross::Router;
use switch_lab::{Daemon, Options, Pod, wait_until};

/// Beside kernels, one stream and four.
const BAR: f64 = 0.7;
/// Uplinks on the veth beside Open vSwitch, one stream and four.
const BAR_OVS: f64 = 3.0;
const LINK: u8 = 90;

/// What it is held against.
pub(super) const HELD: Held = Held::at_least("times the kernel's routing", BAR);

pub(super) fn measure(bench: &Bench) -> Result<Figure, String> {
    let switches = Nodes::build(Some(bench));
    let by_kernel = {
        let kernels = Nodes::build(None);
        [1, 4].map(|streams| beside(&switches, &kernels.pods, streams))
    };
    let [one, four] = both(by_kernel)?;
    let dropped_by_kernel = switches.dropped();
    switches.share();
    let mut by_xdp = Vec::new();
    for (kind, ports) in [(Kind::Tap, "internal ports for pods"), (Kind::Xdp, "afxdp ports for pods")] {
        let ovs = Ovs::across(kind)?;
        by_xdp.push((ports, both([1, 4].map(|streams| beside(&switches, &ovs.pods, streams)))?));
    }
    let worst = by_xdp.iter().flat_map(|(_, both)| both).map(|c| c.ratio).fold(f64::MAX, f64::min);
    let cells: Vec<_> =
        by_xdp.iter().map(|(ports, [one, four])| format!("{ports}: one stream {one}, four {four}")).collect();
    switches.daemons.iter().for_each(Daemon::assert_conserved);
    let detail = format!(
        "Gb/s from pod to pod across two nodes joined by a veth, client and server on core 0, both switches on core 1. \
         uplink = kernel: one stream {one} of kernels that route to veth pods, four {four} (bar {BAR}); frames that the \
         switches dropped: {dropped_by_kernel}. uplink = xdp, beside {}, userspace datapath, afxdp ports on a veth between two \
         bridges, {} (bar {BAR_OVS}); dropped: {}. IPv4, MTU 1500, {ROUNDS} rounds in turn, medians",
        Ovs::version()?,
        cells.join("; "),
        switches.dropped() - dropped_by_kernel,
    );
    let figure = Figure::new("cross-node-tcp", one.ratio, HELD, detail);
    Ok(figure.only_if(four.ratio >= BAR && worst >= BAR_OVS))
}

fn beside(switches: &Nodes, theirs: &[Pod; 2], streams: u32) -> Result<Compared, String> {
    compare(&switches.pods, theirs, &Load { streams, ..Load::default() })
}

fn both([one, four]: [Result<Compared, String>; 2]) -> Result<[Compared; 2], String> {
    Ok([one?, four?])
}

/// Two nodes, each with a pod.
struct Nodes {
    pods: [Pod; 2],
    daemons: Vec<Daemon>,
    routers: [Router; 2],
}

impl Nodes {
    /// With switches, or with kernels alone.
    fn build(bench: Option<&Bench>) -> Self {
        let mut routers = [Router::new(1), Router::new(2)];
        routers[0].join(&routers[1], LINK);
        routers[0].route_to(&routers[1], LINK);
        routers[1].route_to(&routers[0], LINK);
        let mut daemons = Vec::new();
        let pods = routers.each_mut().map(|router| match bench {
            Some(bench) => {
                let daemon = router.start(&Options::new(&bench.switchd).with("--cores 1 --frames 8192"));
                router.pod(&daemon, 2);
                daemons.push(daemon);
                router.pods.remove(0)
            }
            None => cabled(router),
        });
        wait_until("ping across", PATIENCE, || pods[0].reaches("10.2.0.2"));
        Self { pods, daemons, routers }
    }

    /// From now on by uplinks on the cable.
    fn share(&self) {
        let [a, b] = &self.routers;
        a.share(&self.daemons[0], b, LINK);
        b.share(&self.daemons[1], a, LINK);
        wait_until("packets go past the kernels", PATIENCE, || {
            let said = self.pods[0].net.try_run("ping -n -c 1 -W 1 10.2.0.2");
            String::from_utf8_lossy(&said.stdout).contains("ttl=62")
        });
    }

    fn dropped(&self) -> u64 {
        self.daemons.iter().flat_map(|daemon| daemon.stats().drops).map(|drop| drop.frames).sum()
    }
}

/// A pod with a veth to its node, whose kernel is its router.
fn cabled(router: &Router) -> Pod {
    let pod = router.node.pod_on(router.net, 2);
    router.node.net.ip(&format!("addr add 10.{}.0.1/24 dev {}", router.net, pod.device));
    pod
}
