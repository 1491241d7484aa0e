//! What is asked of the daemon, and what becomes of it. A metric's name begins with `switch_` and says its unit; what only grows
//! ends with `_total`. One that has no sample yet is still announced, so that a dashboard's names are always there.

use super::family::Family;
use prometheus_client::registry::Unit;
use std::collections::BTreeMap;
use std::time::Instant;
use switch_api::{
    ApiError, BridgeStatus, Client, FlowList, FlowPage, NatStatus, NeighEntry, NeighFilter, Nothing,
    PoolStatus, PortState, PortStatus, Request, RouteCount, Stats, Status, WorkerStatus,
};

/// One look at the switch. The parts are asked for one after the other: what passes meanwhile is in the later ones alone.
pub struct Look {
    status: Status,
    pub(super) stats: Stats,
    ports: Vec<PortStatus>,
    bridges: Vec<BridgeStatus>,
    pub(super) workers: Vec<WorkerStatus>,
    pub(super) pools: Vec<PoolStatus>,
    pub(super) neighbours: Vec<NeighEntry>,
    flows: FlowPage,
    routes: Vec<RouteCount>,
    nats: Vec<NatStatus>,
    took_s: f64,
}

pub fn look(client: &mut Client) -> Result<Look, ApiError> {
    let started = Instant::now();
    // The counts stand on every page: one behind the table's end has nothing else.
    let flows = FlowList { from: u32::MAX, ..FlowList::default() };
    let mut look = Look {
        status: client.call(&Request::Status(Nothing {}))?,
        stats: client.call(&Request::StatsGet(Nothing {}))?,
        ports: client.call(&Request::PortList(Nothing {}))?,
        bridges: client.call(&Request::BridgeList(Nothing {}))?,
        workers: client.call(&Request::WorkerList(Nothing {}))?,
        pools: client.call(&Request::PoolList(Nothing {}))?,
        neighbours: client.call(&Request::NeighList(NeighFilter::default()))?,
        flows: client.call(&Request::FlowList(flows))?,
        routes: client.call(&Request::RouteStats(Nothing {}))?,
        nats: client.call(&Request::NatList(Nothing {}))?,
        took_s: 0.0,
    };
    look.took_s = started.elapsed().as_secs_f64();
    Ok(look)
}

impl Look {
    /// At a switch on which nothing is and nothing happened.
    #[cfg(test)]
    pub fn at_nothing() -> Self {
        let status = Status {
            daemon: String::new(),
            pid: 0,
            uptime_s: 0,
            generation: 0,
            workers: 0,
            frames: Default::default(),
            memory: Default::default(),
            xdp: switch_api::Support { ok: true, detail: String::new() },
            sandbox: None,
            outside: None,
            pod_mtu: None,
            xdp_mtu_max: None,
        };
        Self {
            status,
            stats: Stats::default(),
            ports: Vec::new(),
            bridges: Vec::new(),
            workers: Vec::new(),
            pools: Vec::new(),
            neighbours: Vec::new(),
            flows: FlowPage { flows: Vec::new(), next: None, all: 0, half_open: 0, room: 0 },
            routes: Vec::new(),
            nats: Vec::new(),
            took_s: 0.0,
        }
    }

    /// All metrics.
    pub fn families(&self) -> Vec<Family> {
        let parts = [
            daemon(&self.status, self.took_s),
            ports(&self.ports),
            bridges(&self.bridges),
            drops(&self.stats),
            workers(&self.workers),
            lanes(&self.workers),
            stages(&self.stats),
            packets(&self.stats),
            frames(&self.stats),
            memory(&self.stats),
            flows(&self.flows),
            super::control::families(self),
            routes(&self.routes),
            nats(&self.nats),
        ];
        parts.into_iter().flatten().collect()
    }
}

fn daemon(status: &Status, took_s: f64) -> Vec<Family> {
    let mut took = Family::gauge("switch_scrape_duration", "Time the daemon took for all that is told here")
        .unit(Unit::Seconds);
    took.level(&[], took_s);
    let api = switch_api::API_VERSION.to_string();
    let build = [("version", status.daemon.as_str()), ("api", api.as_str())];
    vec![
        Family::info("switch_build", "The daemon's version, and that of its API", &build),
        Family::gauge("switch_uptime", "Time since the daemon started")
            .unit(Unit::Seconds)
            .at(&[], status.uptime_s),
        Family::gauge("switch_generation", "Generation of what is declared; it grows with each change")
            .at(&[], status.generation),
        Family::gauge("switch_xdp_usable", "Whether AF_XDP can be used here").at(&[], status.xdp.ok.into()),
        took,
    ]
}

fn ports(ports: &[PortStatus]) -> Vec<Family> {
    let of = |mut family: Family, value: fn(&PortStatus) -> u64| {
        for port in ports {
            let labels = [("port", port.port.name.as_str()), ("bridge", port.port.bridge.as_str())];
            family = family.at(&labels, value(port));
        }
        family
    };
    let counter = Family::counter;
    let gauge = Family::gauge;
    vec![
        of(gauge("switch_port_up", "Whether the port carries frames"), |p| (p.state == PortState::Up).into()),
        of(
            gauge(
                "switch_port_looped",
                "Whether a loop was found behind the port, which blocks it for a while",
            ),
            |p| (p.state == PortState::Looped).into(),
        ),
        of(counter("switch_port_receive_packets", "Packets that came in by the port"), |p| {
            p.counters.rx_packets
        }),
        of(counter("switch_port_receive", "Bytes that came in by the port").unit(Unit::Bytes), |p| {
            p.counters.rx_bytes
        }),
        of(counter("switch_port_transmit_packets", "Packets that left by the port"), |p| {
            p.counters.tx_packets
        }),
        of(counter("switch_port_transmit", "Bytes that left by the port").unit(Unit::Bytes), |p| {
            p.counters.tx_bytes
        }),
        of(
            counter(
                "switch_port_dropped_packets",
                "Packets dropped that came in by the port or were to leave by it",
            ),
            |p| p.counters.drops,
        ),
        of(gauge("switch_port_learned_macs", "MACs learned behind the port"), |p| p.learned.into()),
        of(gauge("switch_port_mtu", "Largest L3 packet the port is given").unit(Unit::Bytes), |p| {
            p.mtu.into()
        }),
        of(gauge("switch_port_memory", "What the port takes, all told").unit(Unit::Bytes), |p| {
            p.memory_bytes
        }),
    ]
}

fn bridges(bridges: &[BridgeStatus]) -> Vec<Family> {
    let of = |mut family: Family, value: fn(&BridgeStatus) -> usize| {
        for bridge in bridges {
            family = family.at(&[("bridge", bridge.bridge.name.as_str())], value(bridge) as u64);
        }
        family
    };
    vec![
        of(Family::gauge("switch_bridge_ports", "Ports of the bridge"), |b| b.ports.len()),
        of(Family::gauge("switch_bridge_vlans", "VLANs of the bridge with a member"), |b| b.vlans),
        of(Family::gauge("switch_bridge_macs", "MACs known on the bridge, static ones too"), |b| b.macs),
    ]
}

fn drops(stats: &Stats) -> Vec<Family> {
    let mut drops = Family::counter(
        "switch_drops",
        "Frames dropped, by reason and port; switch-ctl stats says what a reason means",
    );
    for drop in &stats.drops {
        drops.count(&[("reason", &drop.reason), ("port", drop.port.as_str())], drop.frames);
    }
    let mut policies = Family::counter(
        "switch_policy_drops",
        "Packets dropped by network policies, by the rule that decided",
    );
    // Text is what names a rule: should two be called the same, they are one here.
    let mut rules = BTreeMap::new();
    for rule in &stats.policy_drops {
        *rules.entry(rule.rule.as_str()).or_insert(0) += rule.packets;
    }
    for (rule, packets) in rules {
        policies.count(&[("rule", rule)], packets);
    }
    let mut events = Family::counter("switch_events", "Moved MACs, refusals to learn and the like");
    for (event, count) in &stats.events {
        events.count(&[("event", event)], *count);
    }
    vec![drops, policies, events]
}

fn workers(workers: &[WorkerStatus]) -> Vec<Family> {
    let of = |mut family: Family, value: fn(&WorkerStatus) -> u64| {
        for worker in workers {
            family = family.at(&[("worker", &worker.id.to_string())], value(worker));
        }
        family
    };
    let mut busy =
        Family::gauge("switch_worker_busy", "Share of its core that the worker's lanes take").unit(ratio());
    let mut frames = Family::gauge("switch_worker_frames", "The worker's frames, by where they are");
    for worker in workers {
        let id = worker.id.to_string();
        busy.level(&[("worker", &id)], worker.busy_percent() / 100.0);
        let counts = &worker.frames;
        for (place, count) in
            [("free", counts.free), ("in_rings", counts.in_rings), ("in_flight", counts.in_flight)]
        {
            frames = frames.at(&[("worker", &id), ("place", place)], count);
        }
    }
    vec![
        busy,
        of(Family::counter("switch_worker_turns", "Turns the worker made"), |w| w.turns),
        of(Family::counter("switch_worker_empty_turns", "Turns of the worker without a frame"), |w| {
            w.empty_turns
        }),
        of(Family::counter("switch_worker_naps", "Times the worker rested to let frames gather"), |w| w.naps),
        of(Family::counter("switch_worker_sleeps", "Times the worker went to sleep"), |w| w.sleeps),
        of(Family::gauge("switch_worker_lanes", "Lanes (queues of ports) the worker owns"), |w| {
            w.lanes.len() as u64
        }),
        of(
            Family::gauge("switch_worker_generation", "Generation of what is declared that the worker uses"),
            |w| w.generation,
        ),
        frames,
    ]
}

/// Lanes move between workers; what they count does not say whose they are, so that it goes on.
fn lanes(workers: &[WorkerStatus]) -> Vec<Family> {
    let mut busy =
        Family::gauge("switch_lane_busy", "Share of its worker's core that the lane takes").unit(ratio());
    let mut received = Family::counter("switch_lane_receive_packets", "Packets that came in by the lane");
    let mut sent = Family::counter("switch_lane_transmit_packets", "Packets that left by the lane");
    for worker in workers {
        let id = worker.id.to_string();
        for lane in &worker.lanes {
            let queue = lane.queue.to_string();
            let [port, queue] = [("port", lane.port.as_str()), ("queue", queue.as_str())];
            busy.level(&[port, queue, ("worker", &id)], lane.busy_percent / 100.0);
            received.count(&[port, queue], lane.rx_packets);
            sent.count(&[port, queue], lane.tx_packets);
        }
    }
    vec![busy, received, sent]
}

/// Prometheus names it in the singular.
fn ratio() -> Unit {
    Unit::Other("ratio".into())
}

fn stages(stats: &Stats) -> Vec<Family> {
    let mut cycles = Family::gauge(
        "switch_stage_packet_cycles",
        "Cycles of the time-stamp counter a packet, from sampled batches",
    );
    let mut packets =
        Family::counter("switch_stage_sampled_packets", "Packets that a stage's cycles rest on");
    for stage in &stats.stages {
        cycles.level(&[("stage", &stage.stage)], stage.cycles_per_packet);
        packets.count(&[("stage", &stage.stage)], stage.packets);
    }
    vec![cycles, packets]
}

fn packets(stats: &Stats) -> Vec<Family> {
    let packets = &stats.packets;
    let mut lost = Family::gauge(
        "switch_packets_unaccounted",
        "Packets that the law of packets lacks: anything but 0 is a defect",
    );
    lost.level(&[], packets.unaccounted as f64);
    let mut what = Family::counter("switch_packets", "What became of every packet");
    for (name, count) in [
        ("received", packets.received),
        ("outside", packets.outside),
        ("copied", packets.copied),
        ("generated", packets.generated),
        ("sent", packets.sent),
        ("consumed", packets.consumed),
        ("dropped", packets.dropped),
    ] {
        what.count(&[("what", name)], count);
    }
    vec![
        what,
        Family::gauge("switch_packets_waiting", "Packets in the switch").at(&[], packets.waiting),
        lost,
    ]
}

fn frames(stats: &Stats) -> Vec<Family> {
    let frames = &stats.frames;
    let mut lost = Family::gauge(
        "switch_frames_unaccounted",
        "Frames that are nowhere: while traffic flows a few, at rest anything but 0 is a defect",
    );
    lost.level(&[], frames.unaccounted as f64);
    vec![
        Family::gauge("switch_frames", "Frames of packet memory, by where they are")
            .at(&[("place", "free")], frames.free)
            .at(&[("place", "in_rings")], frames.in_rings)
            .at(&[("place", "in_flight")], frames.in_flight),
        Family::gauge("switch_frames_mapped", "All frames there are").at(&[], frames.total),
        lost,
        Family::gauge("switch_large_frames", "Frames of 64 KiB among them").at(&[], frames.large),
        Family::gauge("switch_large_frames_free", "Frames of 64 KiB in a pool").at(&[], frames.large_free),
    ]
}

fn memory(stats: &Stats) -> Vec<Family> {
    let memory = &stats.memory;
    vec![
        Family::gauge("switch_memory", "What memory is spent on")
            .unit(Unit::Bytes)
            .at(&[("part", "tables")], memory.tables_bytes)
            .at(&[("part", "large_frames")], memory.large_bytes)
            .at(&[("part", "packets")], memory.packet_bytes)
            .at(&[("part", "ports")], memory.ports_bytes)
            .at(&[("part", "rules")], memory.rules_bytes),
        Family::gauge("switch_memory_ceiling", "What it never passes")
            .unit(Unit::Bytes)
            .at(&[], memory.ceiling_bytes),
        Family::gauge(
            "switch_memory_regions",
            "Regions of packet memory, in use or on the way back to the kernel",
        )
        .at(&[("state", "used")], memory.regions.into())
        .at(&[("state", "emptying")], memory.regions_emptying.into()),
    ]
}

/// Only those that are asked to be: a thousand at most.
fn routes(routes: &[RouteCount]) -> Vec<Family> {
    let of = |mut family: Family, value: fn(&RouteCount) -> u64| {
        for route in routes {
            let (network, metric) = (route.prefix.to_string(), route.metric.to_string());
            let labels =
                [("network", network.as_str()), ("vrf", route.vrf.as_str()), ("metric", metric.as_str())];
            family = family.at(&labels, value(route));
        }
        family
    };
    vec![
        of(Family::counter("switch_route_packets", "Packets that went by a counted route"), |r| r.packets),
        of(Family::counter("switch_route", "Bytes that went by a counted route").unit(Unit::Bytes), |r| {
            r.bytes
        }),
    ]
}

fn nats(nats: &[NatStatus]) -> Vec<Family> {
    let of = |mut family: Family, value: fn(&NatStatus) -> u64| {
        for status in nats {
            let labels = [("rule", status.nat.name.as_str()), ("kind", status.nat.kind.name())];
            family = family.at(&labels, value(status));
        }
        family
    };
    vec![
        of(
            Family::gauge("switch_nat_flows", "Flows that a rule of network address translation translates"),
            |nat| nat.flows,
        ),
        of(Family::counter("switch_nat_flows_made", "Flows that it has translated"), |nat| nat.flows_made),
        of(
            Family::counter("switch_nat_exhausted", "First packets for which none of its ports was free"),
            |nat| nat.exhausted,
        ),
        of(Family::gauge("switch_nat_ports_used", "Most of its ports that are in use for one peer"), |nat| {
            nat.ports_used.into()
        }),
        of(Family::gauge("switch_nat_ports", "Ports that it has for each peer"), |nat| nat.ports.into()),
    ]
}

fn flows(flows: &FlowPage) -> Vec<Family> {
    vec![
        Family::gauge("switch_flows", "Flows that are kept, half-open ones too").at(&[], flows.all.into()),
        Family::gauge("switch_flows_half_open", "Flows nobody has answered yet")
            .at(&[], flows.half_open.into()),
        Family::gauge("switch_flows_room", "Flows that the table holds at most").at(&[], flows.room.into()),
    ]
}
