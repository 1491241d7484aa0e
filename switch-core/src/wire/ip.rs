//! IPv4 (RFC 791) and IPv6 (RFC 8200) down to the transport header. Lengths are checked against the
//! bytes that are there, once, here; offsets handed out lie inside the slice.

use super::{Malformed, be16};

/// IPv6 extension headers looked through. Real packets carry one or two; RFC 8504 §5.3 lets a node
/// set a limit, and 8 is the default it names.
pub const EXTENSIONS_MAX: usize = 8;

/// Transmission Control Protocol.
pub const TCP: u8 = 6;
/// User Datagram Protocol.
pub const UDP: u8 = 17;
/// ICMP for IPv4.
pub const ICMP: u8 = 1;
/// ICMP for IPv6.
pub const ICMPV6: u8 = 58;
/// Nothing follows (RFC 8200 §4.7).
pub const NO_NEXT: u8 = 59;
/// Stream Control Transmission Protocol.
pub const SCTP: u8 = 132;

/// Version of the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// RFC 791.
    V4,
    /// RFC 8200.
    V6,
}

/// Where the parts of an IP packet are; offsets count from the packet's first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ip {
    /// Version.
    pub version: Version,
    /// Protocol of the transport header (after IPv6 extensions).
    pub protocol: u8,
    /// Where the transport header begins.
    pub transport_at: usize,
    /// Where the packet ends; bytes after it are Ethernet padding.
    pub end: usize,
    /// It is a fragment, first or later.
    pub fragment: bool,
    /// It is a later fragment: `transport_at` is payload.
    pub later_fragment: bool,
    /// More fragments follow.
    pub more: bool,
    /// Where in the whole payload a fragment belongs, in bytes.
    pub offset: usize,
    /// What the fragments of one packet have in common.
    pub id: u32,
}

/// Reads the packet of `version` that begins at the slice's first byte.
#[inline]
pub fn parse(packet: &[u8], version: Version) -> Result<Ip, Malformed> {
    match version {
        Version::V4 => parse_v4(packet, false),
        Version::V6 => parse_v6(packet, false),
    }
}

/// The same for the beginning of a packet, as an ICMP error quotes it: where it ends is where the quote does.
pub fn parse_quoted(packet: &[u8], version: Version) -> Result<Ip, Malformed> {
    match version {
        Version::V4 => parse_v4(packet, true),
        Version::V6 => parse_v6(packet, true),
    }
}

#[inline]
fn parse_v4(packet: &[u8], quoted: bool) -> Result<Ip, Malformed> {
    if packet.len() < 20 {
        return Err(Malformed::Truncated);
    }
    if packet[0] >> 4 != 4 || packet[0] & 0xf < 5 {
        return Err(Malformed::Field);
    }
    let header_len = usize::from(packet[0] & 0xf) * 4;
    let end = end_of(usize::from(be16(packet, 2)), packet, quoted);
    if end < header_len || end > packet.len() {
        return Err(Malformed::Length);
    }
    let flags = be16(packet, 6);
    let later_fragment = flags & 0x1fff != 0;
    Ok(Ip {
        version: Version::V4,
        protocol: packet[9],
        transport_at: header_len,
        end,
        fragment: later_fragment || flags & 0x2000 != 0,
        later_fragment,
        more: flags & 0x2000 != 0,
        offset: usize::from(flags & 0x1fff) * 8,
        id: u32::from(be16(packet, 4)),
    })
}

#[inline(always)]
fn end_of(end: usize, packet: &[u8], quoted: bool) -> usize {
    if quoted { end.min(packet.len()) } else { end }
}

fn parse_v6(packet: &[u8], quoted: bool) -> Result<Ip, Malformed> {
    if packet.len() < 40 {
        return Err(Malformed::Truncated);
    }
    if packet[0] >> 4 != 6 {
        return Err(Malformed::Field);
    }
    let end = end_of(40 + usize::from(be16(packet, 4)), packet, quoted);
    if end > packet.len() {
        return Err(Malformed::Length);
    }
    let mut ip = Ip {
        version: Version::V6,
        protocol: packet[6],
        transport_at: 40,
        end,
        fragment: false,
        later_fragment: false,
        more: false,
        offset: 0,
        id: 0,
    };
    for _ in 0..EXTENSIONS_MAX {
        let rest = &packet[ip.transport_at..end];
        let len = match ip.protocol {
            // Hop-by-hop, routing, destination options, mobility, HIP, shim6: length in 8 bytes, less one.
            0 | 43 | 60 | 135 | 139 | 140 if rest.len() >= 8 => (usize::from(rest[1]) + 1) * 8,
            // Authentication (RFC 4302 §2.2): length in 4 bytes, less two.
            51 if rest.len() >= 8 => (usize::from(rest[1]) + 2) * 4,
            44 if rest.len() >= 8 => {
                let offset_and_more = be16(rest, 2);
                ip.fragment = true;
                ip.later_fragment |= offset_and_more & 0xfff8 != 0;
                ip.more = offset_and_more & 1 != 0;
                ip.offset = usize::from(offset_and_more & 0xfff8);
                ip.id = u32::from(be16(rest, 4)) << 16 | u32::from(be16(rest, 6));
                8
            }
            0 | 43 | 44 | 51 | 60 | 135 | 139 | 140 => return Err(Malformed::Truncated),
            _ => return Ok(ip),
        };
        if len > rest.len() {
            return Err(Malformed::Length);
        }
        ip.protocol = rest[0];
        ip.transport_at += len;
        if ip.later_fragment {
            return Ok(ip);
        }
    }
    match ip.protocol {
        0 | 43 | 44 | 51 | 60 | 135 | 139 | 140 => Err(Malformed::TooManyExtensions),
        _ => Ok(ip),
    }
}

#[cfg(not(loom))]
#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{PacketBuilder, SlicedPacket};
    use proptest::prelude::*;

    proptest! {
        /// What `etherparse` builds, we read, and at the same place.
        #[test]
        fn agrees_with_etherparse_on_what_it_builds(payload in proptest::collection::vec(any::<u8>(), 0..64),
                                                    v6: bool, tcp: bool, padding in 0usize..8) {
            let ip = if v6 { PacketBuilder::ipv6([1; 16], [2; 16], 9) } else { PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 9) };
            let mut packet = Vec::new();
            if tcp { ip.tcp(1, 2, 3, 4).write(&mut packet, &payload).unwrap() } else { ip.udp(1, 2).write(&mut packet, &payload).unwrap() }
            let end = packet.len();
            packet.resize(end + padding, 0xee);
            let read = parse(&packet, if v6 { Version::V6 } else { Version::V4 }).unwrap();
            prop_assert_eq!(read.end, end);
            prop_assert_eq!(read.protocol, if tcp { TCP } else { UDP });
            let header = if tcp { 20 } else { 8 };
            prop_assert_eq!(read.transport_at, end - payload.len() - header);
        }

        /// On arbitrary bytes: never a panic, never an offset outside, and where both accept, both agree.
        #[test]
        fn arbitrary_bytes_stay_inside(mut packet in proptest::collection::vec(any::<u8>(), 1..128), v6: bool) {
            packet[0] = if v6 { 0x60 } else { 0x40 | (packet[0] & 0xf) };
            let Ok(ip) = parse(&packet, if v6 { Version::V6 } else { Version::V4 }) else { return Ok(()) };
            prop_assert!(ip.transport_at <= ip.end && ip.end <= packet.len());
            if let Ok(sliced) = SlicedPacket::from_ip(&packet)
                && let Some(payload) = sliced.net.as_ref().and_then(|net| net.ip_payload_ref())
                && !v6 {
                prop_assert_eq!(payload.ip_number.0, ip.protocol);
                prop_assert_eq!(payload.fragmented, ip.fragment);
            }
        }
    }

    #[test]
    fn extension_chains_end() {
        let mut packet = vec![0u8; 40 + 8 * (EXTENSIONS_MAX + 1)];
        packet[0] = 0x60;
        let len = (packet.len() - 40) as u16;
        packet[4..6].copy_from_slice(&len.to_be_bytes());
        packet[6] = 60;
        for at in (40..packet.len()).step_by(8) {
            packet[at] = 60;
        }
        assert_eq!(parse(&packet, Version::V6), Err(Malformed::TooManyExtensions));
        packet[40 + 8 * (EXTENSIONS_MAX - 1)] = UDP;
        assert_eq!(parse(&packet, Version::V6).unwrap().protocol, UDP);
    }
}
