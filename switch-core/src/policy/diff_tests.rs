//! What a change cuts and opens, against the dull twin: the specification, read before the change and after it.

use super::compile::compile;
use super::diff::{Diff, Ends, blocks};
use super::tests::{Owned, labels, number, owned, policy, protocol, some_address};
use super::{Input, plain};
use crate::wire::ip::{ICMP, SCTP, TCP, UDP};
use proptest::prelude::*;
use std::collections::{BTreeSet, HashMap};
use switch_api::{Effect, Labels, NetworkPolicy, Protocol};

/// One step: a policy more, one less, and another workload's labels.
#[derive(Clone, Debug)]
struct Step {
    more: Option<NetworkPolicy>,
    less: Option<usize>,
    relabel: Option<Labels>,
}

fn step() -> impl Strategy<Value = Step> {
    use proptest::option::of;
    (of(policy()), of(0usize..6), of(labels())).prop_map(|(more, less, relabel)| Step { more, less, relabel })
}

fn after(before: &Owned, step: &Step) -> Owned {
    let mut after = before.clone();
    if let Some(less) = step.less.filter(|less| *less < after.policies.len()) {
        after.policies.remove(less);
    }
    after.policies.extend(step.more.clone());
    if let (Some(labels), Some(pod)) = (&step.relabel, after.pods.first_mut()) {
        pod.labels = labels.clone();
    }
    after
}

type Packet = (Option<Protocol>, Option<u16>);

fn twin(before: &Input, after: &Input, from: u128, to: u128, packet: Packet) -> Option<Effect> {
    let judged = [before, after].map(|input| plain::passes(input, from, to, packet.0, packet.1));
    match judged {
        [true, false] => Some(Effect::Cut),
        [false, true] => Some(Effect::Open),
        _ => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn a_change_cuts_and_opens_what_the_specification_says(
        before in owned(),
        step in step(),
        packets in proptest::collection::vec((proptest::option::of(protocol()), number()), 1..8),
        strangers in proptest::collection::vec(some_address(), 4),
    ) {
        let after = after(&before, &step);
        let (one, other) = (before.input(), after.input());
        let (old, new) = (compile(&one).unwrap(), compile(&other).unwrap());
        let taken: BTreeSet<u128> =
            one.pods.iter().flat_map(|pod| pod.addresses.iter().copied()).chain(one.node.iter().copied()).collect();
        let specs = before.policies.iter().chain(&after.policies).map(|policy| &policy.spec);
        let (blocks, unjudged) = blocks(specs, std::iter::empty(), &taken);
        prop_assert_eq!(unjudged, 0);
        let pods = one.pods.iter().flat_map(|pod| pod.addresses.iter().map(move |ip| (pod.port, *ip)));
        let mut ends: Vec<Ends> = pods.map(|(port, ip)| Ends { ip, port: Some((port, port)) }).collect();
        let of_pods = ends.len();
        ends.extend(blocks.iter().map(|(_, ip)| Ends { ip: *ip, port: None }));
        let mut diff = Diff::new(&old, &new);
        let mut found = HashMap::new();
        diff.pairs(&ends, |pair| assert!(found.insert((pair.from, pair.to), pair.changed).is_none()));
        prop_assert_eq!(diff.unjudged, 0);
        let told = |from: usize, to: usize, (protocol, port): Packet| {
            let changed = found.get(&(from, to))?;
            let has = |ports: &switch_api::PortsChange| {
                ports.protocol == protocol && port.is_none_or(|port| (ports.first..=ports.last).contains(&port))
            };
            let mut mine = changed.iter().filter(|changed| changed.ports.iter().any(has));
            let effect = mine.next().map(|changed| changed.effect);
            assert!(mine.next().is_none(), "a port is told of twice");
            effect
        };
        for (protocol, port) in packets {
            let packet = (protocol, protocol.map(|_| port));
            for (n, from) in ends.iter().enumerate() {
                for (m, to) in ends.iter().enumerate() {
                    let is_v4 = |ip| super::is_v4(ip);
                    if (n >= of_pods && m >= of_pods) || is_v4(from.ip) != is_v4(to.ip) {
                        continue;
                    }
                    let expected = twin(&one, &other, from.ip, to.ip, packet);
                    prop_assert_eq!(told(n, m, packet), expected, "{:x} to {:x} {:?}", from.ip, to.ip, packet);
                    let number = match protocol {
                        Some(Protocol::Tcp) => TCP,
                        Some(Protocol::Udp) => UDP,
                        Some(Protocol::Sctp) => SCTP,
                        None => ICMP,
                    };
                    let [was, is] = diff.judge(*from, *to, number, port).map(|verdict| verdict.is_ok());
                    prop_assert_eq!(expected, match (was, is) {
                        (true, false) => Some(Effect::Cut),
                        (false, true) => Some(Effect::Open),
                        _ => None,
                    });
                }
            }
            // Whoever is no workload is as the smallest block that has him.
            for ip in strangers.iter().filter(|ip| !taken.contains(*ip)) {
                let has = |(_, (cidr, _)): &(usize, &(switch_api::Cidr, u128))| plain::covers(*cidr, *ip);
                let mine = blocks.iter().enumerate().filter(has).max_by_key(|(_, (cidr, _))| cidr.prefix_len());
                let (block, _) = mine.unwrap();
                for (n, pod) in ends[..of_pods].iter().enumerate() {
                    if super::is_v4(pod.ip) == super::is_v4(*ip) {
                        let expected = twin(&one, &other, *ip, pod.ip, packet);
                        prop_assert_eq!(told(of_pods + block, n, packet), expected, "{:x} to {:x}", ip, pod.ip);
                    }
                }
            }
        }
    }
}

/// A block is stood for by what is its own, and by nothing if nothing is.
#[test]
fn blocks_are_stood_for_by_what_no_smaller_one_has() {
    let policy: NetworkPolicy = serde_json::from_value(serde_json::json!({
        "metadata": {"name": "p"},
        "spec": {"ingress": [{"from": [
            {"ipBlock": {"cidr": "10.0.0.0/24", "except": ["10.0.0.0/25", "10.0.0.128/25"]}},
            {"ipBlock": {"cidr": "10.0.1.0/30", "except": ["10.0.1.0/31"]}},
            {"ipBlock": {"cidr": "::ffff:0:0/96"}},
        ]}]},
    }))
    .unwrap();
    let taken = BTreeSet::from([plain::ip("10.0.1.2"), plain::ip("10.0.0.0"), plain::ip("::")]);
    let (found, more) = blocks([&policy.spec].into_iter(), std::iter::empty(), &taken);
    let found: Vec<_> = found.iter().map(|(cidr, ip)| (cidr.to_string(), *ip)).collect();
    let expected = [
        ("::/0", "::1"),
        ("0.0.0.0/0", "0.0.0.0"),
        ("10.0.0.0/25", "10.0.0.1"),
        ("10.0.0.128/25", "10.0.0.128"),
        ("10.0.1.0/30", "10.0.1.3"),
        ("10.0.1.0/31", "10.0.1.0"),
    ];
    let expected: Vec<_> = expected.iter().map(|(cidr, ip)| ((*cidr).to_owned(), plain::ip(ip))).collect();
    assert_eq!((found, more), (expected, 0));
}
