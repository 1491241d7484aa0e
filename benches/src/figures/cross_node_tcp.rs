//! [cross-node-tcp] TCP from a pod to a pod of another node, nodes joined by a veth: each node's switch with its kernel
//! as uplink, beside two nodes whose kernels route to veth pods themselves. Client and server have core 0, both
//! switches core 1; the kernel does its work wherever the sender runs.

use super::{Bench, Figure, Held};
use crate::iperf::{Load, PATIENCE, ROUNDS, compare};
use switch_lab::cross::Router;
use switch_lab::{Daemon, Options, Pod, wait_until};

/// Of both, one stream and four.
const BAR: f64 = 0.7;
const LINK: u8 = 90;

/// What it is held against.
pub(super) const HELD: Held = Held::at_least("times the kernel's routing", BAR);

pub(super) fn measure(bench: &Bench) -> Result<Figure, String> {
    let switches = Nodes::build(Some(bench));
    let kernels = Nodes::build(None);
    let beside = |streams| compare(&switches.pods, &kernels.pods, &Load { streams, ..Load::default() });
    let (one, four) = (beside(1)?, beside(4)?);
    switches.daemons.iter().for_each(Daemon::assert_conserved);
    let drops: u64 =
        switches.daemons.iter().flat_map(|daemon| daemon.stats().drops).map(|drop| drop.frames).sum();
    let detail = format!(
        "Gb/s from pod to pod across two nodes joined by a veth, uplink = kernel, client and server on core 0, both \
         switches on core 1: one stream {one} of kernels that route to veth pods, four \
         {four} (bar {BAR}); IPv4, MTU 1500, {ROUNDS} rounds in turn, \
         medians; frames that the switches dropped in the whole run: {drops}"
    );
    let figure = Figure::new("cross-node-tcp", one.ratio, HELD, detail);
    Ok(figure.only_if(four.ratio >= BAR))
}

/// Two nodes, each with a pod.
struct Nodes {
    pods: [Pod; 2],
    daemons: Vec<Daemon>,
    _routers: [Router; 2],
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
                let daemon = router.start(&Options::new(&bench.switchd).with("--cores 1"));
                router.pod(&daemon, 2);
                daemons.push(daemon);
                router.pods.remove(0)
            }
            None => cabled(router),
        });
        wait_until("ping across", PATIENCE, || pods[0].reaches("10.2.0.2"));
        Self { pods, daemons, _routers: routers }
    }
}

/// A pod with a veth to its node, whose kernel is its router.
fn cabled(router: &Router) -> Pod {
    let pod = router.node.pod_on(router.net, 2);
    router.node.net.ip(&format!("addr add 10.{}.0.1/24 dev {}", router.net, pod.device));
    pod
}
