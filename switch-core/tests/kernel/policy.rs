//! Network policies, seen by real kernels: pods with TAPs, and the node.

use crate::switchd;
use std::time::Duration;
use switch_api::{
    ApiError, Bridge, ByPolicy, Code, Done, NetworkPolicy, PolicyFilter, PolicyStatus, Port, PortSettings,
    Request,
};
use switch_lab::node::tap_port;
use switch_lab::scenes::{datagrams, explain, labelled, shop};
use switch_lab::world::Echo;
use switch_lab::{Daemon, Net, Node, Pod, wait_until};

const LONG: Duration = Duration::from_secs(60);

pub fn declare(daemon: &Daemon, name: &str, spec: serde_json::Value) {
    let policy = serde_json::json!({"metadata": {"name": name, "namespace": "shop"}, "spec": spec});
    let policy: NetworkPolicy = serde_json::from_value(policy).unwrap();
    let _: Done = daemon.call(&Request::PolicyAdd(Box::new(policy)));
}

fn remove(daemon: &Daemon, name: &str) {
    let by = ByPolicy { name: name.into(), namespace: "shop".into() };
    let _: Done = daemon.call(&Request::PolicyDelete(by));
}

#[test]
fn what_is_not_allowed_does_not_arrive() {
    let (node, daemon, pods) = shop(&switchd());
    let [db, web, other] = &pods[..] else { panic!() };
    assert_eq!(datagrams(&other.net, &db.net, "10.66.0.1", 5432), 10);
    declare(&daemon, "deny", serde_json::json!({"podSelector": {}}));
    assert_eq!(datagrams(&web.net, &db.net, "10.66.0.1", 5432), 0);
    assert_eq!(datagrams(&other.net, &db.net, "10.66.0.1", 5432), 0);
    declare(
        &daemon,
        "db",
        serde_json::json!({
            "podSelector": {"matchLabels": {"app": "db"}},
            "ingress": [{
                "from": [{"podSelector": {"matchLabels": {"app": "web"}}}],
                "ports": [{"protocol": "UDP", "port": 5432}],
            }],
        }),
    );
    assert_eq!(datagrams(&web.net, &db.net, "10.66.0.1", 5432), 10);
    assert_eq!(datagrams(&web.net, &db.net, "10.66.0.1", 5433), 0);
    assert_eq!(datagrams(&other.net, &db.net, "10.66.0.1", 5432), 0);
    // The node reaches its pods, and they it.
    assert_eq!(datagrams(&node.net, &db.net, "10.66.0.1", 1), 10);
    assert_eq!(datagrams(&db.net, &node.net, "10.66.0.9", 1), 10);
    let policies: Vec<PolicyStatus> = daemon.call(&Request::PolicyList(PolicyFilter::default()));
    let of = |name: &str| policies.iter().find(|status| status.policy.metadata.name == name).unwrap();
    assert_eq!((of("db").ports.len(), of("deny").ports.len()), (1, 3));
    let allowed = of("db").rules.iter().find(|rule| rule.rule == "shop/db ingress 1").unwrap();
    assert!(allowed.packets > 0, "{policies:?}");
    assert!(daemon.drops("policy-ingress") >= 40, "{:?}", daemon.stats().drops);
    assert!(daemon.stats().policy_drops.iter().any(|rule| rule.rule == "shop/db ingress default"));
    remove(&daemon, "deny");
    remove(&daemon, "db");
    assert_eq!(datagrams(&other.net, &db.net, "10.66.0.1", 5432), 10);
    daemon.assert_conserved();
}

#[test]
fn explained_restarted_and_refused() {
    let node = Node::new();
    let options = switchd().keeping_state();
    let mut daemon = node.start(&options);
    daemon.bridge("br0");
    let pods: Vec<_> = (1..=2).map(|n| node.bare_pod(n)).collect();
    for (pod, app) in pods.iter().zip(["db", "web"]) {
        let _: Done = daemon.call(&Request::PortAdd(Box::new(labelled(pod, app))));
    }
    declare(
        &daemon,
        "db",
        serde_json::json!({
            "podSelector": {"matchLabels": {"app": "db"}},
            "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "web"}}}], "ports": [{"protocol": "UDP", "port": 53}]}],
        }),
    );
    let check = |daemon: &Daemon| {
        let passes = explain(daemon, "tap2", "tap1", 53);
        assert!(passes.passes && passes.ingress.rule.as_deref() == Some("shop/db ingress 1"), "{passes:?}");
        let stops = explain(daemon, "10.66.0.2", "10.66.0.1", 54);
        assert!(!stops.passes, "{stops:?}");
        assert_eq!(stops.ingress.rule.as_deref(), Some("shop/db ingress default"));
        assert!(explain(daemon, "10.66.0.1", "10.66.0.2", 54).passes);
    };
    check(&daemon);
    daemon.kill();
    let daemon = node.start(&options);
    // Ports, labels and policies are there again, all at once.
    check(&daemon);
    assert_eq!(datagrams(&pods[1].net, &pods[0].net, "10.66.0.1", 54), 0);
    wait_until("the allowed ones arrive", LONG, || {
        datagrams(&pods[1].net, &pods[0].net, "10.66.0.1", 53) == 10
    });
    let refused = |spec: serde_json::Value, name: &str| -> ApiError {
        let policy = serde_json::json!({"metadata": {"name": name, "namespace": "shop"}, "spec": spec});
        let policy: NetworkPolicy = serde_json::from_value(policy).unwrap();
        daemon.client().call::<Done>(&Request::PolicyAdd(Box::new(policy))).unwrap_err()
    };
    assert_eq!(refused(serde_json::json!({}), "db").code, Code::Exists);
    let bad = refused(serde_json::json!({"ingress": [{"from": [{}]}]}), "x");
    assert_eq!(bad.data.field.as_deref(), Some("spec.ingress[0].from[0]"));
    let mut twin = Port { name: "twin".parse().unwrap(), ..labelled(&pods[0], "db") };
    // Its device has an address of its own; to policies it is who the other is.
    *twin.kind.addressed_mut().unwrap().0 = vec!["10.66.0.77/24".parse().unwrap()];
    twin.workload.as_mut().unwrap().addresses = vec!["10.66.0.1".parse().unwrap()];
    let error = daemon.client().call::<Done>(&Request::PortAdd(Box::new(twin))).unwrap_err();
    assert!(error.message.contains("cannot be of two workloads"), "{error:?}");
}

/// A ping of more than a packet, asked by who is closed: the answer's pieces are of the flow that its question began.
#[test]
fn pings_in_pieces_are_answered_where_policies_are() {
    let (_node, daemon, pods) = shop(&switchd());
    declare(&daemon, "deny", serde_json::json!({"podSelector": {}}));
    declare(
        &daemon,
        "web",
        serde_json::json!({
            "podSelector": {"matchLabels": {"app": "web"}},
            "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "db"}}}]}],
        }),
    );
    let [db, _, other] = &pods[..] else { panic!() };
    for ip in ["10.66.0.2", "fd66::2"] {
        for size in [56, 3000, 9000] {
            let said = db.net.run(&format!("ping -n -c 3 -i 0.1 -W 2 -s {size} {ip}"));
            assert!(said.contains(" 0% packet loss"), "{ip} {size}: {said}\n{:?}", daemon.stats().drops);
        }
        assert!(!other.reaches(ip), "who is not allowed is not");
    }
    assert_eq!(daemon.drops("no-flow"), 0, "{:?}", daemon.stats().drops);
    daemon.assert_conserved();
}

/// A connection that goes on as long as the policy allows it.
#[test]
fn a_connection_stops_with_its_policy_and_goes_on_with_it() {
    let (_node, daemon, pods) = shop(&switchd());
    let [db, web, _] = &pods[..] else { panic!() };
    let set = |ingress: serde_json::Value| {
        let spec = serde_json::json!({"podSelector": {"matchLabels": {"app": "db"}}, "ingress": ingress});
        let policy = serde_json::json!({"metadata": {"name": "db", "namespace": "shop"}, "spec": spec});
        let policy: NetworkPolicy = serde_json::from_value(policy).unwrap();
        let _: Done = daemon.call(&Request::PolicySet(Box::new(policy)));
    };
    let allowed = serde_json::json!([{
        "from": [{"podSelector": {"matchLabels": {"app": "web"}}}], "ports": [{"port": 5432}],
    }]);
    set(allowed.clone());
    // `db` is closed but for this, and yet it may ask, and is answered.
    assert_eq!(
        switch_lab::transfer::tcp(&db.net, &web.net, "10.66.0.2".parse().unwrap(), 1_000_000),
        1_000_000
    );
    let mut connection = Echo::open(&web.net, &db.net, "10.66.0.1:5432");
    assert!(connection.comes_back(1, LONG));
    set(serde_json::json!([]));
    assert!(!connection.comes_back(2, Duration::from_secs(1)), "it went on although it is no longer allowed");
    set(allowed);
    assert!(connection.comes_back(3, LONG), "it does not go on although it is allowed again");
    drop(connection);
    daemon.assert_conserved();
}

/// A bridge whose flows are kept gets its first gateway, and loses its last: connections on it go on.
#[test]
fn a_connection_goes_on_when_its_bridge_gets_a_gateway_and_loses_it() {
    let (_node, daemon, pods) = shop(&switchd());
    let [db, web, _] = &pods[..] else { panic!() };
    declare(
        &daemon,
        "db",
        serde_json::json!({
            "podSelector": {"matchLabels": {"app": "db"}},
            "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "web"}}}], "ports": [{"port": 5432}]}],
        }),
    );
    let mut before = Echo::open(&web.net, &db.net, "10.66.0.1:5432");
    assert!(before.comes_back(1, LONG));
    daemon.gateway("br0", "10.66.0.254/24");
    assert!(before.comes_back(2, LONG), "{:?}", daemon.stats().drops);
    drop(before);
    let mut during = Echo::open(&web.net, &db.net, "10.66.0.1:5432");
    assert!(during.comes_back(1, LONG));
    let gone: switch_api::AddressDelete =
        serde_json::from_value(serde_json::json!({"bridge": "br0", "address": "10.66.0.254/24"})).unwrap();
    let _: Done = daemon.call(&Request::AddressDelete(gone));
    assert!(during.comes_back(2, LONG), "{:?}", daemon.stats().drops);
    drop(during);
    assert_eq!(daemon.drops("no-flow"), 0, "{:?}", daemon.stats().drops);
    daemon.assert_conserved();
}

/// A station in another routing table has the node's address, and is a stranger like any: to the packet path, and to who asks about it.
#[test]
fn who_has_the_nodes_address_elsewhere_is_not_the_node() {
    let (node, daemon, pods) = shop(&switchd());
    let blue = Bridge { vrf: "blue".parse().unwrap(), ..Bridge::new("br1".parse().unwrap()) };
    let _: Done = daemon.call(&Request::BridgeAdd(blue));
    let [four, twin] = [4, 9].map(|n| node.bare_pod(n));
    let four_port = Port { bridge: "br1".parse().unwrap(), ..labelled(&four, "four") };
    for port in [four_port, tap_port(&twin, "br1", PortSettings::default())] {
        let _: Done = daemon.call(&Request::PortAdd(Box::new(port)));
    }
    wait_until("those of the other table reach each other", LONG, || four.reaches("10.66.0.9"));
    declare(&daemon, "alone", serde_json::json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}));
    let both = |from: &Pod, to: &Net| {
        let (port, passes) = (5000, |from: &Pod| explain(&daemon, &from.device, "10.66.0.9", 5000).passes);
        (passes(from), datagrams(&from.net, to, "10.66.0.9", port) > 0)
    };
    assert_eq!(both(&pods[0], &node.net), (true, true), "the node");
    assert_eq!(both(&four, &twin.net), (false, false));
    // The switch's own address there is no stranger's.
    daemon.gateway("br1", "10.66.0.254/24");
    assert!(explain(&daemon, "tap4", "10.66.0.254", 5000).passes && four.reaches("10.66.0.254"));
    let back = explain(&daemon, "tap9", "tap4", 5000);
    assert_eq!((back.passes, datagrams(&twin.net, &four.net, "10.66.0.4", 5000)), (false, 0), "{back:?}");
    assert!(daemon.drops("policy-egress") > 0 && daemon.drops("policy-ingress") > 0);
    daemon.assert_conserved();
}
