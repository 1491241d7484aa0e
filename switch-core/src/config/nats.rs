//! Network address translation: what may be declared, and what of it workers read.

use super::checked::Problem;
use super::gateway::{is_v4, number_vrfs, to_bits};
use super::model::{Model, no_such};
use crate::nat::{Compiled, NATS_MAX, Network, RULE_ITEMS_MAX, SOURCE_RULES_MAX, Source, Target};
use crate::policy::Slot;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use switch_api::{ApiError, IpProtocol, Name, Nat, NatKind, PortRange, Prefix};

/// What a rule counts: flows that it made, and packets for which no port was free.
pub const SLOTS_OF_NAT: u32 = 2;

/// A rule, its number and where it counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlacedNat {
    /// From 1; as long as the rule lives and means the same its own.
    pub id: u16,
    /// Its first slot.
    pub slot: Slot,
    /// As declared.
    pub nat: Arc<Nat>,
}

impl Model {
    pub(super) fn set_nat(&mut self, nat: &Nat) -> Result<(), ApiError> {
        let before = self.nats.remove(&nat.name);
        let source = |nat: &Nat| matches!(nat.kind, NatKind::Source { .. });
        let sources = self.nats.values().filter(|placed| source(&placed.nat)).count();
        for (is, most, what) in [
            (self.nats.len(), NATS_MAX, "rules"),
            (if source(nat) { sources } else { 0 }, SOURCE_RULES_MAX, "source rules"),
        ] {
            if is >= most {
                return Err(ApiError::full(
                    most,
                    &format!("{what} of network address translation"),
                    "nat list",
                ));
            }
        }
        // It stays its owner's.
        let owner = before.as_ref().map_or(nat.owner, |before| before.nat.owner);
        let nat = Arc::new(Nat { owner, ..nat.clone() });
        let placed = match before {
            Some(before) if before.nat == nat => before,
            // One that means something else is another: what the old one translated is known by its number.
            before => {
                let used: BTreeSet<u16> = self.nats.values().map(|placed| placed.id).collect();
                let taken = |id: &u16| used.contains(id) || before.as_ref().is_some_and(|it| it.id == *id);
                let id = (1..=u16::MAX).find(|id| !taken(id)).unwrap_or(u16::MAX);
                PlacedNat { id, slot: self.free_slots(SLOTS_OF_NAT)?, nat }
            }
        };
        self.nats.insert(placed.nat.name.clone(), placed);
        Ok(())
    }

    pub(super) fn delete_nat(&mut self, name: &Name) -> Result<(), ApiError> {
        self.nats.remove(name).map(drop).ok_or_else(|| no_such("nat", name))
    }

    /// Rules that take an address of a routing table for themselves.
    pub fn nats_of(&self, vrf: &Name, ip: IpAddr) -> Vec<&Nat> {
        let rules = self.nats.values().map(|placed| &*placed.nat).filter(|nat| nat.vrf == *vrf);
        rules.filter(|nat| addresses(&nat.kind).contains(&ip)).collect()
    }

    /// Where what is sent to an address and port really goes, and which rule says so.
    pub fn nat_target(
        &self,
        vrf: &Name,
        ip: IpAddr,
        protocol: Option<IpProtocol>,
        port: Option<u16>,
    ) -> Option<(&Nat, IpAddr, Option<u16>)> {
        let mut best: Option<(u8, &Nat, IpAddr, Option<u16>)> = None;
        for nat in self.nats_of(vrf, ip) {
            let (says, to, to_port) = match &nat.kind {
                NatKind::Destination { protocol: only, port: number, to, to_port, .. } => {
                    if only.is_some_and(|only| Some(only) != protocol) || number.is_some() && *number != port
                    {
                        continue;
                    }
                    (u8::from(only.is_some()) + u8::from(number.is_some()), *to, *to_port)
                }
                NatKind::OneToOne { internal, .. } => (0, *internal, None),
                NatKind::Source { .. } => continue,
            };
            // The one that says more counts.
            if best.is_none_or(|(before, ..)| says >= before) {
                best = Some((says, nat, to, to_port.or(port)));
            }
        }
        best.map(|(_, nat, to, port)| (nat, to, port))
    }
}

/// Addresses that a rule takes for itself.
pub(super) fn addresses(kind: &NatKind) -> Vec<IpAddr> {
    match kind {
        NatKind::Source { to, .. } => to.clone(),
        NatKind::Destination { address, .. } => vec![*address],
        NatKind::OneToOne { external, .. } => vec![*external],
    }
}

fn network(prefix: &Prefix) -> Network {
    let len = 128 - u32::from(prefix.bits()) + u32::from(prefix.len);
    let mask = u128::MAX.checked_shl(128 - len).unwrap_or(0);
    Network { ip: to_bits(prefix.address) & mask, mask }
}

/// What workers read of the rules.
pub fn compile(model: &Model) -> Compiled {
    let mut compiled = Compiled { published: model.published(), ..Compiled::default() };
    if model.nats.is_empty() {
        return compiled;
    }
    let vrfs = number_vrfs(model);
    let nics = model.nics.values().flat_map(|nic| &nic.addresses);
    compiled.nics = nics.map(|own| to_bits(own.address)).collect();
    let mut sources = Vec::new();
    for placed in model.nats.values() {
        // A table that no bridge has leads nobody anywhere.
        let Some(vrf) = vrfs.get(&placed.nat.vrf).copied() else { continue };
        let rule = placed.id;
        compiled.slots.insert(rule, placed.slot);
        // What a NIC's own address has beyond a rule is the kernel's.
        let lone = addresses(&placed.nat.kind).into_iter().filter(|ip| !model.is_nics(*ip));
        compiled.addresses.extend(lone.map(|ip| (vrf, to_bits(ip))));
        match &placed.nat.kind {
            NatKind::Source { from, except, out, to, ports, priority } => {
                let networks = |prefixes: &[Prefix]| prefixes.iter().map(network).collect();
                let source = Source {
                    vrf,
                    rule,
                    from: networks(from),
                    except: networks(except),
                    out: out.as_ref().map(|bridge| fids_of(model, bridge)),
                    to: to.iter().copied().map(to_bits).collect(),
                    ports: span(*ports),
                    on_a_nic: span(super::taken::on_a_nic(*ports)),
                };
                sources.push((*priority, &placed.nat.name, source));
            }
            NatKind::Destination { address, protocol, port, to, to_port } => {
                let wanted = (vrf, to_bits(*address), protocol.map_or(0, |it| it.0), port.unwrap_or(0));
                let target = Target { ip: to_bits(*to), port: to_port.unwrap_or(0), rule };
                compiled.destinations.insert(wanted, target);
            }
            NatKind::OneToOne { external, internal } => {
                let (external, internal) = (to_bits(*external), to_bits(*internal));
                let target = Target { ip: internal, port: 0, rule };
                compiled.destinations.insert((vrf, external, 0, 0), target);
                compiled.one_to_one.insert((vrf, internal), (external, rule));
            }
        }
    }
    sources.sort_by_key(|(priority, name, _)| (*priority, (*name).clone()));
    compiled.sources = sources.into_iter().map(|(.., source)| source).collect();
    compiled
}

fn span(ports: PortRange) -> (u16, u32) {
    (ports.first, u32::from(ports.last - ports.first) + 1)
}

fn fids_of(model: &Model, bridge: &Name) -> Box<[u16]> {
    let Some(bridge) = model.bridges.get(bridge) else { return Box::default() };
    let of = model.fids.iter().filter(|((id, _), _)| *id == bridge.id);
    of.map(|(_, fid)| *fid).collect()
}

/// Every contradiction among the rules.
pub(super) fn check(model: &Model, problems: &mut Vec<Problem>) {
    let own: BTreeSet<u128> = model.addresses.iter().map(|own| to_bits(own.address.address)).collect();
    let mut wanted: BTreeMap<(&Name, u128, u8, u16), &Name> = BTreeMap::new();
    let mut internals: BTreeMap<(&Name, IpAddr), &Name> = BTreeMap::new();
    for nat in model.nats.values().map(|placed| &*placed.nat) {
        problems.extend(
            rule(&nat.kind, &own).into_iter().map(|(field, text)| Problem::new(field, text).about(nat)),
        );
        let (key, field) = match &nat.kind {
            NatKind::Source { .. } => continue,
            NatKind::Destination { address, protocol, port, .. } => {
                ((&nat.vrf, to_bits(*address), protocol.map_or(0, |it| it.0), port.unwrap_or(0)), "address")
            }
            NatKind::OneToOne { external, internal } => {
                if let Some(other) = internals.insert((&nat.vrf, *internal), &nat.name) {
                    let text =
                        format!("{internal} cannot have two external addresses: {other} and {}", nat.name);
                    problems.push(Problem::new("internal", text).about(nat));
                }
                ((&nat.vrf, to_bits(*external), 0, 0), "external")
            }
        };
        if let Some(other) = wanted.insert(key, &nat.name) {
            let text =
                format!("{other} and {} are about the same packets, and only one can have them", nat.name);
            problems.push(Problem::new(field, text).about(nat));
        }
    }
}

/// What is wrong with a rule by itself.
fn rule(kind: &NatKind, own: &BTreeSet<u128>) -> Vec<(&'static str, String)> {
    let mut problems = Vec::new();
    let mut problem = |field: &'static str, text: String| problems.push((field, text));
    let mut two = |field: &'static str, one: &IpAddr, other: &IpAddr, own: &BTreeSet<u128>| {
        for ip in [one, other] {
            if !is_host(*ip) {
                problem(field, format!("{ip} is no host's address"));
            }
        }
        if one.is_ipv4() != other.is_ipv4() {
            problem(
                field,
                format!("{one} and {other} are of two IP versions; there is no translation between these"),
            );
        } else if one == other {
            problem(field, format!("{one} would stand for itself"));
        }
        if own.contains(&to_bits(*other)) {
            problem(
                field,
                format!("{other} is the switch's own, which serves nothing there; name the host that does"),
            );
        }
    };
    match kind {
        NatKind::OneToOne { external, internal } => {
            two("internal", external, internal, own);
            if own.contains(&to_bits(*external)) {
                let text = format!(
                    "{external} is the switch's own, and all of it would be {internal}'s; use another address, or a destination rule for each port"
                );
                problem("external", text);
            }
        }
        NatKind::Destination { address, protocol, port, to, to_port } => {
            two("to", address, to, own);
            match protocol {
                Some(protocol) if !protocol.has_ports() => {
                    problem(
                        "protocol",
                        format!("{protocol} has no ports: name tcp, udp or sctp, or none for everything"),
                    );
                }
                None if port.is_some() || to_port.is_some() => {
                    problem("protocol", "a port is one of a protocol: name tcp or udp".into());
                }
                None if own.contains(&to_bits(*address)) => {
                    let text = format!(
                        "{address} is the switch's own, and all of it would go to {to}; name protocol and port, or use another address"
                    );
                    problem("address", text);
                }
                _ => {}
            }
            if [*port, *to_port].contains(&Some(0)) {
                problem("port", "port 0 is nobody's".into());
            }
            let same = |to_port: u16| Some(to_port) == *port;
            if *protocol == Some(IpProtocol::SCTP) && to_port.is_some_and(|to_port| !same(to_port)) {
                problem("to_port", "ports of SCTP are not translated: its checksum would have to be computed anew over every packet".into());
            }
        }
        NatKind::Source { from, except, to, ports, .. } => {
            for (field, len) in [("from", from.len()), ("except", except.len()), ("to", to.len())] {
                if len > RULE_ITEMS_MAX {
                    problem(field, format!("a rule names no more than {RULE_ITEMS_MAX}"));
                }
            }
            for (field, prefixes) in [("from", from), ("except", except)] {
                for strange in prefixes.iter().filter(|prefix| prefix.network() != **prefix) {
                    let text = format!(
                        "{strange} is no network: bits behind its prefix are set; write {}",
                        strange.network()
                    );
                    problem(field, text);
                }
            }
            for ip in to.iter().filter(|ip| !is_host(**ip)) {
                problem("to", format!("{ip} is no host's address"));
            }
            if ports.first == 0 {
                problem("ports", "port 0 is nobody's".into());
            }
        }
    }
    problems
}

/// Whether packets can be from and to an address over a router.
fn is_host(ip: IpAddr) -> bool {
    let bits = to_bits(ip);
    match ip {
        IpAddr::V4(ip) => !ip.is_loopback() && (1..224).contains(&ip.octets()[0]),
        IpAddr::V6(ip) => bits > 1 && !ip.is_multicast() && !ip.is_unicast_link_local() && !is_v4(bits),
    }
}

#[cfg(not(loom))]
#[cfg(test)]
mod tests {
    use super::super::Checked;
    use super::*;
    use switch_api::Request;

    fn declare(model: &Model, rule: &str) -> Result<Model, ApiError> {
        let nat: Nat = serde_json::from_str(&rule.replace('\'', "\"")).unwrap();
        let next = model.apply(&Request::NatSet(Box::new(nat)))?;
        Checked::after(model, next, 1).map(|checked| checked.model().clone())
    }

    /// A bridge with 10.1.0.1/24.
    fn model() -> Model {
        let request = |method: &str, params: serde_json::Value| -> Request {
            serde_json::from_value(serde_json::json!({ "method": method, "params": params })).unwrap()
        };
        let model =
            Model::default().apply(&request("bridge.add", serde_json::json!({ "name": "b" }))).unwrap();
        let address = serde_json::json!({ "bridge": "b", "address": "10.1.0.1/24" });
        model.apply(&request("bridge.address.add", address)).unwrap()
    }

    #[test]
    fn what_would_mislead_is_refused_with_its_field() {
        let d = "'name':'d','kind':'destination','address':'192.0.2.1'";
        for (rule, field, text) in [
            (format!("{{{d},'to':'fd00::1'}}"), "to", "two IP versions"),
            (format!("{{{d},'to':'192.0.2.1'}}"), "to", "itself"),
            (format!("{{{d},'to':'10.1.0.1'}}"), "to", "the switch's own"),
            (format!("{{{d},'to':'224.0.0.1'}}"), "to", "no host's"),
            (format!("{{{d},'to':'10.1.0.5','port':80}}"), "protocol", "tcp or udp"),
            (format!("{{{d},'to':'10.1.0.5','protocol':'icmp'}}"), "protocol", "no ports"),
            (format!("{{{d},'to':'10.1.0.5','protocol':'sctp','port':1,'to_port':2}}"), "to_port", "SCTP"),
            (format!("{{{d},'to':'10.1.0.5','protocol':'tcp','port':0}}"), "port", "nobody's"),
            (
                "{'name':'d','kind':'destination','address':'10.1.0.1','to':'10.1.0.5'}".into(),
                "address",
                "all of it",
            ),
            (
                "{'name':'o','kind':'one-to-one','external':'10.1.0.1','internal':'10.1.0.5'}".into(),
                "external",
                "own",
            ),
            ("{'name':'s','kind':'source','from':['10.1.0.1/24']}".into(), "from", "10.1.0.0/24"),
            ("{'name':'s','kind':'source','to':['127.0.0.1']}".into(), "to", "no host's"),
            ("{'name':'s','kind':'source','ports':'0-9'}".into(), "ports", "port 0"),
        ] {
            let error = declare(&model(), &rule).expect_err(&rule);
            let told = &error.data.problems[0];
            assert_eq!(told.field.as_deref(), Some(field), "{rule}: {error:?}");
            assert!(told.message.contains(text), "{rule}: {}", told.message);
        }
    }

    #[test]
    fn two_rules_cannot_have_the_same_packets() {
        let one = declare(
            &model(),
            "{'name':'a','kind':'one-to-one','external':'192.0.2.1','internal':'10.1.0.5'}",
        )
        .unwrap();
        let all = "{'name':'b','kind':'destination','address':'192.0.2.1','to':'10.1.0.6'}";
        assert!(declare(&one, all).unwrap_err().message.contains("same packets"));
        let twice = "{'name':'b','kind':'one-to-one','external':'192.0.2.2','internal':'10.1.0.5'}";
        assert!(declare(&one, twice).unwrap_err().message.contains("two external"));
        // What says more is about less.
        let port = "{'name':'b','kind':'destination','address':'192.0.2.1','protocol':'tcp','port':80,'to':'10.1.0.6'}";
        let both = declare(&one, port).unwrap();
        let compiled = compile(&both);
        let ip = |text: &str| to_bits(text.parse().unwrap());
        let goes = |protocol, port| compiled.destination(0, ip("192.0.2.1"), protocol, port).unwrap().ip;
        assert_eq!([goes(6, 80), goes(6, 81), goes(17, 80)], ["10.1.0.6", "10.1.0.5", "10.1.0.5"].map(ip));
    }

    /// What is known of a rule's flows is known by its number: another meaning is another number.
    #[test]
    fn a_rule_keeps_its_number_as_long_as_it_means_the_same() {
        let rule =
            |to: &str| format!("{{'name':'d','kind':'destination','address':'192.0.2.1','to':'{to}'}}");
        let first = declare(&model(), &rule("10.1.0.5")).unwrap();
        let same = declare(&first, &rule("10.1.0.5")).unwrap();
        assert_eq!(first.nats, same.nats);
        let other = declare(&first, &rule("10.1.0.6")).unwrap();
        let placed = |model: &Model| model.nats.values().next().map(|it| it.id);
        assert_ne!(placed(&first), placed(&other));
        assert!(other.nats.values().all(|it| it.id != 0));
    }

    #[test]
    fn addresses_in_a_bridges_network_are_answered_for() {
        let rule = "{'name':'s','kind':'source','to':['10.1.0.9','192.0.2.9','10.1.0.1']}";
        let model = declare(&model(), rule).unwrap();
        let (gateways, _) = super::super::gateway::compile(&model, &Default::default());
        let gateway = gateways.values().next().unwrap();
        assert_eq!(*gateway.stands_for, [to_bits("10.1.0.9".parse().unwrap())]);
        assert!(gateway.answers_for(to_bits("10.1.0.9".parse().unwrap())));
    }
}
