//! How pods reach what is outside the node, and are reached from there, through the node's kernel: what is masqueraded, and
//! which ports of the node lead to pods. Derived from what is declared of ports.

use super::checked::Problem;
use super::model::Model;
use std::collections::BTreeSet;
use std::net::IpAddr;
use switch_api::{Cidr, Port, PortKind, PortSettings, Prefix, Protocol};

/// Networks in a list of one port: more than a node has, and the kernel takes any number.
pub(crate) const NETWORKS_MAX: usize = 64;
/// Published ports of one port: more than a pod has services.
pub(crate) const PUBLISH_MAX: usize = 64;
/// Published ports of the node: their rules must fit into one message to the kernel.
pub(crate) const PUBLISHED_MAX: usize = 1024;
/// Towards groups nothing is masqueraded: who joined them is no neighbour of the node's address.
const GROUPS: [Prefix; 2] = [
    Prefix { address: IpAddr::V4(std::net::Ipv4Addr::new(224, 0, 0, 0)), len: 4 },
    Prefix { address: IpAddr::V6(std::net::Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0)), len: 8 },
];

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outside {
    /// The devices by which the kernel reaches the switch.
    pub devices: BTreeSet<String>,
    /// Those of them to which the answers to what came by them return.
    pub returning: BTreeSet<String>,
    /// What is masqueraded when it leaves by another device.
    pub sources: BTreeSet<Prefix>,
    /// Towards these it is not.
    pub direct: BTreeSet<Prefix>,
    /// Ports of the node that lead to pods.
    pub published: BTreeSet<Forward>,
}

/// A port of the node that leads to a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Forward {
    /// The transport.
    pub protocol: Protocol,
    /// The node's address; none: any of the version of `to`.
    pub at: Option<IpAddr>,
    /// The node's port.
    pub port: u16,
    /// The pod's address.
    pub to: IpAddr,
    /// The pod's port.
    pub to_port: u16,
}

impl Outside {
    /// Whether the kernel has nothing to do.
    pub fn is_empty(&self) -> bool {
        self.sources.is_empty() && self.published.is_empty()
    }

    /// Whether the kernel has to forward that IP version.
    pub fn has_version(&self, v4: bool) -> bool {
        let published = self.published.iter().map(|forward| forward.to);
        let mut all = self.sources.iter().map(|prefix| prefix.address).chain(published);
        all.any(|address| address.is_ipv4() == v4)
    }
}

impl Model {
    /// What the node's kernel is to do; nothing without a host port, by which it reaches the switch.
    pub fn outside(&self) -> Outside {
        let ports = || self.ports.values().map(|port| &*port.object);
        let devices: BTreeSet<String> = ports().filter_map(host_device).cloned().collect();
        if devices.is_empty() {
            return Outside::default();
        }
        let returns = |port: &&Port| port.settings.return_flows;
        let returning = ports().filter(returns).filter_map(host_device).cloned().collect();
        let sources: BTreeSet<Prefix> = ports().flat_map(|port| self.masqueraded(port)).collect();
        let excepted = ports().flat_map(|port| port.settings.no_masquerade.iter().map(Prefix::network));
        let direct = if sources.is_empty() { BTreeSet::new() } else { excepted.chain(GROUPS).collect() };
        Outside { devices, returning, sources, direct, published: ports().flat_map(forwards).collect() }
    }

    /// What of a port's is masqueraded.
    fn masqueraded(&self, port: &Port) -> Vec<Prefix> {
        let settings = &port.settings;
        if !settings.masquerade {
            return Vec::new();
        }
        if !settings.masquerade_from.is_empty() {
            return settings.masquerade_from.iter().map(Prefix::network).collect();
        }
        match &port.kind {
            PortKind::Host { addresses, .. } => {
                let networks = addresses.iter().filter(|cidr| is_global(cidr.address()));
                let networks =
                    networks.map(|cidr| Prefix { address: cidr.address(), len: cidr.prefix_len() });
                let bridge = self.bridges.get(&port.bridge);
                let announced = bridge.into_iter().flat_map(|bridge| self.announced(&bridge.object.vrf));
                networks.map(|prefix| prefix.network()).chain(announced.map(|it| it.prefix)).collect()
            }
            kind => own(kind.pod_addresses().unwrap_or_default()).map(Prefix::host).collect(),
        }
    }
}

fn host_device(port: &Port) -> Option<&String> {
    match &port.kind {
        PortKind::Host { device, .. } => Some(device),
        _ => None,
    }
}

/// Addresses that others than a neighbour can reach.
fn own(addresses: &[Cidr]) -> impl Iterator<Item = IpAddr> {
    addresses.iter().map(|cidr| cidr.address()).filter(|address| is_global(*address))
}

fn is_global(address: IpAddr) -> bool {
    !matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

/// Each published port leads to the first address of either version.
pub(super) fn forwards(port: &Port) -> Vec<Forward> {
    let addresses = port.kind.pod_addresses().unwrap_or_default();
    let to = |v4: bool| own(addresses).find(|address| address.is_ipv4() == v4);
    let targets: Vec<IpAddr> = [to(true), to(false)].into_iter().flatten().collect();
    let each = port.settings.publish.iter().flat_map(|publish| {
        targets.iter().filter(|to| publish.is_for(to.is_ipv4())).map(|to| Forward {
            protocol: publish.protocol,
            at: publish.one_address(),
            port: publish.host_port,
            to: *to,
            to_port: publish.port,
        })
    });
    each.collect()
}

/// Every contradiction.
pub(super) fn check(model: &Model, problems: &mut Vec<Problem>) {
    for port in model.ports.values() {
        check_port(&port.object, problems);
    }
    check_collisions(model, problems);
}

fn check_port(port: &Port, problems: &mut Vec<Problem>) {
    let PortSettings { masquerade, masquerade_from, no_masquerade, publish, .. } = &port.settings;
    let mut problem = |field, text: String| {
        problems.push(Problem::new(field, format!("port {}: {text}", port.name)).about(port));
    };
    for (field, list) in
        [("settings.masquerade_from", masquerade_from), ("settings.no_masquerade", no_masquerade)]
    {
        if list.len() > NETWORKS_MAX {
            problem(field, format!("at most {NETWORKS_MAX} networks"));
        }
        if let Some(prefix) = list.iter().find(|prefix| prefix.network() != **prefix) {
            let text = format!("{prefix} names a host in a network: it is {}", prefix.network());
            problem(field, text);
        }
    }
    if port.settings.return_flows && !matches!(port.kind, PortKind::Host { .. }) {
        problem(
            "settings.return_flows",
            "only a host port leads to a kernel that translates addresses".into(),
        );
    }
    let has_own = port.kind.pod_addresses().is_some() || matches!(port.kind, PortKind::Host { .. });
    if *masquerade && masquerade_from.is_empty() && !has_own {
        let text =
            "only ports whose device the switch makes have addresses of their own; name what to masquerade";
        problem("settings.masquerade_from", text.into());
    }
    if !*masquerade && !masquerade_from.is_empty() {
        problem("settings.masquerade", "what to masquerade is named, but masquerade is off".into());
    }
    if publish.is_empty() {
        return;
    }
    if publish.len() > PUBLISH_MAX {
        problem("settings.publish", format!("at most {PUBLISH_MAX} published ports"));
    }
    if publish.iter().any(|publish| publish.host_port == 0 || publish.port == 0) {
        problem("settings.publish", "0 is no port".into());
    }
    let Some(addresses) = port.kind.pod_addresses() else {
        return problem(
            "settings.publish",
            "only a pod whose device the switch makes, with addresses, can be led to".into(),
        );
    };
    for publish in publish {
        if !own(addresses).any(|address| publish.is_for(address.is_ipv4())) {
            problem("settings.publish", format!("{publish}: it has no address of that version to lead to"));
        }
        if publish.one_address().is_some_and(|address| address.is_multicast()) {
            problem("settings.publish", format!("{publish}: the node has no such address"));
        }
    }
}

/// A packet to a published port is for one pod.
fn check_collisions(model: &Model, problems: &mut Vec<Problem>) {
    let all = model
        .ports
        .values()
        .flat_map(|port| port.object.settings.publish.iter().map(move |publish| (publish, &*port.object)));
    let mut all: Vec<_> = all.collect();
    if all.len() > PUBLISHED_MAX {
        problems.push(Problem::new("settings.publish", format!("at most {PUBLISHED_MAX} published ports")));
    }
    // Those that could collide are neighbours then.
    all.sort_by_key(|(publish, port)| (publish.protocol, publish.host_port, &port.name));
    for group in all
        .chunk_by(|(one, _), (other, _)| (one.protocol, one.host_port) == (other.protocol, other.host_port))
    {
        for (i, (publish, port)) in group.iter().enumerate() {
            if let Some((_, other)) = group[..i].iter().find(|(other, _)| publish.collides(other)) {
                let text = format!(
                    "port {} publishes {publish}, which leads to port {} already",
                    port.name, other.name
                );
                problems.push(Problem::new("settings.publish", text).about(*port));
            }
        }
    }
}
