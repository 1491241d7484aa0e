//! What is wrong with a list, in sentences: what would never match is refused as well, for nobody meant that.

use super::RULE_ITEMS_MAX;
use switch_api::{Acl, AclAction, AclRule, IpProtocol, Prefix};

/// A problem: the field, and a sentence.
pub type Problem = (String, String);

/// What is wrong with a list.
pub fn acl(acl: &Acl) -> Vec<Problem> {
    let mut problems = Vec::new();
    let to = &acl.applies_to;
    if to.ports.is_empty() && to.workloads.is_none() && !to.all {
        let text = "say which ports it is for: `ports`, by their names, `workloads`, by their labels, or `all = true`";
        problems.push(("applies_to".to_owned(), text.to_owned()));
    }
    if let Some(workloads) = &to.workloads {
        let selectors = [
            ("namespace_selector", &workloads.namespace_selector),
            ("pod_selector", &workloads.pod_selector),
        ];
        for (name, selector) in selectors {
            crate::policy::check::selector(&format!("applies_to.workloads.{name}"), selector, &mut problems);
        }
    }
    if acl.ingress.is_empty() && acl.egress.is_empty() {
        let text = "a list without rules says nothing: give it `ingress` or `egress`";
        problems.push(("ingress".to_owned(), text.to_owned()));
    }
    for (direction, rules) in [("ingress", &acl.ingress), ("egress", &acl.egress)] {
        for (n, rule) in rules.iter().enumerate() {
            let problem = |(field, text): (&str, String)| (format!("{direction}[{n}].{field}"), text);
            problems.extend(self::rule(rule).into_iter().map(problem));
        }
    }
    problems
}

fn rule(rule: &AclRule) -> Vec<(&'static str, String)> {
    let mut problems = Vec::new();
    for (field, prefixes) in [("source", &rule.source), ("destination", &rule.destination)] {
        let strange = prefixes.iter().filter(|prefix| prefix.network() != **prefix);
        problems.extend(strange.map(|prefix| {
            (
                field,
                format!("{prefix} is no network: bits behind its prefix are set; write {}", prefix.network()),
            )
        }));
    }
    let is_v4 = |prefix: &Prefix| prefix.address.is_ipv4();
    let never = |one: &[Prefix], other: &[Prefix], v4: bool| {
        !one.is_empty()
            && !other.is_empty()
            && !one.iter().any(|it| is_v4(it) == v4 && other.iter().any(|it| is_v4(it) == v4))
    };
    // A set has members of both versions, or may.
    if rule.sets().next().is_none()
        && never(&rule.source, &rule.destination, true)
        && never(&rule.source, &rule.destination, false)
    {
        problems.push(("destination", "source and destination are of different IP versions".to_owned()));
    }
    let has_ports = rule.protocol.is_some_and(|protocol| protocol.has_ports());
    let port_sets = [
        ("source_port_sets", &rule.source_port_sets),
        ("destination_port_sets", &rule.destination_port_sets),
    ];
    for (field, _) in port_sets.into_iter().filter(|(_, sets)| !sets.is_empty() && !has_ports) {
        problems.push((field, "only TCP, UDP and SCTP have ports: say which `protocol`".to_owned()));
    }
    for (field, ports) in
        [("source_ports", &rule.source_ports), ("destination_ports", &rule.destination_ports)]
    {
        if !ports.is_empty() && !has_ports {
            problems.push((field, "only TCP, UDP and SCTP have ports: say which `protocol`".to_owned()));
        }
        let backwards = ports.iter().filter(|range| range.first > range.last);
        problems.extend(backwards.map(|range| (field, format!("{range} runs backwards"))));
    }
    if !rule.icmp.is_empty() && !rule.protocol.is_some_and(|protocol| protocol.is_icmp()) {
        problems.push(("icmp", "only ICMP has types: say `protocol = \"icmp\"`, or `\"icmpv6\"`".to_owned()));
    }
    if rule.stateless && rule.action != AclAction::Allow {
        let text = "only what is allowed could be a flow: leave `stateless` out, or say `action = \"allow\"`";
        problems.push(("stateless", text.to_owned()));
    }
    if rule.tcp_flags.is_some() && rule.protocol != Some(IpProtocol::TCP) {
        problems.push(("tcp_flags", "only TCP has these flags: say `protocol = \"tcp\"`".to_owned()));
    }
    for (field, macs) in [("source_mac", &rule.source_mac), ("destination_mac", &rule.destination_mac)] {
        let first = macs.first().map(|it| it.mask);
        if let Some(other) = macs.iter().find(|it| Some(it.mask) != first) {
            let text = format!(
                "the MACs of one rule have the same mask, and {other} has another; make two rules of it"
            );
            problems.push((field, text));
        }
    }
    let lens = [
        ("source_port_sets", rule.source_port_sets.len()),
        ("destination_port_sets", rule.destination_port_sets.len()),
        ("source_mac", rule.source_mac.len()),
        ("destination_mac", rule.destination_mac.len()),
        ("vlan", rule.vlan.len()),
        ("source", rule.source.len()),
        ("destination", rule.destination.len()),
        ("source_sets", rule.source_sets.len()),
        ("destination_sets", rule.destination_sets.len()),
        ("source_ports", rule.source_ports.len()),
        ("destination_ports", rule.destination_ports.len()),
        ("icmp", rule.icmp.len()),
    ];
    let long = lens.into_iter().filter(|(_, len)| *len > RULE_ITEMS_MAX);
    problems.extend(long.map(|(field, len)| {
        (
            field,
            format!("a rule names at most {RULE_ITEMS_MAX} of these, not {len}; make several rules of it"),
        )
    }));
    problems
}
