//! Contradictions, found all at once. Only a [`Checked`] model can be compiled, so whoever compiles
//! trusts every number and every reference.

use super::model::{Model, vids_of};
use std::collections::BTreeMap;
use switch_api::{ApiError, Code, Port, PortKind, StaticMac, Take, Vid, Vlan};

/// Rules in an XDP program's match table; it is walked for every frame, in the kernel.
pub const RULES_MAX: usize = 16;
/// Queues of one port, and entries of its program's socket map.
pub const QUEUES_MAX: u16 = 64;
/// Workers there can be: more cores than an edge node has.
pub const WORKERS_MAX: u16 = 64;
/// Smallest and largest MTU: RFC 791 asks for 68; a chunk of 4096 bytes carries no more than this.
const MTU_RANGE: std::ops::RangeInclusive<u16> = 68..=3_800;

/// A model without contradictions.
#[derive(Clone, Debug)]
pub struct Checked(Model);

impl Checked {
    /// Checks. `workers` is how many there are.
    pub fn new(model: Model, workers: u16) -> Result<Self, ApiError> {
        let mut problems = Vec::new();
        for bridge in model.bridges.values() {
            if !(10..=1_000_000).contains(&bridge.object.ageing_s) {
                problems.push(Problem::new(
                    "ageing_s",
                    "ageing is 10 to 1000000 seconds (IEEE 802.1Q table 8-3)",
                ));
            }
        }
        for port in model.ports.values() {
            check_port(&model, &port.object, workers, &mut problems);
        }
        check_devices(&model, &mut problems);
        for entry in &model.static_macs {
            check_static(&model, entry, &mut problems);
        }
        match problems.len() {
            0 => Ok(Self(model)),
            _ => Err(refusal(problems)),
        }
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.0
    }
}

struct Problem {
    field: &'static str,
    text: String,
}

impl Problem {
    fn new(field: &'static str, text: impl Into<String>) -> Self {
        Self { field, text: text.into() }
    }
}

fn refusal(problems: Vec<Problem>) -> ApiError {
    let field = problems[0].field;
    let texts: Vec<_> = problems.into_iter().map(|problem| problem.text).collect();
    ApiError::new(Code::InvalidParams, texts.join("; "))
        .field(field)
        .hint("nothing was changed; correct the request and send it again")
}

fn check_port(model: &Model, port: &Port, workers: u16, problems: &mut Vec<Problem>) {
    let name = &port.name;
    let mut problem =
        |field, text: String| problems.push(Problem::new(field, format!("port {name}: {text}")));
    if !model.bridges.contains_key(&port.bridge) {
        problem("bridge", format!("there is no bridge named {}; add it first", port.bridge));
    }
    if let Vlan::Trunk { vids, .. } = &port.settings.vlan {
        if let Some(range) = vids.iter().find(|range| range.first > range.last) {
            problem("settings.vlan.vids", format!("{}-{} runs backwards", range.first, range.last));
        }
        if vids_of(&port.settings.vlan).next().is_none() {
            problem("settings.vlan.vids", "a trunk needs at least one VLAN".into());
        }
    }
    if let Some(worker) = port.settings.worker.filter(|worker| *worker >= workers) {
        problem("settings.worker", format!("there is no worker {worker}, only 0 to {}", workers - 1));
    }
    if let Some(mtu) = port.settings.mtu.filter(|mtu| !MTU_RANGE.contains(mtu)) {
        problem("settings.mtu", format!("an MTU of {mtu} is not possible, use 68 to {}", MTU_RANGE.end()));
    }
    match &port.kind {
        PortKind::Xdp { device, queues, ring_size, take, dead_after_ms, .. } => {
            // IFNAMSIZ (linux/if.h) counts the final zero.
            if device.is_empty() || device.len() > 15 || device.contains(['/', ' ', '\0']) {
                problem(
                    "device",
                    format!("{device:?} is no device name: 1 to 15 characters, no slash, no space"),
                );
            }
            if *queues > QUEUES_MAX {
                problem("queues", format!("at most {QUEUES_MAX} queues"));
            }
            if !ring_size.is_power_of_two() || !(64..=8192).contains(ring_size) {
                problem(
                    "ring_size",
                    format!("{ring_size} is no ring size: use a power of two from 64 to 8192"),
                );
            }
            if !(10..=60_000).contains(dead_after_ms) {
                problem("dead_after_ms", "use 10 to 60000 milliseconds".into());
            }
            if let Take::Matching { rules } = take {
                if rules.is_empty() || rules.len() > RULES_MAX {
                    problem("take.rules", format!("give 1 to {RULES_MAX} rules"));
                }
                for rule in rules {
                    if let Err(text) = super::snapshot::parse_rule(rule) {
                        problem("take.rules", text);
                    }
                }
            }
        }
        PortKind::Memory { source: Some(source) } => {
            if !(1..=1_000_000).contains(&source.flows) || !(60..=1514).contains(&source.frame_len) {
                problem("source", "1 to 1000000 flows of frames of 60 to 1514 bytes".into());
            }
        }
        PortKind::Pcap { read: None, write: None } => {
            problem("read", "a pcap port reads a capture, writes one, or both".into());
        }
        PortKind::Memory { .. } | PortKind::Pcap { .. } => {}
    }
}

fn check_devices(model: &Model, problems: &mut Vec<Problem>) {
    let mut owners = BTreeMap::new();
    for port in model.ports.values() {
        if let PortKind::Xdp { device, .. } = &port.object.kind
            && let Some(other) = owners.insert(device, &port.object.name)
        {
            let text = format!("device {device} cannot be two ports: {other} and {}", port.object.name);
            problems.push(Problem::new("device", text));
        }
    }
}

fn check_static(model: &Model, entry: &StaticMac, problems: &mut Vec<Problem>) {
    let mac = entry.mac;
    let mut problem = |field, text: String| problems.push(Problem::new(field, text));
    if mac.is_group() || mac.is_zero() {
        problem("mac", format!("{mac} is no station's address"));
    }
    let Some(port) = model.ports.get(&entry.port).map(|port| &port.object) else {
        return problem("port", format!("static MAC {mac}: there is no port named {}", entry.port));
    };
    if port.bridge != entry.bridge {
        problem("port", format!("static MAC {mac}: port {} is on bridge {}", entry.port, port.bridge));
    }
    if !is_member(&port.settings.vlan, entry.vid) {
        problem("vid", format!("static MAC {mac}: port {} is not in VLAN {}", entry.port, entry.vid));
    }
}

fn is_member(vlan: &Vlan, vid: Vid) -> bool {
    vids_of(vlan).any(|member| member == vid)
}
