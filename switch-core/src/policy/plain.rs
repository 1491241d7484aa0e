//! The dull twin: what the specification says, evaluated word by word for one packet, with no tables.

use super::{Input, Pod, select, terms, to_bits};
use switch_api::{NetworkPolicy, Peer, PolicyPort, PolicyType, PortRef, Protocol};

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
    let way_out = source.is_none_or(|pod| {
        input.node.contains(&to) || allows(input, pod, PolicyType::Egress, to, destination, protocol, port)
    });
    let way_in = destination.is_none_or(|pod| {
        input.node.contains(&from) || allows(input, pod, PolicyType::Ingress, from, Some(pod), protocol, port)
    });
    way_out && way_in
}

fn allows(
    input: &Input,
    subject: &Pod,
    direction: PolicyType,
    peer: u128,
    destination: Option<&Pod>,
    protocol: Option<Protocol>,
    port: Option<u16>,
) -> bool {
    let selects = |policy: &&NetworkPolicy| {
        policy.metadata.namespace == subject.workload.namespace
            && select::pods(&policy.spec.pod_selector, &subject.workload.labels)
            && policy.spec.isolates(direction)
    };
    let mut isolated = false;
    for policy in input.policies.iter().map(|placed| placed.policy).filter(selects) {
        isolated = true;
        let rules: Vec<(&Vec<Peer>, &Vec<PolicyPort>)> = match direction {
            PolicyType::Ingress => policy.spec.ingress.iter().map(|rule| (&rule.from, &rule.ports)).collect(),
            PolicyType::Egress => policy.spec.egress.iter().map(|rule| (&rule.to, &rule.ports)).collect(),
        };
        for (peers, ports) in rules {
            let known = peers.is_empty() || peers.iter().any(|it| is_peer(input, policy, it, peer));
            let open = ports.is_empty() || ports.iter().any(|it| is_port(it, destination, protocol, port));
            if known && open {
                return true;
            }
        }
    }
    !isolated
}

fn is_peer(input: &Input, policy: &NetworkPolicy, peer: &Peer, ip: u128) -> bool {
    if let Some(block) = &peer.ip_block {
        return terms::covers(block.cidr, ip)
            && !block.except.iter().any(|except| terms::covers(*except, ip));
    }
    let Some(pod) = pod_at(input, ip) else { return false };
    let right_namespace = match &peer.namespace_selector {
        None => pod.workload.namespace == policy.metadata.namespace,
        Some(wanted) => select::namespace(wanted, &pod.workload.namespace, input.namespaces),
    };
    let wanted = peer.pod_selector.as_ref();
    right_namespace && wanted.is_none_or(|wanted| select::pods(wanted, &pod.workload.labels))
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
pub fn ip(text: &str) -> u128 {
    to_bits(text.parse().unwrap())
}
