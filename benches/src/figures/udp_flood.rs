//! [udp-flood] A pod that sends UDP as fast as it can, small frames and large ones, over tap and xdp ports: beside
//! Open vSwitch's userspace datapath on the same kind of port, and the Linux bridge. The flood has core 0, the switch and
//! Open vSwitch core 1; the bridge works on the sender's core. The sink is a pod as it is.

use super::{Bench, Figure, Held};
use crate::bare_sender;
use crate::cpu::busy_during;
use crate::cycles::median;
use crate::flood::{Load, measure_plain};
use crate::pair::Pair;
use crate::peers::{Bridge, Kind, Ovs};
use std::time::Duration;
use switch_core::port::traffic::{client, server, udp_frame};
use switch_lab::{Node, Pod, RawSocket};

const FLOWS: u32 = 1000;
const ROUNDS: usize = 5;
const WINDOW: Duration = Duration::from_secs(1);
const BAR: f64 = 1.2;
/// Frame lengths without the check sequence: 64 and 1 514 bytes on the wire, as they are called.
const LENGTHS: [usize; 2] = [60, 1514];

/// What it is held against.
pub(super) const HELD: Held = Held::at_least("times Open vSwitch", BAR);

pub(super) fn measure(bench: &Bench) -> Result<Figure, String> {
    let version = Ovs::version()?;
    let (mut least, mut said) = (f64::MAX, Vec::new());
    for kind in [Kind::Tap, Kind::Xdp] {
        // One at a time: a peer that polls would take its half of the core from the next.
        let mut rounds = Vec::with_capacity(ROUNDS);
        for _ in 0..ROUNDS {
            rounds.push([through_switch(bench, kind)?, through_ovs(kind)?, through_bridge()?]);
        }
        let middle = |of: &dyn Fn(&[Both; 3]) -> f64| median(rounds.iter().map(of).collect());
        for (n, len) in LENGTHS.into_iter().enumerate() {
            let ratio = middle(&|r| r[0][n].mpps / r[1][n].mpps);
            least = least.min(ratio);
            let cell = |who: usize| {
                let (mpps, core_ns) = (middle(&|r| r[who][n].mpps), middle(&|r| r[who][n].core_ns));
                format!("{mpps:.2} Mpps, {core_ns:.0} ns a packet")
            };
            let (name, bytes) = (format!("{kind:?}").to_lowercase(), if len == 60 { 64 } else { len });
            said.push(format!(
                "{name}, {bytes} bytes: {} against {} = {ratio:.2}; the bridge {}",
                cell(0),
                cell(1),
                cell(2)
            ));
            if kind == Kind::Xdp {
                let most = median((0..ROUNDS).map(|_| by_a_bare_sender(len)).collect::<Result<_, _>>()?);
                let times = most / 1e6 / middle(&|r| r[1][n].mpps);
                said.push(format!("a socket that only sends on the same cable, the most that any switch by AF_XDP in copy mode could, {times:.2} times Open vSwitch"));
            }
        }
    }
    let detail = format!(
        "{}; {FLOWS} flows; {version}, userspace datapath, NORMAL; nanoseconds are of the core that does the \
         switching (the bridge's makes the flood too); the least ratio is held against the bar; {ROUNDS} rounds in turn, medians",
        said.join("; ")
    );
    Ok(Figure::new("udp-flood", least, HELD, detail))
}

/// Nothing is received, nothing looked at.
fn by_a_bare_sender(len: usize) -> Result<f64, String> {
    let node = Node::new();
    let pod = node.pod(2);
    bare_sender::packets_per_second(&node, &pod, len, WINDOW)
}

/// Of one device, small frames and large ones.
type Both = [Carried; LENGTHS.len()];

fn through_switch(bench: &Bench, kind: Kind) -> Result<Both, String> {
    let mut switch = Pair::start(bench, kind);
    let both = both(&switch.pods, kind == Kind::Xdp, 1)?;
    switch.daemon.assert_conserved();
    switch.daemon.stop(true);
    Ok(both)
}

fn through_ovs(kind: Kind) -> Result<Both, String> {
    both(&Ovs::start(kind)?.pods, kind == Kind::Xdp, 1)
}

fn through_bridge() -> Result<Both, String> {
    let bridge = Bridge::build();
    // The flood comes by the pod's device as by a driver: the bridge's end must be able to take it.
    bridge.node.net.run("ethtool -K pod1 gro on");
    both(&bridge.pods, true, 0)
}

fn both(pods: &[Pod; 2], veth: bool, core: usize) -> Result<Both, String> {
    let flood = |len| flood(pods, veth, Load::of_stations(FLOWS, len, WINDOW), core);
    Ok([flood(LENGTHS[0])?, flood(LENGTHS[1])?])
}

#[derive(Clone, Copy)]
struct Carried {
    mpps: f64,
    /// Of the core that does the work, per packet that arrived.
    core_ns: f64,
}

fn flood(pods: &[Pod; 2], veth: bool, load: Load, core: usize) -> Result<Carried, String> {
    // The far stations say where they are.
    let socket = RawSocket::open(&pods[1].net, "eth0").map_err(|error| error.to_string())?;
    for flow in 0..FLOWS {
        socket.send(&udp_frame(client(flow), server(flow), flow, 60));
        // No faster than the slowest of them learns.
        std::thread::sleep(Duration::from_micros(50));
    }
    let before = pods[1].received()?.0;
    let (flooded, busy) = busy_during(|| measure_plain(&pods[0], &pods[1], veth, load))?;
    let packets = (pods[1].received()?.0 - before) as f64;
    let busy = busy.get(core).copied().unwrap_or(f64::NAN);
    Ok(Carried { mpps: flooded.received_pps / 1e6, core_ns: busy * 1e9 / packets })
}
