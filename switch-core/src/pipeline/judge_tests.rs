//! What both ends say of a first packet, asked as the packet path asks it, with probes counted, and of the linear twins of lists and of policies; and
//! how many probes that takes.

use super::judge::{Asking, Denied, PROBES_MAX, Probed, V4_PROBES_MAX, both, probed};
use crate::acl::fields::MAC_MASKS_MAX;
use crate::acl::sets::{Set, Sets};
use crate::acl::{self, Candidate, FrameHead, Header, Part};
use crate::config::snapshot::{PortFacts, Snapshot};
use crate::counter::{Counters, DropReason};
use crate::policy::{self, Pod, to_bits};
use crate::wire::hop::V4_MAPPED;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use switch_api::{
    Acl, AclAction, AclTier, Labels, Name, NetworkPolicy, PolicyType, Prefix, Protocol, Workload,
};

/// Ports there are: one that is no workload's, and two that are.
const PORTS: [&str; 3] = ["p0", "p1", "p2"];
/// Rules of one policy.
const RULES_A_POLICY: usize = 250;
/// Networks that lists name, of each end; sets have others beside them.
const NETWORKS: usize = 24;
const SETS: [&str; 3] = ["s0", "s1", "s2"];
const MEMBERS: usize = 200;
const SERVICES: [&str; 8] = ["1-1024", "53", "80", "443", "8000-8999", "1024-65535", "5432", "65535"];
const SOURCES: [&str; 2] = ["1024-65535", "123"];
/// What a rule may say beside, of which a world has two.
const FIELDS: [(&str, [&str; 2]); 5] = [
    ("tcp_flags", ["syn,!ack", "rst"]),
    ("fragment", ["later", "none"]),
    ("vlan", ["10", "20-30"]),
    ("source_mac", ["02:00:00:00:00:01", "02:00:00:00:00:02"]),
    ("destination_mac", ["02:00:00:00:00:00/ff:00:00:00:00:00", "01:00:00:00:00:00/01:00:00:00:00:00"]),
];

/// Random numbers of a seed.
struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    fn below(&mut self, count: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % count
    }

    fn is_one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    fn one<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }

    /// Few different bits, so that networks lie in each other.
    fn address(&mut self, is_v4: bool) -> IpAddr {
        match is_v4 {
            true => {
                Ipv4Addr::from([10, self.below(3) as u8, self.below(256) as u8, self.below(8) as u8]).into()
            }
            false => {
                let word = |dice: &mut Self| (dice.below(3) << 8 | dice.below(64)) as u16;
                let low: [u16; 6] = std::array::from_fn(|_| word(self));
                Ipv6Addr::from([0x2001, 0xdb8, low[0] & 0xf00, low[1], low[2], low[3], low[4], low[5]]).into()
            }
        }
    }

    fn network(&mut self) -> Prefix {
        let is_v4 = self.below(5) < 3;
        let len = if is_v4 { 8 + self.below(25) } else { 24 + self.below(105) };
        Prefix { address: self.address(is_v4), len: len as u8 }.network()
    }

    fn networks(&mut self, count: usize) -> Vec<Prefix> {
        (0..count).map(|_| self.network()).collect()
    }

    /// Somebody in a network, or beside it.
    fn within(&mut self, network: &Prefix) -> u128 {
        let behind = (1u128 << (network.bits() - network.len).min(127)) - 1;
        let any = (self.below(1 << 30) as u128) << 90
            | (self.below(1 << 50) as u128) << 40
            | self.below(1 << 40) as u128;
        let beside = if self.is_one_in(4) { self.below(16) as u128 } else { 0 };
        let ip = to_bits(network.address) | any & behind;
        if network.address.is_ipv4() { ip ^ beside & 0xff } else { ip ^ beside }
    }
}

/// What is declared, and what it is compiled to.
struct World {
    snapshot: Snapshot,
    policies: Vec<NetworkPolicy>,
    workloads: Vec<Workload>,
    acls: Vec<Acl>,
    sets: Sets,
    names: Vec<Name>,
    namespaces: BTreeMap<String, Labels>,
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn workload(n: usize) -> Workload {
    let addresses = vec![format!("10.0.0.{n}").parse().unwrap(), format!("2001:db8::{n}").parse().unwrap()];
    let labels = [("app".to_owned(), ["web", "db"][n - 1].to_owned())].into();
    Workload { namespace: "shop".into(), labels, ports: vec![], addresses }
}

/// A rule of a list: mostly of one or two networks or sets, a protocol and its ports.
fn rule(dice: &mut Dice, ends: &[Vec<Prefix>; 2], fields: [usize; 2]) -> Value {
    let mut rule = json!({ "action": dice.one(&["allow", "allow", "allow", "deny", "pass", "reject"]) });
    for (end, networks) in ["source", "destination"].iter().zip(ends) {
        match dice.below(10) {
            0 | 1 => {}
            2 => rule[format!("{end}_sets")] = json!([dice.one(&SETS)]),
            3 => rule[*end] = json!([networks[dice.below(NETWORKS)], networks[dice.below(NETWORKS)]]),
            _ => rule[*end] = json!([networks[dice.below(NETWORKS)]]),
        }
    }
    if let Some(protocol) =
        dice.one(&[Some("tcp"), Some("tcp"), Some("udp"), Some("icmp"), Some("icmpv6"), None])
    {
        rule["protocol"] = json!(protocol);
        match protocol {
            "tcp" | "udp" => {
                rule["destination_ports"] = json!([dice.one(&SERVICES)]);
                if dice.is_one_in(10) {
                    rule["source_ports"] = json!([dice.one(&SOURCES)]);
                }
            }
            _ => rule["icmp"] = json!([dice.one(&["8", "128/0", "3/1"])]),
        }
    }
    for field in fields {
        let (key, values) = FIELDS[field];
        if dice.is_one_in(20) && (key != "tcp_flags" || rule["protocol"] == "tcp") {
            let value = json!(dice.one(&values));
            rule[key] = if matches!(key, "tcp_flags" | "fragment") { value } else { json!([value]) };
        }
    }
    for flag in ["staged", "log", "stateless"] {
        if dice.is_one_in(12) && (flag != "stateless" || rule["action"] == "allow") {
            rule[flag] = json!(true);
        }
    }
    rule
}

/// So many rules of lists, and as many of policies.
fn world(seed: u64, rules: usize) -> (World, Vec<Prefix>) {
    let mut dice = Dice::new(seed);
    let ends = [0, 1].map(|_| dice.networks(NETWORKS));
    let first = dice.below(FIELDS.len());
    let fields = [first, (first + 1 + dice.below(FIELDS.len() - 1)) % FIELDS.len()];
    let mut acls = Vec::new();
    for (n, (tier, whom)) in [
        ("before", json!({ "all": true })),
        ("before", json!({ "ports": ["p1"] })),
        ("after", json!({ "all": true })),
    ]
    .iter()
    .enumerate()
    {
        let mut some = |count: usize| (0..count).map(|_| rule(&mut dice, &ends, fields)).collect::<Vec<_>>();
        let list = json!({
            "name": format!("l{n}"), "tier": tier, "priority": 3 - n, "applies_to": whom,
            "ingress": some(rules.div_ceil(6)), "egress": some(rules / 6),
        });
        acls.push(serde_json::from_value(list).unwrap());
    }
    let mut sets = Sets::default();
    for set in SETS {
        let mut members = Set::default();
        dice.networks(MEMBERS).into_iter().for_each(|member| _ = members.put(member, true));
        sets.insert(name(set), members);
    }
    let blocks = dice.networks(rules);
    let policies =
        blocks.chunks(RULES_A_POLICY).enumerate().map(|(n, blocks)| policy(&mut dice, n, blocks)).collect();
    let world = World::new(policies, acls, sets);
    (world, ends.concat().into_iter().chain(blocks).collect())
}

/// A policy about one of the two workloads, one way or both.
fn policy(dice: &mut Dice, n: usize, blocks: &[Prefix]) -> NetworkPolicy {
    let mut ways = [Vec::new(), Vec::new()];
    for block in blocks {
        let range = |(first, last): (u16, u16)| json!({ "protocol": protocol_of(first), "port": first, "endPort": last });
        let ports = [range(dice.one(&[(1, 1024), (53, 53), (443, 443), (8000, 8999), (5432, 5432)]))];
        let whom = match dice.below(10) {
            0 => json!([{ "podSelector": { "matchLabels": { "app": dice.one(&["web", "db"]) } } }]),
            _ => json!([{ "ipBlock": { "cidr": block.to_string() } }]),
        };
        let way = dice.below(2);
        ways[way].push(json!({ ["from", "to"][way]: whom, "ports": ports }));
    }
    let types = dice.one(&[&["Ingress", "Egress"][..], &["Ingress"], &["Egress"]]);
    let [ingress, egress] = ways;
    serde_json::from_value(json!({
        "metadata": { "name": format!("n{n}"), "namespace": "shop" },
        "spec": {
            "podSelector": { "matchLabels": { "app": dice.one(&["web", "db"]) } },
            "policyTypes": types, "ingress": ingress, "egress": egress,
        },
    }))
    .unwrap()
}

/// The one protocol that rules of policies have a port of, here.
fn protocol_of(port: u16) -> &'static str {
    if port == 53 { "UDP" } else { "TCP" }
}

impl World {
    fn new(policies: Vec<NetworkPolicy>, acls: Vec<Acl>, sets: Sets) -> Self {
        let (workloads, names) = ([1, 2].map(workload).into(), PORTS.map(name).into());
        let (snapshot, namespaces) = (Snapshot::empty(), BTreeMap::new());
        let mut new = Self { snapshot, policies, workloads, acls, sets, names, namespaces };
        new.compile();
        new
    }

    fn pods(&self) -> Vec<Pod<'_>> {
        let addresses = |workload: &Workload| workload.addresses.iter().map(|ip| to_bits(*ip)).collect();
        let pods = self.workloads.iter().zip(1..);
        pods.map(|(workload, port)| Pod { port, workload, addresses: addresses(workload) }).collect()
    }

    fn policies(&self) -> policy::Input<'_> {
        let mut slot = 0;
        let place = |policy| {
            let placed = policy::Placed { policy, slot };
            slot += policy::slots_of(policy);
            placed
        };
        let policies = self.policies.iter().map(place).collect();
        policy::Input { policies, pods: self.pods(), namespaces: &self.namespaces, node: vec![] }
    }

    fn lists(&self) -> acl::Input<'_> {
        let mut slot = self.policies.iter().map(policy::slots_of).sum();
        let place = |acl| {
            let placed = acl::Placed { acl, slot };
            slot += acl::slots_of(acl);
            placed
        };
        let port = |(name, port): (_, u16)| {
            let workload = usize::from(port).checked_sub(1).map(|n| &self.workloads[n]);
            Candidate { port, name, workload, defaults: Default::default() }
        };
        let acls = self.acls.iter().map(place).collect();
        let ports = self.names.iter().zip(0..).map(port).collect();
        acl::Input { acls, ports, namespaces: &self.namespaces, sets: &self.sets }
    }

    fn compile(&mut self) {
        let policing = policy::compile::compile(&self.policies()).unwrap();
        let listed = acl::compile::compile(&self.lists()).unwrap();
        let facts = |port: usize| PortFacts {
            subject: policing.subject(port as u16).cloned().unwrap_or_default(),
            acl: listed.subject(port as u16),
            ..PortFacts::default()
        };
        let ports = (0..PORTS.len()).map(facts).collect();
        self.snapshot =
            Snapshot { ports, policing: Arc::new(policing), listed: Arc::new(listed), ..Snapshot::empty() };
    }

    fn port(&self, n: usize) -> &PortFacts {
        &self.snapshot.ports[n]
    }

    /// Rule by rule, what is said at one end: why not, and by which rule of a list.
    fn twin(
        &self,
        port: usize,
        direction: PolicyType,
        header: &Header,
    ) -> Result<(), (DropReason, Option<u32>)> {
        let (lists, policies) = (self.lists(), self.policies());
        for tier in [AclTier::Before, AclTier::After] {
            if let Some(ruling) = acl::plain::judge(&lists, port as u16, direction, tier, false, header) {
                match ruling.action {
                    AclAction::Allow => return Ok(()),
                    AclAction::Deny => return Err((DropReason::AclDenied, Some(ruling.slot))),
                    AclAction::Reject => return Err((DropReason::AclRejected, Some(ruling.slot))),
                    AclAction::Pass => {}
                }
            }
            if let (AclTier::Before, Some([src, dst])) = (tier, header.ends) {
                let protocol = match header.protocol {
                    6 => Some(Protocol::Tcp),
                    17 => Some(Protocol::Udp),
                    _ => None,
                };
                let at = |ip| policies.pods.iter().find(|pod| pod.addresses.contains(&ip));
                let (own, peer, reason) = match direction {
                    PolicyType::Egress => (src, dst, DropReason::PolicyEgress),
                    PolicyType::Ingress => (dst, src, DropReason::PolicyIngress),
                };
                let number = header.number.filter(|_| protocol.is_some());
                let said = at(own).and_then(|pod| {
                    policy::plain::allows(&policies, pod, direction, peer, at(dst), protocol, number)
                });
                match said {
                    Some(true) => return Ok(()),
                    Some(false) => return Err((reason, None)),
                    None => {}
                }
            }
        }
        Ok(())
    }

    /// What is asked on the packet path, what counts, and what is asked rule by rule say the same. What it took.
    fn agree(&self, header: &Header, from: usize, to: usize) -> Probed {
        let counters = [0, 1].map(|_| Counters::new(1));
        counters.iter().for_each(|counters| counters.make_rules(policy::RULES_MAX));
        let (sender, receiver) = (self.port(from), self.port(to));
        let mut asking = Asking::new(&counters[0]);
        let fast = both(&self.snapshot, header, sender, receiver, &mut asking);
        let all = probed(&self.snapshot, header, sender, receiver, &counters[1]);
        assert_eq!(all.said, fast, "{header:?}");
        let of_list = |denied: Denied| match denied.reason {
            DropReason::PolicyEgress | DropReason::PolicyIngress => (denied.reason, None),
            reason => (reason, denied.slot),
        };
        let twin = self.twin(from, PolicyType::Egress, header);
        let twin = twin.and_then(|()| self.twin(to, PolicyType::Ingress, header));
        assert_eq!(all.said.map_err(of_list), twin, "{from} to {to}: {header:?}");
        assert!(all.probes <= all.most, "{all:?} for {header:?}");
        all
    }
}

/// A first packet from one port to another, from and to somebody of these networks where the port is no workload's.
fn header(dice: &mut Dice, networks: &[Prefix], [from, to]: [usize; 2]) -> Header {
    let is_v4 = dice.below(2) == 0;
    let mut end = |port: usize| match port {
        0 => loop {
            let network = &networks[dice.below(networks.len())];
            if network.address.is_ipv4() == is_v4 {
                break dice.within(network);
            }
        },
        pod => to_bits(workload(pod).addresses[usize::from(!is_v4)]),
    };
    let ends = [end(from), end(to)];
    let icmp = [dice.one(&[8, 128, 3]), dice.below(2) as u8];
    let protocol = dice.one(&[6, 6, 17, if is_v4 { 1 } else { 58 }, 47]);
    let ports = [dice.one(&[123, 40_000]), dice.one(&[1, 53, 80, 443, 1024, 5432, 8080, 65_535])];
    let frame = FrameHead {
        macs: [0x0200_0000_0001, dice.one(&[0x0200_0000_0002, 0x0100_5e00_0001])],
        vlan: dice.one(&[1, 10, 25]),
    };
    let part = dice.one(&[Part::Whole, Part::Whole, Part::First, Part::Later]);
    let header = Header::new(ends, protocol, ports, icmp);
    Header { part, frame: Some(frame), ..header }
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 4, ..crate::cases::cases(24) })]

    /// However many rules there are, and whatever they name: every packet is said of what its linear twins say, in no more probes than
    /// the same ports' packets take with ten rules, or may take at all.
    #[test]
    fn first_packets_take_no_more_probes_than_are_allowed(seed in any::<u64>(), rules in prop::sample::select(&[10usize, 100, 1_000, 3_000][..])) {
        let (world, networks) = world(seed, rules);
        let mut dice = Dice::new(!seed);
        for _ in 0..60 {
            let ways = dice.one(&[[0, 1], [1, 0], [1, 2], [2, 1], [0, 2]]);
            let header = header(&mut dice, &networks, ways);
            let is_v4 = header.ends.is_some_and(|[src, _]| src >> 32 == V4_MAPPED >> 32);
            let all = world.agree(&header, ways[0], ways[1]);
            prop_assert!(all.most <= if is_v4 { V4_PROBES_MAX } else { PROBES_MAX }, "{all:?}");
        }
        let not_ip = Header { frame: Some(FrameHead { macs: [1, 2], vlan: 10 }), ..Header::NOT_IP };
        world.agree(&not_ip, 0, 1);
    }
}

/// Addresses that are found by the longest way.
const V4_DEEP: u128 = 0x0a01_0203;
const V6_DEEP: u128 = 0x2001_0db8_1234_5678_9abc_def0_1357_9bdf;

/// Networks beside an address at every eighth bit, so that to find it is as long a way as there is, of two sets in turn.
fn deep(ip: u128, bits: u8) -> impl Iterator<Item = (usize, Prefix)> {
    let address = move |ip: u128| match bits {
        32 => IpAddr::from(Ipv4Addr::from_bits(ip as u32)),
        _ => IpAddr::from(Ipv6Addr::from_bits(ip)),
    };
    let beside = move |len: u8| {
        (1..=70u128).map(move |n| {
            let network = Prefix { address: address(ip ^ n << (bits - len)), len };
            (n as usize % 2, network.network())
        })
    };
    (24..=bits).step_by(8).flat_map(beside)
}

/// What the bound of a set of policies is made of, too: the deepest prefix table, then a class, a row, a column and a verdict.
#[test]
fn policies_take_what_they_may_at_most() {
    let rule = |which: usize, ip: u128, bits: u8| {
        let blocks = deep(ip, bits).filter(|(n, _)| *n == which);
        let peers: Vec<Value> =
            blocks.map(|(_, block)| json!({ "ipBlock": { "cidr": block.to_string() } })).collect();
        json!({ "to": peers, "ports": [{ "protocol": "TCP", "port": 80 + which }] })
    };
    let egress = [rule(0, V4_DEEP, 32), rule(1, V4_DEEP, 32), rule(0, V6_DEEP, 128), rule(1, V6_DEEP, 128)];
    let policy = json!({
        "metadata": { "name": "deep", "namespace": "shop" },
        "spec": { "podSelector": {}, "policyTypes": ["Egress"], "egress": egress },
    });
    let world = World::new(vec![serde_json::from_value(policy).unwrap()], vec![], Sets::default());
    for (n, ip, bound) in [(0, V4_MAPPED | V4_DEEP, 9), (1, V6_DEEP, 33)] {
        let ends = [to_bits(workload(1).addresses[n]), ip];
        let all = world.agree(&Header::new(ends, 6, [40_000, 80], [0; 2]), 1, 0);
        assert_eq!((all.said.map_err(|it| it.reason), all.probes), (Err(DropReason::PolicyEgress), bound));
        assert_eq!((all.most, [policy::V4_PROBES_MAX, policy::PROBES_MAX][n]), (bound, bound));
        // Who is nobody to them is found at once.
        let ends = [ends[0], if n == 0 { V4_MAPPED | 0xc000_0201 } else { 1 }];
        let all = world.agree(&Header::new(ends, 6, [40_000, 80], [0; 2]), 1, 0);
        assert_eq!((all.probes, all.most), (5, bound));
    }
}

/// What the bound is made of is all there is, and can be taken: two ends, each of two tiers, each with and without staged rules that name every field
/// there is and sets as deep as a prefix table can be; and no packet takes more.
#[test]
fn what_may_be_taken_is_taken_at_most() {
    let mut sets = Sets::default();
    for which in [0, 1] {
        let mut set = Set::default();
        let members = deep(V4_DEEP, 32).chain(deep(V6_DEEP, 128)).filter(|(n, _)| *n == which);
        members.for_each(|(_, member)| _ = set.put(member, true));
        sets.insert(name(SETS[which]), set);
    }
    let masked = |n: usize| format!("02:00:00:00:00:00/ff:00:00:00:00:{:02x}", 1 << n);
    let macs = (0..MAC_MASKS_MAX / 2)
        .map(|n| json!({ "action": "deny", "source_mac": [masked(n)], "destination_mac": [masked(n)], "vlan": ["5"] }));
    let mut rules: Vec<Value> = macs.collect();
    rules.push(json!({ "action": "deny", "protocol": "tcp", "tcp_flags": "rst", "fragment": "none", "source_sets": ["s0"], "destination_sets": ["s1"], "destination_ports": ["9"], "source_ports": ["9"] }));
    rules.push(json!({ "action": "deny", "staged": true, "source": ["192.0.2.0/24"] }));
    let list = |tier: &str| {
        let list = json!({ "name": tier, "tier": tier, "applies_to": { "all": true }, "ingress": rules, "egress": rules });
        serde_json::from_value(list).unwrap()
    };
    let world = World::new(vec![], ["before", "after"].map(list).into(), sets);
    for (ip, most, bound) in [(V4_MAPPED | V4_DEEP, V4_PROBES_MAX, 400), (V6_DEEP, PROBES_MAX, 784)] {
        let frame = FrameHead { macs: [0x0400_0000_0001, 0x0400_0000_0002], vlan: 1 };
        let header = Header { frame: Some(frame), ..Header::new([ip; 2], 6, [40_000, 80], [0; 2]) };
        let all = world.agree(&header, 0, 0);
        assert_eq!((all.said, all.probes, all.most, most), (Ok(()), bound, bound, bound));
    }
}
