//! Addresses and ports of a packet written anew (RFC 3022, RFC 7857), and of what an ICMP error quotes (RFC 5508 §4.2).
//!
//! **Checksums** are corrected for the difference (RFC 1624, equation 3), never computed anew: a wrong one stays wrong. An
//! unfinished one ([`Csum::Partial`]) is the pseudo-header's sum, in which only the addresses are. UDP's zero, which
//! means "none", stays; one that becomes zero is sent as all ones (RFC 768). SCTP's checksum has no addresses in
//! it, and its ports are never translated: it would have to be computed anew over all of the packet (RFC 9260 §6.8).

use super::Malformed;
use super::be16;
use super::checksum::{self, Csum, fold, sum};
use super::ip::{self, ICMP, ICMPV6, Ip, TCP, UDP, Version};
use super::packet::{PLAIN_LEN, Plain, V4_HEADER_LEN};
use super::transport::{TCP_FIELD, UDP_FIELD};

/// UDP-Lite (RFC 3828): ports and checksum lie as in UDP.
const UDP_LITE: u8 = 136;
/// Where ICMP keeps its checksum, and its identifier.
const ICMP_FIELD: u8 = 2;
const ICMP_ID_AT: usize = 4;
/// Type, code, checksum and one word, behind which an error quotes.
const ICMP_LEN: usize = 8;

/// Source and destination of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// Source; IPv4 as IPv4-mapped.
    pub src: u128,
    /// Destination.
    pub dst: u128,
    /// Ports, source first; a query's identifier twice; meaningless for protocols without either.
    pub ports: [u16; 2],
}

/// Whether ports of a protocol, or its identifiers, can be other ones.
pub fn has_ports(protocol: u8) -> bool {
    matches!(protocol, TCP | UDP | UDP_LITE | ICMP | ICMPV6)
}

/// Writes new ends into the packet of `frame` that begins at `ip_at`, of the version they have. What is known of its
/// checksum afterwards.
pub fn translate(
    frame: &mut [u8],
    ip_at: usize,
    version: Version,
    new: &Ends,
    csum: Csum,
) -> Result<Csum, Malformed> {
    let read = ip::parse(frame.get(ip_at..).unwrap_or_default(), version)?;
    let known = if csum == Csum::Unknown { checksum::state(frame) } else { csum };
    // One of a packet inside is nothing that changes.
    let at = ip_at + read.transport_at;
    let unfinished = matches!(known, Csum::Partial { start, .. } if usize::from(start) == at);
    write(&mut frame[ip_at..], &read, new, unfinished);
    Ok(known)
}

/// [`translate`] of a packet that was read at a glance ([`Plain::read`]): every place in it is known. Sums are of words as they lie, of any width
/// and in the machine's own order (RFC 1071 §2(B)).
#[inline(always)]
pub fn translate_plain(frame: &mut [u8], ip_at: usize, new: &Plain, csum: Csum) -> Csum {
    let known = if csum == Csum::Unknown { checksum::state(frame) } else { csum };
    let start = ip_at + V4_HEADER_LEN;
    let unfinished = matches!(known, Csum::Partial { start: at, .. } if usize::from(at) == start);
    let Some(packet) = frame.get_mut(ip_at..) else { return known };
    let Some(head) = packet.first_chunk_mut::<PLAIN_LEN>() else { return known };
    let (addresses, ports) = (u64::from(new.src) << 32 | u64::from(new.dst), new.ports);
    let (addresses, ports) =
        (addresses.to_be_bytes(), (u32::from(ports[0]) << 16 | u32::from(ports[1])).to_be_bytes());
    let halves = |word: u64| (word & 0xffff_ffff) + (word >> 32);
    let (old, now) = (u64::from_ne_bytes(at(head, 12)), u64::from_ne_bytes(addresses));
    let pseudo = halves(!old) + halves(now);
    let (old, now) = (u32::from_ne_bytes(at(head, V4_HEADER_LEN)), u32::from_ne_bytes(ports));
    let both = pseudo + u64::from(!old) + u64::from(now);
    head[12..V4_HEADER_LEN].copy_from_slice(&addresses);
    head[V4_HEADER_LEN..V4_HEADER_LEN + 4].copy_from_slice(&ports);
    let checksum = corrected(at(head, 10), pseudo);
    head[10..12].copy_from_slice(&checksum);
    let is_udp = head[9] == UDP;
    let field = V4_HEADER_LEN + usize::from(if is_udp { UDP_FIELD } else { TCP_FIELD });
    let Some(field) = packet.get_mut(field..).and_then(|bytes| bytes.first_chunk_mut::<2>()) else {
        return known;
    };
    if unfinished {
        *field = fold(u64::from(u16::from_ne_bytes(*field)) + pseudo).to_ne_bytes();
    } else if !is_udp {
        *field = corrected(*field, both);
    } else if *field != [0; 2] {
        let checksum = corrected(*field, both);
        *field = if checksum == [0; 2] { [0xff; 2] } else { checksum };
    }
    known
}

/// Some bytes of the beginning of a packet.
#[inline(always)]
fn at<const N: usize>(head: &[u8; PLAIN_LEN], at: usize) -> [u8; N] {
    std::array::from_fn(|n| head[at + n])
}

/// A finished checksum, now that what it is over differs by so much, in the machine's own order.
#[inline(always)]
fn corrected(field: [u8; 2], delta: u64) -> [u8; 2] {
    (!fold(u64::from(!u16::from_ne_bytes(field)) + delta)).to_ne_bytes()
}

/// The same for an ICMP error: new addresses for itself, and new ends for what it quotes.
pub fn translate_error(
    frame: &mut [u8],
    ip_at: usize,
    version: Version,
    src: u128,
    dst: u128,
    quoted: &Ends,
) -> Result<(), Malformed> {
    let packet = frame.get_mut(ip_at..).unwrap_or_default();
    let read = ip::parse(packet, version)?;
    let quote_at = read.transport_at + ICMP_LEN;
    if quote_at > read.end {
        return Err(Malformed::Truncated);
    }
    let quote = &mut packet[quote_at..read.end];
    let inner = ip::parse_quoted(quote, version)?;
    let before = fold(sum(quote));
    write(quote, &inner, quoted, false);
    let mut delta = u64::from(!before) + u64::from(fold(sum(quote)));
    let pseudo = addresses(packet, version, src, dst);
    if version == Version::V6 {
        delta += pseudo;
    }
    correct(packet, read.transport_at + usize::from(ICMP_FIELD), delta);
    Ok(())
}

/// New ends for a packet, or the beginning of one.
fn write(packet: &mut [u8], read: &Ip, new: &Ends, unfinished: bool) {
    let pseudo = addresses(packet, read.version, new.src, new.dst);
    if read.later_fragment {
        return;
    }
    let segment = &mut packet[read.transport_at..read.end];
    let (ports, field, covers_addresses) = match read.protocol {
        TCP => (put_ports(segment, new.ports), TCP_FIELD, true),
        UDP | UDP_LITE => (put_ports(segment, new.ports), UDP_FIELD, true),
        ICMP | ICMPV6 => (put_id(segment, read.protocol, new.ports[0]), ICMP_FIELD, read.protocol == ICMPV6),
        _ => return,
    };
    let field = usize::from(field);
    if segment.len() < field + 2 {
        return;
    }
    let pseudo = if covers_addresses { pseudo } else { 0 };
    if unfinished {
        let total = u64::from(be16(segment, field)) + pseudo;
        segment[field..field + 2].copy_from_slice(&fold(total).to_be_bytes());
        return;
    }
    let is_udp = read.protocol == UDP;
    if is_udp && be16(segment, field) == 0 {
        return;
    }
    correct(segment, field, pseudo + ports);
    if is_udp && be16(segment, field) == 0 {
        segment[field..field + 2].copy_from_slice(&[0xff; 2]);
    }
}

/// Writes both addresses, and corrects IPv4's checksum. What the pseudo-header's sum differs by.
fn addresses(packet: &mut [u8], version: Version, src: u128, dst: u128) -> u64 {
    match version {
        Version::V4 => {
            let delta =
                put(packet, 12, &(src as u32).to_be_bytes()) + put(packet, 16, &(dst as u32).to_be_bytes());
            correct(packet, 10, delta);
            delta
        }
        Version::V6 => put(packet, 8, &src.to_be_bytes()) + put(packet, 24, &dst.to_be_bytes()),
    }
}

fn put_ports(segment: &mut [u8], ports: [u16; 2]) -> u64 {
    if segment.len() < 4 {
        return 0;
    }
    put(segment, 0, &ports[0].to_be_bytes()) + put(segment, 2, &ports[1].to_be_bytes())
}

/// Of a question or its answer; errors have no identifier.
fn put_id(segment: &mut [u8], protocol: u8, id: u16) -> u64 {
    let is_query = match (protocol, segment.first()) {
        (ICMP, Some(kind)) => matches!(kind, 0 | 8 | 13..=18),
        (_, Some(kind)) => matches!(kind, 128 | 129),
        _ => false,
    };
    if !is_query || segment.len() < ICMP_ID_AT + 2 {
        return 0;
    }
    put(segment, ICMP_ID_AT, &id.to_be_bytes())
}

/// Writes words at an even place. What a sum over them, old ones taken out, differs by.
fn put(bytes: &mut [u8], at: usize, new: &[u8]) -> u64 {
    let place = &mut bytes[at..at + new.len()];
    let mut delta = 0;
    for (old, new) in place.as_chunks_mut::<2>().0.iter_mut().zip(new.as_chunks::<2>().0) {
        delta += u64::from(!u16::from_be_bytes(*old)) + u64::from(u16::from_be_bytes(*new));
        *old = *new;
    }
    delta
}

/// The finished checksum at `at`, now that what it is over differs.
fn correct(bytes: &mut [u8], at: usize, delta: u64) {
    let total = u64::from(!be16(bytes, at)) + delta;
    bytes[at..at + 2].copy_from_slice(&(!fold(total)).to_be_bytes());
}

#[cfg(not(loom))]
#[cfg(test)]
mod tests {
    use super::super::hop::V4_MAPPED;
    use super::super::packet::Packet;
    use super::*;
    use etherparse::{Icmpv4Type, Icmpv6Type, PacketBuilder};
    use proptest::prelude::*;

    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Kind {
        Tcp,
        Udp,
        Echo,
    }

    /// A frame made from nothing with these ends: what translating another's must come to.
    fn made(v6: bool, kind: Kind, ends: &Ends, payload: &[u8]) -> Vec<u8> {
        let link = PacketBuilder::ethernet2([2; 6], [4; 6]);
        let v4 = |ip: u128| (ip as u32).to_be_bytes();
        let ip = match v6 {
            true => link.ipv6(ends.src.to_be_bytes(), ends.dst.to_be_bytes(), 9),
            false => link.ipv4(v4(ends.src), v4(ends.dst), 9),
        };
        let (mut frame, [from, to]) = (Vec::new(), ends.ports);
        match kind {
            Kind::Tcp => ip.tcp(from, to, 3, 4).write(&mut frame, payload),
            Kind::Udp => ip.udp(from, to).write(&mut frame, payload),
            Kind::Echo => {
                let header = etherparse::IcmpEchoHeader { id: from, seq: 7 };
                match v6 {
                    true => ip.icmpv6(Icmpv6Type::EchoRequest(header)).write(&mut frame, payload),
                    false => ip.icmpv4(Icmpv4Type::EchoRequest(header)).write(&mut frame, payload),
                }
            }
        }
        .unwrap();
        frame
    }

    /// Ends of one version.
    fn ends(v6: bool) -> impl Strategy<Value = Ends> {
        (any::<[u128; 2]>(), any::<[u16; 2]>()).prop_map(move |(ips, ports)| {
            let [src, dst] = ips.map(|ip| if v6 { ip } else { V4_MAPPED | ip & 0xffff_ffff });
            Ends { src, dst, ports }
        })
    }

    fn kinds() -> impl Strategy<Value = Kind> {
        prop_oneof![Just(Kind::Tcp), Just(Kind::Udp), Just(Kind::Echo)]
    }

    fn version(v6: bool) -> Version {
        if v6 { Version::V6 } else { Version::V4 }
    }

    fn both() -> impl Strategy<Value = (bool, Ends, Ends)> {
        any::<bool>().prop_flat_map(|v6| (Just(v6), ends(v6), ends(v6)))
    }

    /// Equal but for 0 and 0xffff in a checksum, which are the same number.
    fn same(a: &[u8], b: &[u8]) -> bool {
        let pairs = a.chunks(2).zip(b.chunks(2));
        let zeros: [&[u8]; 2] = [&[0, 0], &[0xff, 0xff]];
        let mut differ = pairs.filter(|(a, b)| a != b);
        a.len() == b.len() && differ.all(|(a, b)| zeros.contains(&a) && zeros.contains(&b))
    }

    proptest! {
        #[test]
        fn a_translated_packet_is_the_one_made_with_its_new_ends((v6, old, new) in both(), kind in kinds(),
                payload in proptest::collection::vec(any::<u8>(), 0..80), looked: bool) {
            let new = if kind == Kind::Echo { Ends { ports: [new.ports[0]; 2], ..new } } else { new };
            let mut frame = made(v6, kind, &old, &payload);
            let csum = if looked { Csum::Complete } else { Csum::Unknown };
            translate(&mut frame, 14, version(v6), &new, csum).unwrap();
            prop_assert!(same(&frame, &made(v6, kind, &new, &payload)), "{frame:02x?}");
        }

        /// Unfinished before, unfinished after; finished it is right.
        #[test]
        fn an_unfinished_checksum_stays_one((v6, old, new) in both(), tcp: bool, looked: bool,
                payload in proptest::collection::vec(any::<u8>(), 0..80)) {
            let kind = if tcp { Kind::Tcp } else { Kind::Udp };
            let mut frame = made(v6, kind, &old, &payload);
            let (start, field) = (14 + if v6 { 40 } else { 20 }, if tcp { TCP_FIELD } else { UDP_FIELD });
            let pseudo = |ends: &Ends| {
                let addresses = [ends.src, ends.dst].map(|ip| if v6 { ip } else { ip & 0xffff_ffff });
                let words: Vec<u8> = addresses.iter().flat_map(|ip| ip.to_be_bytes()).collect();
                fold(sum(&words) + (frame.len() - start) as u64 + if tcp { 6 } else { 17 })
            };
            let (at, before, after) = (start + usize::from(field), pseudo(&old), pseudo(&new));
            frame[at..at + 2].copy_from_slice(&before.to_be_bytes());
            let partial = Csum::Partial { start: start as u16, field };
            let known = translate(&mut frame, 14, version(v6), &new, if looked { partial } else { Csum::Unknown });
            prop_assert_eq!(known, Ok(partial));
            prop_assert!(same(&frame[at..at + 2], &after.to_be_bytes()));
            checksum::finish(&mut frame, start as u16, field);
            prop_assert!(same(&frame, &made(v6, kind, &new, &payload)));
        }

        /// What an error quotes becomes what it would have quoted, all checksums right.
        #[test]
        fn what_an_error_quotes_is_translated_with_it((v6, old, new) in both(), kind in kinds(),
                outer: [u128; 2], outer_new: [u128; 2], cut in 0usize..80,
                payload in proptest::collection::vec(any::<u8>(), 0..80)) {
            // Half of TCP's checksum is nothing that could be corrected, and nobody reads it.
            prop_assume!(kind != Kind::Tcp || cut != usize::from(TCP_FIELD) + 1 - 8);
            let [old, new] = [old, new].map(|ends| match kind {
                Kind::Echo => Ends { ports: [ends.ports[0]; 2], ..ends },
                _ => ends,
            });
            let error = |outer: [u128; 2], quoted: &Ends| {
                let quote = made(v6, kind, quoted, &payload)[14..].to_vec();
                // At least eight bytes of what is behind the IP header.
                let least = if v6 { 48 } else { 28 };
                let quote = &quote[..least + cut.min(quote.len() - least)];
                let [src, dst] = outer.map(|ip| if v6 { ip } else { V4_MAPPED | ip & 0xffff_ffff });
                let (mut frame, link) = (Vec::new(), PacketBuilder::ethernet2([2; 6], [4; 6]));
                let v4 = |ip: u128| (ip as u32).to_be_bytes();
                match v6 {
                    true => link.ipv6(src.to_be_bytes(), dst.to_be_bytes(), 9)
                        .icmpv6_raw(1, 4, [0; 4]).write(&mut frame, quote),
                    false => link.ipv4(v4(src), v4(dst), 9).icmpv4_raw(3, 3, [0; 4]).write(&mut frame, quote),
                }.unwrap();
                (frame, src, dst)
            };
            let (mut frame, ..) = error(outer, &old);
            let (expected, src, dst) = error(outer_new, &new);
            translate_error(&mut frame, 14, version(v6), src, dst, &new).unwrap();
            prop_assert!(same(&frame, &expected), "{frame:02x?}\n{expected:02x?}");
        }

        /// A wrong one stays as wrong as it was: by the same difference.
        #[test]
        fn a_wrong_checksum_is_not_made_right((v6, old, new) in both(), wrong in 1u16..0xfffe) {
            let mut frame = made(v6, Kind::Tcp, &old, &[1, 2, 3]);
            let at = 14 + if v6 { 40 } else { 20 } + usize::from(TCP_FIELD);
            let spoilt = be16(&frame, at) ^ wrong;
            frame[at..at + 2].copy_from_slice(&spoilt.to_be_bytes());
            translate(&mut frame, 14, version(v6), &new, Csum::Complete).unwrap();
            prop_assert!(!same(&frame, &made(v6, Kind::Tcp, &new, &[1, 2, 3])));
        }

        /// What is read at a glance becomes the same by the short way, bit for bit, whatever its checksum is and whatever is known of it.
        #[test]
        fn the_short_way_writes_what_the_long_one_writes(
            (old, new) in (ends(false), ends(false)), tcp: bool, keeps: bool, stored in any::<Option<u16>>(), none: bool, what in 0usize..4,
            payload in proptest::collection::vec(any::<u8>(), 0..9),
        ) {
            let (kind, protocol, field) =
                if tcp { (Kind::Tcp, TCP, TCP_FIELD) } else { (Kind::Udp, UDP, UDP_FIELD) };
            let new = if keeps { Ends { dst: old.dst, ..new } } else { new };
            let mut frame = made(false, kind, &old, &payload);
            let at = 34 + usize::from(field);
            if let Some(stored) = stored {
                frame[at..at + 2].copy_from_slice(&(if none { 0 } else { stored }).to_be_bytes());
            }
            let partial = |start| Csum::Partial { start, field };
            let csum = [Csum::Complete, Csum::Unknown, partial(34), partial(42)][what];
            let plain = Plain { src: new.src as u32, dst: new.dst as u32, ports: new.ports, protocol };
            let mut long = frame.clone();
            let known = translate(&mut long, 14, Version::V4, &new, csum).unwrap();
            prop_assert_eq!(translate_plain(&mut frame, 14, &plain, csum), known);
            prop_assert_eq!(frame, long);
        }

        #[test]
        fn arbitrary_bytes_do_not_panic(mut bytes: Vec<u8>, at in 0usize..20, v6: bool, new in ends(true)) {
            if let Some(first) = bytes.get_mut(at) {
                *first = if v6 { 0x60 } else { 0x45 };
            }
            let plain = Plain { src: 1, dst: 2, ports: new.ports, protocol: TCP };
            _ = translate_plain(&mut bytes.clone(), at, &plain, Csum::Unknown);
            _ = translate(&mut bytes, at, version(v6), &new, Csum::Unknown);
            _ = translate_error(&mut bytes, at, version(v6), new.src, new.dst, &new);
        }
    }

    #[test]
    fn udp_without_a_checksum_stays_without_and_none_becomes_one() {
        let ends = |port| Ends { src: V4_MAPPED | 0x0a000001, dst: V4_MAPPED | 0x0a000002, ports: [port, 9] };
        let mut frame = made(false, Kind::Udp, &ends(1), &[0, 0]);
        frame[40..42].fill(0);
        translate(&mut frame, 14, Version::V4, &ends(2), Csum::Complete).unwrap();
        assert_eq!((be16(&frame, 34), be16(&frame, 40)), (2, 0));
        // Some port makes it zero, which is sent as all ones.
        let all_ones = |port: &u16| {
            let mut frame = made(false, Kind::Udp, &ends(1), &[0, 0]);
            translate(&mut frame, 14, Version::V4, &ends(*port), Csum::Complete).unwrap();
            assert_ne!(be16(&frame, 40), 0);
            be16(&frame, 40) == 0xffff
        };
        assert!((0..=u16::MAX).any(|port| all_ones(&port)));
    }

    #[test]
    fn later_fragments_and_protocols_without_ports_have_addresses_alone() {
        let old = Ends { src: V4_MAPPED | 1, dst: V4_MAPPED | 2, ports: [1, 2] };
        let new = Ends { src: V4_MAPPED | 3, dst: V4_MAPPED | 4, ports: [3, 4] };
        for (at, value) in [(21, 9), (23, ip::SCTP)] {
            let mut frame = made(false, Kind::Tcp, &old, &[1, 2, 3]);
            frame[at] = value;
            frame[24..26].fill(0);
            let checksum = !fold(sum(&frame[14..34]));
            frame[24..26].copy_from_slice(&checksum.to_be_bytes());
            let before = frame.clone();
            translate(&mut frame, 14, Version::V4, &new, Csum::Complete).unwrap();
            assert_eq!(frame[34..], before[34..]);
            assert_eq!(fold(sum(&frame[14..34])), 0xffff);
            let read = Packet::read(&frame[14..], Version::V4);
            assert!(read.is_err() || read.is_ok_and(|read| (read.src, read.dst) == (new.src, new.dst)));
        }
    }
}
