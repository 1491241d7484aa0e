//! Ping (RFC 792, RFC 4443 §4): a request becomes its answer in place.

use super::{TTL, v4, v6};
use crate::wire::hop::Hop;
use crate::wire::ip::{ICMP, ICMPV6};
use smoltcp::wire::{Icmpv4Message, Icmpv4Packet, Icmpv6Message, Icmpv6Packet, Ipv4Packet, Ipv6Packet};

/// Makes an echo request, whose header is `hop`, the answer that `own` gives. False, and nothing changed,
/// if it is none, or a fragment: the switch does not put fragments together.
pub fn answer(packet: &mut [u8], hop: &Hop, own: u128) -> bool {
    let (Some(packet), len) = (packet.get_mut(..hop.len), hop.header_len) else { return false };
    if hop.is_v4() { answer_v4(packet, hop, own, len) } else { answer_v6(packet, hop, own, len) }
}

fn answer_v4(packet: &mut [u8], hop: &Hop, own: u128, header_len: usize) -> bool {
    let mut header = Ipv4Packet::new_unchecked(&mut *packet);
    // Options, a record route say, would have to be worked on; nobody pings with them.
    if hop.protocol != ICMP || header_len != 20 || header.more_frags() || header.frag_offset() != 0 {
        return false;
    }
    let Ok(message) = Icmpv4Packet::new_checked(&packet[header_len..]) else { return false };
    if message.msg_type() != Icmpv4Message::EchoRequest || !message.verify_checksum() {
        return false;
    }
    let mut message = Icmpv4Packet::new_unchecked(&mut packet[header_len..]);
    message.set_msg_type(Icmpv4Message::EchoReply);
    message.fill_checksum();
    header = Ipv4Packet::new_unchecked(packet);
    header.set_src_addr(v4(own));
    header.set_dst_addr(v4(hop.src));
    header.set_hop_limit(TTL);
    header.fill_checksum();
    true
}

fn answer_v6(packet: &mut [u8], hop: &Hop, own: u128, header_len: usize) -> bool {
    if hop.protocol != ICMPV6 {
        return false;
    }
    let Ok(message) = Icmpv6Packet::new_checked(&packet[header_len..]) else { return false };
    if message.msg_type() != Icmpv6Message::EchoRequest
        || !message.verify_checksum(&v6(hop.src), &v6(hop.dst))
    {
        return false;
    }
    let mut message = Icmpv6Packet::new_unchecked(&mut packet[header_len..]);
    message.set_msg_type(Icmpv6Message::EchoReply);
    message.fill_checksum(&v6(own), &v6(hop.src));
    let mut header = Ipv6Packet::new_unchecked(packet);
    header.set_src_addr(v6(own));
    header.set_dst_addr(v6(hop.src));
    header.set_hop_limit(TTL);
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::from_v4;
    use crate::wire::hop;
    use crate::wire::ip::Version;
    use etherparse::{PacketBuilder, SlicedPacket, TransportSlice};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_request_becomes_its_answer(ident: u16, seq: u16, payload in proptest::collection::vec(any::<u8>(), 0..200), six: bool) {
            let mut packet = Vec::new();
            let own = if six {
                PacketBuilder::ipv6([3; 16], [5; 16], 9).icmpv6_echo_request(ident, seq).write(&mut packet, &payload).unwrap();
                u128::from_be_bytes([5; 16])
            } else {
                PacketBuilder::ipv4([10, 0, 0, 9], [10, 0, 0, 1], 9).icmpv4_echo_request(ident, seq).write(&mut packet, &payload).unwrap();
                from_v4([10, 0, 0, 1].into())
            };
            let version = if six { Version::V6 } else { Version::V4 };
            let hop = hop::read(&packet, version).unwrap();
            prop_assert!(answer(&mut packet, &hop, own));
            let back = hop::read(&packet, version).unwrap();
            prop_assert_eq!((back.src, back.dst, back.ttl), (own, hop.src, 64));
            let copy = packet.clone();
            let sliced = SlicedPacket::from_ip(&copy).unwrap();
            match sliced.transport.unwrap() {
                TransportSlice::Icmpv4(icmp) => {
                    let etherparse::Icmpv4Type::EchoReply(echo) = icmp.icmp_type() else { panic!() };
                    prop_assert_eq!((echo.id, echo.seq, icmp.payload()), (ident, seq, &payload[..]));
                    prop_assert!(Icmpv4Packet::new_checked(&packet[20..]).unwrap().verify_checksum());
                }
                TransportSlice::Icmpv6(icmp) => {
                    let etherparse::Icmpv6Type::EchoReply(echo) = icmp.icmp_type() else { panic!() };
                    prop_assert_eq!((echo.id, echo.seq, icmp.payload()), (ident, seq, &payload[..]));
                    prop_assert!(icmp.is_checksum_valid([5; 16], [3; 16]));
                }
                _ => prop_assert!(false),
            }
            // An answer is not answered.
            prop_assert!(!answer(&mut packet, &back, own));
        }
    }
}
