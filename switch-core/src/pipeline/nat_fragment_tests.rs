//! Packets in pieces that are translated, of both IP versions: the first has the ports, and all have the addresses, there and back.

use super::fragment_tests::piece;
use super::nat_rig::{Net, P, What, destination, host, source};
use switch_api::Nat;

/// To port 53 of an address that nobody has, and from the first bridge to the second as another.
fn rules(v6: bool) -> [Nat; 2] {
    let from = if v6 { "fd00:0::/64" } else { "10.0.0.0/16" };
    [
        destination("dns", host(v6, 9, 1), Some(53), host(v6, 1, 10), Some(5353)),
        source("out", &[from], &[], Some("br1"), &[host(v6, 9, 100)], "2000-2005"),
    ]
}

/// A part of an IP packet's transport segment.
fn fragment(packet: &[u8], id: u16, part: std::ops::Range<usize>, more: bool) -> Vec<u8> {
    let ethertype = if packet[0] >> 4 == 4 { [8, 0] } else { [0x86, 0xdd] };
    piece(&[&[0; 12][..], &ethertype, packet].concat(), id, part, more)[14..].to_vec()
}

/// The whole packet of which these are the fragments, in order.
fn whole(pieces: &[Vec<u8>]) -> Vec<u8> {
    let is_v4 = pieces[0][0] >> 4 == 4;
    let mut packet = pieces[0][..if is_v4 { 20 } else { 40 }].to_vec();
    // Behind the header of a fragment of IPv6 another follows, which says what is in it.
    let ends = |piece: &Vec<u8>| if is_v4 { piece[12..20].to_vec() } else { piece[8..40].to_vec() };
    for piece in pieces {
        assert_eq!(ends(piece), ends(&pieces[0]), "all are of the same two");
        packet.extend(&piece[if is_v4 { 20 } else { 48 }..]);
    }
    let len = packet.len() as u16;
    if is_v4 {
        packet[2..4].copy_from_slice(&len.to_be_bytes());
        (packet[6], packet[7]) = (0, 0);
        packet[10..12].fill(0);
        let checksum = !crate::wire::checksum::fold(crate::wire::checksum::sum(&packet[..20]));
        packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    } else {
        packet[4..6].copy_from_slice(&(len - 40).to_be_bytes());
        packet[6] = pieces[0][40];
    }
    packet
}

/// Sends a packet in three pieces from a host of a bridge; what came out of which bridge, put together and read.
fn goes(net: &mut Net, (n, from): (usize, u8), packet: &P, id: u16) -> Option<(usize, P)> {
    let packet = packet.packet(&[7; 64]);
    let (mut to, mut pieces) = (None, Vec::new());
    for (part, more) in [(0..24, true), (24..48, true), (48..72, false)] {
        let mut out = net.send_raw(n, from, &fragment(&packet, id, part, more));
        let (came_by, frame) = out.pop()?;
        assert!(out.is_empty() && to.replace(came_by).is_none_or(|before| before == came_by));
        pieces.push(frame[14..].to_vec());
    }
    Some((to?, P::read(&whole(&pieces), true)))
}

#[test]
fn fragments_of_either_version_are_translated_by_their_first_and_so_are_their_answers() {
    for v6 in [false, true] {
        let mut net = Net::new(1, &rules(v6));
        let udp = |src, dst, ports| P { what: What::Udp, src, dst, ports };
        let asks = udp(host(v6, 0, 10), host(v6, 9, 1), [4000, 53]);
        let (to, became) = goes(&mut net, (0, 10), &asks, 1).unwrap();
        assert_eq!((to, became.dst, became.ports[1]), (1, host(v6, 1, 10), 5353), "v6 {v6}");
        assert_eq!(became.src, host(v6, 9, 100), "v6 {v6}");
        assert!((2000..=2005).contains(&became.ports[0]), "v6 {v6}: {became:?}");
        let answered = goes(&mut net, (1, 10), &became.mirror(), 2);
        assert_eq!(answered, Some((0, asks.mirror())), "v6 {v6}");
        // They are of the flow that whole packets are of.
        assert_eq!(net.send(asks), Some(became), "v6 {v6}");
        // To another port of that address nothing leads, whichever piece it is.
        let other = udp(host(v6, 0, 10), host(v6, 9, 1), [4000, 54]);
        assert_eq!(goes(&mut net, (0, 10), &other, 3), None, "v6 {v6}");
        let later = fragment(&other.packet(&[7; 64]), 3, 24..72, false);
        assert_eq!(net.send_raw(0, 10, &later), [], "v6 {v6}");
        // Behind no first at all.
        let stray = fragment(&asks.packet(&[7; 64]), 4, 24..72, false);
        assert_eq!(net.send_raw(0, 10, &stray), [], "v6 {v6}");
    }
}

/// Of a ping only the first piece has the identifier.
#[test]
fn pings_in_pieces_are_translated_by_their_first() {
    for v6 in [false, true] {
        let mut net = Net::new(1, &rules(v6));
        let asks = P { what: What::Ask, src: host(v6, 0, 10), dst: host(v6, 1, 11), ports: [77, 77] };
        let (to, became) = goes(&mut net, (0, 10), &asks, 1).unwrap();
        assert_eq!((to, became.src, became.dst), (1, host(v6, 9, 100), host(v6, 1, 11)), "v6 {v6}");
        assert!((2000..=2005).contains(&became.ports[0]), "v6 {v6}: {became:?}");
        assert_eq!(goes(&mut net, (1, 11), &became.mirror(), 2), Some((0, asks.mirror())), "v6 {v6}");
    }
}
