//! DPDK's testpmd over its AF_XDP driver: frames go from one port to the other unseen (`io` mode), which is less
//! than any switch does.

use super::{PATIENCE, Process};
use std::process::{Command, Stdio};
use switch_lab::{Node, Pod, wait_until};

/// What the driver is asked for, for a detail's sake.
pub const CONFIGURATION: &str =
    "over net_af_xdp, io mode, one core, --no-huge, its own defaults (busy polling with a budget of 64)";

/// Two pods, and a testpmd between them on core 1.
#[derive(Debug)]
pub struct Testpmd {
    // Before the namespaces go.
    _process: Process,
    /// The pods.
    pub pods: [Pod; 2],
    node: Node,
}

/// What goes before the pods do.
#[derive(Debug)]
pub struct Between(#[expect(dead_code, reason = "kept until it is dropped")] (Process, Node));

impl Testpmd {
    /// Starts it, and waits until a ping crosses it. A ping has no checksum that the pods' kernels leave to a device.
    pub fn start() -> Result<Self, String> {
        let node = Node::new();
        let pods = [node.pod(1), node.pod(2)];
        let prefix = format!("--file-prefix={}", node.net.name());
        let words = ["--no-pci", "--no-huge", "-m", "512", "-l", "0,1", "--main-lcore", "0", &prefix];
        let devices = ["--vdev=net_af_xdp0,iface=pod1", "--vdev=net_af_xdp1,iface=pod2"];
        let forwarding = ["--", "--total-num-mbufs=16384", "--forward-mode=io", "--auto-start", "-i"];
        let mut command = node.net.command("dpdk-testpmd");
        command.args(words).args(devices).args(forwarding);
        // It reads commands from its input and ends when that does.
        let child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let process = Process(child.map_err(|error| format!("dpdk-testpmd: {error}"))?);
        wait_until("testpmd forwards", PATIENCE, || pods[0].reaches(&pods[1].ip));
        Ok(Self { _process: process, pods, node })
    }

    /// What is between the pods, and the pods.
    pub fn apart(self) -> (Between, [Pod; 2]) {
        (Between((self._process, self.node)), self.pods)
    }

    /// What it calls itself, or how it can be had.
    pub fn version() -> Result<String, String> {
        let install =
            "install it with `apt-get install --no-install-recommends dpdk-dev librte-net-af-xdp23`";
        let output = Command::new("dpdk-testpmd")
            .args(["-v", "--no-pci", "--no-huge", "-m", "64", "--", "--help"])
            .output();
        let output =
            output.map_err(|error| format!("the peer dpdk-testpmd is missing ({error}); {install}"))?;
        let said =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        let line = said.lines().find(|line| line.contains("RTE Version"));
        Ok(line.map_or("DPDK testpmd".into(), |line| {
            line.trim_start_matches("EAL: RTE Version: ").trim_matches('\'').to_owned()
        }))
    }
}
