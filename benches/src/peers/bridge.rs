//! The Linux bridge with veth.

use super::PATIENCE;
use switch_lab::{Node, Pod, wait_until};

/// Two pods on a bridge.
#[derive(Debug)]
pub struct Bridge {
    /// The pods.
    pub pods: [Pod; 2],
    /// Where the bridge is.
    pub node: Node,
}

impl Bridge {
    /// Builds it, and waits until a ping crosses it.
    pub fn build() -> Self {
        let node = Node::new();
        node.net.ip("link add br0 type bridge");
        node.net.ip("link set br0 up");
        let pods = [1, 2].map(|n| {
            let pod = node.pod(n);
            node.net.ip(&format!("link set {} master br0 up", pod.device));
            pod
        });
        wait_until("ping over the bridge", PATIENCE, || pods[0].reaches(&pods[1].ip));
        Self { pods, node }
    }
}
