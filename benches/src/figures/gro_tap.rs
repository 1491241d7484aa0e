//! [gro-tap] TCP from an xdp pod, whose kernel cuts everything to the MTU, to a tap pod, to which the switch joins it
//! again: beside the Linux bridge with veth whose sender cuts to the MTU as well. Client and server have core 0, the
//! switch has core 1; the bridge does its work wherever the sender runs.

use super::tcp_vs_bridge::{Bridge, PATIENCE, SAME, compare, iperf};
use super::{Bar, Bench, Figure};
use switch_api::PortSettings;
use switch_lab::{Daemon, Net, Node, Options, wait_until};

/// Of both, one stream and four.
const BAR: f64 = 1.0;

pub(super) fn measure(bench: &Bench) -> Result<Figure, String> {
    let switch = Switch::start(bench);
    let (cutting, whole) = (Bridge::build(), Bridge::build());
    let turned_off = cutting.pods[0].try_run("ethtool -K eth0 tso off");
    if !turned_off.status.success() {
        return Err("ethtool cannot turn the bridge's segmentation offload off".into());
    }
    let (one, [one_ours, one_theirs], one_bytes) = compare_and_weigh(&switch.pods, &cutting.pods, 1)?;
    let (four, [four_ours, four_theirs], four_bytes) = compare_and_weigh(&switch.pods, &cutting.pods, 4)?;
    let uncut = iperf(&whole.pods, SAME, 1)?;
    switch.daemon.assert_conserved();
    let detail = format!(
        "Gb/s from an xdp pod to a tap pod, client and server on core 0, switch on core 1: one stream {one_ours:.1} \
         against {one_theirs:.1}, four {four_ours:.1} against {four_theirs:.1} = {four:.2} (bar {BAR}); \
         {one_bytes:.0} and {four_bytes:.0} bytes a write to the TAP on average; a bridge whose sender does not cut: {uncut:.1}; IPv4, MTU 1500, rounds in \
         turn, medians"
    );
    let figure =
        Figure::new("gro-tap", one, "times a bridge that gets 1500 bytes", Bar::AtLeast, BAR, detail);
    Ok(figure.only_if(four >= BAR))
}

/// What `compare` says, and the mean bytes of what the switch wrote to the server's TAP meanwhile.
fn compare_and_weigh(ours: &[Net], theirs: &[Net], streams: u32) -> Result<(f64, [f64; 2], f64), String> {
    let before = received(&ours[1])?;
    let (ratio, medians) = compare(ours, theirs, SAME, streams)?;
    let after = received(&ours[1])?;
    Ok((ratio, medians, (after.1 - before.1) / (after.0 - before.0)))
}

/// Packets and bytes that a pod's device has received.
fn received(net: &Net) -> Result<(f64, f64), String> {
    let said: serde_json::Value =
        serde_json::from_str(&net.ip("-s -j link show eth0")).map_err(|error| format!("ip: {error}"))?;
    let count = |name: &str| said[0]["stats64"]["rx"][name].as_f64();
    count("packets").zip(count("bytes")).ok_or_else(|| "ip tells no statistics of eth0".into())
}

struct Switch {
    pods: [Net; 2],
    daemon: Daemon,
    _node: Node,
}

impl Switch {
    fn start(bench: &Bench) -> Self {
        let node = Node::new();
        let daemon = node.start(&Options::new(&bench.switchd).with("--cores 1"));
        daemon.bridge("br0");
        let (xdp, tap) = (node.pod(1), node.bare_pod(2));
        daemon.attach(&xdp, "br0", PortSettings::default());
        daemon.attach_tap(&tap, "br0", PortSettings::default());
        wait_until("ping", PATIENCE, || xdp.reaches("10.66.0.2"));
        Self { pods: [xdp.net, tap.net], daemon, _node: node }
    }
}
