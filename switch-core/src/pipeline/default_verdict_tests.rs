//! Default verdicts of ports, as packets: what no list and no policy decides, in either direction.

use super::acl_tests::{passes, sent, set, shop};
use super::policy_tests::{NOW, Net, answer, arrives, introduce};
use crate::config::policies::DEFAULT_VERDICT;
use crate::counter::DropReason;
use serde_json::json;
use switch_api::Protocol::{Tcp, Udp};
use switch_api::{NetworkPolicy, PortSet, PortSettings, Request};

/// What the port `pN` has by default from now on, like `{"ingress": "deny"}`.
fn default(net: &mut Net, port: usize, verdicts: serde_json::Value) {
    let before = net.rig.model.ports[&format!("p{port}").parse().unwrap()].object.settings.clone();
    let settings = PortSettings { default_verdict: serde_json::from_value(verdicts).unwrap(), ..before };
    let name = format!("p{port}").parse().unwrap();
    net.rig.declare(&Request::PortSet(PortSet { name, settings })).unwrap();
}

fn denied(net: &Net) -> [u64; 2] {
    [DropReason::DefaultIngress, DropReason::DefaultEgress].map(|reason| net.rig.drops(reason))
}

/// Each direction by itself; what is let through is answered, what is denied has its own name, and so has whoever decided.
#[test]
fn what_nobody_decides_is_denied_by_direction() {
    let mut net = shop(&[]);
    default(&mut net, 0, json!({"ingress": "deny"}));
    assert!(!passes(&mut net, 1, 0, Tcp, 80) && !passes(&mut net, 2, 0, Udp, 53));
    assert_eq!(denied(&net), [2, 0]);
    let told = net.rig.take_refused();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(
        told.iter()
            .all(|it| it.slot.map(|slot| net.rig.model.rule_name(slot)).as_deref() == Some(DEFAULT_VERDICT))
    );
    // What it asks is answered, and others are not concerned.
    let asked = sent(0, 1, Udp, 53);
    assert!(arrives(&mut net, 0, 1, asked.clone()) && arrives(&mut net, 1, 0, answer(&asked)));
    assert!(passes(&mut net, 1, 2, Tcp, 80));
    introduce(&mut net);
    // The other direction: its own flow from before stops as well, and nothing of what others ask.
    default(&mut net, 0, json!({"egress": "deny"}));
    assert!(!arrives(&mut net, 0, 1, asked.clone()) && !arrives(&mut net, 1, 0, answer(&asked)));
    assert!(passes(&mut net, 1, 0, Tcp, 80) && !passes(&mut net, 0, 2, Tcp, 80));
    assert_eq!(denied(&net)[0], 2);
    // And back.
    default(&mut net, 0, json!({}));
    assert!(arrives(&mut net, 0, 1, asked) && passes(&mut net, 0, 2, Tcp, 81));
    assert!(!net.rig.snapshot().policed, "nobody is judged any more, and nothing costs");
    net.rig.assert_conserved();
}

/// Lists of either tier and policies go before it: it is for what they leave.
#[test]
fn lists_and_policies_go_before_it() {
    let mut net = shop(&[]);
    default(&mut net, 0, json!({"ingress": "deny"}));
    let rule =
        |action: &str, port: u16| json!({"action": action, "protocol": "tcp", "destination_ports": [port]});
    let list = |name: &str, tier: &str, rules: serde_json::Value| json!({"name": name, "tier": tier, "applies_to": {"ports": ["p0"]}, "ingress": rules});
    set(&mut net, list("before", "before", json!([rule("allow", 1), rule("pass", 2)])));
    set(&mut net, list("after", "after", json!([rule("allow", 2), rule("deny", 3), rule("pass", 4)])));
    let tcp = |net: &mut Net| [1, 2, 3, 4, 5].map(|port| passes(net, 1, 0, Tcp, port));
    assert_eq!(tcp(&mut net), [true, true, false, false, false]);
    assert_eq!((denied(&net), net.rig.drops(DropReason::AclDenied)), ([2, 0], 1));
    // A policy that isolates it decides about all that the first tier leaves.
    let policy = json!({
        "metadata": {"name": "db", "namespace": "shop"},
        "spec": {"podSelector": {"matchLabels": {"app": "db"}}, "ingress": [{"ports": [{"port": 5}]}]},
    });
    let policy: NetworkPolicy = serde_json::from_value(policy).unwrap();
    net.rig.declare(&Request::PolicyAdd(Box::new(policy))).unwrap();
    assert_eq!(tcp(&mut net), [true, false, false, false, true]);
    assert_eq!((denied(&net), net.rig.drops(DropReason::PolicyIngress)), ([2, 0], 3));
    net.rig.assert_conserved();
}

/// It is about every frame but ARP: what is not IP, and each copy of what is flooded.
#[test]
fn what_is_not_ip_and_copies_of_a_flood() {
    let mut net = shop(&[]);
    default(&mut net, 0, json!({"ingress": "deny"}));
    let mut other = sent(1, 0, Tcp, 80);
    other[12..14].copy_from_slice(&[0x88, 0xb5]);
    assert!(!arrives(&mut net, 1, 0, other));
    let mut flooded = sent(1, 0, Udp, 9);
    flooded[..6].copy_from_slice(&[2, 9, 9, 9, 9, 9]);
    assert!(net.peers[1].send(flooded.clone()));
    net.rig.settle(NOW);
    assert!(net.peers[0].recv().is_none() && net.peers[2].recv().is_some());
    assert_eq!(denied(&net), [2, 0]);
    default(&mut net, 1, json!({"egress": "deny"}));
    assert!(net.peers[1].send(flooded));
    net.rig.settle(NOW);
    assert!(net.peers[2].recv().is_none());
    assert_eq!(denied(&net), [2, 1]);
    introduce(&mut net);
    net.rig.assert_conserved();
}
