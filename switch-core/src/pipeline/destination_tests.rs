//! Policies are asked about addresses: what an isolated workload sends goes to who has the address that was asked about, whatever MAC it
//! bears, flooded or not.

use super::policy_tests::{NOW, Net, answer, arrives, introduce, mac, net, packet, pod};
use crate::counter::DropReason;
use serde_json::json;
use switch_api::{BridgeAddress, NetworkPolicy, Owner, Protocol, Request, Vid};

/// Isolated as a sender: it may ask `db`, and 192.0.2.0/24.
const WEB: usize = 0;
const DB: usize = 1;
const OTHER: usize = 2;
/// A port without a workload: what is behind it has any address.
const UPLINK: usize = 3;

fn lab(blocks: &[&str]) -> Net {
    let to: Vec<_> = blocks.iter().map(|cidr| json!({"ipBlock": {"cidr": cidr}})).collect();
    let mut to = vec![json!({"podSelector": {"matchLabels": {"app": "db"}}})].into_iter().chain(to);
    let to: Vec<_> = to.by_ref().collect();
    let policy: NetworkPolicy = serde_json::from_value(json!({
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Egress"], "egress": [{"to": to}]},
    }))
    .unwrap();
    let pods =
        [pod("web", "10.0.0.1"), pod("db", "10.0.0.2"), pod("other", "10.0.0.3"), pod("up", "10.0.0.4")];
    let mut net = net(vec![], &pods, &[policy]);
    let label = switch_api::PortLabel { name: "p3".parse().unwrap(), workload: None };
    net.rig.declare(&Request::PortLabel(label)).unwrap();
    introduce(&mut net);
    net
}

/// From `web` to an address, by a station.
fn to(address: &str, station: [u8; 6]) -> Vec<u8> {
    let (from, address) = ("10.0.0.1".parse().unwrap(), address.parse().unwrap());
    packet((station, mac(WEB)), from, address, (Protocol::Udp, 53), 9)
}

/// Who else has it.
fn has(net: &mut Net, frame: &[u8]) -> Vec<usize> {
    assert!(net.peers[WEB].send(frame.to_vec()));
    net.rig.settle(NOW);
    net.rig.assert_conserved();
    (0..net.peers.len()).filter(|n| net.peers[*n].recv().is_some()).collect()
}

#[test]
fn an_allowed_address_leads_to_nobody_else() {
    let mut net = lab(&["192.0.2.0/24"]);
    assert_eq!(has(&mut net, &to("10.0.0.2", mac(DB))), [DB]);
    assert_eq!(has(&mut net, &to("192.0.2.7", mac(UPLINK))), [UPLINK]);
    // By the MAC of another workload, of a flow that is there or not.
    for address in ["10.0.0.2", "192.0.2.7", "192.0.2.8"] {
        for _ in 0..2 {
            assert!(has(&mut net, &to(address, mac(OTHER))).is_empty(), "{address}");
        }
    }
    assert_eq!(net.rig.drops(DropReason::PolicyDestination), 6);
    assert_eq!(has(&mut net, &to("10.0.0.2", mac(DB))), [DB], "and the flow goes on");
    // Who is not isolated may send what it likes.
    let free = packet(
        (mac(OTHER), mac(DB)),
        "10.0.0.2".parse().unwrap(),
        "192.0.2.7".parse().unwrap(),
        (Protocol::Udp, 53),
        9,
    );
    assert!(arrives(&mut net, DB, OTHER, free));
}

#[test]
fn a_flood_of_an_isolated_workload_is_for_whom_it_was_asked_about() {
    let mut net = lab(&["192.0.2.0/24"]);
    let nobody = [2, 0, 0, 0, 0, 99];
    assert_eq!(has(&mut net, &to("10.0.0.2", nobody)), [DB, UPLINK]);
    assert_eq!(has(&mut net, &to("192.0.2.7", nobody)), [UPLINK]);
    // To a group, and to all, who listens has it.
    assert!(has(&mut net, &to("224.0.0.251", [1, 0, 0x5e, 0, 0, 251])).is_empty(), "that is not allowed");
    assert_eq!(net.rig.drops(DropReason::PolicyEgress), 1);
    let mut net = lab(&["224.0.0.0/4", "255.255.255.255/32"]);
    assert_eq!(has(&mut net, &to("224.0.0.251", [1, 0, 0x5e, 0, 0, 251])), [DB, OTHER, UPLINK]);
    assert_eq!(has(&mut net, &to("255.255.255.255", [0xff; 6])), [DB, OTHER, UPLINK]);
    // Nor is a copy one to whom nobody has asked; what nobody is given has its name.
    net.rig.declare(&Request::PortDelete(switch_api::ByName { name: "p3".parse().unwrap() })).unwrap();
    assert_eq!(has(&mut net, &to("10.0.0.2", nobody)), [DB]);
    net.rig.declare(&Request::PortDelete(switch_api::ByName { name: "p1".parse().unwrap() })).unwrap();
    let policy = json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": {
        "podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Egress"], "egress": [{}]}});
    net.rig.declare(&Request::PolicySet(Box::new(serde_json::from_value(policy).unwrap()))).unwrap();
    assert!(has(&mut net, &to("10.0.0.2", nobody)).is_empty());
    assert_eq!(net.rig.drops(DropReason::FloodOff), 1);
}

/// The node is always reached, at its own door: an address of its opens nobody else's.
#[test]
fn an_address_of_the_nodes_leads_to_nobody_but_the_node() {
    let mut net = lab(&[]);
    let own = switch_api::BridgeAddress {
        bridge: "br0".parse().unwrap(),
        address: "10.0.0.254/24".parse().unwrap(),
        vid: switch_api::Vid::DEFAULT,
        owner: Default::default(),
    };
    net.rig.declare(&Request::AddressAdd(own)).unwrap();
    for _ in 0..2 {
        assert!(has(&mut net, &to("10.0.0.254", mac(UPLINK))).is_empty());
    }
    assert_eq!(net.rig.drops(DropReason::PolicyEgress), 2);
    // By a station that nobody knows.
    assert!(has(&mut net, &to("10.0.0.254", [2, 0, 0, 0, 0, 99])).is_empty());
    assert_eq!(net.rig.drops(DropReason::FloodOff), 1);
}

/// An answer goes to who asked, by the address that asked.
#[test]
fn an_answer_leads_to_nobody_else() {
    let mut net = lab(&[]);
    let asks = packet(
        (mac(WEB), mac(OTHER)),
        "10.0.0.3".parse().unwrap(),
        "10.0.0.1".parse().unwrap(),
        (Protocol::Udp, 53),
        9,
    );
    assert!(arrives(&mut net, OTHER, WEB, asks.clone()) && arrives(&mut net, WEB, OTHER, answer(&asks)));
    let mut elsewhere = answer(&asks);
    elsewhere[..6].copy_from_slice(&mac(DB));
    for _ in 0..2 {
        assert!(!arrives(&mut net, WEB, DB, elsewhere.clone()));
    }
    assert!(arrives(&mut net, WEB, OTHER, answer(&asks)));
}

/// Link-local addresses are nobody's who is declared: who allows their network allows whoever is on the link.
#[test]
fn link_local_addresses_are_the_links() {
    let v6 = |station, to: &str| {
        packet((station, mac(WEB)), "fe80::1".parse().unwrap(), to.parse().unwrap(), (Protocol::Udp, 53), 9)
    };
    let mut net = lab(&["10.9.0.0/16"]);
    assert!(has(&mut net, &v6(mac(OTHER), "fe80::3")).is_empty(), "the network is not allowed");
    let mut net = lab(&["fe80::/10", "169.254.0.0/16"]);
    assert_eq!(has(&mut net, &v6(mac(OTHER), "fe80::3")), [OTHER]);
    assert_eq!(has(&mut net, &to("169.254.7.7", mac(OTHER))), [OTHER]);
    assert_eq!(has(&mut net, &v6([2, 0, 0, 0, 0, 99], "fe80::3")), [DB, OTHER, UPLINK]);
    assert!(has(&mut net, &to("169.253.7.7", mac(OTHER))).is_empty());
}

/// `web` may ask these networks.
fn allow(net: &mut Net, blocks: &[&str]) {
    let to: Vec<_> = blocks.iter().map(|cidr| json!({"ipBlock": {"cidr": cidr}})).collect();
    let policy = json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": {
        "podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Egress"], "egress": [{"to": to}]}});
    net.rig.declare(&Request::PolicySet(Box::new(serde_json::from_value(policy).unwrap()))).unwrap();
}

/// Whoever is behind the port next has nothing of who was there before.
#[test]
fn a_flow_is_not_its_ports_next_workloads() {
    let mut net = lab(&[]);
    allow(&mut net, &["10.0.0.2/32"]);
    assert_eq!(has(&mut net, &to("10.0.0.2", mac(DB))), [DB]);
    net.label(DB, &pod("db", "10.0.0.9"));
    for _ in 0..2 {
        assert!(has(&mut net, &to("10.0.0.2", mac(DB))).is_empty());
    }
    assert_eq!(net.rig.drops(DropReason::PolicyDestination), 2);
}

/// To everybody in a network of the bridge's is to everybody.
#[test]
fn a_networks_broadcast_is_for_all() {
    let mut net = lab(&[]);
    allow(&mut net, &["10.0.0.0/24"]);
    let everybody = to("10.0.0.255", [0xff; 6]);
    assert_eq!(has(&mut net, &everybody), [UPLINK], "as long as nobody knows the network");
    let (bridge, address) = ("br0".parse().unwrap(), "10.0.0.254/24".parse().unwrap());
    let gateway = BridgeAddress { bridge, address, vid: Vid::DEFAULT, owner: Owner::default() };
    net.rig.declare(&Request::AddressAdd(gateway)).unwrap();
    assert_eq!(has(&mut net, &everybody), [DB, OTHER, UPLINK]);
    assert!(has(&mut net, &to("10.0.0.254", [0xff; 6])).is_empty(), "what is the switch's own");
}
