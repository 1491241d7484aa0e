//! Flows of packets whose receiver nobody has learned: each port that may be meant has a copy, and is asked by the flow as it would be if it were
//! known to be meant.

use super::policy_tests::{NOW, Net, introduce, mac, net, pod};
use crate::counter::{DropReason, Event};
use etherparse::PacketBuilder;
use serde_json::json;
use switch_api::{NetworkPolicy, Request};

/// Isolated: 5432 of it is for `web` and `other`, and it begins nothing itself.
const DB: usize = 0;
/// Isolated as a receiver, from everybody.
const WEB: usize = 1;
/// No policy is about it.
const OTHER: usize = 2;
/// Nor about this one, which nobody means.
const BESIDE: usize = 3;

fn lab() -> Net {
    let of = |app: &str| json!({"matchLabels": {"app": app}});
    let policy = |name: &str, spec: serde_json::Value| -> NetworkPolicy {
        serde_json::from_value(json!({"metadata": {"name": name, "namespace": "shop"}, "spec": spec}))
            .unwrap()
    };
    let from = json!([{"podSelector": of("web")}, {"podSelector": of("other")}]);
    let ingress = json!([{"from": from, "ports": [{"port": 5432}]}]);
    let db = json!({"podSelector": of("db"), "policyTypes": ["Ingress", "Egress"], "ingress": ingress});
    let web = json!({"podSelector": of("web"), "policyTypes": ["Ingress"]});
    let pods =
        [pod("db", "10.0.0.1"), pod("web", "10.0.0.2"), pod("other", "10.0.0.3"), pod("beside", "10.0.0.4")];
    let mut net = net(vec![], &pods, &[policy("db", db), policy("web", web)]);
    introduce(&mut net);
    net
}

/// Nobody knows any more where somebody is.
fn forget(net: &Net, who: usize) {
    net.rig.tables.fdb.forget(who as u16, true);
}

/// The ports of who asks, and of who is asked.
const ASKS: [u16; 2] = [40_000, 5432];
const ANSWERS: [u16; 2] = [5432, 40_000];

/// Who has a segment, of all. `s` and `a` are its flags.
fn says(net: &mut Net, [from, to]: [usize; 2], ports: [u16; 2], flags: &str) -> Vec<usize> {
    let ip = |n: usize| [10, 0, 0, n as u8 + 1];
    let link = PacketBuilder::ethernet2(mac(from), mac(to)).ipv4(ip(from), ip(to), 64);
    let (seq, ack) = if ports == ASKS { (100, 201) } else { (200, 101) };
    let tcp = |seq| link.tcp(ports[0], ports[1], seq, 8000);
    let tcp = match flags {
        "s" => tcp(seq).syn(),
        "sa" => tcp(seq).syn().ack(ack),
        _ => tcp(seq + 1).ack(ack),
    };
    let mut frame = Vec::new();
    tcp.write(&mut frame, &[]).unwrap();
    assert!(net.peers[from].send(frame));
    net.rig.settle(NOW);
    net.rig.assert_conserved();
    (0..net.peers.len()).filter(|n| net.peers[*n].recv().is_some()).collect()
}

fn begun(net: &Net) -> u64 {
    net.rig.counters[0].event(Event::FlowNew).get()
}

#[test]
fn the_middle_of_a_connection_is_for_nobody_who_is_held_to_flows() {
    let mut net = lab();
    forget(&net, DB);
    // Also not what policies would let in if it began; who is not isolated has a copy.
    assert_eq!(says(&mut net, [OTHER, DB], ASKS, "a"), [BESIDE]);
    // It is no flow of `db`'s, and `web` takes nothing from anybody.
    assert_eq!([DropReason::NoFlow, DropReason::PolicyIngress].map(|reason| net.rig.drops(reason)), [1, 1]);
    // Of who is isolated it is known without asking anybody else.
    assert!(says(&mut net, [WEB, DB], ASKS, "a").is_empty());
    assert_eq!((net.rig.drops(DropReason::NoFlow), begun(&net)), (2, 0));
    // Nor has it who is not meant, and whose rules let that in which begins.
    forget(&net, BESIDE);
    assert_eq!(says(&mut net, [OTHER, BESIDE], ASKS, "a"), [BESIDE]);
    assert_eq!((net.rig.drops(DropReason::NoFlow), begun(&net)), (3, 0));
}

#[test]
fn what_begins_by_a_flood_is_answered() {
    for (client, has_it) in [(WEB, &[DB, OTHER, BESIDE][..]), (OTHER, &[DB, BESIDE])] {
        let mut net = lab();
        forget(&net, DB);
        assert_eq!(says(&mut net, [client, DB], ASKS, "s"), has_it);
        assert_eq!(begun(&net), 1);
        assert_eq!(says(&mut net, [DB, client], ANSWERS, "sa"), [client], "it may answer, and begin nothing");
        assert_eq!(says(&mut net, [client, DB], ASKS, "a"), [DB]);
        assert_eq!((begun(&net), net.rig.drops(DropReason::PolicyEgress)), (1, 0));
    }
}

/// Whether flows are kept of what is sent by who answers, or not.
#[test]
fn an_answer_reaches_an_isolated_port_wherever_that_is() {
    for server in [DB, OTHER] {
        let mut net = lab();
        for (way, flags) in [([WEB, server], "s"), ([server, WEB], "sa"), ([WEB, server], "a")] {
            let ports = if flags == "sa" { ANSWERS } else { ASKS };
            assert_eq!(says(&mut net, way, ports, flags), [way[1]]);
        }
        forget(&net, WEB);
        // What an isolated sender sends is for whom it was asked about.
        let has_it = if server == DB { &[WEB][..] } else { &[WEB, BESIDE] };
        assert_eq!(says(&mut net, [server, WEB], ANSWERS, "a"), has_it);
        assert_eq!(begun(&net), 1);
        // Nobody else is let in by that.
        let stranger = 2 - server;
        assert!(!says(&mut net, [stranger, WEB], ANSWERS, "a").contains(&WEB));
        assert!(!says(&mut net, [stranger, WEB], ANSWERS, "s").contains(&WEB));
    }
}

/// Of an answer it is asked whether what it answers may still be.
#[test]
fn an_answer_to_what_is_not_allowed_any_more_stops_in_a_flood_too() {
    let mut net = lab();
    assert_eq!(says(&mut net, [WEB, DB], ASKS, "s"), [DB]);
    assert_eq!(says(&mut net, [DB, WEB], ANSWERS, "sa"), [WEB]);
    forget(&net, WEB);
    let policy = json!({
        "metadata": {"name": "db", "namespace": "shop"},
        "spec": {"podSelector": {"matchLabels": {"app": "db"}}, "policyTypes": ["Ingress"]},
    });
    let policy: NetworkPolicy = serde_json::from_value(policy).unwrap();
    net.rig.declare(&Request::PolicySet(Box::new(policy))).unwrap();
    assert!(says(&mut net, [DB, WEB], ANSWERS, "a").is_empty());
    assert_eq!(net.rig.drops(DropReason::PolicyIngress), 1);
}

fn set(net: &mut Net, name: &str, spec: &serde_json::Value) {
    let policy = json!({"metadata": {"name": name, "namespace": "shop"}, "spec": spec});
    net.rig.declare(&Request::PolicySet(Box::new(serde_json::from_value(policy).unwrap()))).unwrap();
}

fn list(net: &mut Net, acl: serde_json::Value) {
    net.rig.declare(&Request::AclSet(Box::new(serde_json::from_value(acl).unwrap()))).unwrap();
}

/// Whoever of the two is isolated, and by its own rules may not ask or be asked any more; the asker takes whatever it is sent.
#[test]
fn an_answer_is_flooded_only_as_long_as_its_question_may_be_asked() {
    for (isolated, direction) in [(OTHER, "Egress"), (BESIDE, "Ingress")] {
        let mut net = lab();
        let app = ["other", "beside"][usize::from(isolated == BESIDE)];
        let selector = json!({"matchLabels": {"app": app}});
        let allows =
            json!({"podSelector": selector, "policyTypes": [direction], direction.to_lowercase(): [{}]});
        set(&mut net, "one", &allows);
        assert_eq!(says(&mut net, [OTHER, BESIDE], ASKS, "s"), [BESIDE]);
        assert_eq!(says(&mut net, [BESIDE, OTHER], ANSWERS, "sa"), [OTHER]);
        assert_eq!(says(&mut net, [OTHER, BESIDE], ASKS, "a"), [BESIDE]);
        forget(&net, OTHER);
        assert!(says(&mut net, [BESIDE, OTHER], ANSWERS, "a").contains(&OTHER), "{direction}");
        set(&mut net, "one", &json!({"podSelector": selector, "policyTypes": [direction]}));
        assert!(!says(&mut net, [BESIDE, OTHER], ANSWERS, "a").contains(&OTHER), "{direction}");
        set(&mut net, "one", &allows);
        assert!(says(&mut net, [BESIDE, OTHER], ANSWERS, "a").contains(&OTHER), "{direction}");
    }
}

/// Of a flow that is there it is its first packet that rules are about, whichever is flooded.
#[test]
fn flags_are_those_of_the_first_packet_in_a_flood_too() {
    let begins = json!([{"action": "allow", "protocol": "tcp", "tcp_flags": "syn,!ack"}, {"action": "deny", "protocol": "tcp"}]);
    for (port, direction) in [("p3", "ingress"), ("p2", "egress")] {
        let mut net = lab();
        list(&mut net, json!({"name": "l", "applies_to": {"ports": [port]}, direction: begins}));
        for (way, flags) in [([OTHER, BESIDE], "s"), ([BESIDE, OTHER], "sa"), ([OTHER, BESIDE], "a")] {
            let ports = if flags == "sa" { ANSWERS } else { ASKS };
            assert_eq!(says(&mut net, way, ports, flags), [way[1]], "{direction}");
        }
        forget(&net, BESIDE);
        assert!(says(&mut net, [OTHER, BESIDE], ASKS, "a").contains(&BESIDE), "{direction}");
        assert!(says(&mut net, [OTHER, BESIDE], [40_001, 5432], "a").is_empty(), "{direction}: of no flow");
    }
}

/// Nor does who is held to flows: what it begins and nobody is given is no flow.
#[test]
fn what_no_copy_was_let_in_of_is_no_flow_of_its_senders() {
    let mut net = lab();
    forget(&net, DB);
    let nowhere = [40_000, 22];
    assert_eq!(says(&mut net, [WEB, DB], nowhere, "s"), [OTHER, BESIDE]);
    assert_eq!((begun(&net), net.rig.drops(DropReason::PolicyIngress)), (0, 1));
    // `db` may begin nothing, and this answers nothing.
    assert!(says(&mut net, [DB, WEB], [22, 40_000], "s").is_empty());
    assert_eq!(net.rig.drops(DropReason::PolicyEgress), 1);
    assert_eq!(says(&mut net, [WEB, DB], ASKS, "s"), [DB]);
    assert_eq!(begun(&net), 1);
}

/// A UDP datagram, and who has it.
fn tells(net: &mut Net, from: usize, as_whom: [usize; 2], to: [u8; 6], ports: [u16; 2]) -> Vec<usize> {
    let ip = |n: usize| [10, 0, 0, n as u8 + 1];
    let link = PacketBuilder::ethernet2(mac(from), to).ipv4(ip(as_whom[0]), ip(as_whom[1]), 64);
    let mut frame = Vec::new();
    link.udp(ports[0], ports[1]).write(&mut frame, &[0; 8]).unwrap();
    assert!(net.peers[from].send(frame));
    net.rig.settle(NOW);
    net.rig.assert_conserved();
    (0..net.peers.len()).filter(|n| net.peers[*n].recv().is_some()).collect()
}

/// Who sends as if it were another makes nobody a client of itself: what answers is let in where the flow began, and nowhere else.
#[test]
fn what_is_begun_in_anothers_name_opens_no_door() {
    let mut net = lab();
    let acl = json!({"name": "l", "applies_to": {"ports": ["p3"]}, "ingress": [{"action": "allow"}]});
    net.rig.declare(&Request::AclSet(Box::new(serde_json::from_value(acl).unwrap()))).unwrap();
    let nobody = [2, 0, 0, 0, 0, 99];
    for first in [nobody, mac(BESIDE)] {
        assert_eq!(tells(&mut net, OTHER, [WEB, OTHER], first, [53, 4000]), [BESIDE]);
        for to in [mac(WEB), nobody] {
            assert!(!tells(&mut net, OTHER, [OTHER, WEB], to, [4000, 53]).contains(&WEB), "{first:?} {to:?}");
        }
    }
    assert_eq!(
        net.rig.drops(DropReason::PolicyIngress),
        4 + 2,
        "two copies of what is for nobody are for `db`"
    );
}

/// What nobody let in leaves no flow behind, in which what the other end begins would be an answer.
#[test]
fn what_no_copy_was_let_in_of_is_no_flow() {
    let mut net = lab();
    forget(&net, WEB);
    assert_eq!(tells(&mut net, OTHER, [OTHER, WEB], mac(WEB), [500, 500]), [BESIDE]);
    assert_eq!(begun(&net), 0);
    assert!(tells(&mut net, WEB, [WEB, OTHER], mac(OTHER), [500, 500]).contains(&OTHER));
    assert_eq!(tells(&mut net, OTHER, [OTHER, WEB], mac(WEB), [500, 500]), [WEB], "now it is an answer");
}

/// Rules that keep no flows let the middle of a connection through, flooded or not.
#[test]
fn a_stateless_rule_asks_for_no_flow_of_a_copy() {
    let mut net = lab();
    let acl = json!({
        "name": "l", "applies_to": {"ports": ["p3"]}, "stateless": true,
        "ingress": [{"action": "allow", "protocol": "tcp", "destination_ports": [5432]}, {"action": "deny"}],
    });
    net.rig.declare(&Request::AclSet(Box::new(serde_json::from_value(acl).unwrap()))).unwrap();
    forget(&net, BESIDE);
    for flags in ["a", "s", "a"] {
        assert!(says(&mut net, [OTHER, BESIDE], ASKS, flags).contains(&BESIDE), "{flags}");
        assert_eq!(begun(&net), 0);
    }
    assert!(!says(&mut net, [OTHER, BESIDE], [40_000, 22], "s").contains(&BESIDE));
}
