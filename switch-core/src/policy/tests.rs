//! Compiled policies against their dull twin: whatever is declared, every packet has the same verdict.

use super::compile::{TooMuch, compile, compile_after};
use super::{Compiled, Input, Placed, Pod, check, plain, rule_name, slots_of, to_bits};
use crate::table::lpm::VALUE_MAX;
use crate::wire::ip::{ICMP, SCTP, TCP, UDP};
use proptest::prelude::*;
use std::collections::BTreeMap;
use switch_api::{
    EgressRule, IngressRule, IpBlock, LabelExpression, LabelOperator, LabelSelector, Labels, Metadata,
    NamedPort, NetworkPolicy, Peer, PolicyPort, PolicySpec, PolicyType, PortRef, Protocol, Workload,
};

/// An input, and what it borrows from.
#[derive(Clone, Debug, Default)]
pub struct Owned {
    pub namespaces: BTreeMap<String, Labels>,
    pub policies: Vec<NetworkPolicy>,
    pub pods: Vec<Workload>,
}

impl Owned {
    pub fn input(&self) -> Input<'_> {
        let mut slot = 0;
        let place = |policy| {
            let placed = Placed { policy, slot };
            slot += slots_of(policy);
            placed
        };
        let pods = self.pods.iter().zip(0..).map(|(workload, port)| {
            let addresses = workload.addresses.iter().map(|ip| to_bits(*ip)).collect();
            Pod { port, workload, addresses }
        });
        Input {
            pods: pods.collect(),
            policies: self.policies.iter().map(place).collect(),
            namespaces: &self.namespaces,
            node: vec![plain::ip("10.0.0.254"), plain::ip("fd00::fe")],
        }
    }
}

/// Whether a first packet passes, as the tables have it.
pub fn verdict(
    compiled: &Compiled,
    from: u128,
    to: u128,
    protocol: Option<Protocol>,
    port: Option<u16>,
) -> bool {
    let number = match protocol {
        Some(Protocol::Tcp) => TCP,
        Some(Protocol::Udp) => UDP,
        Some(Protocol::Sctp) => SCTP,
        None => ICMP,
    };
    let class = compiled.class(number, port);
    let (source, destination) = (compiled.owner_of(from), compiled.owner_of(to));
    if source.is_some() && source == destination {
        return true;
    }
    let passes = |subject: Option<u16>, direction, peer| {
        compiled.is_node(peer)
            || subject
                .and_then(|port| compiled.direction(port, direction, peer, class))
                .is_none_or(|verdict| verdict.is_ok())
    };
    passes(source, PolicyType::Egress, to) && passes(destination, PolicyType::Ingress, from)
}

fn word(n: u8) -> String {
    ["a", "b", "c", "d"][usize::from(n % 4)].into()
}

pub fn labels() -> impl Strategy<Value = Labels> {
    proptest::collection::btree_map((0u8..3).prop_map(word), (0u8..3).prop_map(word), 0..3)
}

fn selector() -> impl Strategy<Value = LabelSelector> {
    let values = proptest::collection::vec((0u8..3).prop_map(word), 1..3);
    let expression =
        (0u8..4, (0u8..3).prop_map(word), values).prop_map(|(operator, key, values)| match operator {
            0 => LabelExpression { key, operator: LabelOperator::In, values },
            1 => LabelExpression { key, operator: LabelOperator::NotIn, values },
            2 => LabelExpression { key, operator: LabelOperator::Exists, values: Vec::new() },
            _ => LabelExpression { key, operator: LabelOperator::DoesNotExist, values: Vec::new() },
        });
    let some = proptest::collection::btree_map((0u8..3).prop_map(word), (0u8..3).prop_map(word), 0..2);
    (some, proptest::collection::vec(expression, 0..2))
        .prop_map(|(match_labels, match_expressions)| LabelSelector { match_labels, match_expressions })
}

/// Namespaces are selected by their own name, too.
fn namespaces_selector() -> impl Strategy<Value = LabelSelector> {
    let by_name = (0u8..3).prop_map(|n| LabelSelector {
        match_labels: Labels::from([(switch_api::NAMESPACE_NAME_LABEL.into(), word(n))]),
        match_expressions: Vec::new(),
    });
    prop_oneof![selector(), by_name]
}

/// Few networks, which lie in each other.
fn block() -> impl Strategy<Value = IpBlock> {
    // Mostly of so few addresses that some of them are a pod's and some not.
    let len = |most: u8| prop_oneof![1 => 0..=most, 2 => most - 4..=most];
    let v4 =
        (len(32), 0u8..16, proptest::collection::vec((1u8..=8, 0u8..16), 0..3)).prop_map(|(len, n, more)| {
            let net = |len: u8, n: u8| format!("10.0.0.{n}/{}", len.min(32)).parse().unwrap();
            let except = more.into_iter().map(|(longer, m)| net(len + longer, m)).collect();
            IpBlock { cidr: net(len, n), except }
        });
    let v6 = (len(128), 0u8..16)
        .prop_map(|(len, n)| IpBlock { cidr: format!("fd00::{n:x}/{len}").parse().unwrap(), except: vec![] });
    // What is not in the network cannot be taken from it.
    prop_oneof![v4, v6].prop_map(|mut block| {
        let inside = |except: &switch_api::Cidr| {
            except.prefix_len() > block.cidr.prefix_len()
                && plain::covers(block.cidr, to_bits(except.address()))
        };
        block.except = block.except.iter().copied().filter(inside).collect();
        block
    })
}

fn peer() -> impl Strategy<Value = Peer> {
    let by_labels = (proptest::option::of(selector()), proptest::option::of(namespaces_selector()));
    prop_oneof![
        by_labels
            .prop_filter("either", |(pods, namespaces)| pods.is_some() || namespaces.is_some())
            .prop_map(|(pod_selector, namespace_selector)| Peer {
                pod_selector,
                namespace_selector,
                ip_block: None
            }),
        block().prop_map(|block| Peer { ip_block: Some(block), ..Peer::default() }),
    ]
}

pub fn protocol() -> impl Strategy<Value = Protocol> {
    (0usize..3).prop_map(|n| Protocol::ALL[n])
}

/// Ports near the ends and near each other.
pub fn number() -> impl Strategy<Value = u16> {
    prop_oneof![1u16..12, 65_530u16..=65_535]
}

fn port() -> impl Strategy<Value = PolicyPort> {
    let by_name = (0u8..3).prop_map(|n| (Some(PortRef::Name(word(n))), None));
    let by_number = || {
        (number(), proptest::option::of(0u16..6)).prop_map(|(first, more)| {
            (Some(PortRef::Number(first)), more.map(|more| first.saturating_add(more)))
        })
    };
    (protocol(), prop_oneof![Just((None, None)), by_name, by_number(), by_number()])
        .prop_map(|(protocol, (port, end_port))| PolicyPort { protocol, port, end_port })
}

fn rule() -> impl Strategy<Value = (Vec<Peer>, Vec<PolicyPort>)> {
    (proptest::collection::vec(peer(), 0..3), proptest::collection::vec(port(), 0..3))
}

pub fn policy() -> impl Strategy<Value = NetworkPolicy> {
    let rules = || proptest::collection::vec(rule(), 0..3);
    let types = prop_oneof![
        Just(vec![]),
        Just(vec![PolicyType::Ingress]),
        Just(vec![PolicyType::Egress]),
        Just(vec![PolicyType::Ingress, PolicyType::Egress]),
    ];
    ((0u8..3).prop_map(word), selector(), types, rules(), rules()).prop_map(
        |(namespace, pod_selector, policy_types, ingress, egress)| NetworkPolicy {
            api_version: Default::default(),
            kind: Default::default(),
            metadata: Metadata { name: "p".into(), namespace },
            spec: PolicySpec {
                pod_selector,
                policy_types,
                ingress: ingress.into_iter().map(|(from, ports)| IngressRule { from, ports }).collect(),
                egress: egress.into_iter().map(|(to, ports)| EgressRule { to, ports }).collect(),
            },
            status: Default::default(),
            owner: Default::default(),
        },
    )
}

pub fn owned() -> impl Strategy<Value = Owned> {
    let ports = proptest::collection::vec(
        (0u8..3, number(), protocol()).prop_map(|(name, port, protocol)| NamedPort {
            name: word(name),
            port,
            protocol,
        }),
        0..4,
    );
    let pods = proptest::collection::vec(((0u8..3).prop_map(word), labels(), ports), 1..7);
    let pods = pods.prop_map(|pods| {
        let workload = |(n, (namespace, labels, ports))| Workload {
            namespace,
            labels,
            ports,
            addresses: vec![format!("10.0.0.{n}").parse().unwrap(), format!("fd00::{n:x}").parse().unwrap()],
        };
        (1usize..).zip(pods).map(workload).collect::<Vec<_>>()
    });
    let namespaces = proptest::collection::btree_map((0u8..3).prop_map(word), labels(), 0..3);
    (namespaces, proptest::collection::vec(policy(), 0..6), pods)
        .prop_map(|(namespaces, policies, pods)| Owned { namespaces, policies, pods })
}

pub fn some_address() -> impl Strategy<Value = u128> {
    prop_oneof![
        (0u8..18).prop_map(|n| plain::ip(&format!("10.0.0.{n}"))),
        (0u8..18).prop_map(|n| plain::ip(&format!("fd00::{n:x}"))),
        Just(plain::ip("10.0.0.254")),
        Just(plain::ip("192.0.2.1")),
        Just(plain::ip("2001:db8::1")),
    ]
}

proptest! {
    #![proptest_config(crate::cases::cases(2000))]

    #[test]
    fn the_tables_say_what_the_specification_says(
        owned in owned(),
        before in proptest::option::of(owned()),
        packets in proptest::collection::vec(
            (some_address(), some_address(), proptest::option::of(protocol()), proptest::option::of(number())),
            1..60,
        ),
    ) {
        for policy in &owned.policies {
            prop_assert_eq!(check::policy(policy), []);
        }
        let input = owned.input();
        let before = before.map_or_else(Compiled::default, |before| compile(&before.input()).unwrap());
        let compiled = compile_after(&input, &before).unwrap();
        let pods = || input.pods.iter().flat_map(|pod| pod.addresses.iter().map(move |ip| (*ip, pod.workload)));
        let pairs = pods().flat_map(|(from, _)| pods().map(move |(to, workload)| (from, to, workload)));
        // By a few ports, and by those that have names there.
        let few = [(Some(Protocol::Tcp), Some(1)), (Some(Protocol::Udp), Some(5)), (None, None)];
        let pairs = pairs.flat_map(|(from, to, workload)| {
            let named = workload.ports.iter().map(|own| (Some(own.protocol), Some(own.port)));
            few.into_iter().chain(named).map(move |(protocol, port)| (from, to, protocol, port))
        });
        for (from, to, protocol, port) in packets.into_iter().chain(pairs) {
            let port = port.filter(|_| protocol.is_some());
            prop_assert_eq!(
                verdict(&compiled, from, to, protocol, port),
                plain::passes(&input, from, to, protocol, port),
                "{:x} to {:x} {:?} {:?}", from, to, protocol, port
            );
        }
    }

    /// The epoch of a port moves when some verdict on it does.
    #[test]
    fn an_epoch_that_stands_means_that_nothing_changed(
        before in owned(),
        after in policy(),
        packets in proptest::collection::vec((some_address(), protocol(), number()), 60),
    ) {
        let mut changed = before.clone();
        changed.policies.push(after);
        let (one, other) = (before.input(), changed.input());
        let (one, other) = (compile(&one).unwrap(), compile(&other).unwrap());
        for port in 0..before.pods.len() as u16 {
            if one.subject(port).unwrap().epoch != other.subject(port).unwrap().epoch {
                continue;
            }
            let own = one.subject(port).unwrap().own[0];
            for (peer, protocol, number) in &packets {
                let judged = |compiled: &Compiled| {
                    [PolicyType::Ingress, PolicyType::Egress].map(|direction| {
                        let protocol = [TCP, UDP, SCTP][*protocol as usize];
                        let class = compiled.class(protocol, Some(*number));
                        compiled.direction(port, direction, *peer, class).is_none_or(|it| it.is_ok())
                    })
                };
                prop_assert_eq!(judged(&one), judged(&other), "{:x} and {:x}", own, peer);
            }
        }
    }
}

pub fn policy_of(json: serde_json::Value) -> NetworkPolicy {
    serde_json::from_value(json).unwrap()
}

#[test]
fn rules_have_names_and_the_one_that_decides_is_named() {
    let policy = policy_of(serde_json::json!({
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {
            "ingress": [{"ports": [{"port": 80}]}, {"ports": [{"port": 81}]}],
            "egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}],
        },
    }));
    let pod = Workload {
        namespace: "shop".into(),
        labels: Labels::new(),
        ports: vec![],
        addresses: vec!["10.0.0.1".parse().unwrap()],
    };
    let owned = Owned { policies: vec![policy], pods: vec![pod], ..Owned::default() };
    let input = owned.input();
    let compiled = compile(&input).unwrap();
    let judged = |direction, peer: &str, port| {
        let verdict = compiled.direction(0, direction, plain::ip(peer), compiled.class(TCP, Some(port)));
        let name = |slot| rule_name(&owned.policies[0], slot);
        verdict.unwrap().map(name).map_err(name)
    };
    assert_eq!(judged(PolicyType::Ingress, "1.1.1.1", 81), Ok("shop/web ingress 2".into()));
    assert_eq!(judged(PolicyType::Ingress, "1.1.1.1", 82), Err("shop/web ingress default".into()));
    assert_eq!(judged(PolicyType::Egress, "10.9.9.9", 1), Ok("shop/web egress 1".into()));
    assert_eq!(judged(PolicyType::Egress, "11.0.0.1", 1), Err("shop/web egress default".into()));
}

/// Many blocks that each are for another port need a matrix of their number's square.
#[test]
fn too_much_is_refused_with_the_figure() {
    let rule = |n: u32| {
        serde_json::json!({
            "from": [{"ipBlock": {"cidr": format!("10.{}.{}.0/24", n >> 8 & 255, n & 255)}}],
            "ports": [{"port": n + 1}],
        })
    };
    let policy = policy_of(serde_json::json!({
        "metadata": {"name": "many"},
        "spec": {"ingress": (0..9000).map(rule).collect::<Vec<_>>()},
    }));
    let pod = Workload {
        namespace: "default".into(),
        labels: Labels::new(),
        ports: vec![],
        addresses: vec!["10.0.0.1".parse().unwrap()],
    };
    let owned = Owned { policies: vec![policy], pods: vec![pod], ..Owned::default() };
    let Err(TooMuch::Bytes(bytes)) = compile(&owned.input()) else { panic!("it was not refused") };
    assert!(bytes > 9000 * 9000 * 4, "{bytes}");
    let figure = format!("{} MiB", bytes >> 20);
    assert!(TooMuch::Bytes(bytes).to_string().contains(&figure), "{}", TooMuch::Bytes(bytes));
}

#[test]
fn more_identities_than_have_numbers_are_refused_and_as_many_are_told_apart() {
    let pod = Workload {
        namespace: "default".into(),
        labels: Labels::new(),
        ports: vec![],
        addresses: vec!["10.0.0.1".parse().unwrap()],
    };
    // Every block is a term of its own, so its addresses have an identity of their own.
    let owned = |blocks: u32| {
        let peer = |n: u32| {
            let ip = std::net::Ipv4Addr::from(0x1400_0000 + (n << 8));
            serde_json::json!({"ipBlock": {"cidr": format!("{ip}/24")}})
        };
        let policy = policy_of(serde_json::json!({
            "metadata": {"name": "many"},
            "spec": {"ingress": [{"from": (0..blocks).map(peer).collect::<Vec<_>>()}]},
        }));
        Owned { policies: vec![policy], pods: vec![pod.clone()], ..Owned::default() }
    };
    // One identity is everybody else.
    let most = VALUE_MAX - 1;
    let compiled = compile(&owned(most).input()).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(compiled.identities, VALUE_MAX as usize);
    let Err(TooMuch::Identities(found)) = compile(&owned(most + 1).input()) else { panic!("not refused") };
    assert_eq!(found, VALUE_MAX as usize + 1);
}

#[test]
fn what_kubernetes_refuses_is_refused() {
    for (spec, field) in [
        (serde_json::json!({"ingress": [{"from": [{}]}]}), "spec.ingress[0].from[0]"),
        (
            serde_json::json!({"egress": [{"to": [{"podSelector": {}, "ipBlock": {"cidr": "10.0.0.0/8"}}]}]}),
            "spec.egress[0].to[0]",
        ),
        (
            serde_json::json!({"ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/9"]}}]}]}),
            "spec.ingress[0].from[0].ipBlock.except",
        ),
        (
            serde_json::json!({"ingress": [{"ports": [{"port": 80, "endPort": 79}]}]}),
            "spec.ingress[0].ports[0]",
        ),
        (serde_json::json!({"ingress": [{"ports": [{"endPort": 79}]}]}), "spec.ingress[0].ports[0]"),
        (serde_json::json!({"ingress": [{"ports": [{"port": "UPPER"}]}]}), "spec.ingress[0].ports[0]"),
        (
            serde_json::json!({"podSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}}),
            "spec.podSelector.matchExpressions[0]",
        ),
        (serde_json::json!({"podSelector": {"matchLabels": {"-a": ""}}}), "spec.podSelector.matchLabels"),
    ] {
        let problems =
            check::policy(&policy_of(serde_json::json!({"metadata": {"name": "p"}, "spec": spec})));
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_eq!(problems[0].0, field);
    }
}
