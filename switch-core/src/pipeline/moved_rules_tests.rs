//! What is said of one end of a flow is said of the other end instead, and neither is asked for more: the flow stops, for it is known of
//! whom it was said.

use super::acl_tests::{passes, set, shop};
use super::policy_tests::Net;
use serde_json::json;
use switch_api::{PortSet, Protocol, Request};

/// Whom `web` sends to: `db`.
const WEB: usize = 1;
const DB: usize = 0;

fn policy(net: &mut Net, app: &str) {
    let policy = json!({
        "metadata": {"name": "one", "namespace": "shop"},
        "spec": {"podSelector": {"matchLabels": {"app": app}}, "policyTypes": ["Ingress"]},
    });
    net.rig.declare(&Request::PolicySet(Box::new(serde_json::from_value(policy).unwrap()))).unwrap();
}

fn list(net: &mut Net, app: &str) {
    let port = if app == "web" { "p1" } else { "p0" };
    set(net, json!({"name": "l", "applies_to": {"ports": [port]}, "ingress": [{"action": "deny"}]}));
}

/// Of each port by itself, with nothing sent in between.
fn verdict(net: &mut Net, app: &str) {
    for (port, of) in [("p1", "web"), ("p0", "db")] {
        let name: switch_api::Name = port.parse().unwrap();
        let mut settings = net.rig.model.ports[&name].object.settings.clone();
        let ingress = if of == app { "deny" } else { "allow" };
        settings.default_verdict = serde_json::from_value(json!({"ingress": ingress})).unwrap();
        net.rig.declare(&Request::PortSet(PortSet { name, settings })).unwrap();
    }
}

#[test]
fn a_flow_stops_when_what_was_said_of_one_end_is_said_of_the_other() {
    for say in [policy, list, verdict] {
        let mut net = shop(&[]);
        say(&mut net, "web");
        for _ in 0..3 {
            assert!(passes(&mut net, WEB, DB, Protocol::Udp, 53));
        }
        say(&mut net, "db");
        for _ in 0..3 {
            assert!(!passes(&mut net, WEB, DB, Protocol::Udp, 53), "it goes on");
        }
        say(&mut net, "web");
        assert!(passes(&mut net, WEB, DB, Protocol::Udp, 53));
        net.rig.assert_conserved();
    }
}
