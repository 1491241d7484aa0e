//! Which VLAN and which MACs rules are asked about: those that a frame came in with, at both ends, whatever it leaves with. Between access ports and
//! trunks, in copies of a flood, and where the switch routes from one VLAN to another.

use super::acl_field_tests::say_something_else;
use super::acl_tests::{sent, set, shop};
use super::policy_route_tests::{OWN, pin};
use super::policy_tests::{NOW, Net, answer, arrives, mac, pod};
use crate::counter::DropReason;
use crate::port::memory;
use serde_json::{Value, json};
use switch_api::Protocol::{Tcp, Udp};
use switch_api::{Bridge, BridgeAddress, Mac, PortSettings, Request, Vid, VidRange, Vlan};

fn vid(n: u32) -> Vid {
    Vid::try_from(n).unwrap()
}

fn trunk(native: Option<u32>) -> Vlan {
    Vlan::Trunk { vids: vec![VidRange { first: vid(10), last: vid(20) }], native: native.map(vid) }
}

fn access(n: u32) -> Vlan {
    Vlan::Access { vid: vid(n) }
}

/// Ports of these VLANs on one bridge, and nobody heard yet.
fn ports(vlans: &[Vlan]) -> Net {
    let mut net = Net::new();
    for (n, vlan) in vlans.iter().enumerate() {
        let ((port, peer), vlan) = (memory::wire(), vlan.clone());
        let settings = PortSettings { vlan, ..PortSettings::default() };
        net.rig.add_port(&format!("p{n}"), settings, Box::new(port), 0).unwrap();
        net.peers.push(peer);
    }
    net
}

/// A frame with a tag.
fn tagged(frame: &[u8], tci: u16) -> Vec<u8> {
    [&frame[..12], &[0x81, 0], &tci.to_be_bytes(), &frame[12..]].concat()
}

/// A station is heard in a VLAN, with a tag or without.
fn hear(net: &mut Net, n: usize, tci: Option<u16>) {
    let hello = [&[0xff; 6][..], &mac(n), &[0x88, 0xb5], &[0; 46]].concat();
    let hello = tci.map_or_else(|| hello.clone(), |tci| tagged(&hello, tci));
    assert!(net.peers[n].send(hello));
    net.rig.settle(NOW);
    net.peers.iter().for_each(|peer| while peer.recv().is_some() {});
}

/// A trunk, ports of VLANs 10 and 20, and a trunk whose untagged frames are of VLAN 10.
fn lab() -> Net {
    let mut net = ports(&[trunk(None), access(10), access(20), trunk(Some(10))]);
    for (n, tci) in [(0, Some(10)), (0, Some(20)), (1, None), (2, None), (3, None), (3, Some(20))] {
        hear(&mut net, n, tci);
    }
    net
}

fn list(net: &mut Net, port: usize, direction: &str, rules: Value) {
    set(net, json!({"name": "l", "applies_to": {"ports": [format!("p{port}")]}, direction: rules}));
}

/// Frames that a rule is tried on, each of another flow.
struct Trial {
    net: Net,
    number: u16,
}

impl Trial {
    /// Whether a frame of a new flow from one port to another, with a tag or without, passes a port's list with this rule in front.
    fn passes(
        &mut self,
        (port, direction): (usize, &str),
        rule: Value,
        (from, to, tci): (usize, usize, Option<u16>),
    ) -> bool {
        self.number += 1;
        list(&mut self.net, port, direction, json!([rule]));
        let frame = sent(from, to, Udp, self.number);
        let frame = tci.map_or_else(|| frame.clone(), |tci| tagged(&frame, tci));
        let before = self.net.rig.drops(DropReason::AclDenied);
        let came = arrives(&mut self.net, from, to, frame);
        let denied = self.net.rig.drops(DropReason::AclDenied) - before;
        assert_eq!(denied, u64::from(!came), "it is the list that stops it");
        list(&mut self.net, port, direction, json!([{"action": "allow"}]));
        came
    }
}

#[test]
fn a_rule_by_vlan_is_about_the_vlan_that_a_frame_came_in_by_with_or_without_a_tag() {
    let mut trial = Trial { net: lab(), number: 100 };
    // From, to, how it comes in, and its VLAN. Priority and drop eligibility are none of the VLAN, and a tag of VLAN 0 has only those.
    let cases = [
        (0, 1, Some(10), 10),
        (0, 1, Some(0xf00a), 10),
        (0, 2, Some(20), 20),
        (1, 0, None, 10),
        (1, 0, Some(0xa000), 10),
        (2, 0, None, 20),
        (3, 0, None, 10),
        (3, 0, Some(0xa000), 10),
        (3, 0, Some(20), 20),
        (0, 3, Some(10), 10),
        (1, 3, None, 10),
    ];
    for (from, to, tci, vlan) in cases {
        for end in [(from, "egress"), (to, "ingress")] {
            let about = |vlans: Value| json!({"action": "deny", "vlan": vlans});
            let way = (from, to, tci);
            assert!(!trial.passes(end, about(json!([vlan])), way), "{way:?}, {end:?}");
            assert!(!trial.passes(end, about(json!([1, format!("{vlan}-{vlan}")])), way), "{way:?}, {end:?}");
            assert!(trial.passes(end, about(json!([30 - vlan, 1])), way), "{way:?}, {end:?}");
        }
    }
    trial.net.rig.assert_conserved();
}

#[test]
fn a_rule_by_mac_is_about_the_macs_of_a_tagged_frame_at_both_ends() {
    let mut trial = Trial { net: lab(), number: 200 };
    for (from, to, tci) in [(0, 1, Some(10)), (1, 0, None), (3, 0, Some(20)), (2, 3, None)] {
        for end in [(from, "egress"), (to, "ingress")] {
            let [source, destination] = [from, to].map(|n| Mac(mac(n)).to_string());
            let way = (from, to, tci);
            let mut tried = |field: &str, mac: &str| {
                let rule = json!({"action": "deny", field: [mac], "vlan": [10, 20]});
                trial.passes(end, rule, way)
            };
            assert!(!tried("source_mac", &source) && tried("source_mac", &destination), "{way:?}, {end:?}");
            assert!(
                !tried("destination_mac", &destination) && tried("destination_mac", &source),
                "{way:?}, {end:?}"
            );
        }
    }
}

/// A copy is asked about with the VLAN it came in by, whether it leaves with a tag or without.
#[test]
fn a_flooded_copy_of_a_tagged_frame_is_asked_about_by_the_vlan_it_came_in_by() {
    let mut net = lab();
    let mut flooded = tagged(&sent(0, 1, Udp, 9), 10);
    flooded[..6].copy_from_slice(&[2, 9, 9, 9, 9, 9]);
    let copies = |net: &mut Net, vlan: u16| {
        let rule = json!({"action": "deny", "vlan": [vlan], "source_mac": [Mac(mac(0)).to_string()]});
        set(net, json!({"name": "l", "applies_to": {"ports": ["p1", "p3"]}, "ingress": [rule]}));
        assert!(net.peers[0].send(flooded.clone()));
        net.rig.settle(NOW);
        [1, 2, 3].map(|n| std::iter::from_fn(|| net.peers[n].recv()).count())
    };
    assert_eq!(copies(&mut net, 20), [1, 0, 1]);
    assert_eq!(copies(&mut net, 10), [0, 0, 0]);
    assert_eq!(net.rig.drops(DropReason::AclDenied), 2);
}

/// The answer comes in without a tag, by the VLAN that its question had one of.
#[test]
fn an_answer_to_a_tagged_frame_is_judged_again_as_its_question() {
    let mut net = lab();
    let question = sent(0, 1, Udp, 53);
    let rule = json!({"action": "allow", "vlan": [10], "source_mac": [Mac(mac(0)).to_string()], "destination_mac": [Mac(mac(1)).to_string()]});
    list(&mut net, 1, "ingress", json!([rule, {"action": "deny"}]));
    assert!(arrives(&mut net, 0, 1, tagged(&question, 10)));
    say_something_else(&mut net, 1);
    assert!(arrives(&mut net, 1, 0, answer(&question)));
    list(&mut net, 1, "ingress", json!([{"action": "deny", "vlan": [10]}]));
    assert!(!arrives(&mut net, 1, 0, answer(&question)));
}

/// The switch routes between VLANs 10 and 20: station 0 is in the one, behind a trunk, and stations 1 and 2 are in the other, behind an access port and
/// a trunk.
fn routed() -> Net {
    let mut net = ports(&[trunk(None), access(20), trunk(None)]);
    let bridge: switch_api::Name = "br0".parse().unwrap();
    let own = Bridge { mac: Some(Mac(OWN)), ..Bridge::new(bridge.clone()) };
    net.rig.declare(&Request::BridgeSet(own)).unwrap();
    for (address, vid) in [("10.0.0.254/24", vid(10)), ("10.0.1.254/24", vid(20))] {
        let (bridge, address) = (bridge.clone(), address.parse().unwrap());
        let address = BridgeAddress { bridge, address, vid, owner: Default::default() };
        net.rig.declare(&Request::AddressAdd(address)).unwrap();
    }
    for (n, tci) in [(0, Some(10)), (1, None), (2, Some(20))] {
        hear(&mut net, n, tci);
        let vid = vid(if n == 0 { 10 } else { 20 });
        pin(&net, ("br0", vid), address(n).into(), mac(n));
    }
    net
}

fn address(n: usize) -> std::net::Ipv4Addr {
    [10, 0, u8::from(n != 0), n as u8 + 1].into()
}

/// From one station to another in the other VLAN, by the switch.
fn by_switch(from: usize, to: usize, port: u16) -> Vec<u8> {
    let ends = (address(from).into(), address(to).into());
    super::policy_tests::packet((OWN, mac(from)), ends.0, ends.1, (Udp, port), 7)
}

#[test]
fn rules_at_both_ends_of_a_routed_frame_see_the_vlan_and_macs_it_came_in_with() {
    let mut net = routed();
    let mut number = 0;
    let text = |mac: [u8; 6]| Mac(mac).to_string();
    for (from, to) in [(0, 1), (0, 2), (1, 0), (2, 0)] {
        let [came_by, leaves_by] = if from == 0 { [10, 20] } else { [20, 10] };
        // What a rule denies, and whether it is about the frame.
        let rules = [
            (json!({"vlan": [came_by]}), true),
            (json!({"vlan": [leaves_by]}), false),
            (json!({"source_mac": [text(mac(from))]}), true),
            (json!({"source_mac": [text(OWN)]}), false),
            (json!({"destination_mac": [text(OWN)]}), true),
            (json!({"destination_mac": [text(mac(to))]}), false),
        ];
        for (port, direction) in [(from, "egress"), (to, "ingress")] {
            for (rule, is_about_it) in &rules {
                number += 1;
                let mut rule = rule.clone();
                rule["action"] = json!("deny");
                list(&mut net, port, direction, json!([rule.clone()]));
                let frame = by_switch(from, to, number);
                let frame = if from == 1 { frame } else { tagged(&frame, came_by) };
                let (before, came) =
                    (net.rig.drops(DropReason::AclDenied), arrives(&mut net, from, to, frame));
                assert_eq!(came, !is_about_it, "{from} to {to}, {direction} {rule}");
                assert_eq!(net.rig.drops(DropReason::AclDenied) - before, u64::from(*is_about_it));
            }
            list(&mut net, port, direction, json!([{"action": "allow"}]));
        }
    }
    net.rig.assert_conserved();
}

/// Nobody knows any more in which frame a routed flow began: it is taken for the way back that its answer goes, and nothing is decided by that. What
/// denies it stops both ways, whoever speaks first; what the answer itself came in by is not asked about at all.
#[test]
fn an_answer_to_a_routed_frame_that_is_judged_again_is_asked_about_by_the_way_back() {
    let question = tagged(&by_switch(0, 1, 53), 10);
    let mut back = answer(&by_switch(0, 1, 53));
    back[..6].copy_from_slice(&OWN);
    back[6..12].copy_from_slice(&mac(1));
    let text = |mac: [u8; 6]| Mac(mac).to_string();
    for (allows, denies) in [
        (json!({"vlan": [10]}), json!({"vlan": [20]})),
        (json!({"source_mac": [text(mac(0))]}), json!({"source_mac": [text(OWN)]})),
        (json!({"destination_mac": [text(OWN)]}), json!({"destination_mac": [text(mac(1))]})),
    ] {
        let rule = |action: &str, mut rule: Value| {
            rule["action"] = json!(action);
            rule
        };
        let mut net = routed();
        list(&mut net, 1, "ingress", json!([rule("allow", allows.clone()), {"action": "deny"}]));
        assert!(arrives(&mut net, 0, 1, question.clone()) && arrives(&mut net, 1, 0, back.clone()));
        say_something_else(&mut net, 1);
        assert!(arrives(&mut net, 1, 0, back.clone()) && arrives(&mut net, 0, 1, question.clone()));
        // By the other VLAN and the other MACs nothing of the flow is denied, whoever is judged.
        list(&mut net, 1, "ingress", json!([rule("deny", denies)]));
        assert!(arrives(&mut net, 1, 0, back.clone()) && arrives(&mut net, 0, 1, question.clone()));
        assert_eq!(net.rig.drops(DropReason::AclDenied), 0);
        list(&mut net, 1, "ingress", json!([rule("deny", allows.clone())]));
        for _ in 0..2 {
            assert!(!arrives(&mut net, 1, 0, back.clone()) && !arrives(&mut net, 0, 1, question.clone()));
        }
        assert_eq!(net.rig.drops(DropReason::AclDenied), 4);
    }
}

/// The way back may lead by another station than the one that the question came from: what an answer was taken for is not decided about its flow.
#[test]
fn an_answer_that_was_taken_for_another_decides_nothing() {
    let mut net = routed();
    let mut question = by_switch(0, 1, 53);
    question[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 0x55]);
    let question = tagged(&question, 10);
    let mut back = answer(&by_switch(0, 1, 53));
    back[..6].copy_from_slice(&OWN);
    back[6..12].copy_from_slice(&mac(1));
    list(&mut net, 1, "ingress", json!([{"action": "allow"}]));
    assert!(arrives(&mut net, 0, 1, question.clone()) && arrives(&mut net, 1, 0, back.clone()));
    list(&mut net, 1, "ingress", json!([{"action": "deny", "source_mac": ["02:00:00:00:00:55"]}]));
    for _ in 0..2 {
        assert!(arrives(&mut net, 1, 0, back.clone()));
        assert!(!arrives(&mut net, 0, 1, question.clone()));
    }
    assert_eq!(net.rig.drops(DropReason::AclDenied), 2);
}

/// What is routed from one VLAN of a trunk to another leaves by the port that it came in by: to policies it is a pod that reaches itself, which it always
/// does, and to lists it is what it is.
#[test]
fn what_is_routed_between_two_vlans_of_one_trunk_is_asked_about_by_its_lists_and_by_no_policy() {
    let mut net = routed();
    let (other, there) = ([2, 0, 0, 0, 0, 0x77], std::net::Ipv4Addr::new(10, 0, 1, 9));
    let hello = [&[0xff; 6][..], &other, &[0x81, 0, 0, 20, 0x88, 0xb5], &[0; 46]].concat();
    assert!(net.peers[0].send(hello));
    net.rig.settle(NOW);
    pin(&net, ("br0", vid(20)), there.into(), other);
    let question = |number: u16| {
        let packet =
            super::policy_tests::packet((OWN, mac(0)), address(0).into(), there.into(), (Udp, number), 7);
        tagged(&packet, 10)
    };
    let mut number = 0;
    let mut comes_back = |net: &mut Net| {
        number += 1;
        net.peers.iter().for_each(|peer| while peer.recv().is_some() {});
        assert!(net.peers[0].send(question(number)));
        net.rig.settle(NOW);
        net.peers[0].recv().is_some_and(|frame| frame[..6] == other && frame[14..16] == [0, 20])
    };
    let try_lists = |net: &mut Net, comes_back: &mut dyn FnMut(&mut Net) -> bool| {
        assert!(comes_back(net));
        for direction in ["ingress", "egress"] {
            let before = net.rig.drops(DropReason::AclDenied);
            list(net, 0, direction, json!([{"action": "deny", "destination": ["10.0.1.9/32"]}]));
            assert!(!comes_back(net), "{direction}");
            assert_eq!(net.rig.drops(DropReason::AclDenied), before + 1);
            list(net, 0, direction, json!([{"action": "pass", "destination": ["10.0.1.9/32"]}]));
            assert!(comes_back(net), "{direction}");
        }
    };
    try_lists(&mut net, &mut comes_back);
    // Isolated both ways, and nobody is allowed.
    let policy = json!({"metadata": {"name": "closed", "namespace": "shop"},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}});
    net.label(0, &pod("db", "10.0.0.1"));
    net.rig.declare(&Request::PolicyAdd(serde_json::from_value(policy).unwrap())).unwrap();
    assert!(!arrives(&mut net, 0, 1, tagged(&by_switch(0, 1, 9), 10)));
    try_lists(&mut net, &mut comes_back);
    // The answer, of a flow that is known by then, comes from an address that the workload does not name.
    let asked = question(900);
    let untagged: Vec<u8> = [&asked[..12], &asked[16..]].concat();
    let mut back = answer(&untagged);
    back[..6].copy_from_slice(&OWN);
    back[6..12].copy_from_slice(&other);
    for (frame, to, vlan) in [(asked, other, 20), (tagged(&back, 20), mac(0), 10)] {
        assert!(net.peers[0].send(frame));
        net.rig.settle(NOW);
        assert!(net.peers[0].recv().is_some_and(|frame| frame[..6] == to && frame[14..16] == [0, vlan]));
    }
}

/// A list that denies something is not passed by a tag that hosts take off; where no list judges it is payload.
#[test]
fn nobody_hides_from_a_list_behind_a_second_tag() {
    let mut net = shop(&[]);
    let mut stacked = sent(1, 0, Tcp, 22);
    stacked.splice(12..12, [0x88, 0xa8, 0, 0]);
    assert!(arrives(&mut net, 1, 0, stacked.clone()));
    let rules = json!([{"action": "deny", "protocol": "tcp", "destination_ports": [22]}]);
    for (port, direction) in [("p0", "ingress"), ("p1", "egress")] {
        set(&mut net, json!({"name": "l", "applies_to": {"ports": [port]}, direction: rules}));
        assert!(!arrives(&mut net, 1, 0, stacked.clone()), "{direction}");
    }
    assert_eq!(net.rig.drops(DropReason::PolicyOpaque), 2);
    // Also to a station that nobody knows.
    stacked[..6].copy_from_slice(&[2, 9, 9, 9, 9, 9]);
    assert!(!arrives(&mut net, 1, 0, stacked));
}
