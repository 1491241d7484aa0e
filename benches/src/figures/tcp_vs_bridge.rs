//! [tcp-vs-bridge] TCP from pod to pod: tap ports beside the Linux bridge with veth and Open vSwitch's userspace
//! datapath with its taps, in turn. Client and server have core 0, the switch has core 1; the bridge does its work
//! wherever the sender runs.

use super::{Bench, Figure, Held};
use crate::changes::named;
use crate::iperf::{Compared, Load, ROUNDS, SECONDS, compare};
use crate::pair::Pair;
use crate::peers::{Bridge, Kind, Ovs};

/// Against the bridge, one stream.
const BAR_ONE: f64 = 0.9;
/// Against the bridge, four streams.
const BAR_FOUR: f64 = 1.0;
/// Against Open vSwitch, one stream and four.
const BAR_OVS: f64 = 3.0;

/// What it is held against.
pub(super) const HELD: Held = Held::at_least("times the bridge", BAR_ONE);

pub(super) fn measure(bench: &Bench) -> Result<Figure, String> {
    let version = Ovs::version()?;
    let (switch, bridge) = (Pair::start(bench, Kind::Tap), Bridge::build());
    let beside_bridge = |load: &Load| compare(&switch.pods, &bridge.pods, load);
    let mut all = Vec::new();
    for streams in [1, 4] {
        for (ipv6, reverse) in [(false, false), (false, true), (true, false), (true, true)] {
            let load = Load { streams, ipv6, reverse, ..Load::default() };
            all.push((load, beside_bridge(&load)?));
        }
    }
    let apart = Load { server_core: 1, ..Load::default() };
    let apart = (apart, beside_bridge(&apart)?);
    let beside_ovs = {
        let ovs = Ovs::start(Kind::Tap)?;
        let beside = |streams| compare(&switch.pods, &ovs.pods, &Load { streams, ..Load::default() });
        [beside(1)?, beside(4)?]
    };
    let (_, drops) = (switch.daemon.assert_conserved(), switch.daemon.stats().drops);
    let worst = |streams| {
        all.iter().filter(|(load, _)| load.streams == streams).map(|(_, c)| c.ratio).fold(f64::MAX, f64::min)
    };
    let cells: Vec<_> =
        all.iter().chain([&apart]).map(|(load, compared)| format!("{load}: {compared}")).collect();
    let detail = format!(
        "Gb/s, client and server on core 0, switch on core 1: {}; the least of one stream is held against {BAR_ONE}, the least of four, \
         {:.2}, against {BAR_FOUR}; beside {version}, userspace datapath, internal ports, no DPDK: one stream {}, four {} (bar {BAR_OVS}); MTU 1500, iperf3, {ROUNDS} \
         rounds of {SECONDS} s in turn, medians; drops of the whole run: {}",
        cells.join("; "),
        worst(4),
        beside_ovs[0],
        beside_ovs[1],
        named(drops)
    );
    let figure = Figure::new("tcp-vs-bridge", worst(1), HELD, detail);
    let holds = |compared: &Compared| compared.ratio >= BAR_OVS;
    Ok(figure.only_if(worst(4) >= BAR_FOUR && beside_ovs.iter().all(holds)))
}
