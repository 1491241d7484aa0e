//! The switch as a device under test: a daemon with its default configuration, its one worker on core 1.

use super::rig::{Cable, Rig, gateway_of};
use super::task::Task;
use crate::figures::Bench;
use crate::pair::Pair;
use crate::peers::Kind;
use crate::rules;
use std::net::IpAddr;
use std::time::Duration;
use switch_api::{Done, NextHop, PortSettings, Prefix, Request, Route, RouteApply, RouteKind, Vid, Workload};
use switch_lab::node::xdp_port;
use switch_lab::{Daemon, Node, Options, Pod, wait_until};

const PATIENCE: Duration = Duration::from_secs(20);
/// Networks of the pods when packets are routed: no flow has such an address.
pub const NETS: [u8; 2] = [201, 202];

/// What is between the pods.
pub struct Between {
    /// The daemon.
    pub daemon: Daemon,
    /// The node.
    pub node: Node,
}

/// Two pods by AF_XDP.
pub fn xdp(bench: &Bench, task: Task) -> Result<Rig, String> {
    match task {
        Task::Bridge => bridged(bench, Kind::Xdp),
        Task::Route => routed(bench, None),
        Task::Police(rules) => routed(bench, Some(rules)),
    }
}

/// Two pods by TAP, bridged.
pub fn tap(bench: &Bench, _: Task) -> Result<Rig, String> {
    bridged(bench, Kind::Tap)
}

fn bridged(bench: &Bench, kind: Kind) -> Result<Rig, String> {
    let (daemon, pods, node) = Pair::start(bench, kind).apart();
    let cable = if kind == Kind::Tap { Cable::Tap } else { Cable::Veth };
    Ok(Rig { between: Box::new(Between { daemon, node }), pods, gateway: None, cable })
}

/// Two bridges with a gateway each, and a route; the receiver is isolated by so many rules, if any.
fn routed(bench: &Bench, rules: Option<u32>) -> Result<Rig, String> {
    let node = Node::new();
    let daemon = node.start(&Options::new(&bench.switchd).with("--cores 1"));
    for policy in rules.map(rules::policies).transpose()?.into_iter().flatten() {
        let _: Done = daemon.call(&Request::PolicyAdd(Box::new(policy)));
    }
    let pods = NETS.map(|net| node.pod_on(net, 2));
    for (n, pod) in pods.iter().enumerate() {
        let (bridge, net) = (format!("br{n}"), NETS[n]);
        daemon.bridge(&bridge);
        daemon.gateway(&bridge, &format!("10.{net}.0.1/24"));
        let mut port = xdp_port(&pod.device, &bridge, PortSettings::default());
        port.workload = (n == 1 && rules.is_some()).then(|| workload(pod)).transpose()?;
        let _: Done = daemon.call(&Request::PortAdd(Box::new(port)));
    }
    let _: Done = daemon
        .call(&Request::RouteApply(RouteApply { add: vec![route(&pods[1])?], ..RouteApply::default() }));
    for (pod, net) in pods.iter().zip(NETS) {
        wait_until("a pod reaches its gateway", PATIENCE, || pod.reaches(&format!("10.{net}.0.1")));
    }
    let gateway = Some(gateway_of(&pods[0], &format!("10.{}.0.1", NETS[0]))?);
    Ok(Rig { between: Box::new(Between { daemon, node }), pods, gateway, cable: Cable::Veth })
}

fn workload(pod: &Pod) -> Result<Workload, String> {
    let address: IpAddr = pod.ip.parse().map_err(|error| format!("{error}"))?;
    Ok(Workload {
        namespace: "default".into(),
        labels: Default::default(),
        ports: Vec::new(),
        addresses: vec![address],
    })
}

/// Where all flows go, by way of a pod.
fn route(pod: &Pod) -> Result<Route, String> {
    let address = pod.ip.parse().map_err(|error| format!("{error}"))?;
    let via = vec![NextHop { address, bridge: None, vid: Vid::DEFAULT, weight: 1 }];
    Ok(Route::new(Prefix { address: IpAddr::from([11, 0, 0, 0]), len: 8 }, RouteKind::Via, via))
}
