//! VXLAN (RFC 7348): an Ethernet frame in UDP. What stands in front of it is written and read here, both IP versions, and what of
//! congestion the two IP headers tell each other (RFC 6040). Whose a packet is, the caller knows.

use super::checksum::{Csum, fold, sum};
use super::ethernet::{self, HEADER_LEN};
use super::hop::{self, V4_MAPPED};
use super::ip::{self, UDP, Version};
use super::transport::{UDP_FIELD, UDP_HEADER_LEN};
use super::{be16, be32};

/// Bytes of the VXLAN header.
pub const LEN: usize = 8;
/// The flag that says that there is a VNI (RFC 7348 §5). What else stands beside it is ignored.
const HAS_VNI: u8 = 0x08;
/// The highest VNI: 24 bits.
pub const VNI_MAX: u32 = (1 << 24) - 1;
/// Hops that an outer packet may go, before the switch's own rewriting takes one: what hosts give their own (RFC 1340).
const TTL: u8 = 65;
/// The lowest source port (RFC 7348 §5: from the dynamic range, so that nobody's service is meant).
pub const SOURCE_PORT_MIN: u16 = 49_152;

/// Bytes that are put in front of a frame.
pub const fn overhead(v4: bool) -> usize {
    HEADER_LEN + ip_len(v4) + UDP_HEADER_LEN + LEN
}

/// Bytes that a packet inside is shorter than the longest one outside: all but the outer Ethernet header, and the inner one.
pub const fn mtu_less(v4: bool) -> u16 {
    overhead(v4) as u16
}

const fn ip_len(v4: bool) -> usize {
    if v4 { 20 } else { 40 }
}

/// What is said in front of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outer {
    /// Source address; IPv4 is IPv4-mapped, and so is the destination.
    pub src: u128,
    /// Destination address.
    pub dst: u128,
    /// Source port: of the flow inside, so that routers on the way spread flows.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
    /// DSCP and ECN, as in the IPv4 header's second byte.
    pub tos: u8,
    /// Which network.
    pub vni: u32,
}

/// The source port of packets whose flow has this hash.
pub fn source_port(hash: u32) -> u16 {
    SOURCE_PORT_MIN | (hash ^ hash >> 14) as u16 & 0x3fff
}

/// Writes everything in front of a frame into `frame`, whose first [`overhead`] bytes are room; addresses of stations are left to
/// whoever routes it. What is still to be done for its checksum: none over IPv4 (RFC 7348 §5); over IPv6 it is begun, since
/// receivers take none without only where they are told to (RFC 6935 §5).
pub fn write(frame: &mut [u8], outer: &Outer) -> Csum {
    let v4 = is_v4(outer.dst);
    let (ip_at, udp_at) = (HEADER_LEN, HEADER_LEN + ip_len(v4));
    let udp_len = (frame.len() - udp_at) as u16;
    frame[..12].fill(0);
    let ethertype = if v4 { ethernet::IPV4 } else { ethernet::IPV6 };
    frame[12..ip_at].copy_from_slice(&ethertype.to_be_bytes());
    let header = &mut frame[ip_at..udp_at];
    if v4 {
        write_v4(header, outer, udp_len)
    } else {
        write_v6(header, outer, udp_len)
    }
    let pseudo = match v4 {
        true => 0,
        false => fold(sum(&frame[ip_at + 8..udp_at]) + u64::from(UDP) + u64::from(udp_len)),
    };
    let udp = &mut frame[udp_at..udp_at + UDP_HEADER_LEN + LEN];
    udp[..2].copy_from_slice(&outer.src_port.to_be_bytes());
    udp[2..4].copy_from_slice(&outer.dst_port.to_be_bytes());
    udp[4..6].copy_from_slice(&udp_len.to_be_bytes());
    udp[6..8].copy_from_slice(&pseudo.to_be_bytes());
    udp[8..12].copy_from_slice(&[HAS_VNI, 0, 0, 0]);
    udp[12..16].copy_from_slice(&(outer.vni << 8).to_be_bytes());
    if v4 { Csum::Complete } else { Csum::Partial { start: udp_at as u16, field: UDP_FIELD } }
}

/// Never to be fragmented (RFC 7348 §4.3), so that it needs no identification (RFC 6864 §4.1).
fn write_v4(header: &mut [u8], outer: &Outer, udp_len: u16) {
    let len = ip_len(true) as u16 + udp_len;
    header.copy_from_slice(&[0x45, outer.tos, 0, 0, 0, 0, 0x40, 0, TTL, UDP, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    header[2..4].copy_from_slice(&len.to_be_bytes());
    header[12..16].copy_from_slice(&(outer.src as u32).to_be_bytes());
    header[16..20].copy_from_slice(&(outer.dst as u32).to_be_bytes());
    let checksum = !fold(sum(header));
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
}

fn write_v6(header: &mut [u8], outer: &Outer, udp_len: u16) {
    header[..4].copy_from_slice(&(6 << 28 | u32::from(outer.tos) << 20).to_be_bytes());
    header[4..6].copy_from_slice(&udp_len.to_be_bytes());
    (header[6], header[7]) = (UDP, TTL);
    header[8..24].copy_from_slice(&outer.src.to_be_bytes());
    header[24..40].copy_from_slice(&outer.dst.to_be_bytes());
}

/// A UDP packet, or a piece of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Udp {
    /// Source address; IPv4 is IPv4-mapped.
    pub src: u128,
    /// DSCP and ECN.
    pub tos: u8,
    /// Its destination port; none: it is a later fragment.
    pub port: Option<u16>,
    /// It is a fragment, the first or a later one.
    pub is_fragment: bool,
    /// Where its payload is, from the packet's first byte.
    pub payload: (usize, usize),
}

/// Reads an IP packet that is UDP; none: it is not, or a router drops it.
pub fn read_udp(packet: &[u8], version: Version) -> Option<Udp> {
    let hop = hop::read(packet, version).ok()?;
    let ip = ip::parse(packet, version).ok().filter(|ip| ip.protocol == UDP)?;
    let at = ip.transport_at;
    let port = match ip.later_fragment {
        true => None,
        false if at + UDP_HEADER_LEN > ip.end => return None,
        false => Some(be16(packet, at + 2)),
    };
    let payload = ((at + UDP_HEADER_LEN).min(ip.end), ip.end);
    Some(Udp { src: hop.src, tos: tos(packet), port, is_fragment: ip.fragment, payload })
}

/// The VNI that a payload of UDP says, and where in it the frame begins. None: it is no VXLAN, or no frame is in it.
pub fn read(payload: &[u8]) -> Option<(u32, usize)> {
    let has_all = payload.len() >= LEN + HEADER_LEN && payload[0] & HAS_VNI != 0;
    has_all.then(|| (be32(payload, 4) >> 8, LEN))
}

/// The destination of an IP packet; none if it is cut short.
pub fn destination(packet: &[u8], version: Version) -> Option<u128> {
    match version {
        Version::V4 => {
            packet.get(16..20)?.first_chunk().map(|ip| V4_MAPPED | u128::from(u32::from_be_bytes(*ip)))
        }
        Version::V6 => packet.get(24..40)?.first_chunk().map(|ip| u128::from_be_bytes(*ip)),
    }
}

/// DSCP and ECN of a packet; of what is no IP packet, none.
pub fn tos(packet: &[u8]) -> u8 {
    match packet {
        [first, second, ..] if first >> 4 == 4 => *second,
        [first, second, ..] if first >> 4 == 6 => first << 4 | second >> 4,
        _ => 0,
    }
}

/// What ECN a packet goes on with that came out of a tunnel (RFC 6040 §4.2, figure 4); none: it is to be dropped, for congestion was
/// marked on what cannot tell its sender.
pub fn ecn_out(inner: u8, outer: u8) -> Option<u8> {
    const NOT_ECT: u8 = 0;
    const ECT_1: u8 = 1;
    const ECT_0: u8 = 2;
    const CE: u8 = 3;
    match (inner & 3, outer & 3) {
        (NOT_ECT, CE) => None,
        (NOT_ECT, _) => Some(NOT_ECT),
        (_, CE) => Some(CE),
        (ECT_0, ECT_1) => Some(ECT_1),
        (inner, _) => Some(inner),
    }
}

/// Writes the ECN field of an IP packet whose header is there. IPv4's checksum follows.
pub fn set_ecn(packet: &mut [u8], ecn: u8) {
    if packet[0] >> 4 == 6 {
        packet[1] = packet[1] & !0x30 | ecn << 4;
        return;
    }
    let before = be16(packet, 0);
    packet[1] = packet[1] & !3 | ecn;
    // RFC 1624 §3: HC' = ~(~HC + ~m + m').
    let total = u64::from(!be16(packet, 10)) + u64::from(!before) + u64::from(be16(packet, 0));
    packet[10..12].copy_from_slice(&(!fold(total)).to_be_bytes());
}

fn is_v4(ip: u128) -> bool {
    ip >> 32 == V4_MAPPED >> 32
}

#[cfg(not(loom))]
#[cfg(test)]
mod tests {
    use super::super::checksum::finish;
    use super::*;
    use etherparse::{IpHeaders, PacketBuilder, PacketHeaders, PayloadSlice, TransportHeader};
    use proptest::prelude::*;

    fn outer(v4: bool, tos: u8, vni: u32, src_port: u16) -> Outer {
        let ip = |n: u128| if v4 { V4_MAPPED | 0xc000_0200 | n } else { 0xfd90 << 112 | n };
        Outer { src: ip(1), dst: ip(2), src_port, dst_port: 4789, tos, vni }
    }

    fn wrapped(outer: &Outer, inner: &[u8]) -> (Vec<u8>, Csum) {
        let mut frame = vec![0xee; overhead(is_v4(outer.dst))];
        frame.extend_from_slice(inner);
        let csum = write(&mut frame, outer);
        if let Csum::Partial { start, field } = csum {
            finish(&mut frame, start, field);
        }
        (frame, csum)
    }

    /// The same by somebody else, byte for byte; of IPv4 without a checksum.
    fn by_etherparse(outer: &Outer, inner: &[u8]) -> Vec<u8> {
        let mut payload = vec![8, 0, 0, 0];
        payload.extend_from_slice(&(outer.vni << 8).to_be_bytes());
        payload.extend_from_slice(inner);
        let link = PacketBuilder::ethernet2([0; 6], [0; 6]);
        let mut frame = Vec::new();
        let v4 = is_v4(outer.dst);
        let mut ip = if v4 {
            let mut ip = etherparse::Ipv4Header::new(
                0,
                65,
                etherparse::IpNumber::UDP,
                (outer.src as u32).to_be_bytes(),
                (outer.dst as u32).to_be_bytes(),
            )
            .unwrap();
            (ip.dont_fragment, ip.identification) = (true, 0);
            ip.dscp = (outer.tos >> 2).try_into().unwrap();
            ip.ecn = (outer.tos & 3).try_into().unwrap();
            IpHeaders::Ipv4(ip, Default::default())
        } else {
            let header = etherparse::Ipv6Header {
                traffic_class: outer.tos,
                hop_limit: 65,
                source: outer.src.to_be_bytes(),
                destination: outer.dst.to_be_bytes(),
                ..Default::default()
            };
            IpHeaders::Ipv6(header, Default::default())
        };
        _ = &mut ip;
        link.ip(ip).udp(outer.src_port, outer.dst_port).write(&mut frame, &payload).unwrap();
        if v4 {
            frame[40..42].fill(0);
        }
        frame
    }

    proptest! {
        #[test]
        fn what_is_written_is_what_somebody_else_writes(v4: bool, tos: u8, vni in 0..=VNI_MAX, port: u16, inner in proptest::collection::vec(any::<u8>(), 14..200)) {
            let outer = outer(v4, tos, vni, port);
            let (frame, csum) = wrapped(&outer, &inner);
            prop_assert_eq!(&frame, &by_etherparse(&outer, &inner));
            prop_assert_eq!(csum == Csum::Complete, v4);
            // And it is read by both as it was meant.
            let headers = PacketHeaders::from_ethernet_slice(&frame).unwrap();
            prop_assert!(matches!(headers.transport, Some(TransportHeader::Udp(_))));
            let PayloadSlice::Udp(payload) = headers.payload else { panic!("no payload of UDP") };
            let version = if v4 { Version::V4 } else { Version::V6 };
            let packet = &frame[HEADER_LEN..];
            let udp = read_udp(packet, version).unwrap();
            prop_assert_eq!((udp.src, udp.tos, udp.port, udp.is_fragment), (outer.src, tos, Some(4789), false));
            prop_assert_eq!(&packet[udp.payload.0..udp.payload.1], payload);
            prop_assert_eq!(destination(packet, version), Some(outer.dst));
            let (read_vni, at) = read(payload).unwrap();
            prop_assert_eq!((read_vni, &payload[at..]), (vni, &inner[..]));
        }

        /// Whatever it is, it is not read beyond its end.
        #[test]
        fn anything_is_read_without_harm(packet in proptest::collection::vec(any::<u8>(), 0..120), v4: bool) {
            let version = if v4 { Version::V4 } else { Version::V6 };
            _ = destination(&packet, version);
            if let Some(udp) = read_udp(&packet, version) {
                _ = read(&packet[udp.payload.0..udp.payload.1]);
            }
        }

        #[test]
        fn another_ecn_leaves_the_header_right(tos: u8, ecn in 0u8..4, v4: bool) {
            let (mut frame, _) = wrapped(&outer(v4, tos, 1, 5), &[0; 20]);
            let packet = &mut frame[HEADER_LEN..];
            set_ecn(packet, ecn);
            prop_assert_eq!(super::tos(packet), tos & !3 | ecn);
            let version = if v4 { Version::V4 } else { Version::V6 };
            prop_assert!(hop::read(packet, version).is_ok());
        }
    }

    /// RFC 6040, figure 4, as it stands there.
    #[test]
    fn ecn_comes_out_as_the_rfc_has_it() {
        let (not, ect0, ect1, ce) = (0, 2, 1, 3);
        let rows = [
            (not, [Some(not), Some(not), Some(not), None]),
            (ect0, [Some(ect0), Some(ect0), Some(ect1), Some(ce)]),
            (ect1, [Some(ect1), Some(ect1), Some(ect1), Some(ce)]),
            (ce, [Some(ce), Some(ce), Some(ce), Some(ce)]),
        ];
        for (inner, row) in rows {
            assert_eq!([not, ect0, ect1, ce].map(|outer| ecn_out(inner, outer)), row, "inner {inner}");
        }
    }

    #[test]
    fn source_ports_are_of_the_dynamic_range_and_spread() {
        let ports: std::collections::BTreeSet<_> =
            (0..4000u32).map(|n| source_port(n.wrapping_mul(0x9e37_79b9) >> 8)).collect();
        assert!(ports.iter().all(|port| *port >= SOURCE_PORT_MIN) && ports.len() > 3000, "{}", ports.len());
    }

    #[test]
    fn what_is_no_vxlan_is_not_read() {
        let mut payload = vec![8, 0, 0, 0, 0, 0, 7, 0];
        payload.extend_from_slice(&[0; 14]);
        assert_eq!(read(&payload), Some((7, 8)));
        assert_eq!(read(&payload[..21]), None, "no frame in it");
        payload[0] = 0xf7;
        assert_eq!(read(&payload), None, "no VNI");
    }
}
