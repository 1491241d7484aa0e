//! The dull twin: the rules in their order, each compared word by word, with no tables.

use super::fields::is_part;
use super::sets::Sets;
use super::{Header, Input, Ruling, applies};
use crate::policy::to_bits;
use crate::wire::hop::V4_MAPPED;
use switch_api::{AclRule, AclTier, IpProtocol, Mac, MacMask, Name, PolicyType, Prefix};

/// What the lists of a tier say of a packet in one direction of a port: the first rule that is about it, staged ones
/// among them or not.
pub fn judge(
    input: &Input,
    port: u16,
    direction: PolicyType,
    tier: AclTier,
    staged: bool,
    header: &Header,
) -> Option<Ruling> {
    let port = input.ports.iter().find(|candidate| candidate.port == port)?;
    let lists = input.acls.iter().filter(|placed| placed.acl.tier == tier);
    let mut lists: Vec<_> = lists.filter(|placed| applies(placed.acl, port, input.namespaces)).collect();
    lists.sort_by(|one, other| {
        let order = one.acl.priority.cmp(&other.acl.priority);
        order.then_with(|| one.acl.name.as_str().cmp(other.acl.name.as_str()))
    });
    for list in lists {
        let (rules, first) = match direction {
            PolicyType::Ingress => (&list.acl.ingress, list.slot),
            PolicyType::Egress => (&list.acl.egress, list.slot + list.acl.ingress.len() as u32),
        };
        for (rule, slot) in rules.iter().zip(first..) {
            if (staged || !rule.staged) && is_about(rule, header, input.sets) {
                return Some(Ruling::of(slot, rule, list.acl));
            }
        }
    }
    None
}

fn is_about(rule: &AclRule, header: &Header, all: &Sets) -> bool {
    let is_in = |prefixes: &[Prefix], sets: &[Name], end: usize| {
        let is_member = |ip, set: &Name| {
            all.get(set).is_some_and(|set| set.members(None).any(|member| contains(&member, ip)))
        };
        let is_named = |ip| {
            prefixes.iter().any(|prefix| contains(prefix, ip)) || sets.iter().any(|set| is_member(ip, set))
        };
        prefixes.is_empty() && sets.is_empty() || header.ends.is_some_and(|ends| is_named(ends[end]))
    };
    if !is_in(&rule.source, &rule.source_sets, 0) || !is_in(&rule.destination, &rule.destination_sets, 1) {
        return false;
    }
    if !is_further(rule, header) {
        return false;
    }
    let Some(protocol) = rule.protocol else { return true };
    if header.ends.is_none() || protocol != IpProtocol(header.protocol) {
        return false;
    }
    let sent_from = |port: u16| rule.source_ports.iter().any(|range| range.contains(port));
    let sent_to = |port: u16| rule.destination_ports.iter().any(|range| range.contains(port));
    let says = |number: u16| {
        let [kind, code] = number.to_be_bytes();
        rule.icmp.iter().any(|it| it.kind == kind && it.code.is_none_or(|wanted| wanted == code))
    };
    (rule.source_ports.is_empty() || header.source_port.is_some_and(sent_from))
        && (rule.destination_ports.is_empty() || header.number.is_some_and(sent_to))
        && (rule.icmp.is_empty() || header.number.is_some_and(says))
}

/// What a rule says beyond addresses and ports.
fn is_further(rule: &AclRule, header: &Header) -> bool {
    let mac = |wanted: &[MacMask], end: usize| {
        let mac = header.frame.map(|frame| Mac::from_u64(frame.macs[end]));
        wanted.is_empty() || mac.is_some_and(|mac| wanted.iter().any(|it| it.contains(mac)))
    };
    let is_in = |vlan: u16| rule.vlan.iter().any(|it| (it.first.get()..=it.last.get()).contains(&vlan));
    rule.tcp_flags.is_none_or(|wanted| header.flags.is_some_and(|flags| wanted.fit(flags)))
        && rule.fragment.is_none_or(|wanted| header.ends.is_some() && is_part(wanted, header.part))
        && (rule.vlan.is_empty() || header.frame.is_some_and(|frame| is_in(frame.vlan)))
        && mac(&rule.source_mac, 0)
        && mac(&rule.destination_mac, 1)
}

fn contains(prefix: &Prefix, ip: u128) -> bool {
    let is_v4 = ip >> 32 == V4_MAPPED >> 32;
    let behind = u32::from(prefix.bits() - prefix.len);
    let same = |one: u128, other: u128| (one ^ other).checked_shr(behind).unwrap_or(0) == 0;
    is_v4 == prefix.address.is_ipv4() && same(to_bits(prefix.address), ip)
}
