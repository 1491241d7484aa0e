//! The registry of every figure. Each has an id, a value, a unit and a numeric bar; whether it holds is
//! computed. Peers run beside the switch in the same run.

pub mod acl_scale;
pub mod attach_churn;
pub mod blocked_time;
pub mod boot_to_answer;
pub mod busy_memory;
pub mod capture_cost;
pub mod changes;
pub mod cni_add;
pub mod cni_kill;
pub mod cni_restart;
pub mod cpu_per_gb;
pub mod cross_node_tcp;
pub mod cycles;
pub mod first_packet;
pub mod flows;
pub mod gro_tap;
pub mod idle_cpu;
pub mod idle_tap_ports;
pub mod idle_xdp_port;
pub mod kept;
pub mod l2_pipeline;
pub mod lpm;
pub mod mac_scale;
pub mod many_ports;
pub mod policy;
pub mod policy_updates;
pub mod policy_vs_ovs;
pub mod quiet_cpu;
pub mod restart_outage;
pub mod route_churn;
pub mod route_scale;
pub mod rule_scale;
pub mod set_updates;
pub mod stage_counters;
pub mod tap_io;
pub mod tcp_vs_bridge;
pub mod trace_latency;
pub mod two_workers;
pub mod udp_flood;
pub mod udp_rr;
pub mod xdp_forward;
pub mod xdp_full_forward;

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Which way a bar stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Bar {
    /// The value must not exceed it.
    AtMost,
    /// The value must reach it.
    AtLeast,
}

/// What a figure is held against, known before it is measured.
#[derive(Clone, Copy, Debug)]
pub struct Held {
    /// Of what its value is.
    pub unit: &'static str,
    /// Which way its bar stands.
    pub way: Bar,
    /// The bar.
    pub bar: f64,
}

impl Held {
    /// It must not be more.
    pub const fn at_most(unit: &'static str, bar: f64) -> Self {
        Self { unit, way: Bar::AtMost, bar }
    }

    /// It must not be less.
    pub const fn at_least(unit: &'static str, bar: f64) -> Self {
        Self { unit, way: Bar::AtLeast, bar }
    }
}

/// A measured figure.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    /// Its id, as the issues name it.
    pub id: &'static str,
    /// What was measured.
    pub value: f64,
    /// Of what.
    pub unit: &'static str,
    /// What it is held against.
    pub bar: f64,
    /// Whether it holds.
    pub ok: bool,
    /// Everything else worth knowing.
    pub detail: String,
    /// What the value is the worst of, or stands beside: for the picture.
    #[serde(skip)]
    pub parts: Vec<Part>,
}

/// One of the values that a figure is made of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Part {
    /// Which.
    pub name: String,
    /// What was measured.
    pub value: f64,
    /// What it must not exceed, if anything.
    pub bar: Option<f64>,
    /// What others reach, in the same unit.
    pub beside: Vec<(String, f64)>,
}

impl Part {
    /// With nothing beside it.
    pub fn new(name: &str, value: f64, bar: Option<f64>) -> Self {
        Self { name: name.into(), value, bar, beside: Vec::new() }
    }

    /// The same beside what somebody reaches.
    pub fn beside(mut self, name: &str, value: f64) -> Self {
        self.beside.push((name.into(), value));
        self
    }
}

impl Figure {
    /// Computes whether it holds.
    pub fn new(id: &'static str, value: f64, held: Held, detail: String) -> Self {
        let Held { unit, way, bar } = held;
        let holds = match way {
            Bar::AtMost => value <= bar,
            Bar::AtLeast => value >= bar,
        };
        // A value that is no number holds against nothing.
        Self { id, value, unit, bar, ok: holds && value.is_finite(), detail, parts: Vec::new() }
    }

    /// The same, made of these.
    pub fn with(mut self, parts: Vec<Part>) -> Self {
        self.parts = parts;
        self
    }

    /// The same, which holds only if `also` does.
    pub fn only_if(mut self, also: bool) -> Self {
        self.ok &= also;
        self
    }
}

/// What came of a measurement, for programs: `id, value, unit, bar, ok, detail`, always. Of one that failed there is no value: it is
/// null, and the detail says why.
pub fn line(id: &str, held: Held, measured: &Result<Figure, String>) -> serde_json::Value {
    match measured {
        Ok(figure) => serde_json::json!(figure),
        Err(error) => serde_json::json!({
            "id": id, "value": null, "unit": held.unit, "bar": held.bar, "ok": false, "detail": error,
        }),
    }
}

/// What a measurement needs.
#[derive(Clone, Debug)]
pub struct Bench {
    /// The release `switchd`.
    pub switchd: PathBuf,
}

/// A figure's id, the sentence that says what it is, what it is held against, and how it is measured.
pub type Entry = (&'static str, &'static str, Held, fn(&Bench) -> Result<Figure, String>);

/// All of them, in the order of the issues.
pub const ALL: &[Entry] = &[
    (
        "l2-pipeline",
        "L2 known unicast, pipeline alone, core cycles a packet",
        l2_pipeline::HELD,
        l2_pipeline::measure,
    ),
    (
        "xdp-forward",
        "generator → switch → sink over veth, beside testpmd",
        xdp_forward::HELD,
        xdp_forward::measure,
    ),
    ("mac-scale", "100 000 MACs against 100 MACs", mac_scale::HELD, mac_scale::measure),
    ("attach-churn", "1 000 attach/detach cycles under traffic", attach_churn::HELD, attach_churn::measure),
    (
        "attach-churn-tap",
        "1 000 attach/detach cycles of a tap port under traffic",
        attach_churn::HELD,
        attach_churn::measure_tap,
    ),
    ("idle-xdp-port", "memory of an idle xdp port", idle_xdp_port::HELD, idle_xdp_port::measure),
    (
        "tcp-vs-bridge",
        "TCP pod to pod over tap ports, beside the Linux bridge",
        tcp_vs_bridge::HELD,
        tcp_vs_bridge::measure,
    ),
    (
        "tap-io",
        "io_uring beside read and write on a TAP, frames moved a second",
        tap_io::HELD,
        tap_io::measure,
    ),
    (
        "cpu-per-gb",
        "what a gigabyte of TCP costs the node, beside the Linux bridge",
        cpu_per_gb::HELD,
        cpu_per_gb::measure,
    ),
    ("udp-rr", "UDP requests and responses, beside testpmd", udp_rr::HELD, udp_rr::measure),
    ("udp-flood", "a pod's UDP flood, beside Open vSwitch", udp_flood::HELD, udp_flood::measure),
    (
        "gro-tap",
        "TCP from an xdp pod to a tap pod, joined, beside the Linux bridge",
        gro_tap::HELD,
        gro_tap::measure,
    ),
    ("idle-110-ports", "memory and CPU of 110 idle tap ports", idle_tap_ports::HELD, idle_tap_ports::measure),
    (
        "busy-memory",
        "30 pods, 100 000 flows and floods in a cgroup of 128 MiB",
        busy_memory::HELD,
        busy_memory::measure,
    ),
    (
        "many-ports",
        "250 tap and 250 xdp ports on one switch, and what each takes",
        many_ports::HELD,
        many_ports::measure,
    ),
    (
        "two-workers",
        "two workers against one, on memory ports; how long a lane takes to move",
        two_workers::HELD,
        two_workers::measure,
    ),
    (
        "cni-add",
        "CNI ADD with 100 pods present, 200 at once, and 1 000 that come and go",
        cni_add::HELD,
        cni_add::measure,
    ),
    (
        "cni-kill",
        "plugin and daemon killed at every step of ADD and DEL: what is leaked",
        cni_kill::HELD,
        cni_kill::measure,
    ),
    (
        "cni-restart",
        "100 containers while the daemon restarts, and is killed",
        cni_restart::HELD,
        cni_restart::measure,
    ),
    (
        "boot-to-answer",
        "from the daemon's start to a container's first DNS answer",
        boot_to_answer::HELD,
        boot_to_answer::measure,
    ),
    (
        "cross-node-tcp",
        "TCP pod to pod across two nodes, beside the kernel's own routing",
        cross_node_tcp::HELD,
        cross_node_tcp::measure,
    ),
    (
        "first-packet",
        "first packets to neighbours that are not known yet",
        first_packet::HELD,
        first_packet::measure,
    ),
    ("lpm4", "IPv4 longest-prefix match, 1 000 000 prefixes", lpm::V4_HELD, lpm::v4),
    ("lpm6", "IPv6 longest-prefix match, 250 000 prefixes", lpm::V6_HELD, lpm::v6),
    ("route-scale", "routed packets, 1 000 000 routes against 10", route_scale::HELD, route_scale::measure),
    (
        "route-churn",
        "10 000 route changes a second among 1 000 000, while forwarding",
        route_churn::HELD,
        route_churn::measure,
    ),
    (
        "flows-1m",
        "1 000 000 flows: memory, and cost a packet with random access",
        flows::MANY_HELD,
        flows::many,
    ),
    (
        "new-flows",
        "new flows a second, and what established ones keep beside them",
        flows::NEW_HELD,
        flows::new,
    ),
    (
        "policy-established",
        "what a stateful policy adds to a packet of an established flow",
        policy::ESTABLISHED_HELD,
        policy::established,
    ),
    (
        "policy-tcp",
        "what a stateful policy adds to a segment of an open TCP connection",
        policy::TCP_HELD,
        policy::tcp,
    ),
    (
        "policy-scale",
        "100 000 rules against 10: established and new flows",
        policy::SCALE_HELD,
        policy::scale,
    ),
    (
        "acl-scale",
        "access control lists: 100 000 general rules against 10, established and new flows",
        acl_scale::HELD,
        acl_scale::measure,
    ),
    (
        "policy-vs-ovs",
        "routed and policed by 10 to 10 000 rules, beside Open vSwitch with its connection tracker",
        policy_vs_ovs::HELD,
        policy_vs_ovs::measure,
    ),
    (
        "policy-updates",
        "network policies that change one by one, on a small node and on a full one",
        policy_updates::HELD,
        policy_updates::measure,
    ),
    (
        "set-updates",
        "members of an address set that change one by one, with 100 000 rules and 99 000 members",
        set_updates::HELD,
        set_updates::measure,
    ),
    (
        "trace-latency",
        "one frame traced, with 250 ports and 100 000 MACs",
        trace_latency::HELD,
        trace_latency::measure,
    ),
    (
        "capture-cost",
        "throughput that ports lose while another one is captured",
        capture_cost::HELD,
        capture_cost::measure,
    ),
    (
        "restart-outage",
        "100 tap pods, and 100 xdp pods, cut off while the daemon restarts, and is killed",
        restart_outage::HELD,
        restart_outage::measure,
    ),
    (
        "control-latency",
        "1 000 changes a second with 250 ports under load: from request to all workers have it",
        changes::LATENCY_HELD,
        changes::latency,
    ),
    (
        "change-loss",
        "datagrams lost or overtaken beside such changes, which are not about them",
        changes::LOSS_HELD,
        changes::loss,
    ),
    (
        "stage-counters-cost",
        "what counting every stage's cycles costs the pipeline",
        stage_counters::HELD,
        stage_counters::measure,
    ),
    ("l2-cycles", "the pipeline alone: L2 at 2 and at 100 000 MACs", cycles::L2_HELD, cycles::l2),
    ("l3-cycles", "the pipeline alone: L3 at 10 and at 1 000 000 routes", cycles::L3_HELD, cycles::l3),
    (
        "policy-cycles",
        "the pipeline alone: L2 + L3 + stateful policy, few and many flows and rules",
        cycles::POLICY_HELD,
        cycles::policy,
    ),
    (
        "nat-cycles",
        "the pipeline alone: what translation adds to a routed packet, few and many flows",
        cycles::NAT_HELD,
        cycles::nat,
    ),
    (
        "xdp-full-forward",
        "generator → switch → sink over veth, L2 + L3 + policy, beside testpmd",
        xdp_full_forward::HELD,
        xdp_full_forward::measure,
    ),
    (
        "blocked-time",
        "packets lost while routes, policies and ports change",
        blocked_time::HELD,
        blocked_time::measure,
    ),
    (
        "quiet-cpu",
        "CPU a packet at a tenth of the load, and latency then",
        quiet_cpu::HELD,
        quiet_cpu::measure,
    ),
    (
        "idle-cpu",
        "CPU when idle with 8 ports, and the first frame after idle",
        idle_cpu::HELD,
        idle_cpu::measure,
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn a_line_has_the_same_fields_whatever_came_of_it() {
        const HELD: Held = Held::at_most("ms", 5.0);
        let figure = |value| Figure::new("id", value, HELD, "how".into());
        let fields = |measured: &Result<Figure, String>| {
            let line = line("id", HELD, measured);
            // Of one that failed too.
            assert!(line["unit"] == "ms" && line["bar"] == 5.0, "{line}");
            let object = line.as_object().unwrap_or_else(|| panic!("{line}")).clone();
            assert!(line["id"] == "id" && line["detail"].is_string(), "{line}");
            (object.keys().cloned().collect::<HashSet<_>>(), line["ok"].clone())
        };
        let wanted: HashSet<_> = ["id", "value", "unit", "bar", "ok", "detail"].map(str::to_owned).into();
        for (measured, ok) in [
            (Ok(figure(5.0)), true),
            (Ok(figure(5.1)), false),
            (Ok(figure(f64::NAN)), false),
            (Ok(figure(f64::NEG_INFINITY)), false),
            (Ok(figure(1.0).only_if(false)), false),
            (Err("testpmd is missing".to_owned()), false),
        ] {
            assert_eq!(fields(&measured), (wanted.clone(), ok.into()), "{measured:?}");
        }
    }

    #[test]
    fn every_figure_has_an_id_of_its_own() {
        let ids: HashSet<_> = ALL.iter().map(|(id, ..)| id).collect();
        assert_eq!(ids.len(), ALL.len());
    }
}
