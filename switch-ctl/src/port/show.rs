//! Ports for a person: a list, one with everything, what a device could be.

use crate::output::{Output, bytes, thousands};
use crate::{guard, label, limit, outside, tap, verdict};
use std::path::Path;
use switch_api::{Port, PortKind, PortMemory, PortState, PortStatus, ProbeReply, VidRange, Vlan};

pub fn probed(probe: &ProbeReply, output: &Output) -> String {
    let ProbeReply { device, mtu, queues, tried, choice } = probe;
    let mut table = output.table(&["WHAT", "WORKS", "WHY"]);
    for tried in tried {
        let works = output.verdict(if tried.works { "yes" } else { "no" }, tried.works);
        table.add_row(vec![tried.what.as_str().into(), works, tried.detail.as_str().into()]);
    }
    let choice = match choice {
        Some(choice) => format!("a port on it would run in mode {choice}, unless --mode says otherwise"),
        None => "no port is possible on it".into(),
    };
    format!("{device}: MTU {mtu}, {queues} queues\n{table}\n{choice}")
}

fn state(port: &PortStatus) -> &'static str {
    match port.state {
        PortState::Up => "up",
        PortState::Down => "down",
        PortState::Looped => "looped",
    }
}

fn memory(port: &PortStatus) -> String {
    let PortMemory { frames_bytes, rings_bytes, kernel_bytes } = port.memory;
    let parts = [("frames", frames_bytes), ("rings", rings_bytes), ("kernel", kernel_bytes)];
    let parts: Vec<_> =
        parts.iter().filter(|(_, n)| *n > 0).map(|(what, n)| format!("{what} {}", bytes(*n))).collect();
    if parts.is_empty() {
        return bytes(port.memory_bytes);
    }
    format!("{} ({})", bytes(port.memory_bytes), parts.join(", "))
}

/// What it is made of, in a few words.
pub fn made_of(port: &Port) -> String {
    match &port.kind {
        kind if let Some(device) = kind.shared_nic() => format!("uplink {device}"),
        PortKind::Xdp { device, pod: None, .. } => format!("xdp {device}"),
        PortKind::Xdp { device, pod: Some(end), .. } => {
            format!("xdp {device} to {} in {}", end.device, tap::shown_netns(&end.netns))
        }
        kind @ (PortKind::Tap { .. } | PortKind::Host { .. }) => tap::made_of(kind).unwrap_or_default(),
        PortKind::Memory { .. } => "memory".into(),
        PortKind::Vxlan { vni, local, .. } => crate::tunnel::made_of(*vni, *local),
        PortKind::Pcap { read, write } => {
            let name = |path: &Option<String>| {
                path.as_deref().and_then(|p| Path::new(p).file_name()?.to_str().map(str::to_owned))
            };
            format!("pcap {}", name(read).or_else(|| name(write)).unwrap_or_default())
        }
    }
}

fn vlan(port: &Port) -> String {
    match &port.settings.vlan {
        Vlan::Access { vid } => vid.to_string(),
        Vlan::Trunk { vids, native } => {
            let range = |r: &VidRange| {
                if r.first == r.last { r.first.to_string() } else { format!("{}-{}", r.first, r.last) }
            };
            let ranges: Vec<_> = vids.iter().map(range).collect();
            let native = native.map(|vid| format!(" native {vid}")).unwrap_or_default();
            format!("trunk {}{native}", ranges.join(","))
        }
    }
}

pub fn list(ports: &[PortStatus], output: &Output) -> String {
    if ports.is_empty() {
        return "no ports: `switch-ctl port add --help` says which there can be".into();
    }
    let head = [
        "PORT", "STATE", "KIND", "MODE", "BRIDGE", "VLAN", "WORKER", "OWNER", "MACS", "RX", "TX", "DROPS",
        "WHY",
    ];
    let mut table = output.table(&head);
    for port in ports {
        let workers: Vec<_> = port.workers.iter().map(u16::to_string).collect();
        let up = port.state == PortState::Up;
        table.add_row(vec![
            port.port.name.to_string().into(),
            output.verdict(state(port), up),
            made_of(&port.port).into(),
            port.mode.clone().unwrap_or_else(|| "-".into()).into(),
            port.port.bridge.to_string().into(),
            vlan(&port.port).into(),
            workers.join(",").into(),
            port.port.owner.to_string().into(),
            port.learned.to_string().into(),
            thousands(port.counters.rx_packets).into(),
            thousands(port.counters.tx_packets).into(),
            thousands(port.counters.drops).into(),
            port.reason.clone().unwrap_or_default().into(),
        ]);
    }
    table.to_string()
}

pub fn show(port: &PortStatus) -> String {
    let settings = &port.port.settings;
    let flood = settings.flood;
    let or_off = |limit: Option<u32>| limit.map_or("off".into(), |limit| limit.to_string());
    let mut lines = vec![
        ("port", port.port.name.to_string()),
        ("state", state(port).into()),
        ("why", port.reason.clone().unwrap_or_default()),
        ("owner", port.port.owner.to_string()),
        ("kind", made_of(&port.port)),
        ("mode", port.mode.clone().unwrap_or_default()),
        ("not faster because", port.mode_reason.clone().unwrap_or_default()),
        ("bridge", port.port.bridge.to_string()),
        ("vlan", vlan(&port.port)),
        (
            "mtu",
            format!("{}{}", port.mtu, if settings.mtu_follows { ", follows the node's way out" } else { "" }),
        ),
        ("memory", memory(port)),
        ("isolated", settings.isolated.to_string()),
        ("hairpin", settings.hairpin.to_string()),
        ("flood unknown unicast", flood.unknown_unicast.to_string()),
        ("flood multicast", flood.multicast.to_string()),
        ("flood broadcast", flood.broadcast.to_string()),
        ("storm limit (pps)", or_off(settings.storm_pps)),
        ("learn limit (MACs)", or_off(settings.learn_limit)),
        ("flows kept", if settings.track { "always" } else { "while a policy isolates it" }.into()),
        ("MACs learned", port.learned.to_string()),
        ("rx packets", thousands(port.counters.rx_packets)),
        ("rx bytes", thousands(port.counters.rx_bytes)),
        ("tx packets", thousands(port.counters.tx_packets)),
        ("tx bytes", thousands(port.counters.tx_bytes)),
        ("drops", thousands(port.counters.drops)),
    ];
    let at = lines.iter().position(|(name, _)| *name == "bridge").unwrap_or(0);
    lines.splice(at..at, tap::show(&port.port.kind));
    lines.extend(guard::show(settings.source_guard.as_ref()));
    lines.extend(limit::show(&settings.limits));
    lines.extend(verdict::show(&settings.default_verdict));
    lines.extend(outside::show(settings));
    if let Some(workload) = &port.port.workload {
        let ports = workload.ports.iter().map(|it| format!("{}={}/{}", it.name, it.protocol, it.port));
        let addresses = workload.addresses.iter().map(ToString::to_string);
        lines.push(("workload of namespace", workload.namespace.clone()));
        lines.push(("workload labels", label::shown(&workload.labels)));
        lines.push(("named ports", ports.collect::<Vec<_>>().join(",")));
        lines.push(("workload addresses", addresses.collect::<Vec<_>>().join(",")));
    }
    lines.extend(port.port.labels.iter().map(|(key, value)| (key.as_str(), value.clone())));
    lines.retain(|(_, value)| !value.is_empty());
    lines.iter().map(|(name, value)| format!("{name:<24}{value}\n")).collect()
}
