//! Network policies on what is routed: two pods in two subnets, and the switch between them.

use super::policy_tests::{NOW, Net, every_drop_is_accounted_for, mac, packet, reply};
use crate::config::gateway::to_bits;
use crate::counter::DropReason;
use crate::table::neigh;
use serde_json::{Value, json};
use std::net::IpAddr;
use switch_api::{Bridge, BridgeAddress, ByPolicy, Mac, NetworkPolicy, Protocol, Request, Vid, Workload};

/// The switch on both bridges.
pub(super) const OWN: [u8; 6] = [2, 0, 0, 0, 0xff, 0xfe];

/// Puts the switch on a bridge, by an address of it.
pub(super) fn gateway(net: &mut Net, bridge: &str, address: &str) {
    let name: switch_api::Name = bridge.parse().unwrap();
    let own = Bridge { mac: Some(Mac(OWN)), ..Bridge::new(name.clone()) };
    let is_there = net.rig.model.bridges.contains_key(&name);
    let request = if is_there { Request::BridgeSet(own) } else { Request::BridgeAdd(own) };
    net.rig.declare(&request).unwrap();
    let (address, vid) = (address.parse().unwrap(), Vid::DEFAULT);
    let address = BridgeAddress { bridge: name, address, vid, owner: Default::default() };
    net.rig.declare(&Request::AddressAdd(address)).unwrap();
}

/// The switch knows who has an address, on which bridge and VLAN.
pub(super) fn pin(net: &Net, (bridge, vid): (&str, Vid), address: IpAddr, station: [u8; 6]) {
    let id = net.rig.model.bridges[&bridge.parse().unwrap()].id;
    let key = neigh::key(net.rig.model.fids[&(id, vid)], to_bits(address));
    assert!(net.rig.tables.neigh.pin(key, Mac(station).to_u64()));
}

/// A station is heard, by a frame that is about nothing.
pub(super) fn hear(net: &mut Net) {
    for (n, peer) in net.peers.iter().enumerate() {
        assert!(peer.send([&[0xff; 6][..], &mac(n), &[0x88, 0xb5], &[0; 46]].concat()));
    }
    net.rig.settle(NOW);
    net.peers.iter().for_each(|peer| while peer.recv().is_some() {});
}

fn ip(v6: bool, pod: usize) -> IpAddr {
    if v6 { format!("fd00:{pod}::9") } else { format!("10.{pod}.0.9") }.parse().unwrap()
}

/// `web` in one subnet, `db` in the other, each with an address of both IP versions.
fn lab() -> Net {
    let mut net = Net::new();
    for (n, app) in ["web", "db"].into_iter().enumerate() {
        let bridge = format!("br{n}");
        gateway(&mut net, &bridge, &format!("10.{n}.0.1/16"));
        gateway(&mut net, &bridge, &format!("fd00:{n}::1/64"));
        let workload = Workload {
            namespace: "shop".into(),
            labels: [("app".to_owned(), app.to_owned())].into(),
            ports: vec![],
            addresses: vec![ip(false, n), ip(true, n)],
        };
        net.add(&bridge, &workload);
        [false, true].iter().for_each(|v6| pin(&net, (&bridge, Vid::DEFAULT), ip(*v6, n), mac(n)));
    }
    hear(&mut net);
    net
}

/// What a policy of this name says of the pod that has it.
fn policy(net: &mut Net, app: &str, types: &[&str], rules: Value) {
    let Value::Object(mut spec) = rules else { panic!("{rules}") };
    spec.insert("podSelector".into(), json!({"matchLabels": {"app": app}}));
    spec.insert("policyTypes".into(), json!(types));
    let policy = json!({"metadata": {"name": app, "namespace": "shop"}, "spec": spec});
    let policy: NetworkPolicy = serde_json::from_value(policy).unwrap();
    net.rig.declare(&Request::PolicySet(Box::new(policy))).unwrap();
}

/// Whether a routed frame arrives at the other pod, as it should: from the switch, to it, one hop older.
fn arrives(net: &mut Net, from: usize, frame: Vec<u8>) -> bool {
    let hops = if frame[12] == 8 { 22 } else { 21 };
    assert!(net.peers[from].send(frame.clone()));
    net.rig.settle(NOW);
    net.rig.assert_conserved();
    let came: Vec<_> = std::iter::from_fn(|| net.peers[1 - from].recv()).collect();
    let [came] = &came[..] else { return false };
    assert_eq!((&came[..6], &came[6..12], came[hops]), (&mac(1 - from)[..], &OWN[..], frame[hops] - 1));
    true
}

const PROTOCOLS: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];

/// The first packet of what `from` asks the other, and the answer to it.
fn talk(v6: bool, from: usize, protocol: Protocol, port: u16) -> [Vec<u8>; 2] {
    let (here, there) = (ip(v6, from), ip(v6, 1 - from));
    [
        packet((OWN, mac(from)), here, there, (protocol, port), 7),
        reply((OWN, mac(1 - from)), there, here, (protocol, port), 7),
    ]
}

fn denied(net: &Net) -> [u64; 2] {
    [DropReason::PolicyIngress, DropReason::PolicyEgress].map(|reason| net.rig.drops(reason))
}

#[test]
fn a_routed_packet_is_let_in_as_its_receivers_policies_say_and_answered() {
    for v6 in [false, true] {
        let mut net = lab();
        // From `web`, which is in the other subnet, to port 80 of whatever protocol.
        let ports = PROTOCOLS.map(|protocol| json!({"protocol": protocol, "port": 80}));
        let from = json!([{"podSelector": {"matchLabels": {"app": "web"}}}]);
        policy(&mut net, "db", &["Ingress", "Egress"], json!({"ingress": [{"from": from, "ports": ports}]}));
        for (n, protocol) in (0u64..).zip(PROTOCOLS) {
            let [asks, answers] = talk(v6, 0, protocol, 80);
            assert!(!arrives(&mut net, 1, answers.clone()), "nobody asked {protocol}");
            assert!(arrives(&mut net, 0, asks) && arrives(&mut net, 1, answers), "{protocol}, v6 {v6}");
            let [asks, _] = talk(v6, 0, protocol, 81);
            assert!(!arrives(&mut net, 0, asks), "{protocol}, v6 {v6}");
            assert_eq!(denied(&net)[0], n + 1);
            let [asks, _] = talk(v6, 1, protocol, 80);
            assert!(!arrives(&mut net, 1, asks), "{protocol} by who may ask nobody, v6 {v6}");
        }
        every_drop_is_accounted_for(&net, &[]);
        let rule = |net: &Net, place| net.rig.counters[0].rule(place).unwrap().get();
        assert_eq!((rule(&net, 0), rule(&net, 2)), (3, 3), "three by default, three by the rule");
    }
}

#[test]
fn a_routed_packet_is_let_out_as_its_senders_policies_say_and_answered() {
    for v6 in [false, true] {
        let mut net = lab();
        let ports = PROTOCOLS.map(|protocol| json!({"protocol": protocol, "port": 80}));
        let block = json!({"ipBlock": {"cidr": if v6 { "fd00:1::/64" } else { "10.1.0.0/16" }}});
        let rule = json!({"to": [block], "ports": ports});
        policy(&mut net, "web", &["Ingress", "Egress"], json!({"egress": [rule]}));
        for (n, protocol) in (0u64..).zip(PROTOCOLS) {
            let [asks, answers] = talk(v6, 0, protocol, 80);
            assert!(arrives(&mut net, 0, asks) && arrives(&mut net, 1, answers), "{protocol}, v6 {v6}");
            let [asks, _] = talk(v6, 0, protocol, 81);
            assert!(!arrives(&mut net, 0, asks), "{protocol}, v6 {v6}");
            let [asks, _] = talk(v6, 1, protocol, 80);
            assert!(!arrives(&mut net, 1, asks), "{protocol} to whom nobody may ask, v6 {v6}");
            assert_eq!(denied(&net), [n + 1; 2]);
        }
        every_drop_is_accounted_for(&net, &[]);
    }
}

/// Both ends are asked, and what is no longer allowed stops on its way from one subnet to the other, in both directions.
#[test]
fn a_routed_flow_stops_when_either_end_no_longer_allows_it() {
    for v6 in [false, true] {
        for (app, direction, rules) in [("db", "Ingress", "ingress"), ("web", "Egress", "egress")] {
            let mut net = lab();
            policy(&mut net, app, &[direction], json!({rules: [{}]}));
            let [asks, answers] = talk(v6, 0, Protocol::Udp, 53);
            for _ in 0..3 {
                assert!(arrives(&mut net, 0, asks.clone()) && arrives(&mut net, 1, answers.clone()));
            }
            policy(&mut net, app, &[direction], json!({}));
            assert!(!arrives(&mut net, 0, asks.clone()) && !arrives(&mut net, 1, answers.clone()));
            assert_eq!(denied(&net), if direction == "Ingress" { [2, 0] } else { [0, 2] });
            // What the other asks is another flow, and no rule is about it.
            let [others, to_others] = talk(v6, 1, Protocol::Udp, 54);
            assert!(arrives(&mut net, 1, others) && arrives(&mut net, 0, to_others));
            let gone = ByPolicy { name: app.into(), namespace: "shop".into() };
            net.rig.declare(&Request::PolicyDelete(gone)).unwrap();
            assert!(arrives(&mut net, 0, asks) && arrives(&mut net, 1, answers));
        }
    }
}
