//! Two pods on the switch, and the switch on core 1: what every peer is held against.

use crate::figures::Bench;
use crate::peers::Kind;
use std::time::Duration;
use switch_api::PortSettings;
use switch_lab::{Daemon, Node, Options, Pod, wait_until};

const PATIENCE: Duration = Duration::from_secs(20);

/// Two pods on one bridge.
#[derive(Debug)]
pub struct Pair {
    /// The pods.
    pub pods: [Pod; 2],
    /// The switch between them.
    pub daemon: Daemon,
    node: Node,
}

impl Pair {
    /// Starts the switch with its default settings, both pods attached in the same way, and waits until a ping
    /// crosses it.
    pub fn start(bench: &Bench, kind: Kind) -> Self {
        Self::start_with(bench, [kind; 2])
    }

    /// The same, each pod attached in its own way.
    pub fn start_with(bench: &Bench, kinds: [Kind; 2]) -> Self {
        let node = Node::new();
        let daemon = node.start(&Options::new(&bench.switchd).with("--cores 1"));
        daemon.bridge("br0");
        let attach = |n: u8, kind: Kind| match kind {
            Kind::Tap => {
                let pod = node.bare_pod(n);
                daemon.attach_tap(&pod, "br0", PortSettings::default());
                pod
            }
            Kind::Xdp => {
                let pod = node.pod(n);
                daemon.attach(&pod, "br0", PortSettings::default());
                pod
            }
        };
        let pods = [attach(1, kinds[0]), attach(2, kinds[1])];
        wait_until("ping", PATIENCE, || pods[0].reaches(&pods[1].ip));
        Self { pods, daemon, node }
    }

    /// The daemon, the pods, and the node, which goes last.
    pub fn apart(self) -> (Daemon, [Pod; 2], Node) {
        (self.daemon, self.pods, self.node)
    }
}
