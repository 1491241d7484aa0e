//! Default verdicts of ports, beside real kernels: in force from a pod's first packet on and over a restart, and explained.

use crate::switchd;
use std::time::Duration;
use switch_api::{Acl, Done, EventsSubscribe, PortSet, PortSettings, Request};
use switch_lab::scenes::{datagrams, explain, shop};
use switch_lab::{Daemon, wait_until};

const LONG: Duration = Duration::from_secs(60);

fn default(daemon: &Daemon, port: &str, verdicts: serde_json::Value) {
    let settings = serde_json::json!({ "default_verdict": verdicts });
    let settings: PortSettings = serde_json::from_value(settings).unwrap();
    let _: Done = daemon.call(&Request::PortSet(PortSet { name: port.parse().unwrap(), settings }));
}

#[test]
fn what_nobody_decides_is_denied_explained_told_and_kept_over_a_restart() {
    let options = switchd().keeping_state();
    let (node, mut daemon, pods) = shop(&options);
    let [db, web, _] = &pods[..] else { panic!() };
    let mut listener = daemon.client();
    let _: Done = listener.call(&Request::EventsSubscribe(EventsSubscribe::default())).unwrap();
    default(&daemon, "tap1", serde_json::json!({"ingress": "deny"}));
    let list = serde_json::json!({
        "name": "db", "tier": "after", "applies_to": {"ports": ["tap1"]},
        "ingress": [{"action": "allow", "protocol": "udp", "destination_ports": [53]}],
    });
    let list: Acl = serde_json::from_value(list).unwrap();
    let _: Done = daemon.call(&Request::AclSet(Box::new(list)));
    assert_eq!(datagrams(&web.net, &db.net, "10.66.0.1", 54), 0);
    // Its kernel is told of more than these: groups of IPv6.
    assert!(daemon.drops("default-ingress") >= 10);
    let told = loop {
        let notice = listener.notice().unwrap().expect("the daemon goes on");
        if notice.params["what"] == "policy-drop" {
            break notice.params;
        }
    };
    assert_eq!(told["rule"], "default verdict", "{told}");
    assert_eq!((&told["reason"], &told["stage"]), (&"default-ingress".into(), &"admit".into()), "{told}");
    let check = |daemon: &Daemon| {
        assert_eq!(datagrams(&web.net, &db.net, "10.66.0.1", 54), 0);
        wait_until("what a list allows arrives", LONG, || {
            datagrams(&web.net, &db.net, "10.66.0.1", 53) == 10
        });
        // What it asks itself is answered.
        assert!(db.reaches("10.66.0.2"));
        assert!(!web.reaches("10.66.0.1"));
        let stops = explain(daemon, "tap2", "tap1", 54);
        assert!(!stops.passes && stops.ingress.rule.as_deref() == Some("default verdict"), "{stops:?}");
        assert!(stops.ingress.why.contains("tap1"), "{stops:?}");
        let passes = explain(daemon, "tap2", "tap1", 53);
        assert!(passes.passes && passes.ingress.rule.as_deref() == Some("acl db ingress 1"), "{passes:?}");
        assert!(explain(daemon, "tap1", "tap2", 54).passes);
    };
    check(&daemon);
    daemon.kill();
    let daemon = node.start(&options);
    check(&daemon);
    let config: switch_api::Config = daemon.call(&Request::ConfigExport(Default::default()));
    let port = config.port.iter().find(|port| port.name.as_str() == "tap1").unwrap();
    assert!(!port.settings.default_verdict.is_allow(), "{config:?}");
    // The other direction, and back to what every port has.
    default(&daemon, "tap1", serde_json::json!({"egress": "deny"}));
    assert!(!db.reaches("10.66.0.2") && web.reaches("10.66.0.1"));
    assert!(daemon.drops("default-egress") > 0);
    default(&daemon, "tap1", serde_json::json!({}));
    wait_until("everything passes again", LONG, || db.reaches("10.66.0.2"));
    daemon.assert_conserved();
}
