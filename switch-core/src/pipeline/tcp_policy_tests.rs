//! TCP under network policies, frame by frame: SYNs that cross, and ports that are used again while their last connection is remembered.

use super::policy_tests::{NOW, Net, introduce, mac, net, pod};
use crate::counter::{DropReason, Event};
use crate::pipeline::Now;
use crate::table::flow::state::Stage;
use etherparse::PacketBuilder;
use serde_json::json;
use switch_api::{ByPolicy, NetworkPolicy, Request};

const DB: usize = 0;
const WEB: usize = 1;
/// Of `web` and of `db`.
const PORTS: [u16; 2] = [40_000, 5432];

/// `db` takes 5432 from `web`, and begins nothing itself.
fn lab() -> Net {
    let policy = json!({
        "metadata": {"name": "db", "namespace": "shop"},
        "spec": {
            "podSelector": {"matchLabels": {"app": "db"}},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "web"}}}], "ports": [{"port": PORTS[1]}]}],
        },
    });
    let policy: NetworkPolicy = serde_json::from_value(policy).unwrap();
    let mut net = net(vec![], &[pod("db", "10.0.0.1"), pod("web", "10.0.0.2")], &[policy]);
    introduce(&mut net);
    net
}

/// Nobody may speak with `db` any more.
fn isolate(net: &mut Net) {
    let policy = json!({
        "metadata": {"name": "db", "namespace": "shop"},
        "spec": {"podSelector": {"matchLabels": {"app": "db"}}, "policyTypes": ["Ingress", "Egress"]},
    });
    net.rig.declare(&Request::PolicySet(Box::new(serde_json::from_value(policy).unwrap()))).unwrap();
}

/// Whether a segment arrives at the other end; `s`, `a` and `f` are its flags.
fn says(net: &mut Net, from: usize, flags: &str, seq: u32, ack: u32) -> bool {
    says_after(net, 0, from, flags, seq, ack)
}

/// The same, so many seconds later.
fn says_after(net: &mut Net, s: u64, from: usize, flags: &str, seq: u32, ack: u32) -> bool {
    let ports = if from == WEB { PORTS } else { [PORTS[1], PORTS[0]] };
    let ip = |n: usize| [10, 0, 0, n as u8 + 1];
    let link = PacketBuilder::ethernet2(mac(from), mac(1 - from)).ipv4(ip(from), ip(1 - from), 64);
    let mut tcp = link.tcp(ports[0], ports[1], seq, 8000);
    for flag in flags.chars() {
        tcp = match flag {
            's' => tcp.syn(),
            'a' => tcp.ack(ack),
            'f' => tcp.fin(),
            other => panic!("{other}"),
        };
    }
    let mut frame = Vec::new();
    tcp.write(&mut frame, &[]).unwrap();
    assert!(net.peers[from].send(frame));
    net.rig.settle(Now { ns: NOW.ns + s * 1_000_000_000 });
    net.rig.assert_conserved();
    net.peers[1 - from].recv().is_some()
}

fn stages(net: &Net) -> Vec<Stage> {
    let (flows, mut stages) = (&net.rig.tables.flows, Vec::new());
    flows.scan(0..flows.places(), NOW.s(), |_, entry| stages.push(entry.state.stage));
    stages
}

fn begun(net: &Net) -> u64 {
    net.rig.counters[0].event(Event::FlowNew).get()
}

fn denied(net: &Net) -> [u64; 2] {
    [DropReason::PolicyIngress, DropReason::PolicyEgress].map(|reason| net.rig.drops(reason))
}

/// How often the rule that lets `web` in was asked and did.
fn let_in(net: &Net) -> u64 {
    net.rig.counters[0].rule(2).unwrap().get()
}

/// RFC 9293, figure 8. The SYN of who may begin nothing is of the connection that the other has begun.
#[test]
fn syns_that_cross_are_one_connection_which_is_its_whose_syn_came_first() {
    let mut net = lab();
    assert!(!says(&mut net, DB, "s", 500, 0), "it may begin nothing");
    assert_eq!((denied(&net), stages(&net)), ([0, 1], vec![]));
    assert!(says(&mut net, WEB, "s", 100, 0) && says(&mut net, DB, "s", 500, 0));
    assert_eq!(stages(&net), [Stage::BothSynSent]);
    assert!(!says(&mut net, WEB, "sa", 100, 777), "it acknowledges nothing that was sent");
    assert_eq!(net.rig.drops(DropReason::TcpWindow), 1);
    assert!(says(&mut net, WEB, "sa", 100, 501) && says(&mut net, DB, "sa", 500, 101));
    assert_eq!(stages(&net), [Stage::Established]);
    assert!(says(&mut net, WEB, "a", 101, 501) && says(&mut net, DB, "a", 501, 101));
    assert_eq!((denied(&net), begun(&net), let_in(&net)), ([0, 1], 1, 1));
}

#[test]
fn syns_that_crossed_are_judged_again_as_the_first_of_them() {
    let mut net = lab();
    assert!(says(&mut net, WEB, "s", 100, 0) && says(&mut net, DB, "s", 500, 0));
    isolate(&mut net);
    assert!(!says(&mut net, WEB, "sa", 100, 501) && !says(&mut net, DB, "sa", 500, 101));
    // Both as what `web` has begun: by what `db` is sent, though it may send nothing either.
    assert_eq!(denied(&net), [2, 0]);
}

/// A connection from its first segment to its last; both ends remember it.
fn open_and_close(net: &mut Net) {
    let segments = [
        (WEB, "s", 100, 0),
        (DB, "sa", 500, 101),
        (WEB, "a", 101, 501),
        (WEB, "fa", 101, 501),
        (DB, "fa", 501, 102),
        (WEB, "a", 102, 502),
    ];
    segments.into_iter().for_each(|(from, flags, seq, ack)| assert!(says(net, from, flags, seq, ack)));
    assert_eq!(stages(net), [Stage::TimeWait]);
}

#[test]
fn a_syn_in_time_wait_begins_another_connection_which_is_judged_anew() {
    let mut net = lab();
    open_and_close(&mut net);
    assert_eq!((begun(&net), let_in(&net)), (1, 1));
    assert!(says(&mut net, WEB, "s", 90_000, 0));
    assert_eq!((stages(&net), begun(&net), let_in(&net)), (vec![Stage::SynSent], 2, 2));
    assert!(says(&mut net, DB, "sa", 7, 90_001) && says(&mut net, WEB, "a", 90_001, 8));
    assert_eq!((stages(&net), begun(&net), denied(&net)), (vec![Stage::Established], 2, [0, 0]));
}

/// Who was asked begins now, from the port that it was asked by: that is no answer any more.
#[test]
fn a_syn_in_time_wait_from_the_other_end_is_judged_as_its_own() {
    let mut net = lab();
    open_and_close(&mut net);
    assert!(!says(&mut net, DB, "s", 90_000, 0));
    assert_eq!((denied(&net), begun(&net)), ([0, 1], 1));
    // What was remembered still is.
    assert_eq!(stages(&net), [Stage::TimeWait]);
    assert!(says(&mut net, DB, "fa", 501, 102), "its FIN once more");
}

#[test]
fn a_syn_in_time_wait_is_denied_by_what_policies_say_by_then() {
    let mut net = lab();
    open_and_close(&mut net);
    isolate(&mut net);
    assert!(!says(&mut net, WEB, "s", 90_000, 0));
    assert_eq!((denied(&net), begun(&net)), ([1, 0], 1));
    assert!(!says(&mut net, WEB, "a", 102, 502), "nor does the old one go on");
    assert_eq!(denied(&net), [2, 0]);
    let gone = ByPolicy { name: "db".into(), namespace: "shop".into() };
    net.rig.declare(&Request::PolicyDelete(gone)).unwrap();
    net.rig.settle(NOW);
    assert!(says(&mut net, WEB, "s", 90_000, 0));
}

/// Without a policy nobody looks on, and megabytes go by; when it is back the connection goes on from where it is, whoever speaks first and also if it
/// was away for an instant. What is forged into one that is seen goes nowhere.
#[test]
fn a_connection_that_went_on_unseen_is_taken_up_where_it_is() {
    let policy = || ByPolicy { namespace: "shop".into(), name: "db".into() };
    for (first, away_s) in [(WEB, 5), (DB, 5), (WEB, 0)] {
        let mut net = lab();
        assert!(says(&mut net, WEB, "s", 100, 0) && says(&mut net, DB, "sa", 500, 101));
        assert!(says(&mut net, WEB, "a", 101, 501) && !says(&mut net, WEB, "a", 50_000_000, 501));
        let declared = net.rig.model.policies.values().next().unwrap().policy.clone();
        net.rig.declare(&Request::PolicyDelete(policy())).unwrap();
        assert!(says(&mut net, WEB, "a", 50_000_000, 501) && says(&mut net, DB, "a", 70_000_000, 50_000_001));
        net.rig.declare(&Request::PolicyAdd(Box::new((*declared).clone()))).unwrap();
        let ends = |from| if from == WEB { (50_000_001, 70_000_001) } else { (70_000_001, 50_000_001) };
        for from in [first, 1 - first, first] {
            let (seq, ack) = ends(from);
            assert!(says_after(&mut net, away_s, from, "a", seq, ack), "{first}, {away_s} s, {from}");
        }
        let before = net.rig.drops(DropReason::TcpWindow);
        assert!(!says_after(&mut net, away_s + 2, WEB, "a", 150_000_000, 70_000_001));
        let (seq, ack) = ends(DB);
        assert!(says_after(&mut net, away_s + 2, DB, "a", seq, ack));
        assert!(!says_after(&mut net, away_s + 3, DB, "a", 170_000_000, 50_000_001));
        assert_eq!(net.rig.drops(DropReason::TcpWindow) - before, 2);
    }
}
