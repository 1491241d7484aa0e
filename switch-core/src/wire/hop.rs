//! What a router reads of a packet and what it changes: one hop. Addresses are 128 bits for both versions;
//! an IPv4 address is IPv4-mapped (RFC 4291 §2.5.5.2), so that one key serves both.

use super::checksum::{fold, is_right, sum};
use super::ip::Version;
use super::{Malformed, be16, be32};

/// An IPv4 address as 128 bits.
pub const V4_MAPPED: u128 = 0xffff << 32;

/// A packet as a router sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// Version.
    pub version: Version,
    /// Source.
    pub src: u128,
    /// Destination.
    pub dst: u128,
    /// Time to live, hop limit.
    pub ttl: u8,
    /// Protocol, or the first next header.
    pub protocol: u8,
    /// Bytes of the fixed header with IPv4's options.
    pub header_len: usize,
    /// Bytes of the packet; what follows is Ethernet padding.
    pub len: usize,
    /// It must not be fragmented. Always so for IPv6.
    pub whole: bool,
}

impl Hop {
    /// Whether an address is IPv4.
    #[inline(always)]
    pub fn is_v4(self) -> bool {
        self.version == Version::V4
    }
}

/// A packet as a router sees most: IPv4 without options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plain {
    /// Source.
    pub src: u32,
    /// Destination.
    pub dst: u32,
    /// Time to live.
    pub ttl: u8,
    /// Bytes of the packet.
    pub len: u16,
}

/// Reads what most packets are. None: [`read`] says what it is, or what is wrong with it.
#[inline(always)]
pub fn read_plain(packet: &[u8]) -> Option<Plain> {
    let header = packet.first_chunk::<20>()?;
    let len = be16(header, 2);
    // At least so long, and no longer than what is there: one comparison says both.
    let is_within = usize::from(len).wrapping_sub(header.len()) <= packet.len() - header.len();
    let fits = (header[0] == 0x45) & is_within;
    let plain = Plain { src: be32(header, 12), dst: be32(header, 16), ttl: header[8], len };
    (fits & is_right(header)).then_some(plain)
}

/// Reads the header. IPv4's checksum is verified (RFC 1812 §5.2.2): a router that does not would make a
/// wrong one right.
#[inline]
pub fn read(packet: &[u8], version: Version) -> Result<Hop, Malformed> {
    match version {
        Version::V4 => read_v4(packet),
        Version::V6 => read_v6(packet),
    }
}

#[inline]
fn read_v4(packet: &[u8]) -> Result<Hop, Malformed> {
    let header = packet.first_chunk::<20>().ok_or(Malformed::Truncated)?;
    let header_len = usize::from(header[0] & 0xf) * 4;
    if header[0] >> 4 != 4 || header_len < 20 {
        return Err(Malformed::Field);
    }
    let len = usize::from(be16(header, 2));
    if len < header_len || len > packet.len() {
        return Err(Malformed::Length);
    }
    let is_right =
        if header_len == 20 { is_right(header) } else { fold(sum(&packet[..header_len])) == 0xffff };
    if !is_right {
        return Err(Malformed::Checksum);
    }
    let word = |at: usize| {
        u128::from(u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]))
    };
    Ok(Hop {
        version: Version::V4,
        src: V4_MAPPED | word(12),
        dst: V4_MAPPED | word(16),
        ttl: header[8],
        protocol: header[9],
        header_len,
        len,
        whole: header[6] & 0x40 != 0,
    })
}

#[inline]
fn read_v6(packet: &[u8]) -> Result<Hop, Malformed> {
    let header = packet.first_chunk::<40>().ok_or(Malformed::Truncated)?;
    if header[0] >> 4 != 6 {
        return Err(Malformed::Field);
    }
    let len = 40 + usize::from(be16(header, 4));
    if len > packet.len() {
        return Err(Malformed::Length);
    }
    let address = |at: usize| header[at..].first_chunk().map_or(0, |bytes| u128::from_be_bytes(*bytes));
    Ok(Hop {
        version: Version::V6,
        src: address(8),
        dst: address(24),
        ttl: header[7],
        protocol: header[6],
        header_len: 40,
        len,
        whole: true,
    })
}

/// One hop further: TTL or hop limit less one, and IPv4's checksum to match: the word that holds the TTL is less by 0x100, so
/// its complement is more by as much, with the carry added (RFC 1624, equation 3, for this one change). The caller has read the
/// header, and that the TTL is not 0.
#[inline(always)]
pub fn step(packet: &mut [u8], version: Version) {
    match version {
        Version::V6 => packet[7] = packet[7].wrapping_sub(1),
        Version::V4 => {
            let Some(words) = packet.get_mut(8..12).and_then(|words| words.first_chunk_mut::<4>()) else {
                return;
            };
            let [ttl, protocol, high, low] = *words;
            let before = u16::from_be_bytes([high, low]);
            let after = before.wrapping_add(0x100 + u16::from(before >= 0xfeff));
            let [high, low] = after.to_be_bytes();
            *words = [ttl.wrapping_sub(1), protocol, high, low];
        }
    }
}

/// Whether an IPv4 header asks for a route of the sender's choice (RFC 791 §3.1: options 131 and 137).
/// No router has followed these for decades, because they get around every filter.
pub fn has_source_route(header: &[u8]) -> bool {
    let mut rest = header.get(20..).unwrap_or_default();
    while let [kind, tail @ ..] = rest {
        match (kind, tail.first()) {
            (0, _) => return false,
            (1, _) => rest = tail,
            (131 | 137, _) => return true,
            (_, Some(len)) if *len >= 2 && usize::from(*len) <= rest.len() => {
                rest = &rest[usize::from(*len)..]
            }
            _ => return false,
        }
    }
    false
}

#[cfg(not(loom))]
#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{Ipv4HeaderSlice, Ipv6HeaderSlice, PacketBuilder};
    use proptest::prelude::*;

    fn packet(v6: bool, src: [u8; 16], dst: [u8; 16], ttl: u8, payload: &[u8]) -> Vec<u8> {
        let four = |bytes: [u8; 16]| *bytes.first_chunk::<4>().unwrap();
        let ip = if v6 {
            PacketBuilder::ipv6(src, dst, ttl)
        } else {
            PacketBuilder::ipv4(four(src), four(dst), ttl)
        };
        let mut packet = Vec::new();
        ip.udp(1, 2).write(&mut packet, payload).unwrap();
        packet
    }

    proptest! {
        /// The second opinion reads the same, and finds the checksum right after any number of hops.
        #[test]
        fn hops_are_what_etherparse_says(v6: bool, src: [u8; 16], dst: [u8; 16], ttl in 1u8.., hops in 0u8..5,
                                         payload in proptest::collection::vec(any::<u8>(), 0..40)) {
            let version = if v6 { Version::V6 } else { Version::V4 };
            let mut packet = packet(v6, src, dst, ttl, &payload);
            for _ in 0..hops.min(ttl) { step(&mut packet, version); }
            let hop = read(&packet, version).unwrap();
            prop_assert_eq!((hop.ttl, hop.protocol, hop.len), (ttl - hops.min(ttl), 17, packet.len()));
            if v6 {
                let header = Ipv6HeaderSlice::from_slice(&packet).unwrap();
                prop_assert_eq!(hop.src, header.source_addr().to_bits());
                prop_assert_eq!(hop.dst, header.destination_addr().to_bits());
            } else {
                let header = Ipv4HeaderSlice::from_slice(&packet).unwrap();
                prop_assert_eq!(hop.src, header.source_addr().to_ipv6_mapped().to_bits());
                prop_assert_eq!(hop.dst, header.destination_addr().to_ipv6_mapped().to_bits());
                prop_assert_eq!(header.to_header().calc_header_checksum(), be16(&packet, 10));
            }
        }

        /// The short way reads what the long one does, or leaves it to it.
        #[test]
        fn plain_packets_are_read_as_all_others(src: [u8; 16], dst: [u8; 16], ttl: u8, at in 0usize..20, change: u8, cut in 0usize..50) {
            let mut packet = packet(false, src, dst, ttl, &[7; 20]);
            // Another byte, under a right checksum more often than not.
            packet[at] ^= change & (change >> 4);
            if at % 4 != 3 {
                packet[10..12].fill(0);
                let checksum = !fold(sum(&packet[..20]));
                packet[10..12].copy_from_slice(&checksum.to_be_bytes());
            }
            packet.truncate(packet.len().saturating_sub(cut / 2 * (cut % 2)));
            let long = read(&packet, Version::V4);
            match read_plain(&packet) {
                Some(Plain { src, dst, ttl, len }) => {
                    let long = long.unwrap();
                    let ends = [src, dst].map(|ip| V4_MAPPED | u128::from(ip));
                    prop_assert_eq!((ends, ttl, usize::from(len), 20), ([long.src, long.dst], long.ttl, long.len, long.header_len));
                }
                None => prop_assert!(long.is_err() || long.is_ok_and(|hop| hop.header_len > 20)),
            }
        }

        #[test]
        fn arbitrary_bytes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80), v6: bool) {
            let version = if v6 { Version::V6 } else { Version::V4 };
            if let Ok(hop) = read(&bytes, version) {
                prop_assert!(hop.header_len <= hop.len && hop.len <= bytes.len());
                _ = has_source_route(&bytes[..hop.header_len]);
            }
            _ = has_source_route(&bytes);
        }
    }

    /// Equation 3 of RFC 1624 as it stands there, for every checksum and some TTLs.
    #[test]
    fn a_step_is_what_the_rfc_says() {
        for (ttl, checksum) in [1, 2, 64, 255].iter().flat_map(|ttl| (0..=u16::MAX).map(|sum| (*ttl, sum))) {
            let mut packet = [0; 20];
            (packet[8], packet[9]) = (ttl, 17);
            packet[10..12].copy_from_slice(&checksum.to_be_bytes());
            let before = be16(&packet, 8);
            let total = u64::from(!checksum) + u64::from(!before) + u64::from(before - 0x100);
            step(&mut packet, Version::V4);
            assert_eq!(be16(&packet, 10), !fold(total), "{ttl} {checksum:04x}");
            assert_eq!(be16(&packet, 8), before - 0x100);
        }
    }

    #[test]
    fn a_wrong_checksum_and_a_source_route_are_seen() {
        let mut packet = packet(false, [10; 16], [11; 16], 9, &[1]);
        packet[10] ^= 1;
        assert_eq!(read(&packet, Version::V4), Err(Malformed::Checksum));
        let header = |options: &[u8]| [&[0x46; 20][..], options].concat();
        assert!(has_source_route(&header(&[1, 131, 3, 4])));
        assert!(has_source_route(&header(&[7, 3, 4, 137])));
        assert!(!has_source_route(&header(&[0, 131, 3, 4])) && !has_source_route(&header(&[7, 0, 131, 0])));
    }
}
