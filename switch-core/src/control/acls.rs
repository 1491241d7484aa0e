//! Access control lists: listed with what their rules decided, and asked. Changed they are as policies are.

use super::daemon::Daemon;
use crate::acl::{Header, Tier, slots_of};
use crate::config::gateway::{from_bits, to_bits};
use crate::config::policies::addresses_of;
use crate::wire::ip::{ICMP, ICMPV6, SCTP, TCP, UDP};
use std::net::IpAddr;
use switch_api::{
    AclAction, AclStatus, ApiError, Code, EXPLAIN_SOURCE_PORT, IcmpKind, Judgement, Name, PolicyExplain,
    PolicyType, Protocol, RuleCount,
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

    /// The port that has an address: as a workload, or on the device that was made for it.
    pub(super) fn port_at(&self, ip: IpAddr) -> Option<u16> {
        let with_address = || {
            let mut ports = self.model.ports.values();
            ports.find(|port| addresses_of(&port.object).contains(&ip)).map(|port| port.id)
        };
        self.model.policing.owner_of(to_bits(ip)).or_else(with_address)
    }
}

/// The first packet of whom `policy explain` asks about.
pub(super) fn asked_header(asked: &PolicyExplain, from: IpAddr, to: IpAddr) -> Result<Header, ApiError> {
    let refuse = |field, text| {
        let example = "ask as `switch-ctl policy explain web db tcp 5432`; its --help has more";
        Err(ApiError::new(Code::InvalidParams, text).field(field).hint(example))
    };
    if asked.port.is_some() != asked.protocol.is_some() {
        return refuse(
            "port",
            "TCP, UDP and SCTP have a port, and nothing else has one: give both, or neither for ICMP and the like",
        );
    }
    if asked.source_port.is_some() && asked.protocol.is_none() {
        return refuse("source_port", "a packet without a protocol is ICMP, which has no ports");
    }
    if asked.icmp.is_some() && asked.protocol.is_some() {
        return refuse("icmp", "only a packet without a protocol is ICMP");
    }
    let protocol = match (asked.protocol, from) {
        (Some(Protocol::Tcp), _) => TCP,
        (Some(Protocol::Udp), _) => UDP,
        (Some(Protocol::Sctp), _) => SCTP,
        (None, IpAddr::V4(_)) => ICMP,
        (None, IpAddr::V6(_)) => ICMPV6,
    };
    let ports = [asked.source_port.unwrap_or(EXPLAIN_SOURCE_PORT), asked.port.unwrap_or(0)];
    let icmp = asked.icmp.map(|IcmpKind { kind, code }| [kind, code.unwrap_or(0)]);
    let ends = [to_bits(from), to_bits(to)];
    Ok(Header::new(ends, protocol, ports, icmp.unwrap_or_else(|| echo_request(protocol))))
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
