//! Protocols without ports, of both IP versions, whose flows are told by addresses alone: GRE and ESP. How far such a flow has come, how long it lasts,
//! and what network policies say of it.

use super::Now;
use super::policy_tests::{NOW, Net, introduce, mac, net, packet};
use crate::counter::{DropReason, Event};
use crate::table::flow::state::Stage;
use crate::wire::checksum::{fold, sum};
use serde_json::{Value, json};
use std::net::IpAddr;
use switch_api::{NetworkPolicy, PortSet, PortSettings, Protocol, Request, Workload};

const GRE: u8 = 47;
const ESP: u8 = 50;
const S: u64 = 1_000_000_000;
/// How long one lasts that one end has begun, and one of both: as UDP's, and as Linux has it.
const ONE_WAY_S: u64 = 30;
const BOTH_WAYS_S: u64 = 600;

fn ip(v6: bool, pod: usize) -> IpAddr {
    if v6 { format!("fd00::{}", pod + 1) } else { format!("10.0.0.{}", pod + 1) }.parse().unwrap()
}

/// Pods `db`, `web` and `other`, of both versions, behind ports p0 to p2, and a clock.
struct Lab {
    net: Net,
    now: Now,
}

impl Lab {
    fn new(policy: Option<Value>) -> Self {
        let pods = ["db", "web", "other"].into_iter().enumerate().map(|(n, app)| Workload {
            namespace: "shop".into(),
            labels: [("app".to_owned(), app.to_owned())].into(),
            ports: vec![],
            addresses: vec![ip(false, n), ip(true, n)],
        });
        let policy = policy.map(|spec| {
            let policy = json!({"metadata": {"name": "one", "namespace": "shop"}, "spec": spec});
            serde_json::from_value::<NetworkPolicy>(policy).unwrap()
        });
        let mut net = net(vec![], &pods.collect::<Vec<_>>(), policy.as_slice());
        introduce(&mut net);
        Self { net, now: NOW }
    }

    /// Whether a packet of this protocol comes from one pod to another; `mark` stands where a transport has its ports.
    fn passes(&mut self, (from, to): (usize, usize), v6: bool, protocol: u8, mark: u32) -> bool {
        let mut frame = packet((mac(to), mac(from)), ip(v6, from), ip(v6, to), (Protocol::Udp, 0), 7);
        let transport_at = if v6 { 54 } else { 34 };
        frame[transport_at..transport_at + 4].copy_from_slice(&mark.to_be_bytes());
        if v6 {
            frame[20] = protocol;
        } else {
            frame[23] = protocol;
            frame[24..26].fill(0);
            let checksum = !fold(sum(&frame[14..34]));
            frame[24..26].copy_from_slice(&checksum.to_be_bytes());
        }
        assert!(self.net.peers[from].send(frame));
        self.net.rig.settle(self.now);
        self.net.rig.assert_conserved();
        std::iter::from_fn(|| self.net.peers[to].recv()).count() == 1
    }

    fn wait(&mut self, seconds: u64) {
        self.now.ns += seconds * S;
    }

    fn flows(&self) -> Vec<Stage> {
        let (flows, mut stages) = (&self.net.rig.tables.flows, Vec::new());
        flows.scan(0..flows.places(), self.now.s(), |_, entry| stages.push(entry.state.stage));
        stages
    }

    fn begun(&self) -> u64 {
        self.net.rig.counters[0].event(Event::FlowNew).get()
    }

    fn drops(&self, reason: DropReason) -> u64 {
        self.net.rig.drops(reason)
    }
}

fn each(test: impl Fn(bool, u8)) {
    for v6 in [false, true] {
        [GRE, ESP].into_iter().for_each(|protocol| test(v6, protocol));
    }
}

/// `db` takes what these rules say, and nothing else.
fn db_takes(ingress: Value) -> Option<Value> {
    Some(
        json!({"podSelector": {"matchLabels": {"app": "db"}}, "policyTypes": ["Ingress"], "ingress": ingress}),
    )
}

fn from_web() -> Value {
    json!([{"podSelector": {"matchLabels": {"app": "web"}}}])
}

/// Without any policy, at a port that is tracked.
#[test]
fn what_has_no_ports_is_one_flow_for_both_ways_and_lasts_as_long_as_its_stage() {
    each(|v6, protocol| {
        let mut lab = Lab::new(None);
        let settings = PortSettings { track: true, ..PortSettings::default() };
        lab.net.rig.declare(&Request::PortSet(PortSet { name: "p0".parse().unwrap(), settings })).unwrap();
        let what = format!("{protocol}, v6 {v6}");
        let (there, back) = ((0, 1), (1, 0));
        // What stands behind the header is none of its ports: an ESP's SPI is another in each direction.
        assert!(lab.passes(there, v6, protocol, 0x1111_2222) && lab.passes(there, v6, protocol, 0x3333_4444));
        assert_eq!((lab.flows(), lab.begun()), (vec![Stage::OneWay], 1), "{what}");
        assert!(lab.passes(back, v6, protocol, 0x5555_6666) && lab.passes(there, v6, protocol, 0x1111_2222));
        assert_eq!((lab.flows(), lab.begun()), (vec![Stage::BothWays], 1), "{what}");
        // Another protocol, and another version, between the same two is another flow.
        assert!(lab.passes(there, v6, GRE + ESP - protocol, 1) && lab.passes(there, !v6, protocol, 1));
        assert_eq!((lab.flows().len(), lab.begun()), (3, 3), "{what}");
        // Nobody answered these two, and they end first.
        lab.wait(ONE_WAY_S + 1);
        assert_eq!(lab.flows(), [Stage::BothWays], "{what}");
        assert!(lab.passes(there, v6, protocol, 1));
        assert_eq!(lab.begun(), 3, "{what}");
        lab.wait(BOTH_WAYS_S);
        assert_eq!(lab.flows(), [Stage::BothWays], "{what}");
        lab.wait(1);
        assert_eq!(lab.flows(), [], "{what}");
        // It begins anew, by whom it may.
        assert!(lab.passes(back, v6, protocol, 1));
        assert_eq!((lab.flows(), lab.begun()), (vec![Stage::OneWay], 4), "{what}");
    });
}

#[test]
fn an_isolated_pod_is_answered_as_long_as_it_was_not_forgotten_that_it_asked() {
    each(|v6, protocol| {
        let mut lab = Lab::new(db_takes(json!([{"from": from_web()}])));
        let what = format!("{protocol}, v6 {v6}");
        let (asks, answers) = ((0, 2), (2, 0));
        let passes = |lab: &mut Lab, way| lab.passes(way, v6, protocol, 9);
        assert!(!passes(&mut lab, answers), "{what}");
        assert!(passes(&mut lab, asks));
        // As late as may be, and a second later.
        lab.wait(ONE_WAY_S + 1);
        assert!(!passes(&mut lab, answers), "{what}");
        assert!(passes(&mut lab, asks));
        lab.wait(ONE_WAY_S);
        assert!(passes(&mut lab, answers), "{what}");
        assert_eq!(lab.flows(), [Stage::BothWays], "{what}");
        lab.wait(BOTH_WAYS_S);
        assert!(passes(&mut lab, answers), "{what}");
        lab.wait(BOTH_WAYS_S + 1);
        assert!(!passes(&mut lab, answers), "{what}");
        assert_eq!(lab.drops(DropReason::PolicyIngress), 3, "{what}");
    });
}

/// A rule without ports is about all protocols; one with ports about those that have any, and of a protocol alone about that.
#[test]
fn rules_without_ports_allow_what_has_none_and_rules_with_ports_do_not() {
    let db_asks = |egress: Value| {
        Some(
            json!({"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Egress"], "egress": egress}),
        )
    };
    let to_db = json!([{"podSelector": {"matchLabels": {"app": "db"}}}]);
    each(|v6, protocol| {
        let mut denied = 0;
        let without = [
            (db_takes(json!([{"from": from_web()}])), DropReason::PolicyIngress),
            (db_asks(json!([{"to": to_db}])), DropReason::PolicyEgress),
        ];
        for (policy, reason) in without {
            let mut lab = Lab::new(policy.clone());
            assert!(lab.passes((1, 0), v6, protocol, 1), "{protocol}, v6 {v6}: {policy:?}");
            assert!(lab.passes((0, 1), v6, protocol, 2), "{protocol}, v6 {v6}: {policy:?}");
            let stranger = if reason == DropReason::PolicyIngress { (2, 0) } else { (1, 2) };
            assert!(!lab.passes(stranger, v6, protocol, 1), "{protocol}, v6 {v6}: {policy:?}");
            assert_eq!(lab.drops(reason), 1, "{protocol}, v6 {v6}: {policy:?}");
        }
        for ports in [
            json!([{"protocol": "TCP", "port": 5432}]),
            json!([{"protocol": "UDP"}, {"protocol": "TCP"}, {"protocol": "SCTP"}]),
            json!([{"protocol": "UDP", "port": 1, "endPort": 65535}]),
        ] {
            let both = [
                (db_takes(json!([{"from": from_web(), "ports": ports}])), DropReason::PolicyIngress),
                (db_asks(json!([{"to": to_db, "ports": ports}])), DropReason::PolicyEgress),
            ];
            for (policy, reason) in both {
                let mut lab = Lab::new(policy.clone());
                // As if it were to a port that is allowed.
                let mark = 40_000 << 16 | 5432;
                assert!(!lab.passes((1, 0), v6, protocol, mark), "{protocol}, v6 {v6}: {policy:?}");
                assert_eq!((lab.drops(reason), lab.flows()), (1, vec![]), "{protocol}, v6 {v6}: {policy:?}");
                denied += 1;
            }
        }
        assert_eq!(denied, 6);
    });
}
