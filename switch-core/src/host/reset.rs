//! A TCP reset in a station's place (RFC 9293 §3.5.2): what nobody takes is answered so that its sender gives up at once.

use super::{PACKET_LEN_MAX, TTL, v4, v6};
use crate::wire::hop::Hop;
use crate::wire::ip::Ip;
use smoltcp::wire::{
    IpAddress, IpProtocol, Ipv4Packet, Ipv4Repr, Ipv6Packet, Ipv6Repr, TcpControl, TcpPacket, TcpRepr,
    TcpSeqNumber,
};

/// Writes the reset that answers `packet`, as `hop` and `read` tell of it, into `out`; its length. None if it is a reset
/// itself, a later fragment, or no whole TCP header.
pub fn write(out: &mut [u8; PACKET_LEN_MAX], packet: &[u8], hop: &Hop, read: &Ip) -> Option<usize> {
    if read.later_fragment {
        return None;
    }
    let segment = packet.get(read.transport_at..read.end)?;
    let asked = TcpPacket::new_checked(segment).ok()?;
    if asked.rst() {
        return None;
    }
    // "If the incoming segment has an ACK field, the reset takes its sequence number from the ACK field of the segment; otherwise,
    // the reset has sequence number zero and the ACK field is set to the sum of the sequence number and segment length."
    let (seq_number, ack_number) = match asked.ack() {
        true => (asked.ack_number(), None),
        false => (TcpSeqNumber(0), Some(asked.seq_number() + asked.segment_len())),
    };
    let reset = TcpRepr {
        src_port: asked.dst_port(),
        dst_port: asked.src_port(),
        control: TcpControl::Rst,
        seq_number,
        ack_number,
        window_len: 0,
        window_scale: None,
        max_seg_size: None,
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: &[],
    };
    let (from, to, header_len) = headers(out, hop, reset.buffer_len());
    let len = header_len + reset.buffer_len();
    let mut place = TcpPacket::new_unchecked(&mut out[header_len..len]);
    reset.emit(&mut place, &from, &to, &super::checksums());
    Some(len)
}

/// The IP header of what goes back; its ends, and its length.
fn headers(out: &mut [u8], hop: &Hop, payload_len: usize) -> (IpAddress, IpAddress, usize) {
    let next_header = IpProtocol::Tcp;
    if hop.is_v4() {
        let (src_addr, dst_addr) = (v4(hop.dst), v4(hop.src));
        let header = Ipv4Repr { src_addr, dst_addr, next_header, payload_len, hop_limit: TTL };
        header.emit(&mut Ipv4Packet::new_unchecked(out), &super::checksums());
        (src_addr.into(), dst_addr.into(), header.buffer_len())
    } else {
        let (src_addr, dst_addr) = (v6(hop.dst), v6(hop.src));
        let header = Ipv6Repr { src_addr, dst_addr, next_header, payload_len, hop_limit: TTL };
        header.emit(&mut Ipv6Packet::new_unchecked(out));
        (src_addr.into(), dst_addr.into(), header.buffer_len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{hop, ip};
    use etherparse::{PacketBuilder, SlicedPacket, TcpHeader, TransportSlice};
    use proptest::prelude::*;

    fn packet(six: bool, tcp: &TcpHeader, payload: &[u8]) -> Vec<u8> {
        let ip = if six {
            PacketBuilder::ipv6([3; 16], [5; 16], 9)
        } else {
            PacketBuilder::ipv4([10, 0, 0, 9], [10, 0, 1, 1], 9)
        };
        let mut packet = Vec::new();
        ip.tcp_header(tcp.clone()).write(&mut packet, payload).unwrap();
        packet
    }

    fn answer(packet: &[u8]) -> Option<Vec<u8>> {
        let version = if packet[0] >> 4 == 4 { ip::Version::V4 } else { ip::Version::V6 };
        let (hop, read) = (hop::read(packet, version).unwrap(), ip::parse(packet, version).unwrap());
        let mut out = [0; PACKET_LEN_MAX];
        write(&mut out, packet, &hop, &read).map(|len| out[..len].to_vec())
    }

    proptest! {
        /// The second opinion reads it; it acknowledges just what was sent, or stands where it was asked to; and nobody resets it.
        #[test]
        fn it_is_what_the_sender_waits_for(six: bool, seq: u32, ack: u32, flags in 0u8..8, payload in proptest::collection::vec(any::<u8>(), 0..1400)) {
            let mut tcp = TcpHeader::new(4321, 443, seq, 1000);
            (tcp.syn, tcp.ack, tcp.fin) = (flags & 1 != 0, flags & 2 != 0, flags & 4 != 0);
            tcp.acknowledgment_number = ack;
            let packet = packet(six, &tcp, &payload);
            let reset = answer(&packet).unwrap();
            let sliced = SlicedPacket::from_ip(&reset).unwrap();
            let Some(TransportSlice::Tcp(read)) = sliced.transport else { panic!("no TCP") };
            prop_assert!(read.rst() && !read.syn() && !read.fin());
            prop_assert_eq!((read.source_port(), read.destination_port()), (443, 4321));
            let len = payload.len() as u32 + u32::from(tcp.syn) + u32::from(tcp.fin);
            if tcp.ack {
                prop_assert!(!read.ack() && read.sequence_number() == ack);
            } else {
                prop_assert!(read.ack() && read.sequence_number() == 0);
                prop_assert_eq!(read.acknowledgment_number(), seq.wrapping_add(len));
            }
            let sum = if six {
                read.to_header().calc_checksum_ipv6_raw([5; 16], [3; 16], &[])
            } else {
                read.to_header().calc_checksum_ipv4_raw([10, 0, 1, 1], [10, 0, 0, 9], &[])
            };
            prop_assert_eq!(read.checksum(), sum.unwrap());
            prop_assert!(answer(&reset).is_none(), "a reset of a reset");
        }
    }
}
