//! [trace-latency] How long `trace` takes to answer, by the daemon's socket, on a switch that is large: it copies what
//! is learned, and does so on the control thread.

use super::{Bench, Figure, Held};
use std::time::Instant;
use switch_api::{
    Done, Hex, MemorySource, Port, PortKind, PortSettings, Request, Stats, Trace, TraceReply, Vid, Vlan,
};
use switch_lab::{Node, Options, wait_until};

const PORTS: usize = 250;
/// Half of them from each of two sources.
const STATIONS: u32 = 100_000;
const TRACES: usize = 200;
const BAR_MS: f64 = 20.0;

/// What it is held against.
pub(super) const HELD: Held = Held::at_most("ms", BAR_MS);

pub(super) fn measure(bench: &Bench) -> Result<Figure, String> {
    let node = Node::new();
    let words = format!("--fdb-entries {} --frames 4096", 2 * STATIONS);
    let mut daemon = node.start(&Options::new(&bench.switchd).with(&words));
    daemon.bridge("br0");
    for n in 2..PORTS {
        add(&daemon, n, None);
    }
    let spec =
        MemorySource { flows: STATIONS / 2, frame_len: 60, seed: 7, rate_pps: 400_000, reverse: false };
    add(&daemon, 0, Some(spec));
    add(&daemon, 1, Some(MemorySource { reverse: true, seed: 9, ..spec }));
    let learned = || {
        let stats: Stats = daemon.call(&Request::StatsGet(Default::default()));
        stats.events.iter().find(|(name, _)| name == "mac-learned").map_or(0, |(_, count)| *count)
    };
    wait_until("stations are learned", std::time::Duration::from_secs(60), || {
        learned() >= u64::from(STATIONS) * 9 / 10
    });
    let mut client = daemon.client();
    let mut ms = Vec::new();
    for n in 0..TRACES {
        // To everybody: a copy for each port is the most work there is.
        let mut frame = vec![0xff; 6];
        frame.extend([2, 0, 0, 0, 9, n as u8, 0x88, 0xb6]);
        frame.resize(60, 0);
        let in_port = format!("p{}", 2 + n % (PORTS - 2)).parse().map_err(|error| format!("{error}"))?;
        let start = Instant::now();
        let reply: TraceReply = client
            .call(&Request::Trace(Trace { in_port, frame: Hex(frame) }))
            .map_err(|error| error.to_string())?;
        ms.push(start.elapsed().as_secs_f64() * 1e3);
        if reply.out.len() != PORTS - 1 {
            return Err(format!("{} copies: {}", reply.out.len(), reply.outcome));
        }
    }
    let stations = learned();
    daemon.stop(true);
    ms.sort_by(f64::total_cmp);
    let (median, worst) = (ms[TRACES / 2], ms[TRACES - 1]);
    let p99 = ms[TRACES * 99 / 100];
    let detail = format!(
        "p99 of {TRACES} traces of a broadcast to {PORTS} ports with {stations} stations known and two sources of \
         400 000 frames a second; median {median:.1}, worst {worst:.1} ms"
    );
    Ok(Figure::new("trace-latency", p99, HELD, detail))
}

fn add(daemon: &switch_lab::Daemon, n: usize, source: Option<MemorySource>) {
    let parse = |name: &str| name.parse().unwrap_or_else(|error| panic!("{error}"));
    let vlan = Vlan::Access { vid: Vid::DEFAULT };
    let port = Port {
        settings: PortSettings { vlan, ..PortSettings::default() },
        ..Port::new(parse(&format!("p{n}")), parse("br0"), PortKind::Memory { source })
    };
    let _: Done = daemon.call(&Request::PortAdd(Box::new(port)));
}
