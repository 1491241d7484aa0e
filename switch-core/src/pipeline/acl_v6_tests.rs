//! What rules name, of packets of IPv6: addresses, ports, sets of both, TCP flags, fragments, MACs, VLANs, and messages of ICMPv6 by type and code;
//! at the end that sends and at the one that is sent to, where the receiver is known and where it is looked for.

use super::acl_tests::set;
use super::fragment_tests::piece;
use super::policy_tests::{NOW, Net, introduce, mac, net, packet};
use crate::counter::DropReason;
use etherparse::PacketBuilder;
use serde_json::{Value, json};
use std::net::{IpAddr, Ipv6Addr};
use switch_api::Protocol::{Tcp, Udp};
use switch_api::{Mac, Protocol, Request, Workload};

/// Where nobody is.
const UNKNOWN: [u8; 6] = [2, 9, 9, 9, 9, 9];

fn ip(n: usize) -> Ipv6Addr {
    format!("fd00::{}", n + 1).parse().unwrap()
}

/// Pods fd00::1 to fd00::3, behind ports p0 to p2, and sets that rules may name.
fn lab() -> Net {
    let pods: Vec<Workload> = (0..3)
        .map(|n| Workload {
            namespace: "shop".into(),
            labels: Default::default(),
            ports: vec![],
            addresses: vec![ip(n).into(), format!("10.0.0.{}", n + 1).parse().unwrap()],
        })
        .collect();
    let mut net = net(vec![], &pods, &[]);
    introduce(&mut net);
    let hosts = json!({"name": "hosts", "members": ["fd00::2", "fd00:5::/64", "10.0.0.3"]});
    net.rig.declare(&Request::AddressSetSet(serde_json::from_value(hosts).unwrap())).unwrap();
    let web = json!({"name": "web", "ports": [80, "8000-8080"]});
    net.rig.declare(&Request::PortSetSet(serde_json::from_value(web).unwrap())).unwrap();
    net
}

/// From the pod behind p1, as this address, to the one behind p0, as that.
fn between(from: &str, to: &str, l4: (Protocol, u16)) -> Vec<u8> {
    let ip = |text: &str| -> IpAddr { text.parse().unwrap() };
    packet((mac(0), mac(1)), ip(from), ip(to), l4, 7)
}

fn sent(protocol: Protocol, port: u16) -> Vec<u8> {
    between("fd00::2", "fd00::1", (protocol, port))
}

fn from_port(mut frame: Vec<u8>, port: u16) -> Vec<u8> {
    frame[54..56].copy_from_slice(&port.to_be_bytes());
    frame
}

/// The first segment of a flow of its own.
fn with_flags(flags: u8) -> Vec<u8> {
    let mut frame = from_port(sent(Tcp, 80), u16::from(flags) + 1);
    frame[54 + 13] = flags;
    frame
}

/// A message of ICMPv6, or of ICMP, and something behind it. A query's identifier is its own: with another's it would be of the same flow.
fn icmp(v6: bool, kind: u8, code: u8, hops: u8) -> Vec<u8> {
    let (link, mut frame) = (PacketBuilder::ethernet2(mac(1), mac(0)), Vec::new());
    let rest = [kind, code, 0, 1];
    match v6 {
        true => {
            let step = link.ipv6(ip(1).octets(), ip(0).octets(), hops);
            step.icmpv6_raw(kind, code, rest).write(&mut frame, &[7; 32])
        }
        false => {
            let step = link.ipv4([10, 0, 0, 2], [10, 0, 0, 1], hops);
            step.icmpv4_raw(kind, code, rest).write(&mut frame, &[7; 32])
        }
    }
    .unwrap();
    frame
}

/// To whom among the ports p0 and p2 a frame of p1 comes.
fn reaches(net: &mut Net, frame: &[u8]) -> [bool; 2] {
    assert!(net.peers[1].send(frame.to_vec()));
    net.rig.settle(NOW);
    [0, 2].map(|n| std::iter::from_fn(|| net.peers[n].recv()).count() > 0)
}

fn list(net: &mut Net, (port, direction): (usize, &str), rules: Value) {
    set(net, json!({"name": "l", "applies_to": {"ports": [format!("p{port}")]}, direction: rules}));
}

/// Frames go in one after the other, and those pass of which it says so, by lists of these rules at the receiver and at the sender: what does not is a
/// drop of the list.
fn go(rules: &Value, steps: &[(Vec<u8>, bool)], is_known: bool) {
    for end in [(0, "ingress"), (1, "egress")] {
        let mut net = lab();
        list(&mut net, end, rules.clone());
        for (n, (frame, passes)) in steps.iter().enumerate() {
            let mut frame = frame.clone();
            if !is_known {
                frame[..6].copy_from_slice(&UNKNOWN);
            }
            let before = net.rig.drops(DropReason::AclDenied);
            // What its receiver refuses others have a copy of; what its sender may not send nobody has.
            let other = !is_known && (*passes || end.0 == 0);
            let what = format!("{n} of {rules}, {end:?}, known: {is_known}");
            assert_eq!(reaches(&mut net, &frame), [*passes, other], "{what}");
            assert_eq!(net.rig.drops(DropReason::AclDenied) - before, u64::from(!passes), "{what}");
        }
        net.rig.assert_conserved();
    }
}

/// The same to the station behind p0, and to one that nobody knows.
fn each(rules: &Value, steps: &[(Vec<u8>, bool)]) {
    [true, false].into_iter().for_each(|is_known| go(rules, steps, is_known));
}

/// A rule that denies what it names.
fn deny(mut rule: Value) -> Value {
    rule["action"] = json!("deny");
    json!([rule])
}

#[test]
fn rules_by_address_are_about_their_networks_and_the_members_of_their_sets() {
    let udp = |from: &str, to: &str| between(from, to, (Udp, 53));
    let from = |from: &str| udp(from, "fd00::1");
    let to = |to: &str| udp("fd00::2", to);
    for (rule, hit, miss) in [
        (json!({"source": ["fd00::2/128"]}), from("fd00::2"), from("fd00::3")),
        (json!({"source": ["fd00::2/127"]}), from("fd00::3"), from("fd00::4")),
        (json!({"source": ["fd01::/16", "fd00:0:0:1::/64"]}), from("fd00:0:0:1:8::1"), from("fd00:0:0:2::1")),
        (json!({"source": ["::/0"], "destination": ["fd00::1/128"]}), from("fe80::2"), to("fd00::9")),
        (json!({"destination": ["fd00::/120"]}), to("fd00::ff"), to("fd00::1ff")),
        (json!({"source_sets": ["hosts"]}), from("fd00::2"), from("fd00::3")),
        (json!({"source_sets": ["hosts"], "source": ["fd07::/16"]}), from("fd07::1"), from("fd08::1")),
        (json!({"destination_sets": ["hosts"]}), to("fd00:5::7"), to("fd00:5:0:1::7")),
        (
            json!({"source_sets": ["hosts"], "destination_sets": ["hosts"]}),
            udp("fd00:5::1", "fd00::2"),
            udp("fd00:5::1", "fd00::1"),
        ),
    ] {
        each(&deny(rule), &[(miss, true), (hit, false)]);
    }
    // Each version's networks are about that version, the widest among them.
    let v4 = between("10.0.0.2", "10.0.0.1", (Udp, 53));
    each(&deny(json!({"source": ["0.0.0.0/0"]})), &[(from("fd00::2"), true), (v4.clone(), false)]);
    each(&deny(json!({"source": ["::/0"]})), &[(v4, true), (from("fd00::2"), false)]);
    // One of the set's members is of the other version.
    let third = between("10.0.0.3", "10.0.0.1", (Udp, 53));
    each(&deny(json!({"source_sets": ["hosts"]})), &[(third, false), (from("fd00::a00:3"), true)]);
}

#[test]
fn rules_by_port_are_about_both_ends_ports_and_those_of_their_sets() {
    for protocol in [Tcp, Udp, Protocol::Sctp] {
        let name = json!(protocol.to_string().to_lowercase());
        let rule = |field: &str, ports: Value| deny(json!({"protocol": name, field: ports}));
        let to = |port| sent(protocol, port);
        let from = |port| from_port(sent(protocol, 80), port);
        let ports = json!([53, "100-200"]);
        each(&rule("destination_ports", ports.clone()), &[(to(54), true), (to(53), false), (to(200), false)]);
        each(&rule("source_ports", ports), &[(from(201), true), (from(100), false), (from(53), false)]);
        let sets = json!(["web"]);
        each(&rule("destination_port_sets", sets.clone()), &[(to(81), true), (to(80), false)]);
        each(&rule("source_port_sets", sets), &[(from(7999), true), (from(8080), false)]);
    }
    // Of another protocol it is another port.
    let udp = deny(json!({"protocol": "udp", "destination_ports": [80]}));
    each(&udp, &[(sent(Tcp, 80), true), (sent(Udp, 80), false)]);
}

/// The same packet with headers of extensions in front of its transport's, each of eight bytes.
fn behind(frame: &[u8], kinds: &[u8]) -> Vec<u8> {
    let (mut out, mut next) = (frame[..54].to_vec(), 20);
    for kind in kinds {
        out[next] = *kind;
        next = out.len();
        // An option that is padding; of an authentication header the length is counted from another end.
        out.extend([frame[20], 0, 1, 4, 0, 0, 0, 0]);
    }
    out.extend(&frame[54..]);
    let len = (out.len() - 54) as u16;
    out[18..20].copy_from_slice(&len.to_be_bytes());
    out
}

/// Hop-by-hop options, routing, authentication and destination options hide nothing.
#[test]
fn rules_by_port_and_type_are_about_what_lies_behind_extension_headers() {
    let echo = icmp(true, 128, 0, 64);
    for kinds in [&[0][..], &[60], &[43], &[51], &[0, 60, 43, 51, 60], &[135, 139, 140]] {
        let udp = deny(json!({"protocol": "udp", "destination_ports": [53]}));
        let [miss, hit] = [54, 53].map(|port| behind(&sent(Udp, port), kinds));
        each(&udp, &[(miss, true), (hit, false)]);
        let ping = deny(json!({"protocol": "icmpv6", "icmp": [128]}));
        each(&ping, &[(behind(&sent(Udp, 53), kinds), true), (behind(&echo, kinds), false)]);
        // They are no protocol of their own.
        each(&deny(json!({"protocol": kinds[0]})), &[(behind(&sent(Udp, 53), kinds), true)]);
    }
}

/// GRE, ESP, and one that nobody has heard of.
#[test]
fn rules_by_protocol_are_about_that_number() {
    for number in [47, 50, 253] {
        let of = |number: u8| {
            let mut frame = sent(Udp, 53);
            frame[20] = number;
            frame
        };
        each(&deny(json!({"protocol": number})), &[(of(number - 1), true), (of(number), false)]);
        let allow = json!([{"action": "allow", "protocol": number}, {"action": "deny"}]);
        each(&allow, &[(of(number), true), (sent(Tcp, 53), false), (of(number - 1), false)]);
    }
}

#[test]
fn rules_by_tcp_flags_are_about_those_of_a_first_packet() {
    let flags = |flags: &str| deny(json!({"protocol": "tcp", "tcp_flags": flags}));
    each(&flags("!syn"), &[(with_flags(0x02), true), (with_flags(0x10), false)]);
    each(&flags("syn,ack"), &[(with_flags(0x02), true), (with_flags(0x12), false)]);
    each(&flags("fin,!syn"), &[(with_flags(0x02), true), (with_flags(0x29), false)]);
    each(&flags("syn,!ack"), &[(with_flags(0x02), false), (sent(Udp, 80), true)]);
}

/// A whole packet, the first fragment of one, a later one, and one of another flow that has the header of a fragment and is whole.
#[test]
fn rules_by_fragment_are_about_the_first_the_later_or_none() {
    let whole = sent(Udp, 53);
    let (first, later) = (piece(&whole, 5, 0..24, true), piece(&whole, 5, 24..40, false));
    let atomic = piece(&sent(Udp, 54), 6, 0..40, false);
    for (fragment, passes) in [
        ("any", [true, false, false, true]),
        ("first", [true, false, true, true]),
        ("later", [true, true, false, true]),
        ("none", [false, true, true, false]),
    ] {
        let frames = [&whole, &first, &later, &atomic];
        let steps: Vec<_> = frames.into_iter().cloned().zip(passes).collect();
        each(&deny(json!({"fragment": fragment})), &steps);
    }
}

#[test]
fn rules_by_mac_and_vlan_are_about_the_frame() {
    let frame = sent(Udp, 53);
    let other = between("fd00::2", "fd00::1", (Udp, 54));
    let text = |mac: [u8; 6]| Mac(mac).to_string();
    let udp = |rule: Value| {
        let mut rule = rule;
        (rule["protocol"], rule["destination_ports"]) = (json!("udp"), json!([53]));
        deny(rule)
    };
    let steps = |passes: bool| [(other.clone(), true), (frame.clone(), passes)];
    each(&udp(json!({"source_mac": [text(mac(1))]})), &steps(false));
    each(&udp(json!({"source_mac": [text(mac(2)), text(mac(0))]})), &steps(true));
    each(&udp(json!({"source_mac": ["02:00:00:00:00:02/ff:ff:ff:ff:ff:fe"]})), &steps(false));
    each(&udp(json!({"destination_mac": [text(mac(0)), text(UNKNOWN)]})), &steps(false));
    each(&udp(json!({"destination_mac": [text(mac(1))]})), &steps(true));
    each(&udp(json!({"vlan": [1]})), &steps(false));
    each(&udp(json!({"vlan": ["2-4094"]})), &steps(true));
}

#[test]
fn rules_by_icmp_type_and_code_are_about_those() {
    for v6 in [true, false] {
        let (protocol, echo, others) = if v6 { ("icmpv6", 128, [130, 143]) } else { ("icmp", 8, [13, 9]) };
        let message = |kind, code| icmp(v6, kind, code, 64);
        let about = |kinds: Value| deny(json!({"protocol": protocol, "icmp": kinds}));
        let [one, another] = others;
        let denied = [(message(one, 0), true), (message(echo, 0), false), (message(echo, 1), false)];
        each(&about(json!([echo])), &denied);
        each(&about(json!([format!("{echo}/1")])), &[(message(echo, 1), false)]);
        each(&about(json!([format!("{echo}/1")])), &[(message(echo, 0), true)]);
        let two = about(json!([one, format!("{another}/7")]));
        each(
            &two,
            &[
                (message(another, 0), true),
                (message(another, 7), false),
                (message(one, 3), false),
                (message(echo, 0), true),
            ],
        );
        // The other version's messages of this type are not meant, nor is UDP whose port is this number.
        let number = u16::from(echo) << 8;
        each(&about(json!([echo])), &[(icmp(!v6, echo, 0, 64), true), (sent(Udp, number), true)]);
    }
}

/// Errors about what no flow is kept of are asked about by themselves.
#[test]
fn errors_are_told_apart_by_type_and_code_where_no_flows_are_kept() {
    for (v6, protocol, allowed, others) in [
        (
            true,
            "icmpv6",
            ["1/4", "2"],
            [(1, 4, true), (1, 3, false), (2, 0, true), (3, 0, false), (4, 4, false)],
        ),
        (
            false,
            "icmp",
            ["3/4", "11"],
            [(3, 4, true), (3, 3, false), (11, 1, true), (12, 0, false), (4, 4, false)],
        ),
    ] {
        let rule = json!({"action": "allow", "protocol": protocol, "icmp": allowed, "stateless": true});
        let steps = others.map(|(kind, code, passes)| (icmp(v6, kind, code, 64), passes));
        each(&json!([rule, {"action": "deny"}]), &steps);
    }
}

/// From the link itself it is neighbour discovery, which no rule is asked about; with a hop less it is a message as others.
#[test]
fn neighbour_discovery_is_asked_about_only_where_it_comes_from_beyond_the_link() {
    let all = deny(json!({"protocol": "icmpv6", "icmp": [133, 134, 135, 136, 137]}));
    for kind in 133..=137 {
        each(&all, &[(icmp(true, kind, 0, 255), true), (icmp(true, kind, 0, 254), false)]);
    }
    let any = deny(json!({}));
    each(
        &any,
        &[
            (icmp(true, 135, 0, 255), true),
            (icmp(true, 132, 0, 255), false),
            (icmp(true, 138, 0, 255), false),
        ],
    );
}

/// A later fragment has no ports of its own, and is of its first one's.
#[test]
fn rules_by_port_are_about_later_fragments_as_about_their_first() {
    let pieces = |port: u16| {
        let whole = sent(Udp, port);
        [piece(&whole, port, 0..24, true), piece(&whole, port, 24..40, false)]
    };
    let steps = |port: u16, passes: bool| pieces(port).map(|frame| (frame, passes));
    let rule = |action: &str| json!({"action": action, "protocol": "udp", "destination_ports": [53]});
    go(&json!([rule("allow"), {"action": "deny"}]), &[steps(53, true), steps(54, false)].concat(), true);
    go(&json!([rule("deny")]), &[steps(54, true), steps(53, false)].concat(), true);
}
