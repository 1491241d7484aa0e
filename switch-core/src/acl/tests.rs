//! The compiled lists against their dull twin, over a small world in which most packets meet some rule; and what is too
//! much.

use super::compile::{TooMuch, compile};
use super::fields::MAC_MASKS_MAX;
use super::sets::{MemberChange, Set, Sets};
use super::world::Judging;
use super::{
    Asked, Candidate, Compiled, FrameHead, Header, Input, Part, Placed, check, plain, rule_name, slots_of,
};
use crate::policy::diff::World;
use crate::policy::{End, to_bits};
use arrayvec::ArrayVec;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use switch_api::{
    Acl, AclAction, AclPorts, AclRule, AclTier, AclWorkloads, DefaultVerdicts, FragmentMatch, IcmpKind,
    IpProtocol, LabelSelector, Labels, Mac, MacMask, Name, Owner, PolicyType, PortRange, Prefix, Verdict,
    Workload,
};

const NETWORKS: [&str; 10] = [
    "0.0.0.0/0",
    "10.0.0.0/8",
    "10.1.0.0/16",
    "10.1.1.0/24",
    "10.1.1.1/32",
    "10.2.0.0/15",
    "::/0",
    "fd00::/16",
    "fd00:1::/32",
    "fd00:1::1/128",
];
const ADDRESSES: [&str; 9] = [
    "10.1.1.1",
    "10.1.1.2",
    "10.1.9.9",
    "10.3.0.1",
    "10.9.9.9",
    "9.9.9.9",
    "fd00:1::1",
    "fd00:1::2",
    "fe80::1",
];
const PROTOCOLS: [u8; 7] = [6, 17, 132, 1, 58, 47, 136];
const PORTS: [u16; 8] = [0, 1, 79, 80, 81, 443, 8080, 65_535];

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn prefixes() -> impl Strategy<Value = Vec<Prefix>> {
    prop::collection::vec(prop::sample::select(&NETWORKS[..]).prop_map(|it| it.parse().unwrap()), 0..3)
}

const MACS: [&str; 5] =
    ["02:00:00:00:00:01", "02:00:00:00:00:02", "02:42:00:00:00:01", "02:42:00:ff:00:01", "ff:ff:ff:ff:ff:ff"];
/// With whole addresses, and at both ends, as many masks as there may be.
const MASKED: [&str; MAC_MASKS_MAX / 2 - 1] = [
    "02:42:00:00:00:00/ff:ff:00:00:00:00",
    "01:00:00:00:00:00/01:00:00:00:00:00",
    "00:00:00:00:00:01/00:00:00:00:00:ff",
];
const VLANS: [u16; 4] = [1, 10, 20, 4094];

/// What a rule says beyond addresses and ports; mostly nothing.
fn further() -> impl Strategy<Value = AclRule> {
    let flags = prop::sample::select(&["syn,!ack", "fin,psh,urg", "!syn", "rst"][..])
        .prop_map(|it| it.parse().unwrap());
    let parts = [FragmentMatch::Any, FragmentMatch::First, FragmentMatch::Later, FragmentMatch::None];
    let macs = || {
        let hosts = prop::collection::vec(prop::sample::select(&MACS[..]), 1..3);
        let masked = prop::collection::vec(prop::sample::select(&MASKED[..]), 1);
        let read =
            |texts: Vec<&str>| texts.into_iter().map(|it| it.parse::<MacMask>().unwrap()).collect::<Vec<_>>();
        prop::option::weighted(0.2, prop_oneof![hosts, masked])
            .prop_map(move |it| it.map(read).unwrap_or_default())
    };
    let vlan = prop::collection::vec(
        prop::sample::select(&["1", "5-10", "20-4094"][..]).prop_map(|it| it.parse().unwrap()),
        0..2,
    );
    let vlan = prop::option::weighted(0.3, vlan).prop_map(Option::unwrap_or_default);
    let fragment = prop::option::weighted(0.2, prop::sample::select(parts.to_vec()));
    (prop::option::weighted(0.5, flags), fragment, macs(), macs(), vlan).prop_map(
        |(tcp_flags, fragment, source_mac, destination_mac, vlan)| AclRule {
            tcp_flags,
            fragment,
            source_mac,
            destination_mac,
            vlan,
            ..AclRule::all(AclAction::Deny)
        },
    )
}

const SETS: [&str; 3] = ["s0", "s1", "s2"];

fn set_names() -> impl Strategy<Value = Vec<Name>> {
    prop::collection::vec(prop::sample::select(&SETS[..]).prop_map(name), 0..2)
}

/// A member that comes to a set or goes.
fn member_change() -> impl Strategy<Value = MemberChange> {
    let host = prop::sample::select(&ADDRESSES[..]).prop_map(|ip| Prefix::host(ip.parse().unwrap()));
    let network = prop::sample::select(&NETWORKS[..]).prop_map(|it| it.parse().unwrap());
    let wider = (host.clone(), 0u8..=128)
        .prop_map(|(host, len): (Prefix, u8)| Prefix { len: len % (host.bits() + 1), ..host }.network());
    let member = prop_oneof![host, network, wider];
    (prop::sample::select(&SETS[..]), member, prop::bool::weighted(0.7))
        .prop_map(|(set, member, is)| MemberChange { set: name(set), member, is })
}

/// Those that are a change, made.
fn put(sets: &mut Sets, changes: &[MemberChange]) -> Vec<MemberChange> {
    let is_change = |change: &&MemberChange| {
        let mut set = sets.get(&change.set).cloned().unwrap_or_default();
        let is_new = set.put(change.member, change.is);
        sets.insert(change.set.clone(), set);
        is_new
    };
    changes.iter().filter(is_change).cloned().collect()
}

fn no_sets() -> Sets {
    let mut sets = Sets::default();
    SETS.iter().for_each(|set| sets.insert(name(set), Set::default()));
    sets
}

fn ranges() -> impl Strategy<Value = Vec<PortRange>> {
    let port = || prop::sample::select(&PORTS[..]);
    let range = (port(), port()).prop_map(|(a, b)| PortRange { first: a.min(b), last: a.max(b) });
    prop::collection::vec(range, 0..3)
}

fn action() -> impl Strategy<Value = AclAction> {
    prop::sample::select(&[AclAction::Allow, AclAction::Deny, AclAction::Pass, AclAction::Reject][..])
}

fn rule() -> impl Strategy<Value = AclRule> {
    let protocol = prop::option::of(prop::sample::select(&PROTOCOLS[..]).prop_map(IpProtocol));
    let code = prop::option::of(0u8..3);
    let icmp = (prop::sample::select(&[0u8, 3, 8, 128, 129, 255][..]), code);
    let icmp = prop::collection::vec(icmp.prop_map(|(kind, code)| IcmpKind { kind, code }), 0..3);
    let staged = prop::bool::weighted(0.2);
    let flags = (staged, prop::bool::weighted(0.2), [set_names(), set_names()], further());
    let parts = (action(), protocol, prefixes(), prefixes(), ranges(), ranges(), icmp, flags);
    parts.prop_map(
        |(
            action,
            protocol,
            source,
            destination,
            source_ports,
            destination_ports,
            icmp,
            (staged, log, sets, further),
        )| {
            let ports = protocol.is_some_and(IpProtocol::has_ports);
            let messages = protocol.is_some_and(IpProtocol::is_icmp);
            AclRule {
                action,
                protocol,
                source,
                source_sets: sets[0].clone(),
                destination,
                destination_sets: sets[1].clone(),
                source_port_sets: Vec::new(),
                destination_port_sets: Vec::new(),
                source_ports: if ports { source_ports } else { Vec::new() },
                destination_ports: if ports { destination_ports } else { Vec::new() },
                icmp: if messages { icmp } else { Vec::new() },
                tcp_flags: further.tcp_flags.filter(|_| protocol == Some(IpProtocol::TCP)),
                fragment: further.fragment,
                source_mac: further.source_mac,
                destination_mac: further.destination_mac,
                vlan: further.vlan,
                staged,
                stateless: action == AclAction::Allow && log,
                log,
            }
        },
    )
}

fn acls() -> impl Strategy<Value = Vec<Acl>> {
    let tier = any::<bool>().prop_map(|after| if after { AclTier::After } else { AclTier::Before });
    let rules = || prop::collection::vec(rule(), 0..6);
    let list = (tier, 0u16..3, 0u8..8, rules(), rules());
    let list = list.prop_map(|(tier, priority, whom, ingress, egress)| {
        let workloads = (whom & 2 == 2).then(|| AclWorkloads {
            namespace_selector: LabelSelector::default(),
            pod_selector: LabelSelector { match_labels: labels("web"), ..LabelSelector::default() },
        });
        let ports = if whom & 1 == 1 { vec![name("p1"), name("nobody")] } else { vec![] };
        let applies_to = AclPorts { ports, workloads, all: whom & 4 == 4 };
        let stateless = priority == 2;
        Acl {
            name: name("x"),
            tier,
            priority,
            applies_to,
            stateless,
            ingress,
            egress,
            owner: Owner::Operator,
        }
    });
    prop::collection::vec(list, 0..5).prop_map(|mut lists| {
        // Not in the order of their names.
        let names = ["m", "a", "z", "k", "b"];
        lists.iter_mut().zip(names).for_each(|(list, text)| list.name = name(text));
        lists
    })
}

fn labels(app: &str) -> Labels {
    [("app".to_owned(), app.to_owned())].into()
}

fn header() -> impl Strategy<Value = Header> {
    let address = || prop::sample::select(&ADDRESSES[..]).prop_map(|ip| to_bits(ip.parse().unwrap()));
    let number = prop_oneof![
        prop::sample::select(&PORTS[..]),
        (prop::sample::select(&[0u8, 3, 8, 128, 129, 255][..]), 0u8..4)
            .prop_map(|(k, c)| u16::from_be_bytes([k, c])),
        any::<u16>(),
    ];
    let protocol = prop_oneof![prop::sample::select(&PROTOCOLS[..]), any::<u8>()];
    let source_port = prop::option::of(prop::sample::select(&PORTS[..]));
    let parts = (
        prop::option::weighted(0.95, (address(), address())),
        protocol,
        source_port,
        prop::option::of(number),
    );
    let frame = (0..MACS.len(), 0..MACS.len(), 0..VLANS.len()).prop_map(|(from, to, vlan)| [from, to, vlan]);
    let more = (any::<u8>(), 0u8..3, prop::option::weighted(0.9, frame));
    (parts, more).prop_map(|((ends, protocol, source_port, number), more)| Header {
        ends: ends.map(|(src, dst)| [src, dst]),
        protocol,
        source_port,
        number,
        flags: Some(more.0).filter(|_| more.0 & 0x80 == 0),
        part: [Part::Whole, Part::First, Part::Later][usize::from(more.1)],
        frame: more.2.map(|[from, to, vlan]| FrameHead {
            macs: [from, to].map(|n| MACS[n].parse::<Mac>().unwrap().to_u64()),
            vlan: VLANS[vlan],
        }),
    })
}

fn placed(acls: &[Acl]) -> Vec<Placed<'_>> {
    let mut next = 7;
    let place = |acl| {
        let slot = next;
        next += slots_of(acl);
        Placed { acl, slot }
    };
    acls.iter().map(place).collect()
}

fn agree(compiled: &Compiled, input: &Input, header: &Header) {
    for port in &input.ports {
        for direction in [PolicyType::Ingress, PolicyType::Egress] {
            let chains = compiled.subject(port.port).chains(direction);
            for (tier, chains) in [(AclTier::Before, chains.before), (AclTier::After, chains.after)] {
                let ours = chains.enforced.and_then(|chain| compiled.judge(chain, header));
                let twin = |staged| plain::judge(input, port.port, direction, tier, staged, header);
                assert_eq!(ours, twin(false), "port {} {direction:?} {tier:?} {header:?}", port.port);
                let rehearsed = twin(true).filter(|ruling| ruling.staged);
                assert_eq!(compiled.rehearse(chains, header), rehearsed, "{direction:?} {tier:?} {header:?}");
            }
        }
    }
}

/// What is said of packets together is what is said of each.
fn agree_together(compiled: &Compiled, input: &Input, headers: &[Header]) {
    let of = |port: &Candidate| compiled.subject(port.port);
    let chains: BTreeSet<u32> =
        input.ports.iter().flat_map(|port| of(port).all().collect::<Vec<_>>()).collect();
    for chain in chains {
        let asked: Vec<&Header> =
            headers.iter().filter(|header| compiled.question(chain, header).is_some()).collect();
        for asked in asked.chunks(7) {
            let questions: ArrayVec<Asked, 7> =
                asked.iter().filter_map(|header| compiled.question(chain, header)).collect();
            let mut said = Vec::new();
            compiled.judge_each(&questions, |n, of, says| said.push((n, of, says)));
            let alone = asked.iter().enumerate().map(|(n, header)| (n, chain, compiled.judge(chain, header)));
            assert_eq!(said, alone.collect::<Vec<_>>(), "{asked:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn the_tables_say_what_the_rules_say(
        acls in acls(),
        headers in prop::collection::vec(header(), 1..80),
        had in prop::collection::vec(member_change(), 0..12),
        steps in prop::collection::vec(prop::collection::vec(member_change(), 1..4), 0..6),
        defaults in verdicts(),
    ) {
        let (web, other) = (workload("web"), workload("other"));
        let names = [name("p0"), name("p1"), name("p2"), name("p3")];
        let workloads = [None, None, Some(&web), Some(&other)];
        let ports = names.iter().zip(workloads).zip(3..);
        let ports = ports.map(|((name, workload), port)| Candidate { port, name, workload, defaults }).collect();
        let namespaces = BTreeMap::new();
        let mut sets = no_sets();
        put(&mut sets, &had);
        let input = Input { acls: placed(&acls), ports, namespaces: &namespaces, sets: &sets.clone() };
        let mut compiled = compile(&input).unwrap();
        headers.iter().for_each(|header| agree(&compiled, &input, header));
        agree_together(&compiled, &input, &headers);
        // Members that come and go are followed as if all were made anew.
        for step in steps {
            let changes = put(&mut sets, &step);
            let input = Input { sets: &sets, ..input.clone() };
            compiled = compiled.changed(&changes, &sets).unwrap().expect("few kinds of addresses");
            headers.iter().for_each(|header| agree(&compiled, &input, header));
            let anew = compile(&input).unwrap();
            for port in &input.ports {
                prop_assert_eq!(compiled.subject(port.port), anew.subject(port.port));
            }
        }
    }
}

proptest! {
    /// Ports that come, go and are labelled are given the lists that are theirs, as if all were made anew.
    #[test]
    fn ports_that_come_and_go_are_told_apart_as_anew(
        acls in acls(),
        headers in prop::collection::vec(header(), 1..20),
        steps in prop::collection::vec(prop::collection::vec(0usize..4, 0..4), 1..6),
    ) {
        let (web, other) = (workload("web"), workload("other"));
        let names = [name("p0"), name("p1"), name("p2"), name("p3")];
        let (namespaces, sets) = (BTreeMap::new(), no_sets());
        let with = |labels: &[usize]| {
            let workloads = [None, Some(&web), Some(&other)];
            let ports = names.iter().zip(labels).zip(3..);
            let ports = ports.filter(|((_, label), _)| **label < 3).map(|((name, label), port)| Candidate {
                port,
                name,
                workload: workloads[*label],
                defaults: Default::default(),
            });
            Input { acls: placed(&acls), ports: ports.collect(), namespaces: &namespaces, sets: &sets }
        };
        let mut compiled = compile(&with(&[0, 0, 1, 2])).unwrap();
        for labels in steps {
            let input = with(&labels);
            let anew = compile(&input).unwrap();
            let after = compiled.regrouped(&input);
            compiled = after.unwrap_or_else(|| anew.clone());
            headers.iter().for_each(|header| agree(&compiled, &input, header));
            prop_assert_eq!(compiled.stateless, anew.stateless);
            for port in 3..7 {
                let facts = |it: &Compiled| {
                    let subject = it.subject(port);
                    let frames = [subject.ingress_frames, subject.egress_frames];
                    (subject.epoch, subject.fragments, frames, subject.stateless, subject.is_listed())
                };
                prop_assert_eq!(facts(&compiled), facts(&anew));
            }
        }
    }
}

/// Without what only a port has whose name a list names, one more port is no reason to compile.
#[test]
fn one_more_of_a_kind_compiles_nothing() {
    let rules = (0..50).map(|n| AclRule { source: vec![net(n)], ..AclRule::all(AclAction::Deny) }).collect();
    let (acl, names, namespaces, sets) =
        (list(rules), [name("p0"), name("p1"), name("p2")], BTreeMap::new(), no_sets());
    let with = |count: usize| Input {
        acls: vec![Placed { acl: &acl, slot: 0 }],
        ports: names
            .iter()
            .zip(1..)
            .take(count)
            .map(|(name, port)| Candidate { port, name, workload: None, defaults: Default::default() })
            .collect(),
        namespaces: &namespaces,
        sets: &sets,
    };
    let one = compile(&with(1)).unwrap();
    let three = one.regrouped(&with(3)).unwrap();
    assert!(std::sync::Arc::ptr_eq(&one.chains, &three.chains));
    assert!(
        three.subject(3).is_listed() && three.subject(3) == one.subject(1) && !one.subject(3).is_listed()
    );
    assert!(three.regrouped(&with(2)).is_some_and(|two| !two.subject(3).is_listed()));
    assert!(three.regrouped(&with(0)).is_some_and(|none| none.is_idle()));
}

proptest! {
    /// What a diff is judged by says what the lists of both ends say, one after the other.
    #[test]
    fn both_ends_are_asked_in_order(
        acls in acls(),
        ends in prop::collection::vec((prop::sample::select(&ADDRESSES[..5]), prop::sample::select(&ADDRESSES[..5])), 1..8),
        port in prop::sample::select(&PORTS[..]),
        tcp in any::<bool>(),
        defaults in verdicts(),
    ) {
        let (web, other) = (workload("web"), workload("other"));
        let names = [name("p0"), name("p1")];
        let ports = names.iter().zip([Some(&web), Some(&other)]).zip(3..);
        let ports = ports.map(|((name, workload), port)| Candidate { port, name, workload, defaults }).collect();
        let (namespaces, sets) = (BTreeMap::new(), no_sets());
        let input = Input { acls: placed(&acls), ports, namespaces: &namespaces, sets: &sets };
        let (lists, policies) = (compile(&input).unwrap(), crate::policy::Compiled::default());
        let world = Judging { policies: &policies, lists: &lists };
        let protocol = if tcp { 6 } else { 17 };
        for (from, to) in ends {
            let ips = [from, to].map(|ip| to_bits(ip.parse().unwrap()));
            let asked = world.ask(End { port: Some(3), ip: ips[0] }, End { port: Some(4), ip: ips[1] });
            let header = Header::new(ips, protocol, [switch_api::EXPLAIN_SOURCE_PORT, port], [0; 2]);
            let mut expected = Ok(None);
            for (port, direction) in [(3, PolicyType::Egress), (4, PolicyType::Ingress)] {
                let tiers = [AclTier::Before, AclTier::After];
                let mut said = tiers.into_iter().filter_map(|tier| plain::judge(&input, port, direction, tier, false, &header));
                match said.find(|ruling| ruling.action != AclAction::Pass) {
                    Some(ruling) if ruling.action.stops() => expected = expected.and(Err(ruling.slot)),
                    Some(ruling) => expected = expected.map(|_: Option<u32>| Some(ruling.slot)),
                    None if input.ports[usize::from(port - 3)].denies(direction) => {
                        expected = expected.and(Err(super::DEFAULT));
                    }
                    None => {}
                }
            }
            prop_assert_eq!(world.answer(&asked, protocol, Some(port)), expected);
        }
    }
}

/// Default verdicts, of whatever ports.
fn verdicts() -> impl Strategy<Value = DefaultVerdicts> {
    let verdict = || prop_oneof![Just(Verdict::Allow), Just(Verdict::Deny)];
    (verdict(), verdict()).prop_map(|(ingress, egress)| DefaultVerdicts { ingress, egress })
}

fn workload(app: &str) -> Workload {
    Workload { namespace: "shop".into(), labels: labels(app), ports: vec![], addresses: vec![] }
}

pub(super) fn list(ingress: Vec<AclRule>) -> Acl {
    Acl {
        name: name("big"),
        tier: AclTier::Before,
        priority: 1,
        applies_to: AclPorts { all: true, ..AclPorts::default() },
        stateless: false,
        ingress,
        egress: vec![],
        owner: Owner::Operator,
    }
}

pub(super) fn compiled(acl: &Acl) -> Result<Compiled, TooMuch> {
    compiled_with(acl, &no_sets())
}

pub(super) fn compiled_with(acl: &Acl, sets: &Sets) -> Result<Compiled, TooMuch> {
    let (own, namespaces) = (name("p"), BTreeMap::new());
    let ports = vec![Candidate { port: 1, name: &own, workload: None, defaults: Default::default() }];
    compile(&Input { acls: vec![Placed { acl, slot: 0 }], ports, namespaces: &namespaces, sets })
}

pub(super) fn net(n: usize) -> Prefix {
    format!("10.{}.{}.0/24", n / 256, n % 256).parse().unwrap()
}

/// Whoever asks what a change does to a ping that is under way has its identifier where other flows have a port.
#[test]
fn a_pings_identifier_is_no_port() {
    let ping: AclRule = serde_json::from_str(r#"{"action":"deny","protocol":"icmp","icmp":[8]}"#).unwrap();
    let (lists, policies) = (compiled(&list(vec![ping])).unwrap(), crate::policy::Compiled::default());
    let world = Judging { policies: &policies, lists: &lists };
    let ips = ["10.0.0.1", "10.0.0.2"].map(|ip| to_bits(ip.parse().unwrap()));
    let asked = world.ask(End { port: Some(3), ip: ips[0] }, End { port: Some(1), ip: ips[1] });
    for identifier in [None, Some(0), Some(8), Some(4711)] {
        assert!(world.answer(&asked, 1, identifier).is_err(), "{identifier:?}");
    }
    // ICMPv6 between addresses of IPv4 is some protocol.
    assert!([6, 17, 47, 58].iter().all(|other| world.answer(&asked, *other, Some(8)).is_ok()));
}

/// Another epoch if and only if the rules say something else.
#[test]
fn an_epoch_is_what_the_rules_say() {
    let epoch = |acl: &Acl| compiled(acl).unwrap().subject(1).epoch;
    let deny = list(vec![AclRule::all(AclAction::Deny)]);
    let renamed = Acl { name: name("other"), priority: 9, ..deny.clone() };
    let allow = list(vec![AclRule::all(AclAction::Allow)]);
    let turned = Acl { egress: deny.ingress.clone(), ingress: vec![], ..deny.clone() };
    let later = Acl { tier: AclTier::After, ..deny.clone() };
    assert_eq!(epoch(&deny), epoch(&renamed));
    let staged = list(vec![AclRule { staged: true, ..AclRule::all(AclAction::Deny) }]);
    let stateless = Acl { stateless: true, ..allow.clone() };
    assert_ne!(epoch(&allow), epoch(&stateless));
    for other in [&allow, &turned, &later, &staged] {
        assert_ne!(epoch(&deny), epoch(other), "{other:?}");
    }
}

#[test]
fn an_answer_is_judged_as_its_question() {
    let ends = [to_bits("10.0.0.1".parse().unwrap()), to_bits("10.0.0.2".parse().unwrap())];
    let turned = [ends[1], ends[0]];
    let tcp = Header::new(ends, 6, [1000, 80], [0; 2]);
    assert_eq!(Header::new(turned, 6, [80, 1000], [0; 2]).turned(), tcp);
    for (protocol, question, answer) in [(1, 8, 0), (1, 13, 14), (1, 17, 18)] {
        let asked = Header::new(ends, protocol, [7, 7], [question, 0]);
        assert_eq!(Header::new(turned, protocol, [7, 7], [answer, 0]).turned(), asked);
    }
    // ICMPv6 in IPv4 is some protocol, whatever its first bytes say.
    assert_eq!(Header::new(ends, 58, [0; 2], [128, 0]).number, None);
}

#[test]
fn what_never_matches_is_refused_with_its_place() {
    let good = AclRule { protocol: Some(IpProtocol::TCP), ..AclRule::all(AclAction::Deny) };
    let port = PortRange { first: 5, last: 5 };
    let prefix = |text: &str| vec![text.parse().unwrap()];
    for (rule, field) in [
        (
            AclRule { protocol: None, destination_ports: vec![port], ..good.clone() },
            "ingress[1].destination_ports",
        ),
        (AclRule { icmp: vec![IcmpKind { kind: 8, code: None }], ..good.clone() }, "ingress[1].icmp"),
        (AclRule { source: prefix("10.0.0.1/8"), ..good.clone() }, "ingress[1].source"),
        (
            AclRule { source: prefix("10.0.0.0/8"), destination: prefix("::/0"), ..good.clone() },
            "ingress[1].destination",
        ),
        (AclRule { source_ports: vec![port; 2000], ..good.clone() }, "ingress[1].source_ports"),
        (AclRule { stateless: true, ..good.clone() }, "ingress[1].stateless"),
        (
            AclRule { protocol: Some(IpProtocol::UDP), tcp_flags: "syn".parse().ok(), ..good.clone() },
            "ingress[1].tcp_flags",
        ),
        (
            AclRule {
                source_mac: vec![MACS[0].parse().unwrap(), MASKED[0].parse().unwrap()],
                ..good.clone()
            },
            "ingress[1].source_mac",
        ),
    ] {
        let problems = check::acl(&list(vec![good.clone(), rule]));
        assert_eq!(problems.iter().map(|(field, _)| field.as_str()).collect::<Vec<_>>(), [field]);
    }
    assert!(check::acl(&list(vec![good.clone()])).is_empty());
    let nobody = Acl { applies_to: AclPorts::default(), ..list(vec![good.clone()]) };
    assert_eq!(check::acl(&nobody)[0].0, "applies_to");
    assert_eq!(check::acl(&list(vec![]))[0].0, "ingress");
    let both = Acl { egress: vec![good.clone()], ..list(vec![good]) };
    assert_eq!(
        (rule_name(&both, 0), rule_name(&both, 1)),
        ("acl big ingress 1".into(), "acl big egress 1".into())
    );
}
