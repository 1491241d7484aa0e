//! Packets in pieces under network policies, of both IP versions: the later ones go as their first does, and none is made to hide what it is from them.

use super::policy_tests::{Net, arrives, introduce, mac, net, packet};
use crate::counter::DropReason;
use crate::wire::checksum::{fold, sum};
use serde_json::json;
use std::net::IpAddr;
use std::ops::Range;
use switch_api::{NetworkPolicy, Protocol, Workload};

/// A part of the transport segment of a whole packet, as a fragment of its own.
pub(super) fn piece(whole: &[u8], id: u16, part: Range<usize>, more: bool) -> Vec<u8> {
    let offset_and_more = part.start as u16 | u16::from(more);
    let (mut frame, segment) = (whole[..14].to_vec(), &whole[if whole[12] == 8 { 34 } else { 54 }..]);
    if whole[12] == 8 {
        let mut header = whole[14..34].to_vec();
        header[2..4].copy_from_slice(&(20 + part.len() as u16).to_be_bytes());
        header[4..6].copy_from_slice(&id.to_be_bytes());
        let word = (offset_and_more >> 3) | if more { 0x2000 } else { 0 };
        header[6..8].copy_from_slice(&word.to_be_bytes());
        header[10..12].fill(0);
        let checksum = !fold(sum(&header));
        header[10..12].copy_from_slice(&checksum.to_be_bytes());
        frame.extend(header);
    } else {
        let mut header = whole[14..54].to_vec();
        header[4..6].copy_from_slice(&(8 + part.len() as u16).to_be_bytes());
        let protocol = std::mem::replace(&mut header[6], 44);
        frame.extend(header);
        frame.extend([protocol, 0]);
        frame.extend(offset_and_more.to_be_bytes());
        frame.extend(u32::from(id).to_be_bytes());
    }
    frame.extend(&segment[part]);
    frame
}

fn ip(v6: bool, pod: usize) -> IpAddr {
    if v6 { format!("fd00::{}", pod + 1) } else { format!("10.0.0.{}", pod + 1) }.parse().unwrap()
}

/// Whose policy it is that port 53 alone is asked for: that of who is sent it, or that of who sends it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum By {
    Receiver,
    Sender,
}

impl By {
    fn denies(self) -> DropReason {
        match self {
            Self::Receiver => DropReason::PolicyIngress,
            Self::Sender => DropReason::PolicyEgress,
        }
    }
}

/// `web`, behind p1, may ask `db`, behind p0, by port 53.
fn lab(by: By) -> Net {
    let pods = ["db", "web"].into_iter().enumerate().map(|(n, app)| Workload {
        namespace: "shop".into(),
        labels: [("app".to_owned(), app.to_owned())].into(),
        ports: vec![],
        addresses: vec![ip(false, n), ip(true, n)],
    });
    let ports = json!([{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]);
    let (app, rule) = match by {
        By::Receiver => ("db", "ingress"),
        By::Sender => ("web", "egress"),
    };
    let types = [if by == By::Receiver { "Ingress" } else { "Egress" }];
    let spec = json!({
        "podSelector": {"matchLabels": {"app": app}}, "policyTypes": types, rule: [{"ports": ports}],
    });
    let policy = json!({"metadata": {"name": "dns", "namespace": "shop"}, "spec": spec});
    let policy: NetworkPolicy = serde_json::from_value(policy).unwrap();
    let mut net = net(vec![], &pods.collect::<Vec<_>>(), &[policy]);
    introduce(&mut net);
    net
}

/// Each version, under the policy of each end.
fn each(test: impl Fn(&mut Net, bool, By)) {
    for v6 in [false, true] {
        for by in [By::Receiver, By::Sender] {
            let mut net = lab(by);
            test(&mut net, v6, by);
            net.rig.assert_conserved();
        }
    }
}

/// What `web` sends `db`: 40 bytes of transport.
fn whole(v6: bool, protocol: Protocol, port: u16) -> Vec<u8> {
    packet((mac(0), mac(1)), ip(v6, 1), ip(v6, 0), (protocol, port), 7)
}

fn passes(net: &mut Net, frame: Vec<u8>) -> bool {
    arrives(net, 1, 0, frame)
}

#[test]
fn later_fragments_pass_or_are_denied_as_their_first() {
    each(|net, v6, by| {
        for (n, protocol) in (0u64..).zip([Protocol::Udp, Protocol::Tcp]) {
            let (allowed, denied) = (whole(v6, protocol, 53), whole(v6, protocol, 54));
            let id = 10 * n as u16;
            assert!(passes(net, piece(&allowed, id + 1, 0..24, true)), "{protocol}, v6 {v6}, {by:?}");
            assert!(passes(net, piece(&allowed, id + 1, 24..32, true)), "{protocol}, v6 {v6}, {by:?}");
            assert!(passes(net, piece(&allowed, id + 1, 32..40, false)), "{protocol}, v6 {v6}, {by:?}");
            let before = net.rig.drops(by.denies());
            assert!(!passes(net, piece(&denied, id + 2, 0..24, true)), "{protocol}, v6 {v6}, {by:?}");
            assert_eq!(net.rig.drops(by.denies()), before + 1);
            assert!(!passes(net, piece(&denied, id + 2, 24..32, true)), "{protocol}, v6 {v6}, {by:?}");
            assert!(!passes(net, piece(&denied, id + 2, 32..40, false)), "{protocol}, v6 {v6}, {by:?}");
            // With the number of what was allowed, and behind nothing at all.
            let strays = net.rig.drops(DropReason::FragmentNoFirst);
            assert!(!passes(net, piece(&allowed, id + 3, 24..40, false)), "{protocol}, v6 {v6}, {by:?}");
            assert_eq!(net.rig.drops(DropReason::FragmentNoFirst), strays + 1);
        }
    });
}

/// RFC 5722 for IPv6, RFC 3128 for IPv4: what would be written over the ports that were asked about, and all that follows of such a packet.
#[test]
fn a_fragment_over_its_first_is_dropped_and_the_rest_with_it() {
    each(|net, v6, by| {
        let overlaps = |net: &Net| net.rig.drops(DropReason::FragmentOverlap);
        let allowed = whole(v6, Protocol::Udp, 53);
        assert!(passes(net, piece(&allowed, 1, 0..24, true)));
        assert!(!passes(net, piece(&allowed, 1, 16..32, true)), "v6 {v6}, {by:?}");
        assert!(!passes(net, piece(&allowed, 1, 24..40, false)), "what was good before");
        assert!(!passes(net, piece(&allowed, 1, 0..24, true)), "nor the first once more");
        assert_eq!(overlaps(net), 3, "v6 {v6}, {by:?}");
        // Another first, by which it would be another port: both cannot be right.
        assert!(passes(net, piece(&allowed, 2, 0..24, true)));
        assert!(!passes(net, piece(&whole(v6, Protocol::Udp, 54), 2, 0..24, true)));
        assert!(!passes(net, piece(&allowed, 2, 24..40, false)));
        assert_eq!(overlaps(net), 5, "v6 {v6}, {by:?}");
        // Into a TCP header, whatever came before it.
        let segment = whole(v6, Protocol::Tcp, 53);
        assert!(!passes(net, piece(&segment, 3, 8..40, false)));
        assert!(!passes(net, piece(&segment, 3, 16..40, false)));
        assert_eq!(overlaps(net), 7, "v6 {v6}, {by:?}");
    });
}

#[test]
fn a_first_fragment_without_its_whole_header_is_dropped() {
    each(|net, v6, by| {
        let (udp, tcp) = (whole(v6, Protocol::Udp, 53), whole(v6, Protocol::Tcp, 53));
        for (n, frame) in
            [piece(&udp, 1, 0..0, true), piece(&tcp, 2, 0..8, true), piece(&tcp, 3, 0..16, true)]
                .into_iter()
                .enumerate()
        {
            assert!(!passes(net, frame), "{n}, v6 {v6}, {by:?}");
            assert_eq!(net.rig.drops(DropReason::FragmentTiny), n as u64 + 1, "v6 {v6}, {by:?}");
        }
        // What lies behind it finds no first.
        assert!(!passes(net, piece(&tcp, 3, 24..40, false)));
        assert_eq!(net.rig.drops(DropReason::FragmentNoFirst), 1);
        assert!(passes(net, piece(&udp, 4, 0..8, true)), "all of a UDP header is enough");
    });
}

/// RFC 6946: one that is first and last is a packet of its own, and shares its number with nobody.
#[test]
fn an_atomic_fragment_is_a_whole_packet() {
    for by in [By::Receiver, By::Sender] {
        let mut net = lab(by);
        let (allowed, denied) = (whole(true, Protocol::Udp, 53), whole(true, Protocol::Udp, 54));
        assert!(passes(&mut net, piece(&allowed, 1, 0..24, true)));
        assert!(passes(&mut net, piece(&allowed, 1, 0..40, false)), "it lies over nothing");
        assert!(passes(&mut net, piece(&allowed, 1, 24..40, false)), "and spoils nothing");
        assert!(!passes(&mut net, piece(&denied, 2, 0..40, false)));
        assert_eq!(net.rig.drops(by.denies()), 1);
    }
}
