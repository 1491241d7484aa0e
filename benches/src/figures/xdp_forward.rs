//! [xdp-forward] Generator → switch → sink over veth, beside DPDK's testpmd on the same cables in the same
//! run. The generator has core 0; what is between has core 1, and pays for the sink's side of the cable.

use super::{Bench, Figure, Held};
use crate::bare_sender;
use crate::cycles::median;
use crate::flood::{Flooded, Path, measure as flood};
use crate::peers::{Testpmd, testpmd::CONFIGURATION};
use std::time::Duration;
use switch_api::PortSettings;
use switch_core::port::traffic::{client, server, udp_frame};
use switch_lab::{Node, Options, Pod, RawSocket, wait_until};

const FLOWS: u32 = 1000;
const ROUNDS: usize = 5;
const WINDOW: Duration = Duration::from_secs(2);
const BAR: f64 = 1.1;
const PATIENCE: Duration = Duration::from_secs(20);

/// What it is held against.
pub(super) const HELD: Held = Held::at_least("times testpmd", BAR);

pub(super) fn measure(bench: &Bench) -> Result<Figure, String> {
    let version = Testpmd::version()?;
    let (mut ratios, mut ours, mut theirs, mut offered, mut most) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut wrong = 0;
    for _ in 0..ROUNDS {
        let switch = through_switch(bench)?;
        let peer = through_testpmd()?;
        ratios.push(switch.received_pps / peer.received_pps);
        most.push(by_a_bare_sender()? / peer.received_pps);
        ours.push(switch.received_pps / 1e6);
        theirs.push(peer.received_pps / 1e6);
        wrong += switch.wrong;
        offered.push(switch.offered_pps.min(peer.offered_pps) / 1e6);
    }
    let detail = format!(
        "switch {:.2} Mpps (L2 switching, {FLOWS} flows, default settings), {version} {CONFIGURATION}, {:.2} Mpps; offered at least {:.2} Mpps; a socket that only sends on the same cable, the most that any forwarder by AF_XDP in copy mode could, {:.2} times testpmd; {wrong} frames of the switch not as they should be; {ROUNDS} rounds, alternating, medians",
        median(ours),
        median(theirs),
        median(offered),
        median(most)
    );
    Ok(Figure::new("xdp-forward", median(ratios), HELD, detail).only_if(wrong == 0))
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

/// Nothing is received, nothing looked at.
fn by_a_bare_sender() -> Result<f64, String> {
    let node = Node::new();
    let pods = pods(&node);
    let _programs = Path::open(&pods[0], &pods[1])?;
    bare_sender::packets_per_second(&node, &pods[1], 60, WINDOW)
}

fn through_testpmd() -> Result<Flooded, String> {
    let testpmd = Testpmd::start()?;
    flood(&testpmd.pods[0], &testpmd.pods[1], FLOWS, WINDOW)
}
