//! Of a batch of flows that go on, about all of which the same was decided, `admit` asks once (`track::Sent`). Here is what tells that from asking about each:
//! flows of one batch about which not the same was decided, and ways of one batch of which not the same is said now.

use super::policy_tests::{NOW, Net, answer, arrives, introduce, mac, net, packet, pod};
use serde_json::{Value, json};
use switch_api::{Protocol, Request};

/// `db` is isolated both ways, `web` and `cache` are not.
fn lab() -> Net {
    let pods = [pod("db", "10.0.0.1"), pod("web", "10.0.0.2"), pod("cache", "10.0.0.3")];
    let mut net = net(vec![], &pods, &[]);
    introduce(&mut net);
    allow(&mut net, &json!([53, 54]));
    net
}

fn policy(net: &mut Net, name: &str, spec: &Value) {
    let policy = json!({"metadata": {"name": name, "namespace": "shop"}, "spec": spec});
    let policy = serde_json::from_value(policy).unwrap();
    net.rig.declare(&Request::PolicySet(Box::new(policy))).unwrap();
}

/// By which ports `db` may ask anybody.
fn allow(net: &mut Net, ports: &Value) {
    let ports: Vec<Value> =
        ports.as_array().unwrap().iter().map(|port| json!({"protocol": "UDP", "port": port})).collect();
    let selector = json!({"matchLabels": {"app": "db"}});
    policy(
        net,
        "db",
        &json!({"podSelector": selector, "policyTypes": ["Egress"], "egress": [{"ports": ports}]}),
    );
}

/// What `db` asks another, by a port.
fn question(to: usize, port: u16) -> Vec<u8> {
    let (from, address) = ("10.0.0.1".parse().unwrap(), format!("10.0.0.{}", to + 1).parse().unwrap());
    packet((mac(to), mac(0)), from, address, (Protocol::Udp, port), 9)
}

/// A flow that goes on: there were answers.
fn stream(net: &mut Net, to: usize, port: u16) {
    let question = question(to, port);
    for _ in 0..2 {
        assert!(arrives(net, 0, to, question.clone()));
        assert!(arrives(net, to, 0, answer(&question)));
    }
}

/// All of them in one batch from `db`: which others got how many.
fn at_once(net: &mut Net, questions: &[(usize, u16)]) -> [usize; 2] {
    questions.iter().for_each(|(to, port)| assert!(net.peers[0].send(question(*to, *port))));
    net.rig.settle(NOW);
    [1, 2].map(|n| std::iter::from_fn(|| net.peers[n].recv()).count())
}

#[test]
fn what_was_judged_again_says_nothing_of_what_was_not() {
    let mut net = lab();
    // Whatever bits the numbers have of what was decided before and behind.
    for port in 100..108 {
        allow(&mut net, &json!([53, 54]));
        stream(&mut net, 1, 53);
        stream(&mut net, 1, 54);
        assert_eq!(at_once(&mut net, &[(1, 53), (1, 54), (1, 53)]), [3, 0]);
        allow(&mut net, &json!([53, port]));
        assert!(arrives(&mut net, 0, 1, question(1, 53)), "it is judged again");
        assert_eq!(at_once(&mut net, &[(1, 53), (1, 54), (1, 53)]), [2, 0]);
    }
    net.rig.assert_conserved();
}

#[test]
fn one_way_says_nothing_of_another() {
    let mut net = lab();
    stream(&mut net, 1, 53);
    stream(&mut net, 2, 53);
    assert_eq!(at_once(&mut net, &[(1, 53), (2, 53)]), [1, 1]);
    // Nobody may ask it any more. Of the others nothing else is said than before.
    let selector = json!({"matchLabels": {"app": "cache"}});
    policy(&mut net, "cache", &json!({"podSelector": selector, "policyTypes": ["Ingress"]}));
    assert_eq!(at_once(&mut net, &[(1, 53), (2, 53), (1, 53)]), [2, 0]);
    net.rig.assert_conserved();
}
