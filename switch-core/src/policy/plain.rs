//! The dull twin: what the specification says, evaluated word by word for one packet, with no tables. It shares nothing with what it judges: selectors
//! and networks are read here once more, as Kubernetes describes them.

use super::{Input, Pod};
use std::net::{IpAddr, Ipv6Addr};
use switch_api::{
    Cidr, LabelOperator, LabelSelector, Labels, NetworkPolicy, Peer, PolicyPort, PolicySpec, PolicyType,
    PortRef, Protocol,
};

/// One end of a packet.
pub fn pod_at<'a>(input: &'a Input, ip: u128) -> Option<&'a Pod<'a>> {
    input.pods.iter().find(|pod| pod.addresses.contains(&ip))
}

/// Whether a first packet passes. No port: a protocol that has none, or a later fragment.
pub fn passes(input: &Input, from: u128, to: u128, protocol: Option<Protocol>, port: Option<u16>) -> bool {
    let (source, destination) = (pod_at(input, from), pod_at(input, to));
    if let (Some(source), Some(destination)) = (source, destination)
        && source.port == destination.port
    {
        return true;
    }
    let says = |pod, direction, peer, destination| {
        input.node.contains(&peer)
            || allows(input, pod, direction, peer, destination, protocol, port).unwrap_or(true)
    };
    let way_out = source.is_none_or(|pod| says(pod, PolicyType::Egress, to, destination));
    let way_in = destination.is_none_or(|pod| says(pod, PolicyType::Ingress, from, Some(pod)));
    way_out && way_in
}

/// Whether the policies of one end allow it; none: they do not isolate it.
pub fn allows(
    input: &Input,
    subject: &Pod,
    direction: PolicyType,
    peer: u128,
    destination: Option<&Pod>,
    protocol: Option<Protocol>,
    port: Option<u16>,
) -> Option<bool> {
    let is_of_subject = |policy: &&NetworkPolicy| {
        policy.metadata.namespace == subject.workload.namespace
            && selects(&policy.spec.pod_selector, &subject.workload.labels)
            && is_about(&policy.spec, direction)
    };
    let mut isolated = false;
    for policy in input.policies.iter().map(|placed| placed.policy).filter(is_of_subject) {
        isolated = true;
        let rules: Vec<(&Vec<Peer>, &Vec<PolicyPort>)> = match direction {
            PolicyType::Ingress => policy.spec.ingress.iter().map(|rule| (&rule.from, &rule.ports)).collect(),
            PolicyType::Egress => policy.spec.egress.iter().map(|rule| (&rule.to, &rule.ports)).collect(),
        };
        for (peers, ports) in rules {
            let known = peers.is_empty() || peers.iter().any(|it| is_peer(input, policy, it, peer));
            let open = ports.is_empty() || ports.iter().any(|it| is_port(it, destination, protocol, port));
            if known && open {
                return Some(true);
            }
        }
    }
    isolated.then_some(false)
}

fn is_peer(input: &Input, policy: &NetworkPolicy, peer: &Peer, ip: u128) -> bool {
    if let Some(block) = &peer.ip_block {
        return covers(block.cidr, ip) && !block.except.iter().any(|except| covers(*except, ip));
    }
    let Some(pod) = pod_at(input, ip) else { return false };
    let right_namespace = match &peer.namespace_selector {
        None => pod.workload.namespace == policy.metadata.namespace,
        Some(wanted) => selects(wanted, &labels_of_namespace(input, &pod.workload.namespace)),
    };
    let wanted = peer.pod_selector.as_ref();
    right_namespace && wanted.is_none_or(|wanted| selects(wanted, &pod.workload.labels))
}

/// `policyTypes`: "If this field is not specified, it will default based on the existence of ingress or egress rules; policies that contain an egress
/// section are assumed to affect egress, and all policies (whether or not they contain an ingress section) are assumed to affect ingress."
fn is_about(spec: &PolicySpec, direction: PolicyType) -> bool {
    match (&spec.policy_types[..], direction) {
        ([], PolicyType::Ingress) => true,
        ([], PolicyType::Egress) => !spec.egress.is_empty(),
        (types, direction) => types.contains(&direction),
    }
}

/// `LabelSelector`: all of `matchLabels` and of `matchExpressions` must hold, and an empty one selects everything. `NotIn` holds for who has no such
/// label, too.
fn selects(selector: &LabelSelector, labels: &Labels) -> bool {
    for (key, wanted) in &selector.match_labels {
        if labels.get(key) != Some(wanted) {
            return false;
        }
    }
    for wanted in &selector.match_expressions {
        let holds = match (wanted.operator, labels.get(&wanted.key)) {
            (LabelOperator::In, Some(value)) => wanted.values.contains(value),
            (LabelOperator::In, None) => false,
            (LabelOperator::NotIn, Some(value)) => !wanted.values.contains(value),
            (LabelOperator::NotIn, None) => true,
            (LabelOperator::Exists, value) => value.is_some(),
            (LabelOperator::DoesNotExist, value) => value.is_none(),
        };
        if !holds {
            return false;
        }
    }
    true
}

/// A namespace has one label that nobody gives it: its name.
fn labels_of_namespace(input: &Input, name: &str) -> Labels {
    let mut labels = input.namespaces.get(name).cloned().unwrap_or_default();
    labels.insert("kubernetes.io/metadata.name".into(), name.into());
    labels
}

/// Whether an address is in a network: of its family, and with the same first bits.
pub fn covers(network: Cidr, ip: u128) -> bool {
    let bits = |ip: IpAddr| {
        let octets = match ip {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        octets.into_iter().flat_map(|octet| (0..8).map(move |n| octet << n & 0x80 != 0)).collect::<Vec<_>>()
    };
    let (all, own, first) =
        (bits(network.address()), bits(Ipv6Addr::from_bits(ip).to_canonical()), network.prefix_len().into());
    own.len() == all.len() && own[..first] == all[..first]
}

fn is_port(
    rule: &PolicyPort,
    destination: Option<&Pod>,
    protocol: Option<Protocol>,
    port: Option<u16>,
) -> bool {
    if protocol != Some(rule.protocol) {
        return false;
    }
    match (&rule.port, port) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(PortRef::Number(first)), Some(port)) => {
            (*first..=rule.end_port.unwrap_or(*first)).contains(&port)
        }
        (Some(PortRef::Name(name)), Some(port)) => destination.is_some_and(|pod| {
            let mut named = pod.workload.ports.iter();
            named.any(|own| (&own.name, own.protocol, own.port) == (name, rule.protocol, port))
        }),
    }
}

/// An address as the tests write it.
#[cfg(test)]
pub fn ip(text: &str) -> u128 {
    super::to_bits(text.parse().unwrap())
}
