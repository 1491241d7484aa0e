//! Lists and policies together, as the packet path asks them: what a change of either does is judged by this.

use super::{Chains, Compiled, Header};
use crate::policy::diff::World;
use crate::policy::{self, End, Question, Slot};
use crate::table::probes::Uncounted;
use crate::wire::hop::V4_MAPPED;
use crate::wire::ip::{ICMP, ICMPV6};
use std::collections::BTreeSet;
use switch_api::{AclAction, EXPLAIN_SOURCE_PORT, PolicyType, Protocol};

/// An echo request of ICMP (RFC 792), and of ICMPv6 (RFC 4443).
const ECHO: [[u8; 2]; 2] = [[8, 0], [128, 0]];

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct Judging<'a> {
    /// Network policies.
    pub policies: &'a policy::Compiled,
    /// Access control lists.
    pub lists: &'a Compiled,
}

/// What is asked about first packets between two ends, whatever their ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Asked {
    policies: Question,
    /// The sender's lists and the receiver's.
    lists: [Chains; 2],
    identities: [u32; 2],
    is_v4: bool,
}

impl World for Judging<'_> {
    type Asked = Asked;

    fn epoch(&self, port: u16) -> u64 {
        World::epoch(self.policies, port) ^ self.lists.subject(port).epoch.rotate_left(31)
    }

    fn starts(&self, protocol: Protocol) -> BTreeSet<u16> {
        let mut starts = World::starts(self.policies, protocol);
        starts.extend(self.lists.services.starts(protocol));
        starts
    }

    fn ask(&self, from: End, to: End) -> Asked {
        let is_same = from.port.is_some() && from.port == to.port;
        let chains = |end: End, direction| {
            let subject = end.port.filter(|_| !is_same).map(|port| self.lists.subject(port));
            subject.map_or_else(Chains::default, |subject| subject.chains(direction))
        };
        Asked {
            policies: self.policies.question(self.workload(from), self.workload(to)),
            lists: [chains(from, PolicyType::Egress), chains(to, PolicyType::Ingress)],
            identities: [from.ip, to.ip].map(|ip| self.lists.identities.of(ip, Uncounted)),
            is_v4: from.ip >> 32 == V4_MAPPED >> 32,
        }
    }

    fn answer(&self, asked: &Asked, protocol: u8, port: Option<u16>) -> Result<Option<Slot>, Slot> {
        let policies = self.policies.ends(&asked.policies, self.policies.class(protocol, port));
        let header = header(asked.is_v4, protocol, port);
        let mut allowed = None;
        for (lists, policy) in asked.lists.into_iter().zip(policies) {
            let tier = |chain: Option<u32>| self.lists.judge_as(chain?, asked.identities, &header, Uncounted);
            let said = |ruling: super::Ruling| match ruling.action {
                AclAction::Allow => Some(Ok(ruling.slot)),
                AclAction::Deny | AclAction::Reject => Some(Err(ruling.slot)),
                AclAction::Pass => None,
            };
            let before = tier(lists.before.enforced).and_then(said);
            let verdict = before.or(policy).or_else(|| tier(lists.after.enforced).and_then(said));
            let verdict = verdict.or(lists.denies.then_some(Err(super::DEFAULT)));
            if let Some(verdict) = verdict {
                allowed = Some(verdict?);
            }
        }
        Ok(allowed)
    }
}

impl Judging<'_> {
    /// An end as policies see it: a port that is no workload's is nobody's to them.
    fn workload(&self, end: End) -> End {
        End { port: end.port.filter(|port| self.policies.subject(*port).is_some()), ..end }
    }
}

/// A first packet of which no more is known; its identities are. Of ICMP it is a question, whatever its identifier.
fn header(is_v4: bool, protocol: u8, port: Option<u16>) -> Header {
    let ends = if is_v4 { [V4_MAPPED; 2] } else { [0; 2] };
    match (protocol, port) {
        (ICMP, _) | (_, None) if is_v4 => Header::new(ends, ICMP, [0; 2], ECHO[0]),
        (ICMPV6, _) | (_, None) if !is_v4 => Header::new(ends, ICMPV6, [0; 2], ECHO[1]),
        // Crossed over they are some protocol, as packets are read.
        (_, port) => Header::new(ends, protocol, [EXPLAIN_SOURCE_PORT, port.unwrap_or(0)], [0; 2]),
    }
}
