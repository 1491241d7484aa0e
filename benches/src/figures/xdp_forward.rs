//! [xdp-forward] Generator → switch → sink over veth, beside DPDK's testpmd on the same cables in the same
//! run. The generator has core 0; what is between has core 1, and pays for the sink's side of the cable.

use super::{Bar, Bench, Figure};
use crate::cycles::median;
use crate::flood::{Flooded, measure as flood};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use switch_api::PortSettings;
use switch_core::port::traffic::{client, server, udp_frame};
use switch_lab::{Node, Options, Pod, RawSocket, wait_until};

const FLOWS: u32 = 1000;
const ROUNDS: usize = 5;
const WINDOW: Duration = Duration::from_secs(2);
const BAR: f64 = 1.1;
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) fn measure(bench: &Bench) -> Result<Figure, String> {
    let version = testpmd_version()?;
    let (mut ratios, mut ours, mut theirs, mut offered) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let switch = through_switch(bench)?;
        let peer = through_testpmd()?;
        ratios.push(switch.received_pps / peer.received_pps);
        ours.push(switch.received_pps / 1e6);
        theirs.push(peer.received_pps / 1e6);
        offered.push(switch.offered_pps.min(peer.offered_pps) / 1e6);
    }
    let detail = format!(
        "switch {:.2} Mpps (L2 switching, {FLOWS} flows, default settings), {version} over net_af_xdp, io mode, one core, \
         --no-huge, its own defaults (busy polling with a budget of 64), {:.2} Mpps; offered at least {:.2} Mpps; {ROUNDS} rounds, alternating, medians",
        median(ours),
        median(theirs),
        median(offered)
    );
    Ok(Figure::new("xdp-forward", median(ratios), "times testpmd", Bar::AtLeast, BAR, detail))
}

fn pods(node: &Node) -> [Pod; 2] {
    [node.pod(1), node.pod(2)]
}

fn through_switch(bench: &Bench) -> Result<Flooded, String> {
    let node = Node::new();
    let mut daemon = node.start(&Options::new(&bench.switchd).with("--cores 1"));
    daemon.bridge("br0");
    let pods = pods(&node);
    for pod in &pods {
        daemon.attach(pod, "br0", PortSettings::default());
    }
    // The far stations say where they are.
    let socket = RawSocket::open(&pods[1].net, "eth0").map_err(|error| error.to_string())?;
    wait_until("the far stations are known", PATIENCE, || {
        for flow in 0..FLOWS {
            socket.send(&udp_frame(client(flow), server(flow), flow, 60));
        }
        daemon.port("pod2").learned >= FLOWS
    });
    drop(socket);
    let flooded = flood(&pods[0], &pods[1], FLOWS, WINDOW);
    daemon.assert_conserved();
    daemon.stop(true);
    flooded
}

fn testpmd_version() -> Result<String, String> {
    let install = "install it with `apt-get install --no-install-recommends dpdk-dev librte-net-af-xdp23`";
    let output = Command::new("dpdk-testpmd")
        .args(["-v", "--no-pci", "--no-huge", "-m", "64", "--", "--help"])
        .output();
    let output = output.map_err(|error| format!("the peer dpdk-testpmd is missing ({error}); {install}"))?;
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    let line = said.lines().find(|line| line.contains("RTE Version"));
    Ok(line.map_or("DPDK testpmd".into(), |line| {
        line.trim_start_matches("EAL: RTE Version: ").trim_matches('\'').to_owned()
    }))
}

/// A running testpmd; ended when dropped.
struct Testpmd(Child);

impl Drop for Testpmd {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

fn through_testpmd() -> Result<Flooded, String> {
    let node = Node::new();
    let pods = pods(&node);
    let prefix = format!("--file-prefix={}", node.net.name());
    let words = ["--no-pci", "--no-huge", "-m", "512", "-l", "0,1", "--main-lcore", "0", &prefix];
    let devices = ["--vdev=net_af_xdp0,iface=pod1", "--vdev=net_af_xdp1,iface=pod2"];
    let forwarding = ["--", "--total-num-mbufs=16384", "--forward-mode=io", "--auto-start", "-i"];
    let mut command = node.net.command("dpdk-testpmd");
    command.args(words).args(devices).args(forwarding);
    // It reads commands from its input and ends when that does.
    let child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let testpmd = Testpmd(child.map_err(|error| format!("dpdk-testpmd: {error}"))?);
    wait_until("testpmd forwards", PATIENCE, || pods[0].reaches(&pods[1].ip));
    let flooded = flood(&pods[0], &pods[1], FLOWS, WINDOW);
    drop(testpmd);
    flooded
}
