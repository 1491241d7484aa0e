//! Why a packet does not arrive, told to its sender (RFC 792, RFC 1812 §4.3, RFC 4443). The packet is
//! quoted, so that the sender knows which of its own it was.

use super::{PACKET_LEN_MAX, TTL, ipv6_header, v4, v6};
use crate::wire::hop::Hop;
use crate::wire::ip::{self, ICMP, ICMPV6, Version};
use smoltcp::wire::{Icmpv4Packet, Icmpv6Packet, IpProtocol, Ipv4Packet, Ipv4Repr};

/// RFC 1812 §4.3.2.3: as much as fits 576 bytes.
const V4_LEN_MAX: usize = 576;
/// Precedence 6 (RFC 791 §3.1), as a DSCP: CS6 (RFC 2474 §4.2.2).
const NETWORK_CONTROL: u8 = 48;
/// Type, code, checksum and one word: both versions.
const ICMP_LEN: usize = 8;

/// Why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It has been over too many routers.
    Expired,
    /// There is no route.
    NoRoute,
    /// Its neighbour does not answer.
    NoNeighbour,
    /// A route says that it cannot be reached.
    Unreachable,
    /// A route forbids it.
    Prohibited,
    /// The switch has nothing that listens there.
    NoPort,
    /// The switch does not speak its protocol, which stands behind the IP header.
    NoProtocol,
    /// It is longer than this and may not be cut.
    TooBig(u16),
    /// Its source means nothing beyond its link.
    Scope,
}

/// Type, code and the word that follows the checksum.
fn codes(reason: Reason, version: Version) -> (u8, u8, u32) {
    match (version, reason) {
        (Version::V4, Reason::Expired) => (11, 0, 0),
        (Version::V4, Reason::NoRoute | Reason::Scope) => (3, 0, 0),
        // Linux tells the same of such a route (ip-route(8)).
        (Version::V4, Reason::NoNeighbour | Reason::Unreachable) => (3, 1, 0),
        (Version::V4, Reason::NoProtocol) => (3, 2, 0),
        (Version::V4, Reason::NoPort) => (3, 3, 0),
        (Version::V4, Reason::TooBig(mtu)) => (3, 4, u32::from(mtu)),
        (Version::V4, Reason::Prohibited) => (3, 13, 0),
        (Version::V6, Reason::Expired) => (3, 0, 0),
        (Version::V6, Reason::NoRoute | Reason::Unreachable) => (1, 0, 0),
        // Where the next header is named (RFC 4443 §3.4).
        (Version::V6, Reason::NoProtocol) => (4, 1, 6),
        (Version::V6, Reason::Prohibited) => (1, 1, 0),
        (Version::V6, Reason::Scope) => (1, 2, 0),
        (Version::V6, Reason::NoNeighbour) => (1, 3, 0),
        (Version::V6, Reason::NoPort) => (1, 4, 0),
        (Version::V6, Reason::TooBig(mtu)) => (2, 0, u32::from(mtu)),
    }
}

/// Whether anybody may be told about this packet (RFC 1122 §3.2.2, RFC 4443 §2.4 e): not about an error,
/// nobody who has no address of his own, nothing that went to many; for IPv4 not about a later fragment (RFC 1812 §4.3.2.7).
/// IPv6 has no such rule: a later fragment that is too long for its next link is as good a reason to say so as the first.
pub fn is_due(packet: &[u8], hop: &Hop) -> bool {
    let Some(packet) = packet.get(..hop.len) else { return false };
    let Ok(read) = ip::parse(packet, hop.version) else { return false };
    let kind = packet.get(read.transport_at).copied();
    let is_error = match read.protocol {
        // Destination unreachable, source quench, redirect, time exceeded, parameter problem.
        ICMP if hop.is_v4() => kind.is_none_or(|kind| matches!(kind, 3 | 4 | 5 | 11 | 12)),
        // Error messages have the high bit clear (RFC 4443 §2.1); a redirect (137) is not answered either.
        ICMPV6 if !hop.is_v4() && !read.later_fragment => kind.is_none_or(|kind| kind < 128 || kind == 137),
        _ => false,
    };
    let untold = hop.is_v4() && read.later_fragment;
    !is_error && !untold && is_station(hop.src, hop.version) && !is_group(hop.dst, hop.version)
}

fn is_group(ip: u128, version: Version) -> bool {
    match version {
        Version::V4 => ip as u32 >> 28 >= 0xe,
        Version::V6 => ip >> 120 == 0xff,
    }
}

fn is_station(ip: u128, version: Version) -> bool {
    let special = match version {
        Version::V4 => matches!(ip as u32 >> 24, 0 | 127),
        Version::V6 => ip <= 1,
    };
    !special && !is_group(ip, version)
}

/// Writes the error about `packet`, which [`is_due`], from `own` into `out`; its length.
pub fn write(out: &mut [u8; PACKET_LEN_MAX], packet: &[u8], hop: &Hop, own: u128, reason: Reason) -> usize {
    let (kind, code, word) = codes(reason, hop.version);
    let (header_len, most) = match hop.version {
        Version::V4 => (20, V4_LEN_MAX),
        Version::V6 => (40, PACKET_LEN_MAX),
    };
    let quoted = packet.len().min(hop.len).min(most - header_len - ICMP_LEN);
    let message_len = ICMP_LEN + quoted;
    match hop.version {
        Version::V4 => {
            let header = Ipv4Repr {
                src_addr: v4(own),
                dst_addr: v4(hop.src),
                next_header: IpProtocol::Icmp,
                payload_len: message_len,
                hop_limit: TTL,
            };
            let mut place = Ipv4Packet::new_unchecked(&mut out[..]);
            header.emit(&mut place, &super::checksums());
            // Of the kind that keeps a network going (RFC 1812 §4.3.2.5).
            place.set_dscp(NETWORK_CONTROL);
            place.fill_checksum();
        }
        Version::V6 => _ = ipv6_header(out, own, hop.src, TTL, message_len),
    }
    let message = &mut out[header_len..header_len + message_len];
    message[..2].copy_from_slice(&[kind, code]);
    message[2..4].fill(0);
    message[4..ICMP_LEN].copy_from_slice(&word.to_be_bytes());
    message[ICMP_LEN..].copy_from_slice(&packet[..quoted]);
    match hop.version {
        Version::V4 => Icmpv4Packet::new_unchecked(message).fill_checksum(),
        Version::V6 => Icmpv6Packet::new_unchecked(message).fill_checksum(&v6(own), &v6(hop.src)),
    }
    header_len + message_len
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::from_v4;
    use crate::wire::hop;
    use etherparse::{Icmpv4Type, Icmpv6Type, PacketBuilder, SlicedPacket, TransportSlice, icmpv4, icmpv6};
    use proptest::prelude::*;

    fn udp(six: bool, payload: &[u8]) -> Vec<u8> {
        let ip = if six {
            PacketBuilder::ipv6([3; 16], [5; 16], 1)
        } else {
            PacketBuilder::ipv4([10, 0, 0, 9], [10, 0, 1, 1], 1)
        };
        let mut packet = Vec::new();
        ip.udp(7, 8).write(&mut packet, payload).unwrap();
        packet
    }

    const REASONS: [Reason; 9] = [
        Reason::Expired,
        Reason::NoRoute,
        Reason::NoNeighbour,
        Reason::Prohibited,
        Reason::NoPort,
        Reason::TooBig(1400),
        Reason::Scope,
        Reason::Unreachable,
        Reason::NoProtocol,
    ];

    proptest! {
        /// The second opinion reads the error, its checksum and its quotation; and nobody is told about it.
        #[test]
        fn errors_are_read_by_etherparse(six: bool, n in 0usize..9, payload in proptest::collection::vec(any::<u8>(), 0..1400)) {
            let packet = udp(six, &payload);
            let version = if six { Version::V6 } else { Version::V4 };
            let hop = hop::read(&packet, version).unwrap();
            prop_assert!(is_due(&packet, &hop));
            let own = if six { 77 } else { from_v4([10, 0, 0, 1].into()) };
            let mut out = [0; PACKET_LEN_MAX];
            let len = write(&mut out, &packet, &hop, own, REASONS[n]);
            let back = hop::read(&out[..len], version).unwrap();
            prop_assert_eq!((back.src, back.dst, back.len), (own, hop.src, len));
            let quoted = match SlicedPacket::from_ip(&out[..len]).unwrap().transport.unwrap() {
                TransportSlice::Icmpv4(icmp) => {
                    if let Reason::TooBig(mtu) = REASONS[n] {
                        let wanted = icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: mtu };
                        prop_assert_eq!(icmp.icmp_type(), Icmpv4Type::DestinationUnreachable(wanted));
                    }
                    prop_assert!(Icmpv4Packet::new_checked(&out[20..len]).unwrap().verify_checksum());
                    icmp.payload().to_vec()
                }
                TransportSlice::Icmpv6(icmp) => {
                    match REASONS[n] {
                        Reason::TooBig(mtu) => prop_assert_eq!(icmp.icmp_type(), Icmpv6Type::PacketTooBig { mtu: mtu.into() }),
                        Reason::Expired => prop_assert_eq!(icmp.icmp_type(), Icmpv6Type::TimeExceeded(icmpv6::TimeExceededCode::HopLimitExceeded)),
                        _ => {}
                    }
                    prop_assert!(icmp.is_checksum_valid(own.to_be_bytes(), [3; 16]));
                    icmp.payload().to_vec()
                }
                _ => Vec::new(),
            };
            let most = if six { 1232 } else { 548 };
            prop_assert_eq!(&quoted[..], &packet[..packet.len().min(most)]);
            prop_assert!(!is_due(&out[..len], &back), "an error about an error");
        }
    }

    #[test]
    fn nobody_is_told_about_groups_fragments_and_strangers() {
        let changed = |at: usize, bytes: &[u8]| {
            let mut packet = udp(false, &[1; 30]);
            packet[at..at + bytes.len()].copy_from_slice(bytes);
            packet[10..12].fill(0);
            let sum = !crate::wire::checksum::fold(crate::wire::checksum::sum(&packet[..20]));
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
            let hop = hop::read(&packet, Version::V4).unwrap();
            is_due(&packet, &hop)
        };
        assert!(changed(6, &[0x20, 0]), "a first fragment has the ports");
        assert!(!changed(6, &[0, 3]), "a later one has not");
        assert!(
            !changed(12, &[0, 0, 0, 0]) && !changed(12, &[127, 0, 0, 1]) && !changed(12, &[224, 0, 0, 1])
        );
        assert!(!changed(16, &[255, 255, 255, 255]) && !changed(16, &[239, 1, 1, 1]));
        // A later fragment of IPv6 is told of.
        let mut packet = udp(true, &[1; 30]);
        packet[6] = 44;
        packet[40..48].copy_from_slice(&[ip::UDP, 0, 0x11, 0, 0, 0, 0, 7]);
        assert!(is_due(&packet, &hop::read(&packet, Version::V6).unwrap()));
    }
}
