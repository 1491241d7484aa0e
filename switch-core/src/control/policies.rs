//! Network policies: changed, listed with what their rules decided, and asked together with access control lists.

use super::acls::{asked_header, peer_of};
use super::daemon::Daemon;
use crate::acl::{self, Header};
use crate::config::Checked;
use crate::config::model::no_such;
use crate::config::nats::SLOTS_OF_NAT;
use crate::config::policies::{DEFAULT_VERDICT, addresses_of, key_of};
use crate::policy::{RULES_MAX, Slot, slots_of, to_bits};
use serde_json::Value;
use std::net::IpAddr;
use switch_api::{
    ApiError, Code, EndpointRef, IpProtocol, Judgement, Name, PolicyAnswer, PolicyExplain, PolicyFilter,
    PolicyStatus, PolicyType, PortKind, Request, RuleCount,
};

impl Daemon {
    /// Changes what policies are made of. What counts from now on counts from zero.
    pub(super) fn change_policy(&mut self, request: &Request) -> Result<Value, ApiError> {
        let checked = self.check(request)?;
        self.clear_new_rules(&checked);
        self.adopt(checked)
    }

    /// Rules of policies and access control lists that come count from zero.
    pub(super) fn clear_new_rules(&self, checked: &Checked) {
        for (key, placed) in &checked.model().policies {
            if self.model.policies.get(key).is_none_or(|before| before.slot != placed.slot) {
                // Whoever had these slots is gone from every worker's snapshot.
                let slots = placed.slot..placed.slot + slots_of(&placed.policy);
                self.rules(slots).for_each(|counter| counter.set(0));
            }
        }
        for (name, placed) in &checked.model().nats {
            if self.model.nats.get(name).is_none_or(|before| before.slot != placed.slot) {
                self.rules(placed.slot..placed.slot + SLOTS_OF_NAT).for_each(|counter| counter.set(0));
            }
        }
        for (name, placed) in &checked.model().acls {
            if self.model.acls.get(name).is_none_or(|before| before.slot != placed.slot) {
                let slots = placed.slot..placed.slot + acl::slots_of(&placed.acl);
                self.rules(slots).for_each(|counter| counter.set(0));
            }
        }
    }

    /// Room for counting rules, as soon as there are any.
    pub(super) fn make_rules(&self) {
        if !self.model.policing.is_idle() || !self.model.listed.is_idle() || !self.model.nats.is_empty() {
            self.counters.iter().for_each(|counters| counters.make_rules(RULES_MAX));
        }
    }

    fn rules(&self, slots: std::ops::Range<Slot>) -> impl Iterator<Item = &crate::counter::Counter> {
        slots.flat_map(|slot| self.counters.iter().filter_map(move |counters| counters.rule(slot)))
    }

    /// Policies, what they select and what their rules decided.
    pub(super) fn list_policies(&self, filter: &PolicyFilter) -> Vec<PolicyStatus> {
        let wanted = |namespace: &String| filter.namespace.as_ref().is_none_or(|only| only == namespace);
        let policies = self.model.policies.iter().filter(|((namespace, _), _)| wanted(namespace));
        let status = |(_, placed): (_, &crate::config::policies::PlacedPolicy)| PolicyStatus {
            policy: (*placed.policy).clone(),
            ports: self.selected_by(&placed.policy),
            rules: (0..slots_of(&placed.policy)).map(|n| self.rule_count(placed.slot + n)).collect(),
        };
        policies.map(status).collect()
    }

    pub(super) fn rule_packets(&self, slot: Slot) -> u64 {
        self.rules(slot..slot + 1).map(|counter| counter.get()).sum()
    }

    pub(super) fn rule_count(&self, slot: Slot) -> RuleCount {
        RuleCount { rule: self.model.rule_name(slot), packets: self.rule_packets(slot) }
    }

    /// What rules dropped: each policy's defaults, and rules of access control lists.
    pub(super) fn policy_drops(&self) -> Vec<RuleCount> {
        let defaults = self.model.policies.values().flat_map(|placed| [placed.slot, placed.slot + 1]);
        defaults
            .map(|slot| self.rule_count(slot))
            .chain(self.acl_drops())
            .filter(|rule| rule.packets > 0)
            .collect()
    }

    fn selected_by(&self, policy: &switch_api::NetworkPolicy) -> Vec<Name> {
        let (namespace, _) = key_of(policy);
        let ports = self.model.ports.values().map(|port| &*port.object);
        let is_selected = |port: &&switch_api::Port| {
            port.workload.as_ref().is_some_and(|workload| {
                workload.namespace == namespace
                    && crate::policy::selects(&policy.spec.pod_selector, &workload.labels)
            })
        };
        ports.filter(is_selected).map(|port| port.name.clone()).collect()
    }

    /// Whether a first packet would pass, and which rule decides.
    pub(super) fn explain_policy(&self, asked: &PolicyExplain) -> Result<PolicyAnswer, ApiError> {
        let (from, to) = self.ends(asked)?;
        let protocol = IpProtocol(asked_header(asked, from, to)?.protocol);
        // Policies are asked about where a packet really goes.
        let named = match &asked.from {
            EndpointRef::Port(name) => self.model.ports.get(name).map(|port| port.id),
            EndpointRef::Address(_) => self.port_at(None, from),
        };
        let vrf = named.and_then(|port| self.vrf_at(port)).unwrap_or_else(Name::main);
        if let Some((nat, to, port)) = self.model.nat_target(&vrf, to, Some(protocol), asked.port) {
            let really = PolicyExplain { to: EndpointRef::Address(to), port, ..asked.clone() };
            let mut answer = self.explain_really(&really, (from, to), &vrf)?;
            answer.egress.why += &format!("; rule {} of network address translation: {}", nat.name, nat.kind);
            return Ok(answer);
        }
        self.explain_really(asked, (from, to), &vrf)
    }

    fn explain_really(
        &self,
        asked: &PolicyExplain,
        (from, to): (IpAddr, IpAddr),
        vrf: &Name,
    ) -> Result<PolicyAnswer, ApiError> {
        let header = asked_header(asked, from, to)?;
        let port = |end: &EndpointRef, ip| match end {
            EndpointRef::Port(name) => self.model.ports.get(name).map(|port| port.id),
            EndpointRef::Address(_) => self.port_at(Some(vrf), ip),
        };
        let (came, own) = (port(&asked.from, from), port(&asked.to, to));
        let towards = own.or_else(|| self.port_towards(vrf, to));
        let mut egress = self.judge([came, towards], &header, PolicyType::Egress);
        let mut ingress = self.judge([towards, came], &header, PolicyType::Ingress);
        let is_workload = |port| self.model.policing.subject(port).is_some_and(|subject| subject.is_workload);
        let router = towards.filter(|port| own.is_none() && is_workload(*port));
        if let Some(router) = router.filter(|_| egress.passes && self.is_isolated(from)) {
            let router = self.port_name(router);
            egress = Judgement {
                passes: false,
                rule: None,
                why: format!(
                    "policy-destination: it is led to workload {router}, which does not have {to}, and what an isolated workload sends to another is for its own addresses"
                ),
            };
        }
        if own.is_none() {
            ingress.why += &self.by_which_port(towards, to);
        }
        Ok(PolicyAnswer { passes: egress.passes && ingress.passes, from, to, egress, ingress })
    }

    /// Whether policies isolate the workload of an address as a sender.
    fn is_isolated(&self, from: IpAddr) -> bool {
        let policing = &self.model.policing;
        let owner = policing.owner_of(to_bits(from)).and_then(|port| policing.subject(port));
        owner.is_some_and(|subject| subject.egress.is_some())
    }

    /// Of which port it was that an address was asked about that no port has.
    fn by_which_port(&self, towards: Option<u16>, to: IpAddr) -> String {
        let judges = |port: u16| self.model.listed.subject(port).chains(PolicyType::Ingress).is_some();
        match towards {
            Some(port) => format!("; {to} is reached by port {}", self.port_name(port)),
            None if self.model.ports.values().any(|port| judges(port.id)) => format!(
                "; by which port {to} is reached is not known just now, and what access control lists or a default verdict say of that port was not asked"
            ),
            None => String::new(),
        }
    }

    /// What is said at one end of a packet, at a port if it is one's: by lists, by policies, and by lists again. `ports` are this end's, and the
    /// other's if that is known.
    pub(super) fn judge(&self, ports: [Option<u16>; 2], header: &Header, direction: PolicyType) -> Judgement {
        let [port, other] = ports;
        let [own, peer] = peer_of(header, direction).unwrap_or([IpAddr::from([0; 4]); 2]);
        let chains = port.map(|port| self.model.listed.subject(port).chains(direction)).unwrap_or_default();
        if port.is_none() || !chains.is_some() {
            return self.judge_policies(own, (peer, other), header, direction);
        }
        let name = self.port_name(port.unwrap_or_default());
        let isolated = port.and_then(|port| self.model.policing.subject(port)?.set(direction)).is_some();
        let mut rehearsed = Vec::new();
        let mut judged = self.judge_tier(chains.before, header, &name, &mut rehearsed);
        if judged.is_none() && !isolated {
            judged = self.judge_tier(chains.after, header, &name, &mut rehearsed);
        }
        if judged.is_none() && !isolated && chains.denies {
            judged = Some(denied_by_default(&name, direction));
        }
        let mut judged = judged.unwrap_or_else(|| self.judge_policies(own, (peer, other), header, direction));
        rehearsed.iter().for_each(|would| judged.why += &format!("; {would}"));
        let asks = port.map(|port| self.model.listed.subject(port)).is_some_and(|subject| match direction {
            PolicyType::Ingress => subject.ingress_frames,
            PolicyType::Egress => subject.egress_frames,
        });
        if asks && header.frame.is_none() {
            judged.why += &format!("; {NO_FRAME}");
        }
        judged
    }

    /// What the policies of `own`'s workload say, with `peer` at the other end, behind a port if that is known.
    fn judge_policies(
        &self,
        own: IpAddr,
        (peer, behind): (IpAddr, Option<u16>),
        header: &Header,
        direction: PolicyType,
    ) -> Judgement {
        let policing = &self.model.policing;
        let class = policing.class(header.protocol, header.number);
        let passes = |why: String| Judgement { passes: true, rule: None, why };
        if policing.is_node(to_bits(own)) {
            return passes(format!("{own} is the node, which no policy isolates"));
        }
        let Some(port) = policing.owner_of(to_bits(own)) else {
            return passes(format!("{own} is no workload of this node"));
        };
        let name = self.name_of(port).map(Name::to_string).unwrap_or_default();
        if policing.is_node(to_bits(peer)) && self.may_be_node(port, peer, behind) {
            return passes(format!(
                "{peer} is the node, which always reaches its pods and is reached by them"
            ));
        }
        if policing.owner_of(to_bits(peer)) == Some(port) {
            return passes("a pod always reaches itself".into());
        }
        let towards = towards(direction);
        match policing.direction(port, direction, to_bits(peer), class) {
            None => passes(format!("no policy isolates port {name} for what {towards}")),
            Some(Ok(slot)) => Judgement {
                passes: true,
                rule: Some(self.model.rule_name(slot)),
                why: format!("port {name} is isolated for what {towards}, and this rule allows it"),
            },
            Some(Err(slot)) => Judgement {
                passes: false,
                rule: Some(self.model.rule_name(slot)),
                why: format!(
                    "port {name} is isolated for what {towards}, and no rule of the policies that select it allows it"
                ),
            },
        }
    }

    /// Whether who has an address of the node's is the node, seen from a workload's port: in another routing table anybody may have it.
    fn may_be_node(&self, own: u16, ip: IpAddr, behind: Option<u16>) -> bool {
        let vrf = self.vrf_at(own);
        let is_here = |bridge: &Name| self.model.bridges.get(bridge).map(|it| &it.object.vrf) == vrf.as_ref();
        let mut gateways = self.model.addresses.iter().filter(|own| own.address.address == ip);
        let mut ports = self.model.ports.values().map(|port| &port.object);
        match behind {
            Some(port) => self.is_host(port),
            None => {
                gateways.any(|own| is_here(&own.bridge))
                    || ports.any(|port| matches!(port.kind, PortKind::Host { .. }) && is_here(&port.bridge))
            }
        }
    }

    /// The routing table that a port's bridge uses.
    pub(super) fn vrf_at(&self, port: u16) -> Option<Name> {
        let port = self.model.ports.values().find(|it| it.id == port)?;
        Some(self.model.bridges.get(&port.object.bridge)?.object.vrf.clone())
    }

    /// The two addresses; of ports those of the same family.
    fn ends(&self, asked: &PolicyExplain) -> Result<(IpAddr, IpAddr), ApiError> {
        let (from, to) = (self.addresses_at(&asked.from)?, self.addresses_at(&asked.to)?);
        let pairs = from.iter().flat_map(|from| to.iter().map(move |to| (*from, *to)));
        let mut pairs = pairs.filter(|(from, to)| from.is_ipv4() == to.is_ipv4());
        pairs.next().ok_or_else(|| {
            ApiError::new(Code::InvalidParams, "the two ends have no addresses of the same IP version")
                .field("to")
                .hint("give addresses, or a workload its addresses with `switch-ctl port label --address`")
        })
    }

    fn addresses_at(&self, end: &EndpointRef) -> Result<Vec<IpAddr>, ApiError> {
        match end {
            EndpointRef::Address(ip) => Ok(vec![*ip]),
            EndpointRef::Port(name) => {
                let port = self.model.ports.get(name).ok_or_else(|| no_such("port", name))?;
                Ok(addresses_of(&port.object))
            }
        }
    }
}

/// What is said where rules ask for what nobody has said.
const NO_FRAME: &str = "its rules about MACs and VLANs were not asked, for nothing is known of the frame: `switch-ctl trace` follows a whole one";

fn towards(direction: PolicyType) -> &'static str {
    match direction {
        PolicyType::Ingress => "comes in",
        PolicyType::Egress => "goes out",
    }
}

fn denied_by_default(port: &Name, direction: PolicyType) -> Judgement {
    let towards = towards(direction);
    Judgement {
        passes: false,
        rule: Some(DEFAULT_VERDICT.into()),
        why: format!(
            "no list and no policy decides, and port {port} denies what {towards} then (`port set {port} --default-…`)"
        ),
    }
}
