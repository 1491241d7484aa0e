//! What passes for something else: an error for one of the flow that it quotes, a piece for a whole packet.

use super::acl_tests::{sent, set, shop};
use super::fragment_tests::piece;
use super::policy_tests::{arrives, introduce, mac, net, pod};
use crate::counter::DropReason;
use etherparse::PacketBuilder;
use serde_json::json;
use switch_api::{NetworkPolicy, Protocol::Udp};

/// `db` takes nothing from anybody, and has asked `other`. Who is in the way may say that this did not arrive; `web` is not.
#[test]
fn nobody_poses_as_another_by_an_error() {
    let policy = json!({
        "metadata": {"name": "db", "namespace": "shop"},
        "spec": {"podSelector": {"matchLabels": {"app": "db"}}, "policyTypes": ["Ingress"]},
    });
    let policy: NetworkPolicy = serde_json::from_value(policy).unwrap();
    let pods = [pod("db", "10.0.0.1"), pod("web", "10.0.0.2"), pod("other", "10.0.0.3")];
    let mut net = net(vec![], &pods, &[policy]);
    introduce(&mut net);
    let asked = sent(0, 2, Udp, 53);
    assert!(arrives(&mut net, 0, 2, asked.clone()));
    let error = |station: usize, to: [u8; 6], src: u8| {
        let (link, mut error) = (PacketBuilder::ethernet2(mac(station), to), Vec::new());
        let error_to = link.ipv4([10, 0, 0, src], [10, 0, 0, 1], 64).icmpv4_raw(3, 3, [0; 4]);
        error_to.write(&mut error, &asked[14..42]).unwrap();
        error
    };
    let (db, nobody) = (mac(0), [2, 9, 9, 9, 9, 9]);
    for (to, src) in [(db, 3), (db, 99), (nobody, 3), (nobody, 99)] {
        assert!(!arrives(&mut net, 1, 0, error(1, to, src)), "{to:?} {src}");
    }
    assert_eq!(net.rig.drops(DropReason::PolicySource), 4);
    // In its own name it is about a flow that is none of its own.
    for to in [db, nobody] {
        assert!(!arrives(&mut net, 1, 0, error(1, to, 2)), "{to:?}");
    }
    assert_eq!(net.rig.drops(DropReason::PolicyRelated), 2);
    for to in [db, nobody] {
        assert!(arrives(&mut net, 2, 0, error(2, to, 3)), "{to:?}");
    }
}

/// `db` takes what `other` says, and that comes in pieces. `web` sends a first piece as if it were of the same packet, and spoils nothing.
#[test]
fn nobody_spoils_anothers_packet_by_a_piece_in_his_name() {
    let policy = json!({
        "metadata": {"name": "db", "namespace": "shop"},
        "spec": {
            "podSelector": {"matchLabels": {"app": "db"}}, "policyTypes": ["Ingress"],
            "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "other"}}}]}],
        },
    });
    let policy: NetworkPolicy = serde_json::from_value(policy).unwrap();
    let pods = [pod("db", "10.0.0.1"), pod("web", "10.0.0.2"), pod("other", "10.0.0.3")];
    let mut net = net(vec![], &pods, &[policy]);
    introduce(&mut net);
    let whole = sent(2, 0, Udp, 53);
    let mut posing = piece(&sent(2, 0, Udp, 54), 7, 0..8, true);
    posing[6..12].copy_from_slice(&mac(1));
    for id in [7, 8] {
        assert!(arrives(&mut net, 2, 0, piece(&whole, id, 0..8, true)));
        assert!(!arrives(&mut net, 1, 0, posing.clone()));
        assert!(arrives(&mut net, 2, 0, piece(&whole, id, 8..16, false)));
    }
    assert_eq!(net.rig.drops(DropReason::PolicySource), 2);
    assert_eq!(net.rig.drops(DropReason::FragmentOverlap), 0);
}

/// Rules tell fragments from whole packets. A flow that begins by one says nothing of the others.
#[test]
fn a_flow_that_begins_by_a_fragment_says_nothing_of_whole_packets() {
    for (port, direction) in [("p0", "ingress"), ("p1", "egress")] {
        let mut net = shop(&[]);
        let rules = json!([{"action": "deny", "fragment": "none"}]);
        set(&mut net, json!({"name": "l", "applies_to": {"ports": [port]}, direction: rules}));
        let whole = sent(1, 0, Udp, 53);
        assert!(!arrives(&mut net, 1, 0, whole.clone()));
        assert!(arrives(&mut net, 1, 0, piece(&whole, 1, 0..24, true)));
        assert!(!arrives(&mut net, 1, 0, whole.clone()), "{direction}");
        assert!(!arrives(&mut net, 1, 0, whole), "{direction}");
        assert_eq!(net.rig.drops(DropReason::AclDenied), 3);
    }
}

/// Of two uplinks of which the same is said a flow goes out by one, and a router's error about it comes in by the other.
#[test]
fn routers_answer_by_any_uplink() {
    let pods = [pod("db", "10.0.0.1"), pod("a", "10.0.0.2"), pod("b", "10.0.0.3")];
    let mut net = net(vec![], &pods, &[]);
    introduce(&mut net);
    for port in ["p1", "p2"] {
        let label = switch_api::PortLabel { name: port.parse().unwrap(), workload: None };
        net.rig.declare(&switch_api::Request::PortLabel(label)).unwrap();
    }
    let rules = json!([{"action": "allow", "protocol": "udp"}, {"action": "deny"}]);
    let ports = json!({"ports": ["p1", "p2"]});
    set(&mut net, json!({"name": "l", "applies_to": ports, "ingress": rules, "egress": rules}));
    let deny = json!([{"action": "deny", "protocol": "tcp"}]);
    set(&mut net, json!({"name": "db", "applies_to": {"ports": ["p0"]}, "ingress": deny, "egress": deny}));
    let mut asked = sent(0, 1, Udp, 53);
    assert!(arrives(&mut net, 0, 1, asked.clone()));
    let error = |to: [u8; 6], quoted: &[u8]| {
        let (link, mut error) = (PacketBuilder::ethernet2(mac(2), to), Vec::new());
        link.ipv4([192, 0, 2, 1], [10, 0, 0, 1], 64)
            .icmpv4_raw(3, 4, [0; 4])
            .write(&mut error, &quoted[14..42])
            .unwrap();
        error
    };
    for to in [mac(0), [2, 9, 9, 9, 9, 9]] {
        assert!(arrives(&mut net, 2, 0, error(to, &asked)), "{to:?}");
    }
    // About what nobody sent, and about what may no more be sent.
    asked[36] ^= 1;
    assert!(!arrives(&mut net, 2, 0, error(mac(0), &asked)));
    asked[36] ^= 1;
    let deny = json!([{"action": "deny", "protocol": "udp"}]);
    set(&mut net, json!({"name": "db", "applies_to": {"ports": ["p0"]}, "ingress": deny, "egress": deny}));
    let before = net.rig.drops(DropReason::PolicyRelated);
    assert!(!arrives(&mut net, 2, 0, error(mac(0), &asked)));
    assert_eq!(net.rig.drops(DropReason::PolicyRelated), before + 1);
}

/// An error about nothing, where some rules keep no flows and the receiver's do: one drop, told of once (which every turn asserts).
#[test]
fn an_error_about_nothing_is_one_drop_where_others_keep_no_flows() {
    let policy = json!({
        "metadata": {"name": "db", "namespace": "shop"},
        "spec": {"podSelector": {"matchLabels": {"app": "db"}}, "policyTypes": ["Ingress"]},
    });
    let mut net = shop(&[serde_json::from_value(policy).unwrap()]);
    let rules = json!([{"action": "allow", "protocol": "udp"}]);
    set(&mut net, json!({"name": "l", "applies_to": {"ports": ["p1"]}, "stateless": true, "ingress": rules}));
    let (link, mut error) = (PacketBuilder::ethernet2(mac(2), mac(0)), Vec::new());
    let quoted = sent(0, 2, Udp, 53);
    link.ipv4([10, 0, 0, 3], [10, 0, 0, 1], 64)
        .icmpv4_raw(3, 3, [0; 4])
        .write(&mut error, &quoted[14..42])
        .unwrap();
    assert!(!arrives(&mut net, 2, 0, error));
    assert_eq!(net.rig.drops(DropReason::IcmpUnrelated), 1);
    assert!(net.rig.take_refused().is_empty());
}
