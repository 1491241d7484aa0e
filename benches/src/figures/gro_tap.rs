//! [gro-tap] TCP from an xdp pod, whose kernel cuts everything to the MTU, to a tap pod, to which the switch joins it
//! again: beside the Linux bridge with veth whose sender cuts to the MTU as well. Client and server have core 0, the
//! switch has core 1; the bridge does its work wherever the sender runs.

use super::{Bench, Figure, Held};
use crate::iperf::{Compared, Load, compare, run};
use crate::pair::Pair;
use crate::peers::{Bridge, Kind};
use switch_lab::Pod;

/// Of both, one stream and four.
const BAR: f64 = 1.0;

/// What it is held against.
pub(super) const HELD: Held = Held::at_least("times a bridge that gets 1500 bytes", BAR);

pub(super) fn measure(bench: &Bench) -> Result<Figure, String> {
    let switch = Pair::start_with(bench, [Kind::Xdp, Kind::Tap]);
    let (cutting, whole) = (Bridge::build(), Bridge::build());
    let turned_off = cutting.pods[0].net.try_run("ethtool -K eth0 tso off");
    if !turned_off.status.success() {
        return Err("ethtool cannot turn the bridge's segmentation offload off".into());
    }
    let (one, one_bytes) = compare_and_weigh(&switch.pods, &cutting.pods, 1)?;
    let (four, four_bytes) = compare_and_weigh(&switch.pods, &cutting.pods, 4)?;
    let uncut = run(&whole.pods, &Load::default())?.gbps;
    switch.daemon.assert_conserved();
    let detail = format!(
        "Gb/s from an xdp pod to a tap pod, client and server on core 0, switch on core 1: one stream {one}, \
         four {four} (bar {BAR} for both); \
         {one_bytes:.0} and {four_bytes:.0} bytes a write to the TAP on average; a bridge whose sender does not cut: {uncut:.1}; IPv4, MTU 1500, rounds in \
         turn, medians"
    );
    let figure = Figure::new("gro-tap", one.ratio, HELD, detail);
    Ok(figure.only_if(four.ratio >= BAR))
}

/// What `compare` says, and the mean bytes of what the switch wrote to the server's TAP meanwhile.
fn compare_and_weigh(ours: &[Pod; 2], theirs: &[Pod; 2], streams: u32) -> Result<(Compared, f64), String> {
    let before = ours[1].received()?;
    let compared = compare(ours, theirs, &Load { streams, ..Load::default() })?;
    let after = ours[1].received()?;
    Ok((compared, (after.1 - before.1) as f64 / (after.0 - before.0) as f64))
}
