//! Frames made from what their sender says of itself, and what a plain table thinks of each.

use super::*;
use crate::wire::ethernet;
use proptest::prelude::*;
use std::net::{Ipv4Addr, Ipv6Addr};
use switch_api::{Mac, SourceGuard};

const OWN: [u8; 6] = [2, 0, 0, 0, 0, 1];
const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 2];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Own,
    Other,
    None,
}

impl Who {
    fn mac(self) -> [u8; 6] {
        if self == Self::Own { OWN } else { OTHER }
    }

    fn v4(self) -> Ipv4Addr {
        match self {
            Self::Own => Ipv4Addr::new(10, 0, 0, 1),
            Self::Other => Ipv4Addr::new(10, 0, 0, 2),
            Self::None => Ipv4Addr::UNSPECIFIED,
        }
    }

    /// A global address, or the link-local one that a MAC makes.
    fn v6(self, link: bool) -> Ipv6Addr {
        match (self, link) {
            (Self::Own, false) => "fd00::1".parse().unwrap(),
            (Self::Other, false) => "fd00::2".parse().unwrap(),
            (Self::Own, true) => "fe80::ff:fe00:1".parse().unwrap(),
            (Self::Other, true) => "fe80::ff:fe00:2".parse().unwrap(),
            (Self::None, _) => Ipv6Addr::UNSPECIFIED,
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Says {
    Nothing,
    Arp { mac: Who, address: Who },
    Udp4 { from: Who, ports: (u16, u16), broadcast: bool, later: bool },
    Tcp6 { from: Who, link: bool },
    Udp6 { from: Who, link: bool, ports: (u16, u16) },
    Icmp6 { from: Who, link: bool, kind: u8, target: Who, option: Option<(u8, Who)> },
}

fn who() -> impl Strategy<Value = Who> {
    prop_oneof![Just(Who::Own), Just(Who::Other), Just(Who::None)]
}

fn says() -> impl Strategy<Value = Says> {
    let ports = || prop_oneof![Just((67u16, 68u16)), Just((68, 67)), Just((547, 546)), Just((53, 53))];
    let kind =
        prop_oneof![Just(128u8), Just(131), Just(133), Just(134), Just(135), Just(136), Just(137), Just(143)];
    prop_oneof![
        Just(Says::Nothing),
        (who(), who()).prop_map(|(mac, address)| Says::Arp { mac, address }),
        (who(), ports(), any::<bool>(), any::<bool>())
            .prop_map(|(from, ports, broadcast, later)| Says::Udp4 { from, ports, broadcast, later }),
        (who(), any::<bool>()).prop_map(|(from, link)| Says::Tcp6 { from, link }),
        (who(), any::<bool>(), ports()).prop_map(|(from, link, ports)| Says::Udp6 { from, link, ports }),
        (who(), any::<bool>(), kind, who(), proptest::option::of((1..4u8, who())))
            .prop_map(|(from, link, kind, target, option)| Says::Icmp6 { from, link, kind, target, option }),
    ]
}

/// What is to come of it, from a station whose MAC is `mac`.
fn expected(mac: Who, says: Says) -> Result<(), DropReason> {
    use DropReason::{RogueServer, SpoofedAddress, SpoofedMac, SpoofedNeighbour};
    if mac != Who::Own {
        return Err(SpoofedMac);
    }
    let refused = match says {
        Says::Nothing => None,
        Says::Arp { mac, address } => (mac != Who::Own || address == Who::Other).then_some(SpoofedNeighbour),
        Says::Udp4 { from: Who::Other, .. } => Some(SpoofedAddress),
        Says::Udp4 { from: Who::None, ports, broadcast, later } => {
            (ports != (68, 67) || !broadcast || later).then_some(SpoofedAddress)
        }
        Says::Udp4 { ports, later, .. } => (ports == (67, 68) && !later).then_some(RogueServer),
        Says::Tcp6 { from, .. } => (from != Who::Own).then_some(SpoofedAddress),
        Says::Udp6 { from, .. } if from != Who::Own => Some(SpoofedAddress),
        Says::Udp6 { ports, .. } => (ports == (547, 546)).then_some(RogueServer),
        Says::Icmp6 { from: Who::Other, .. } => Some(SpoofedAddress),
        Says::Icmp6 { kind: 134 | 137, .. } => Some(RogueServer),
        Says::Icmp6 { from, kind, target, option, .. } => {
            let lies = matches!(option, Some((1 | 2, who)) if who != Who::Own);
            match (kind, from) {
                (133, _) => lies.then_some(SpoofedNeighbour),
                (135, Who::None) => (target != Who::Own || lies).then_some(SpoofedNeighbour),
                (135, _) => lies.then_some(SpoofedNeighbour),
                (136, from) => (from == Who::None || target != Who::Own || lies).then_some(SpoofedNeighbour),
                (128, Who::None) => Some(SpoofedAddress),
                _ => None,
            }
        }
    };
    refused.map_or(Ok(()), Err)
}

fn v6(from: Ipv6Addr, protocol: u8, extended: bool, segment: &[u8]) -> (u16, Vec<u8>) {
    // A hop-by-hop header of padding, behind which what it says is not hidden.
    let extension: &[u8] = if extended { &[protocol, 0, 1, 4, 0, 0, 0, 0] } else { &[] };
    let mut packet = vec![0x60, 0, 0, 0, 0, (extension.len() + segment.len()) as u8];
    packet.extend([if extended { 0 } else { protocol }, 255]);
    packet.extend(from.octets());
    packet.extend("ff02::1".parse::<Ipv6Addr>().unwrap().octets());
    packet.extend(extension);
    packet.extend(segment);
    (IPV6, packet)
}

fn udp(ports: (u16, u16)) -> Vec<u8> {
    [&ports.0.to_be_bytes()[..], &ports.1.to_be_bytes(), &[0, 8, 0, 0]].concat()
}

fn payload(says: Says, extended: bool) -> (u16, Vec<u8>) {
    match says {
        Says::Nothing => (0x88cc, vec![0; 46]),
        Says::Arp { mac, address } => {
            let mut packet = vec![0, 1, 8, 0, 6, 4, 0, 2];
            packet.extend(mac.mac());
            packet.extend(address.v4().octets());
            packet.resize(46, 0);
            (ARP, packet)
        }
        Says::Udp4 { from, ports, broadcast, later } => {
            let mut packet = vec![0x45, 0, 0, 28, 0, 0, 0, u8::from(later), 64, UDP, 0, 0];
            packet.extend(from.v4().octets());
            packet.extend(if broadcast { [255; 4] } else { [10, 0, 0, 9] });
            packet.extend(udp(ports));
            (IPV4, packet)
        }
        Says::Tcp6 { from, link } => v6(from.v6(link), TCP, extended, &[0; 20]),
        Says::Udp6 { from, link, ports } => v6(from.v6(link), UDP, extended, &udp(ports)),
        Says::Icmp6 { from, link, kind, target, option } => {
            let mut message = vec![kind, 0, 0, 0, 0, 0, 0, 0];
            if kind != 133 {
                message.extend(target.v6(false).octets());
            }
            if let Some((option, who)) = option.filter(|_| matches!(kind, 133 | 135 | 136)) {
                message.extend([14, 1, 0, 0, 0, 0, 0, 0]);
                message.extend([option, 1]);
                message.extend(who.mac());
            }
            v6(from.v6(link), ICMPV6, extended, &message)
        }
    }
}

fn frame(mac: Who, tagged: bool, (ethertype, payload): (u16, Vec<u8>)) -> Vec<u8> {
    let tag: &[u8] = if tagged { &[0x81, 0, 0, 5] } else { &[] };
    [&[0xff; 6][..], &mac.mac(), tag, &ethertype.to_be_bytes(), &payload].concat()
}

fn judged(frame: &[u8], addresses: &[&str]) -> Result<(), DropReason> {
    let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
    let guard = Guard::new(&SourceGuard { macs: vec![Mac(OWN)], addresses });
    let read = ethernet::parse(frame).unwrap();
    let note = Note {
        src_ethertype: super::super::super::note::src_ethertype(read.src, read.ethertype),
        tagged: read.tci.is_some(),
        ..Note::default()
    };
    judge(&guard, &note, frame)
}

const BOTH: &[&str] = &["10.0.0.1/32", "fd00::1/128"];

proptest! {
    // Rare together: a fragment, from nobody, to everybody, between these ports.
    #![proptest_config(crate::cases::cases(4096))]
    #[test]
    fn what_a_sender_says_of_itself_is_held_against_what_it_is(mac in who(), says in says(), tagged: bool, extended: bool) {
        let frame = frame(mac, tagged, payload(says, extended));
        prop_assert_eq!(judged(&frame, BOTH), expected(mac, says));
    }

    /// Whatever is cut off: no panic, and nothing passes that would not have passed whole.
    #[test]
    fn what_is_cut_short_says_no_more(mac in who(), says in says(), tagged: bool, extended: bool, left in 18..120usize) {
        let mut frame = frame(mac, tagged, payload(says, extended));
        frame.truncate(left);
        if judged(&frame, BOTH).is_ok() {
            prop_assert_eq!(expected(mac, says), Ok(()));
        }
    }

    #[test]
    fn arbitrary_bytes_are_judged(mut bytes in proptest::collection::vec(any::<u8>(), 18..160), kind in 0..4usize) {
        bytes[6..12].copy_from_slice(&OWN);
        bytes[12..14].copy_from_slice(&[ARP, IPV4, IPV6, 0x88b5][kind].to_be_bytes());
        _ = judged(&bytes, BOTH);
    }
}

#[test]
fn where_no_addresses_are_named_macs_still_are() {
    let lie = Says::Arp { mac: Who::Own, address: Who::Other };
    assert_eq!(judged(&frame(Who::Own, false, payload(lie, false)), &[]), Ok(()));
    let lie = Says::Arp { mac: Who::Other, address: Who::Own };
    assert_eq!(judged(&frame(Who::Own, false, payload(lie, false)), &[]), Err(DropReason::SpoofedNeighbour));
}

/// Hosts take such tags off, and look at what is behind.
#[test]
fn nobody_hides_behind_a_second_tag() {
    let says = |address| frame(Who::Own, false, payload(Says::Arp { mac: Who::Own, address }, false));
    for stacked in [
        &[0x88, 0xa8, 0, 0][..],
        &[0x81, 0, 0, 0, 0x81, 0, 0, 0],
        &[0x81, 0, 0, 0, 0x88, 0xa8, 0, 0],
        &[0x91, 0, 0, 0],
    ] {
        for (address, addresses) in [(Who::Other, BOTH), (Who::Own, BOTH), (Who::Other, &[])] {
            let mut bytes = says(address);
            bytes.splice(12..12, stacked.iter().copied());
            assert_eq!(judged(&bytes, addresses), Err(DropReason::StackedTag), "{stacked:x?}");
        }
    }
    // One tag of VLAN 0 is a priority.
    let mut bytes = says(Who::Own);
    bytes.splice(12..12, [0x81, 0, 0xe0, 0]);
    assert_eq!(judged(&bytes, BOTH), Ok(()));
}
