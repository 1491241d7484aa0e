//! What rules say of packets beyond addresses and ports, as packets: TCP flags, fragments, MACs, VLANs; and rules that keep no flows.

use super::acl_tests::{passes, sent, set, shop};
use super::policy_tests::{Net, answer, arrives, unreachable};
use crate::counter::DropReason;
use crate::wire::checksum::{fold, sum};
use serde_json::json;
use switch_api::Protocol::{Tcp, Udp};
use switch_api::{ByName, Code, PortSet, PortSettings, Request};

/// A list about what `db` is sent.
fn list(net: &mut Net, rules: serde_json::Value) {
    set(net, json!({"name": "l", "applies_to": {"ports": ["p0"]}, "ingress": rules}));
}

/// A list about what anybody is sent that says nothing of this: another epoch.
pub(super) fn say_something_else(net: &mut Net, n: u16) {
    let rule = json!({"action": "deny", "protocol": "sctp", "destination_ports": [n]});
    set(net, json!({"name": "other", "applies_to": {"all": true}, "ingress": [rule]}));
}

fn with_flags(mut frame: Vec<u8>, flags: u8) -> Vec<u8> {
    frame[14 + 20 + 13] = flags;
    frame
}

/// A fragment of a packet of ours: its first one, or one that lies behind it.
fn fragment(mut frame: Vec<u8>, first: bool) -> Vec<u8> {
    let word: u16 = if first { 0x2000 } else { 5 };
    frame[20..22].copy_from_slice(&word.to_be_bytes());
    frame[24..26].fill(0);
    let checksum = !fold(sum(&frame[14..34]));
    frame[24..26].copy_from_slice(&checksum.to_be_bytes());
    frame
}

/// Who may begin a connection is said by its first packet; what belongs to it passes, also when it is judged again.
#[test]
fn tcp_flags_are_those_of_a_first_packet() {
    let mut net = shop(&[]);
    let syn = json!({"action": "allow", "protocol": "tcp", "tcp_flags": "syn,!ack,!rst"});
    list(&mut net, json!([syn, {"action": "deny", "protocol": "tcp"}]));
    let begins = sent(1, 0, Tcp, 80);
    assert!(
        !arrives(&mut net, 1, 0, with_flags(sent(1, 0, Tcp, 81), 0x12)),
        "an answer that nobody waits for"
    );
    assert!(!arrives(&mut net, 1, 0, with_flags(sent(1, 0, Tcp, 81), 0x29)), "a Christmas tree");
    assert_eq!(net.rig.drops(DropReason::AclDenied), 2);
    assert!(arrives(&mut net, 1, 0, begins.clone()));
    let mut both = with_flags(answer(&begins), 0x12);
    // It acknowledges the SYN.
    both[14 + 20 + 11] = 1;
    say_something_else(&mut net, 1);
    assert!(arrives(&mut net, 0, 1, both), "its answer is judged as what began it");
    net.rig.assert_conserved();
}

/// A rule about fragments is about each of them, whatever flow they belong to.
#[test]
fn fragments_are_asked_about_each() {
    let mut net = shop(&[]);
    list(&mut net, json!([{"action": "deny", "fragment": "any"}]));
    let whole = sent(1, 0, Udp, 53);
    assert!(!arrives(&mut net, 1, 0, fragment(whole.clone(), true)));
    assert!(arrives(&mut net, 1, 0, whole.clone()));
    assert!(!arrives(&mut net, 1, 0, fragment(whole.clone(), true)), "of a flow that is allowed");
    assert!(!arrives(&mut net, 1, 0, fragment(whole.clone(), false)));
    assert!(!arrives(&mut net, 0, 1, fragment(answer(&whole), true)), "of its answers, too");
    assert!(arrives(&mut net, 1, 0, whole.clone()) && arrives(&mut net, 0, 1, answer(&whole)));
    assert!(!arrives(&mut net, 0, 1, fragment(answer(&whole), true)), "of a flow that goes on");
    assert_eq!(net.rig.drops(DropReason::AclDenied), 5);
    list(&mut net, json!([{"action": "deny", "fragment": "none"}]));
    assert!(
        !arrives(&mut net, 1, 0, whole.clone()) && arrives(&mut net, 1, 0, fragment(whole.clone(), true))
    );
    assert!(!arrives(&mut net, 1, 0, whole), "what a fragment passed by is no word about the rest");
    net.rig.assert_conserved();
}

#[test]
fn macs_with_masks_and_vlans() {
    let mut net = shop(&[]);
    let mut n = 0;
    let mut each = |net: &mut Net, rule: serde_json::Value| {
        list(net, json!([rule]));
        n += 1;
        [1, 2].map(|from| passes(net, from, 0, Udp, 1000 + n))
    };
    // Pods have 02:00:00:00:00:01 and the next two.
    assert_eq!(each(&mut net, json!({"action": "deny", "source_mac": ["02:00:00:00:00:02"]})), [false, true]);
    let pair = "02:00:00:00:00:02/ff:ff:ff:ff:ff:fe";
    assert_eq!(each(&mut net, json!({"action": "deny", "source_mac": [pair]})), [false, false]);
    assert_eq!(each(&mut net, json!({"action": "deny", "destination_mac": [pair]})), [true, true]);
    assert_eq!(
        each(&mut net, json!({"action": "deny", "destination_mac": ["02:00:00:00:00:01"]})),
        [false, false]
    );
    assert_eq!(each(&mut net, json!({"action": "deny", "vlan": ["2-10", 4094]})), [true, true]);
    let vlan = json!({"action": "deny", "vlan": [1], "source_mac": ["02:00:00:00:00:03"]});
    assert_eq!(each(&mut net, vlan), [true, false]);
    // What is not IP has a MAC and a VLAN as well.
    let mut other = sent(2, 0, Tcp, 80);
    other[12..14].copy_from_slice(&[0x88, 0xb5]);
    assert!(!arrives(&mut net, 2, 0, other));
    // An answer is judged as what it answers: by the MACs the other way round.
    list(&mut net, json!([{"action": "allow", "source_mac": ["02:00:00:00:00:02"]}, {"action": "deny"}]));
    let question = sent(1, 0, Udp, 53);
    assert!(arrives(&mut net, 1, 0, question.clone()));
    say_something_else(&mut net, 1);
    assert!(arrives(&mut net, 0, 1, answer(&question)));
    net.rig.assert_conserved();
}

/// Each packet is judged by itself, no flow is made, and answers pass where a rule allows them.
#[test]
fn what_is_stateless_keeps_no_flow_and_implies_no_answer() {
    let mut net = shop(&[]);
    let flows = |net: &Net| {
        let (table, mut count) = (&net.rig.tables.flows, 0);
        table.scan(0..table.places(), super::policy_tests::NOW.s(), |_, _| count += 1);
        count
    };
    let closed = |egress: serde_json::Value| {
        json!({
            "name": "l", "applies_to": {"ports": ["p0"]},
            "ingress": [{"action": "allow", "protocol": "udp", "destination_ports": [53], "stateless": true}, {"action": "deny"}],
            "egress": egress,
        })
    };
    set(&mut net, closed(json!([{"action": "deny"}])));
    let question = sent(1, 0, Udp, 53);
    assert!(arrives(&mut net, 1, 0, question.clone()) && !arrives(&mut net, 0, 1, answer(&question)));
    assert_eq!(flows(&net), 0);
    let answers = json!({"action": "allow", "protocol": "udp", "source_ports": [53], "stateless": true});
    set(
        &mut net,
        closed(
            json!([answers, {"action": "allow", "protocol": "icmp", "stateless": true}, {"action": "deny"}]),
        ),
    );
    assert!(arrives(&mut net, 1, 0, question.clone()) && arrives(&mut net, 0, 1, answer(&question)));
    assert!(arrives(&mut net, 0, 1, unreachable(&question, 0, 1)), "an error about it is judged by itself");
    assert_eq!(flows(&net), 0);
    // A flow from before answers no more than the rules allow now.
    let stateful = json!({"action": "allow", "protocol": "udp", "destination_ports": [53]});
    list(&mut net, json!([stateful, {"action": "deny"}]));
    assert!(arrives(&mut net, 1, 0, question.clone()) && arrives(&mut net, 0, 1, answer(&question)));
    assert_eq!(flows(&net), 1);
    set(&mut net, closed(json!([{"action": "deny"}])));
    assert!(arrives(&mut net, 1, 0, question.clone()) && !arrives(&mut net, 0, 1, answer(&question)));
    net.rig.assert_conserved();
}

/// Ports that rules share by a name; a set that changes changes its rules.
#[test]
fn port_sets_are_followed() {
    let mut net = shop(&[]);
    let put = |net: &mut Net, ports: serde_json::Value| {
        let set = serde_json::from_value(json!({"name": "web", "ports": ports})).unwrap();
        net.rig.declare(&Request::PortSetSet(set))
    };
    let rule = json!({"action": "deny", "protocol": "udp", "destination_ports": [9], "destination_port_sets": ["web"]});
    let acl = json!({"name": "l", "applies_to": {"ports": ["p0"]}, "ingress": [rule]});
    let absent = net.rig.declare(&Request::AclSet(Box::new(serde_json::from_value(acl.clone()).unwrap())));
    assert_eq!(absent.unwrap_err().data.field.as_deref(), Some("ingress[0].destination_port_sets"));
    put(&mut net, json!([80, "8000-8080"])).unwrap();
    set(&mut net, acl);
    let blocked = |net: &mut Net| [9, 80, 8042, 443].map(|port| !passes(net, 1, 0, Udp, port));
    assert_eq!(blocked(&mut net), [true, true, true, false]);
    put(&mut net, json!([443])).unwrap();
    assert_eq!(blocked(&mut net), [true, false, false, true], "a flow that was allowed stops");
    assert_eq!(put(&mut net, json!([])).unwrap_err().data.field.as_deref(), Some("ports"));
    let gone =
        |net: &mut Net| net.rig.declare(&Request::PortSetDelete(ByName { name: "web".parse().unwrap() }));
    assert_eq!(gone(&mut net).unwrap_err().code, Code::Busy);
    net.rig.declare(&Request::AclDelete(ByName { name: "l".parse().unwrap() })).unwrap();
    gone(&mut net).unwrap();
}

/// The same of the ports that packets come from; a set may be one of either.
#[test]
fn port_sets_are_followed_as_source_ports() {
    let mut net = shop(&[]);
    let put = |net: &mut Net, ports: serde_json::Value| {
        let set = serde_json::from_value(json!({"name": "odd", "ports": ports})).unwrap();
        net.rig.declare(&Request::PortSetSet(set)).unwrap();
    };
    let asks = |from: u16, to: u16| {
        let mut frame = sent(1, 0, Udp, to);
        frame[34..36].copy_from_slice(&from.to_be_bytes());
        frame
    };
    let deny = |more: serde_json::Value| {
        let mut rule = json!({"action": "deny", "protocol": "udp"});
        rule.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"name": "l", "applies_to": {"ports": ["p0"]}, "ingress": [rule]})
    };
    let by_source = deny(json!({"source_ports": [9], "source_port_sets": ["odd"]}));
    let absent =
        net.rig.declare(&Request::AclSet(Box::new(serde_json::from_value(by_source.clone()).unwrap())));
    assert_eq!(absent.unwrap_err().data.field.as_deref(), Some("ingress[0].source_port_sets"));
    put(&mut net, json!([80, "8000-8080"]));
    set(&mut net, by_source);
    let blocked = |net: &mut Net, to: u16| {
        [9, 80, 8000, 8080, 8081, 443].map(|from| !arrives(net, 1, 0, asks(from, to)))
    };
    assert_eq!(blocked(&mut net, 5), [true, true, true, true, false, false]);
    assert_eq!(blocked(&mut net, 80), [true, true, true, true, false, false], "whatever port they go to");
    assert_eq!(net.rig.drops(DropReason::AclDenied), 8);
    put(&mut net, json!([443, "8081-8082"]));
    assert_eq!(blocked(&mut net, 5), [true, false, false, false, true, true], "flows that were allowed stop");
    // An answer's ports are those of what it answers.
    assert!(arrives(&mut net, 1, 0, asks(80, 443)) && arrives(&mut net, 0, 1, answer(&asks(80, 443))));
    // Of both ends at once.
    set(&mut net, deny(json!({"source_port_sets": ["odd"], "destination_port_sets": ["odd"]})));
    assert_eq!(blocked(&mut net, 8082), [false, false, false, false, true, true]);
    assert_eq!(blocked(&mut net, 5), [false; 6]);
    net.rig.assert_conserved();
}

/// A port with a limit begins no more flows than that at a time; what others begin with it does not count, nor what is over.
#[test]
fn a_port_begins_no_more_flows_than_it_may() {
    let mut net = shop(&[]);
    let limit = |net: &mut Net, most: u32| {
        let settings: PortSettings =
            serde_json::from_value(json!({"limits": {"connections": most}})).unwrap();
        let name = "p1".parse().unwrap();
        net.rig.declare(&Request::PortSet(PortSet { name, settings }))
    };
    assert_eq!(limit(&mut net, 0).unwrap_err().data.field.as_deref(), Some("settings.limits"));
    limit(&mut net, 3).unwrap();
    let begun = [1, 2, 3, 4].map(|port| passes(&mut net, 1, 0, Udp, port));
    assert_eq!((begun, net.rig.drops(DropReason::ConnectionLimit)), ([true, true, true, false], 1));
    assert!(passes(&mut net, 1, 0, Udp, 2), "a flow that there is goes on");
    assert!(arrives(&mut net, 1, 0, with_flags(sent(1, 0, Tcp, 80), 0x10)), "and a connection from before");
    assert!(passes(&mut net, 2, 1, Udp, 5), "another began it");
    assert!(passes(&mut net, 2, 0, Udp, 6), "another port has no limit");
    limit(&mut net, 4).unwrap();
    assert!(passes(&mut net, 1, 0, Udp, 4) && !passes(&mut net, 1, 0, Udp, 7));
    net.rig.assert_conserved();
}
