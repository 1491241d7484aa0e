//! Access control lists as packets: beside policies, of flows, of flooded copies, and of what is not IP.

use super::policy_tests::{NOW, Net, answer, arrives, introduce, mac, net, packet, pod, unreachable};
use crate::counter::{DropReason, Event};
use switch_api::{Acl, ByName, Code, NetworkPolicy, Protocol, Request};

/// Pods `db`, `web` and `other`, 10.0.0.1 to 3, behind ports p0 to p2.
pub(super) fn shop(policies: &[NetworkPolicy]) -> Net {
    let pods = [pod("db", "10.0.0.1"), pod("web", "10.0.0.2"), pod("other", "10.0.0.3")];
    let mut net = net(vec![], &pods, policies);
    introduce(&mut net);
    net
}

pub(super) fn set(net: &mut Net, acl: serde_json::Value) {
    let acl: Acl = serde_json::from_value(acl).unwrap();
    net.rig.declare(&Request::AclSet(Box::new(acl))).unwrap();
}

fn delete(net: &mut Net, name: &str) {
    net.rig.declare(&Request::AclDelete(ByName { name: name.parse().unwrap() })).unwrap();
}

/// From a pod to another, both by number, and a port.
pub(super) fn sent(from: usize, to: usize, protocol: Protocol, port: u16) -> Vec<u8> {
    let ip = |n: usize| format!("10.0.0.{}", n + 1).parse().unwrap();
    packet((mac(to), mac(from)), ip(from), ip(to), (protocol, port), 7)
}

pub(super) fn passes(net: &mut Net, from: usize, to: usize, protocol: Protocol, port: u16) -> bool {
    arrives(net, from, to, sent(from, to, protocol, port))
}

/// What each rule counted, by the names of rules.
pub(super) fn counted(net: &Net, name: &str) -> u64 {
    let rules = &net.rig.counters[0];
    let slot = (0..200).find(|slot| net.rig.model.rule_name(*slot) == name);
    rules.rule(slot.unwrap_or_else(|| panic!("no rule {name}"))).unwrap().get()
}

/// `db` takes TCP 5432 from `web` alone.
fn db_from_web() -> NetworkPolicy {
    let policy = serde_json::json!({
        "metadata": {"name": "db", "namespace": "shop"},
        "spec": {
            "podSelector": {"matchLabels": {"app": "db"}},
            "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "web"}}}], "ports": [{"port": 5432}]}],
        },
    });
    serde_json::from_value(policy).unwrap()
}

use Protocol::{Tcp, Udp};

/// A list of the first tier has the first word: it allows what policies do not, denies what they allow, and passes the rest
/// on to them.
#[test]
fn before_policies_a_list_overrides_them_or_passes_on() {
    let mut net = shop(&[db_from_web()]);
    assert!(passes(&mut net, 1, 0, Tcp, 5432) && !passes(&mut net, 2, 0, Tcp, 5432));
    set(
        &mut net,
        serde_json::json!({
            "name": "admin", "applies_to": {"workloads": {"pod_selector": {"matchLabels": {"app": "db"}}}},
            "ingress": [
                {"action": "pass", "protocol": "tcp", "source": ["10.0.0.2/32"], "destination_ports": [5432]},
                {"action": "allow", "protocol": "udp", "source": ["10.0.0.3/32"], "destination_ports": ["53-54"]},
                {"action": "deny", "source": ["10.0.0.2/31"]},
            ],
        }),
    );
    // Passed on, and the policy allows it; allowed, though the policy does not; denied.
    assert!(passes(&mut net, 1, 0, Tcp, 5432));
    assert!(passes(&mut net, 2, 0, Udp, 54));
    assert!(!passes(&mut net, 1, 0, Tcp, 5433) && !passes(&mut net, 2, 0, Tcp, 5432));
    assert_eq!(net.rig.drops(DropReason::AclDenied), 2);
    for (rule, packets) in
        [("acl admin ingress 1", 1), ("acl admin ingress 2", 1), ("acl admin ingress 3", 2)]
    {
        assert_eq!(counted(&net, rule), packets, "{rule}");
    }
    // The list gone, what it allowed stops: the flow is judged again.
    delete(&mut net, "admin");
    assert!(!passes(&mut net, 2, 0, Udp, 54));
    assert_eq!(net.rig.drops(DropReason::PolicyIngress), 2);
    let again = Request::AclDelete(ByName { name: "admin".parse().unwrap() });
    assert_eq!(net.rig.declare(&again).unwrap_err().code, Code::NotFound);
    net.rig.assert_conserved();
}

/// Lists by priority, then by name; of the second tier only where no policy isolates that direction.
#[test]
fn tiers_and_priorities_come_in_order() {
    let mut net = shop(&[db_from_web()]);
    let list = |name: &str, tier: &str, priority: u16, action: &str| {
        serde_json::json!({
            "name": name, "tier": tier, "priority": priority, "applies_to": {"all": true},
            "ingress": [{"action": action, "protocol": "udp"}],
        })
    };
    set(&mut net, list("base", "after", 5, "deny"));
    // `web` is isolated by no policy, `db` is: what it allows passes.
    assert!(!passes(&mut net, 2, 1, Udp, 9) && passes(&mut net, 1, 0, Tcp, 5432));
    assert!(!passes(&mut net, 2, 0, Udp, 9));
    assert_eq!((counted(&net, "acl base ingress 1"), net.rig.drops(DropReason::PolicyIngress)), (1, 1));
    set(&mut net, list("b", "before", 5, "deny"));
    set(&mut net, list("a", "before", 5, "allow"));
    assert!(passes(&mut net, 2, 0, Udp, 9), "a comes before b");
    set(&mut net, list("b", "before", 4, "deny"));
    assert!(!passes(&mut net, 2, 0, Udp, 9), "the lower priority comes first");
    set(&mut net, list("b", "before", 4, "pass"));
    assert!(!passes(&mut net, 2, 0, Udp, 9), "passed on, past a, to the policy");
    assert_eq!(net.rig.drops(DropReason::PolicyIngress), 2);
}

/// Both ends are asked, and answers pass though nothing of the kind may begin from there.
#[test]
fn a_list_is_stateful_and_a_change_ends_what_it_allowed() {
    let mut net = shop(&[]);
    let closed = |action: &str| {
        serde_json::json!({
            "name": "closed", "applies_to": {"ports": ["p1"]},
            "egress": [{"action": "deny"}],
            "ingress": [{"action": action, "protocol": "udp", "destination_ports": [53]}, {"action": "deny"}],
        })
    };
    set(&mut net, closed("allow"));
    assert!(!passes(&mut net, 1, 2, Udp, 53), "it may begin nothing");
    let question = sent(0, 1, Udp, 53);
    assert!(arrives(&mut net, 0, 1, question.clone()) && arrives(&mut net, 1, 0, answer(&question)));
    assert!(arrives(&mut net, 1, 0, unreachable(&question, 1, 0)), "an error about it is its own");
    assert_eq!(counted(&net, "acl closed ingress 1"), 1, "a flow is judged once");
    // Other ports pay nothing and are not tracked.
    assert!(!net.rig.snapshot().ports[0].judged && !net.rig.snapshot().ports[0].tracked);
    set(&mut net, closed("deny"));
    assert!(!arrives(&mut net, 1, 0, answer(&question)) && !arrives(&mut net, 0, 1, question.clone()));
    set(&mut net, closed("allow"));
    // Judged as its question, whoever speaks first.
    assert!(arrives(&mut net, 1, 0, answer(&question)) && arrives(&mut net, 0, 1, question));
    net.rig.assert_conserved();
}

/// A rule is about whoever is in its set now; a flow of who comes to it stops, and goes on when he is gone. The rule is never touched.
#[test]
fn a_set_is_followed_by_rules_and_flows() {
    let mut net = shop(&[]);
    let update = |net: &mut Net, set: &str, add: &[&str], remove: &[&str]| {
        let update = serde_json::json!({"name": set, "add": add, "remove": remove});
        net.rig.declare(&Request::AddressSetUpdate(serde_json::from_value(update).unwrap()))
    };
    for set in ["blocked", "also"] {
        let set = serde_json::from_value(serde_json::json!({"name": set})).unwrap();
        net.rig.declare(&Request::AddressSetSet(set)).unwrap();
    }
    set(
        &mut net,
        serde_json::json!({
            "name": "l", "applies_to": {"ports": ["p0"]},
            "ingress": [{"action": "deny", "source_sets": ["blocked", "also"], "source": ["10.0.0.3/32"]}],
        }),
    );
    let question = sent(1, 0, Udp, 53);
    assert!(arrives(&mut net, 1, 0, question.clone()), "a set without members is about nobody");
    assert!(!passes(&mut net, 2, 0, Udp, 53), "the network is named beside them");
    let epochs = |net: &Net| net.rig.snapshot().ports.iter().map(|port| port.epoch).collect::<Vec<_>>();
    let before = epochs(&net);
    update(&mut net, "blocked", &["10.0.0.2"], &[]).unwrap();
    let after = epochs(&net);
    assert!(
        before[0] != after[0] && before[1..] == after[1..],
        "ports without such rules judge nothing again"
    );
    assert!(!arrives(&mut net, 1, 0, question.clone()) && !arrives(&mut net, 0, 1, answer(&question)));
    update(&mut net, "also", &["10.0.0.0/24"], &[]).unwrap();
    update(&mut net, "blocked", &[], &["10.0.0.2"]).unwrap();
    assert!(!arrives(&mut net, 1, 0, question.clone()), "the network in the other set has it");
    update(&mut net, "also", &[], &["10.0.0.0/24"]).unwrap();
    assert_eq!(epochs(&net), before, "what is said is what was said");
    assert!(arrives(&mut net, 1, 0, question.clone()) && arrives(&mut net, 0, 1, answer(&question)));
    let named = net.rig.declare(&Request::AddressSetDelete(ByName { name: "also".parse().unwrap() }));
    assert_eq!(named.unwrap_err().code, Code::Busy);
    delete(&mut net, "l");
    net.rig.declare(&Request::AddressSetDelete(ByName { name: "also".parse().unwrap() })).unwrap();
    assert_eq!(update(&mut net, "also", &[], &[]).unwrap_err().code, Code::NotFound);
    net.rig.assert_conserved();
}

/// ICMP by type: an answer's flow is judged as its question.
#[test]
fn pings_by_their_type() {
    let mut net = shop(&[]);
    let list = |action: &str| {
        serde_json::json!({
            "name": "no-ping", "applies_to": {"ports": ["p0"]},
            "ingress": [{"action": action, "protocol": "icmp", "icmp": [8]}, {"action": "deny", "protocol": "icmp"}],
        })
    };
    let echo = |kind: u8, from: usize, to: usize| {
        let mut frame = unreachable(&sent(to, from, Udp, 1), from, to);
        frame[34..36].copy_from_slice(&[kind, 0]);
        frame[36..38].fill(0);
        // Its identifier, by which a flow is told.
        frame[38..40].copy_from_slice(&[1, u8::from(kind == 13)]);
        let checksum = !crate::wire::checksum::fold(crate::wire::checksum::sum(&frame[34..]));
        frame[36..38].copy_from_slice(&checksum.to_be_bytes());
        frame
    };
    set(&mut net, list("allow"));
    assert!(arrives(&mut net, 1, 0, echo(8, 1, 0)) && arrives(&mut net, 0, 1, echo(0, 0, 1)));
    assert!(!arrives(&mut net, 1, 0, echo(13, 1, 0)), "another type");
    // Judged again by its answer: as an echo request, which is still allowed.
    set(
        &mut net,
        serde_json::json!({
            "name": "more", "applies_to": {"ports": ["p1"]}, "ingress": [{"action": "deny", "protocol": "icmp", "icmp": [0]}],
        }),
    );
    assert!(arrives(&mut net, 0, 1, echo(0, 0, 1)));
    set(&mut net, list("deny"));
    assert!(!arrives(&mut net, 0, 1, echo(0, 0, 1)) && !arrives(&mut net, 1, 0, echo(8, 1, 0)));
}

/// What is not IP is only asked about by rules that name nothing of IP; ARP by none at all.
#[test]
fn what_is_not_ip_and_arp() {
    let mut net = shop(&[]);
    let mut other = sent(1, 0, Tcp, 80);
    other[12..14].copy_from_slice(&[0x88, 0xb5]);
    let rule = |rule: serde_json::Value| serde_json::json!({"name": "l", "applies_to": {"ports": ["p0"]}, "ingress": [rule]});
    set(&mut net, rule(serde_json::json!({"action": "deny", "source": ["0.0.0.0/0"]})));
    assert!(arrives(&mut net, 1, 0, other.clone()) && !passes(&mut net, 1, 0, Tcp, 80));
    set(&mut net, rule(serde_json::json!({"action": "deny"})));
    assert!(!arrives(&mut net, 1, 0, other));
    assert_eq!(net.rig.drops(DropReason::AclDenied), 2);
    introduce(&mut net);
}

/// Every flooded copy is asked for by itself, and what its sender may not send is not flooded at all.
#[test]
fn flooded_copies_are_asked_for_each() {
    let mut net = shop(&[]);
    set(
        &mut net,
        serde_json::json!({
            "name": "db", "applies_to": {"ports": ["p0"]},
            "ingress": [{"action": "deny", "protocol": "udp", "destination_ports": [9]}],
        }),
    );
    let mut flooded = sent(1, 0, Udp, 9);
    flooded[..6].copy_from_slice(&[2, 9, 9, 9, 9, 9]);
    assert!(net.peers[1].send(flooded.clone()));
    net.rig.settle(NOW);
    assert!(net.peers[0].recv().is_none() && net.peers[2].recv().is_some());
    assert_eq!((net.rig.drops(DropReason::AclDenied), counted(&net, "acl db ingress 1")), (1, 1));
    set(
        &mut net,
        serde_json::json!({
            "name": "web", "applies_to": {"ports": ["p1"]}, "egress": [{"action": "deny", "protocol": "udp"}],
        }),
    );
    assert!(net.peers[1].send(flooded));
    net.rig.settle(NOW);
    assert!(net.peers[0].recv().is_none() && net.peers[2].recv().is_none());
    assert_eq!(counted(&net, "acl web egress 1"), 1);
    net.rig.assert_conserved();
}

/// What rules say of addresses and ports is asked for a batch at once, and what they say of more is not: nothing is left of the last batch.
#[test]
fn a_list_that_names_more_than_ports_is_asked_anew() {
    let mut net = shop(&[]);
    let list = |rules: serde_json::Value| serde_json::json!({"name": "l", "applies_to": {"ports": ["p0"]}, "ingress": rules});
    set(&mut net, list(serde_json::json!([{"action": "deny"}])));
    assert!(!passes(&mut net, 1, 0, Tcp, 80));
    set(
        &mut net,
        list(
            serde_json::json!([{"action": "allow", "protocol": "tcp", "tcp_flags": "syn"}, {"action": "deny"}]),
        ),
    );
    assert!(passes(&mut net, 1, 0, Tcp, 80) && !passes(&mut net, 1, 0, Udp, 80));
}

/// A drop is told once a flow, with list and rule; none is without a name.
#[test]
fn a_drop_is_told_with_its_list_and_rule() {
    let mut net = shop(&[]);
    set(
        &mut net,
        serde_json::json!({
            "name": "web", "applies_to": {"ports": ["p1"]},
            "egress": [{"action": "allow", "protocol": "tcp"}, {"action": "deny", "destination": ["10.0.0.1/32"]}],
        }),
    );
    for _ in 0..3 {
        assert!(!passes(&mut net, 1, 0, Udp, 9));
    }
    let told = net.rig.take_refused();
    let [refused] = &told[..] else { panic!("{told:?}") };
    assert_eq!((refused.from, refused.to, refused.reason), (1, Some(0), DropReason::AclDenied));
    assert_eq!(net.rig.model.rule_name(refused.slot.unwrap()), "acl web egress 2");
    let events = [Event::PolicyDropTold, Event::PolicyDropUntold, Event::PolicyDropAgain];
    let told: u64 = events.iter().map(|event| net.rig.counters[0].event(*event).get()).sum();
    assert_eq!(told, net.rig.drops(DropReason::AclDenied));
    assert_eq!(counted(&net, "acl web egress 2"), 3);
}

/// Fifty lists on one port are as one: the same steps, and the last rule is found.
#[test]
fn many_lists_and_counters_that_stay_their_own() {
    let mut net = shop(&[]);
    for n in 0..50u16 {
        set(
            &mut net,
            serde_json::json!({
                "name": format!("l{n}"), "priority": n, "applies_to": {"ports": ["p0"]},
                "ingress": [{"action": "deny", "protocol": "udp", "destination_ports": [1000 + n]}],
            }),
        );
    }
    assert!(!passes(&mut net, 1, 0, Udp, 1049) && !passes(&mut net, 1, 0, Udp, 1007));
    assert!(passes(&mut net, 1, 0, Udp, 1050));
    assert_eq!((counted(&net, "acl l49 ingress 1"), counted(&net, "acl l7 ingress 1")), (1, 1));
    // A policy that comes has slots of its own.
    net.rig.declare(&Request::PolicyAdd(Box::new(db_from_web()))).unwrap();
    assert!(!passes(&mut net, 2, 0, Tcp, 1));
    assert_eq!(counted(&net, "shop/db ingress default"), 1);
    assert_eq!(counted(&net, "acl l49 ingress 1"), 1);
}

/// A staged rule is counted where it would have decided, and decides nothing; what it hides is decided by who comes after.
#[test]
fn staged_rules_are_counted_and_decide_nothing() {
    let mut net = shop(&[]);
    let list = |staged: bool| {
        serde_json::json!({
            "name": "l", "applies_to": {"ports": ["p0"]},
            "ingress": [
                {"action": "allow", "protocol": "udp", "destination_ports": [53]},
                {"action": "deny", "protocol": "udp", "destination_ports": ["50-60"], "staged": staged},
                {"action": "deny", "protocol": "udp", "destination_ports": [55]},
            ],
        })
    };
    set(&mut net, list(true));
    assert!(
        passes(&mut net, 1, 0, Udp, 53) && passes(&mut net, 1, 0, Udp, 54) && passes(&mut net, 1, 0, Udp, 61)
    );
    assert!(!passes(&mut net, 1, 0, Udp, 55));
    let counts = |net: &Net| [1, 2, 3].map(|n| counted(net, &format!("acl l ingress {n}")));
    assert_eq!((counts(&net), net.rig.drops(DropReason::AclDenied)), ([1, 2, 1], 1));
    // In force, it ends what it only would have: the flow is judged again.
    set(&mut net, list(false));
    assert!(!passes(&mut net, 1, 0, Udp, 54) && passes(&mut net, 1, 0, Udp, 53));
    // A list of nothing but staged rules judges as well.
    delete(&mut net, "l");
    set(
        &mut net,
        serde_json::json!({
            "name": "s", "applies_to": {"ports": ["p0"]}, "ingress": [{"action": "deny", "staged": true}],
        }),
    );
    // The rig leaves counters as they were; the daemon begins anew.
    let before = counted(&net, "acl s ingress 1");
    assert!(passes(&mut net, 1, 0, Udp, 54));
    assert_eq!(counted(&net, "acl s ingress 1"), before + 1);
}

/// What is rejected is told to its sender at once: TCP by a reset that fits what it sent, all else by an ICMP error; a group by nothing.
#[test]
fn who_is_rejected_is_told_and_others_are_not() {
    let mut net = shop(&[]);
    set(
        &mut net,
        serde_json::json!({
            "name": "db", "applies_to": {"ports": ["p0"]},
            "ingress": [{"action": "reject", "destination_ports": ["1-99"], "protocol": "tcp"}, {"action": "reject", "protocol": "udp"}],
        }),
    );
    let told = |net: &mut Net, frame: Vec<u8>| {
        assert!(net.peers[1].send(frame));
        net.rig.settle(NOW);
        assert!(net.peers[0].recv().is_none() && net.peers[2].recv().is_none());
        net.peers[1].recv()
    };
    let asked = sent(1, 0, Tcp, 80);
    let reset = told(&mut net, asked.clone()).expect("a reset");
    let ends = |frame: &[u8]| {
        (frame[..6].to_vec(), frame[6..12].to_vec(), frame[26..30].to_vec(), frame[30..34].to_vec())
    };
    let (dst, src, from, to) = ends(&asked);
    assert_eq!(ends(&reset), (src, dst, to, from), "as from whom was asked");
    let tcp = etherparse::TcpHeader::from_slice(&reset[34..]).unwrap().0;
    assert!(tcp.rst && (tcp.source_port, tcp.destination_port) == (80, 40_000), "{tcp:?}");
    let error = told(&mut net, sent(1, 0, Udp, 9)).expect("an error");
    assert_eq!((error[23], &error[34..36]), (1, &[3, 13][..]), "administratively prohibited");
    assert_eq!(net.rig.drops(DropReason::AclRejected), 2);
    assert!(passes(&mut net, 1, 0, Tcp, 100));
    // A copy of a flood is dropped, and nobody is told for a crowd.
    let mut flooded = sent(1, 0, Udp, 9);
    flooded[..6].copy_from_slice(&[0xff; 6]);
    assert!(net.peers[1].send(flooded));
    net.rig.settle(NOW);
    assert!(net.peers[0].recv().is_none() && net.peers[1].recv().is_none() && net.peers[2].recv().is_some());
    assert_eq!((net.rig.drops(DropReason::AclRejected), counted(&net, "acl db ingress 2")), (3, 2));
    // Nor for a crowd whose address does not say that it is one, where the sender itself may not send.
    set(
        &mut net,
        serde_json::json!({"name": "two", "applies_to": {"ports": ["p2"]}, "egress": [{"action": "reject"}]}),
    );
    let mut shouted = sent(2, 0, Udp, 9);
    shouted[..6].copy_from_slice(&[0xff; 6]);
    for (frame, is_told) in [(shouted, false), (sent(2, 0, Udp, 9), true)] {
        assert!(net.peers[2].send(frame));
        net.rig.settle(NOW);
        assert_eq!(net.peers[2].recv().is_some(), is_told);
        assert!(net.peers[0].recv().is_none() && net.peers[1].recv().is_none());
    }
    // So many a second, for each port by itself.
    let answered = (0..300).filter(|_| told(&mut net, sent(1, 0, Udp, 9)).is_some()).count();
    assert!(answered < 210, "{answered}");
    assert_eq!(net.rig.counters[0].event(Event::ErrorUntold).get(), 300 - answered as u64);
    net.rig.assert_conserved();
}

/// A rule with `log` is told of: of a flow the first packet, staged or not; each rule by itself; and none is unaccounted for.
#[test]
fn what_a_rule_logs_is_told_once_a_flow() {
    let mut net = shop(&[]);
    set(
        &mut net,
        serde_json::json!({
            "name": "l", "applies_to": {"ports": ["p0"]},
            "ingress": [
                {"action": "deny", "protocol": "udp", "destination_ports": [53], "staged": true, "log": true},
                {"action": "allow", "protocol": "udp", "log": true},
                {"action": "allow", "protocol": "tcp"},
                {"action": "deny", "log": true},
            ],
        }),
    );
    assert!(
        passes(&mut net, 1, 0, Udp, 53) && passes(&mut net, 1, 0, Udp, 53) && passes(&mut net, 1, 0, Tcp, 53)
    );
    let told = net.rig.take_logged();
    let rules: Vec<_> = told.iter().map(|it| net.rig.model.rule_name(it.ruling.slot)).collect();
    assert_eq!(rules, ["acl l ingress 1", "acl l ingress 2"]);
    assert!(told[0].ruling.staged && (told[1].from, told[1].to) == (1, Some(0)), "{told:?}");
    assert_eq!(told[1].who.unwrap().ports[1], 53);
    // What is denied is told of as a drop, and not twice.
    assert!(!passes(&mut net, 1, 0, Protocol::Sctp, 53));
    assert!(net.rig.take_logged().is_empty());
    // Another list, other rules: the flow is judged again and told of, but not by a rule that told of it.
    set(
        &mut net,
        serde_json::json!({"name": "m", "priority": 2000, "applies_to": {"ports": ["p0"]}, "ingress": [{"action": "deny"}]}),
    );
    assert!(passes(&mut net, 1, 0, Udp, 53));
    let events = [Event::AclLogTold, Event::AclLogUntold, Event::AclLogAgain];
    let counts = events.map(|event| net.rig.counters[0].event(event).get());
    assert_eq!(counts, [2, 0, 2]);
}
