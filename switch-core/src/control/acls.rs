//! Access control lists: listed with what their rules decided, and asked. Changed they are as policies are.

use super::daemon::Daemon;
use crate::acl::{Header, Tier, slots_of};
use crate::config::gateway::{from_bits, to_bits};
use crate::config::policies::addresses_of;
use crate::wire::ip::ICMPV6;
use std::net::IpAddr;
use switch_api::{
    AclAction, AclStatus, ApiError, Code, EXPLAIN_SOURCE_PORT, IcmpKind, IpProtocol, Judgement, Name,
    PolicyExplain, PolicyType, RuleCount,
};

impl Daemon {
    /// Lists, the ports that they are for and what their rules decided.
    pub(super) fn list_acls(&self) -> Vec<AclStatus> {
        let status = |placed: &crate::config::acls::PlacedAcl| AclStatus {
            acl: (*placed.acl).clone(),
            ports: self.model.ports_of_acl(&placed.acl).cloned().collect(),
            rules: (0..slots_of(&placed.acl)).map(|n| self.rule_count(placed.slot + n)).collect(),
        };
        self.model.acls.values().map(status).collect()
    }

    /// What rules of lists dropped.
    pub(super) fn acl_drops(&self) -> impl Iterator<Item = RuleCount> {
        self.model.acls.values().flat_map(|placed| {
            let rules = placed.acl.ingress.iter().chain(&placed.acl.egress).zip(placed.slot..);
            let denies = rules.filter(|(rule, _)| rule.action.stops() && !rule.staged);
            denies.map(|(_, slot)| self.rule_count(slot))
        })
    }

    /// What a tier's lists say, if they decide; what its staged rules would have said is put into `rehearsed`.
    pub(super) fn judge_tier(
        &self,
        tier: Tier,
        header: &Header,
        port: &Name,
        rehearsed: &mut Vec<String>,
    ) -> Option<Judgement> {
        let lists = &self.model.listed;
        let would = lists.rehearse(tier, header);
        rehearsed.extend(would.map(|ruling| {
            let does = format!("{:?}", ruling.action).to_lowercase();
            format!("staged, and would {does} it: {}", self.model.rule_name(ruling.slot))
        }));
        let ruling = lists.judge(tier.enforced?, header)?;
        let rule = Some(self.model.rule_name(ruling.slot));
        let judgement = |passes, why| Some(Judgement { passes, rule, why });
        match ruling.action {
            AclAction::Allow => judgement(true, format!("port {port} has this rule, and it allows it")),
            AclAction::Deny => judgement(false, format!("port {port} has this rule, and it denies it")),
            AclAction::Reject => {
                judgement(false, format!("port {port} has this rule, and it rejects it: the sender is told"))
            }
            AclAction::Pass => None,
        }
    }

    /// The port that has an address, as a workload or on the device that was made for it: of one routing table, or of any.
    pub(super) fn port_at(&self, vrf: Option<&Name>, ip: IpAddr) -> Option<u16> {
        let is_here = |port: &u16| vrf.is_none_or(|vrf| self.vrf_at(*port).is_none_or(|its| its == *vrf));
        let with_address = || {
            let ports = self.model.ports.values();
            let has_it = ports.filter(|port| addresses_of(&port.object).contains(&ip));
            has_it.map(|port| port.id).find(is_here)
        };
        self.model.policing.owner_of(to_bits(ip)).filter(is_here).or_else(with_address)
    }
}

/// The first packet of whom `policy explain` asks about.
pub(super) fn asked_header(asked: &PolicyExplain, from: IpAddr, to: IpAddr) -> Result<Header, ApiError> {
    let refuse = |field, text| {
        let example = "ask as `switch-ctl policy explain web db tcp 5432`; its --help has more";
        Err(ApiError::new(Code::InvalidParams, text).field(field).hint(example))
    };
    let echoes = if from.is_ipv4() { IpProtocol::ICMP } else { IpProtocol::ICMPV6 };
    let protocol = asked.protocol.unwrap_or(echoes);
    if asked.port.is_some() != protocol.has_ports() {
        return refuse("port", "TCP, UDP and SCTP have a port, and nothing else has one");
    }
    if asked.source_port.is_some() && !protocol.has_ports() {
        return refuse("source_port", "only TCP, UDP and SCTP have ports");
    }
    if asked.icmp.is_some() && !protocol.is_icmp() {
        return refuse("icmp", "only ICMP has a type and a code");
    }
    if protocol.is_icmp() && protocol != echoes {
        return refuse("protocol", "ICMP is of IPv4, ICMPv6 of IPv6, and the ends are of the other one");
    }
    let ports = [asked.source_port.unwrap_or(EXPLAIN_SOURCE_PORT), asked.port.unwrap_or(0)];
    let icmp = asked.icmp.map(|IcmpKind { kind, code }| [kind, code.unwrap_or(0)]);
    let ends = [to_bits(from), to_bits(to)];
    Ok(Header::new(ends, protocol.0, ports, icmp.unwrap_or_else(|| echo_request(protocol.0))))
}

/// A ping's type and code.
pub(super) fn echo_request(protocol: u8) -> [u8; 2] {
    if protocol == ICMPV6 { [128, 0] } else { [8, 0] }
}

/// The other end of a packet, seen from one.
pub(super) fn peer_of(header: &Header, direction: PolicyType) -> Option<[IpAddr; 2]> {
    let [src, dst] = header.ends?.map(from_bits);
    Some(match direction {
        PolicyType::Egress => [src, dst],
        PolicyType::Ingress => [dst, src],
    })
}
