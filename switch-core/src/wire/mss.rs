//! TCP's maximum segment size (RFC 9293 §3.7.1), lowered on the way: where the links behind a router carry less than
//! those at the ends, and the errors that would tell so are filtered somewhere, connections hang. What a SYN offers is
//! therefore made to fit (what netfilter calls TCPMSS). It is never raised, and a SYN without the option is left alone.
//!
//! **Checksums.** A finished one is corrected for the difference (RFC 1624, equation 3), so that a wrong one stays
//! wrong. An unfinished one covers the option only when it is finished. Of one that nobody looked at, both may be
//! true by chance ([`super::checksum`]): it is finished here.

use super::checksum::{self, Csum, fold};
use super::ip::{self, Version};
use super::transport::TCP_FIELD;
use super::{be16, packet::flags};

/// Kinds of TCP options (RFC 9293 §3.2).
const END: u8 = 0;
const NO_OPERATION: u8 = 1;
const MSS: u8 = 2;
/// Bytes of the option: kind, length, value.
const MSS_LEN: u8 = 4;
/// Bytes of a TCP header without options.
const HEADER_LEN: usize = 20;

/// The largest segment that fits a link of `mtu` bytes without IP options or extension headers.
#[inline]
pub fn of_mtu(mtu: u16, version: Version) -> u16 {
    let headers = match version {
        Version::V4 => 20 + HEADER_LEN,
        Version::V6 => 40 + HEADER_LEN,
    };
    mtu.saturating_sub(headers as u16)
}

/// Lowers what the SYN in `frame`, whose IP packet begins at `ip_at`, offers to `limit`; none if there is nothing to
/// lower, else what is known of the checksum now. Anything else than a SYN is not touched.
#[inline]
pub fn clamp(frame: &mut [u8], ip_at: usize, version: Version, limit: u16, csum: Csum) -> Option<Csum> {
    let (at, options_end) = syn(frame.get(ip_at..)?, version)?;
    let (at, options_end) = (ip_at + at, ip_at + options_end);
    let first = next(frame, at + HEADER_LEN, options_end, limit)?;
    let known = if csum == Csum::Unknown { checksum::state(frame) } else { csum };
    let mut place = Some(first);
    while let Some(value_at) = place {
        let before = be16(frame, value_at);
        frame[value_at..value_at + 2].copy_from_slice(&limit.to_be_bytes());
        if known == Csum::Complete {
            // A word of the sum begins at an even distance; a value between two is the other way round in both.
            let is_odd = (value_at - at) % 2 == 1;
            let [before, after] = [before, limit].map(|mss| if is_odd { mss.swap_bytes() } else { mss });
            correct(frame, at + usize::from(TCP_FIELD), before, after);
        }
        // Linux goes by the last of several.
        place = next(frame, value_at + 2, options_end, limit);
    }
    Some(match (csum, known) {
        (Csum::Unknown, Csum::Partial { start, field }) => {
            checksum::finish(frame, start, field);
            Csum::Complete
        }
        _ => csum,
    })
}

/// Whether a packet has the whole header of a SYN.
#[inline]
pub fn is_syn(packet: &[u8], version: Version) -> bool {
    syn(packet, version).is_some()
}

/// Where the TCP header and its options' end are, if the packet has the whole header of a SYN.
#[inline]
fn syn(packet: &[u8], version: Version) -> Option<(usize, usize)> {
    let read = ip::parse(packet, version).ok()?;
    if read.protocol != ip::TCP || read.later_fragment {
        return None;
    }
    let header = packet.get(read.transport_at..read.end)?;
    let options_end = usize::from(header.get(12)? >> 4) * 4;
    let is_syn = header.get(13)? & flags::SYN != 0;
    (is_syn && (HEADER_LEN..=header.len()).contains(&options_end))
        .then_some((read.transport_at, read.transport_at + options_end))
}

/// Where the next value above `limit` is among the options from `at` to `end`.
fn next(frame: &[u8], mut at: usize, end: usize, limit: u16) -> Option<usize> {
    while at < end {
        let len = match frame[at] {
            END => return None,
            NO_OPERATION => 1,
            kind => {
                let len = *frame[..end].get(at + 1)?;
                if len < 2 || at + usize::from(len) > end {
                    return None;
                }
                if (kind, len) == (MSS, MSS_LEN) && be16(frame, at + 2) > limit {
                    return Some(at + 2);
                }
                usize::from(len)
            }
        };
        at += len;
    }
    None
}

/// The checksum at `at`, now that a word is another.
fn correct(frame: &mut [u8], at: usize, before: u16, after: u16) {
    let total = u64::from(!be16(frame, at)) + u64::from(!before) + u64::from(after);
    frame[at..at + 2].copy_from_slice(&(!fold(total)).to_be_bytes());
}

#[cfg(not(loom))]
#[cfg(test)]
mod tests {
    use super::super::transport::Transport;
    use super::*;
    use etherparse::{PacketBuilder, TcpHeader};
    use proptest::prelude::*;

    /// A frame with a TCP header made of these, its checksum finished.
    fn frame(v6: bool, syn: bool, options: &[u8], payload: &[u8]) -> Vec<u8> {
        let mut tcp = TcpHeader::new(1000, 80, 7, 8);
        tcp.syn = syn;
        tcp.set_options_raw(options).unwrap();
        let ethernet = PacketBuilder::ethernet2([2; 6], [4; 6]);
        let ip = if v6 { ethernet.ipv6([3; 16], [5; 16], 9) } else { ethernet.ipv4([10; 4], [11; 4], 9) };
        let mut frame = Vec::new();
        ip.tcp_header(tcp).write(&mut frame, payload).unwrap();
        frame
    }

    /// What options hold, by the other reader's rules: each option's place and bytes, a byte at a time.
    fn lowered(options: &[u8], limit: u16) -> Vec<u8> {
        let (mut out, mut rest) = (Vec::new(), options);
        while let Some(kind) = rest.first() {
            let len = match (kind, rest.get(1)) {
                (0, _) => break,
                (1, _) => 1,
                (_, Some(len)) if *len >= 2 && usize::from(*len) <= rest.len() => usize::from(*len),
                _ => break,
            };
            let (option, tail) = rest.split_at(len);
            match option {
                [2, 4, high, low] => {
                    let mss = u16::from_be_bytes([*high, *low]).min(limit).to_be_bytes();
                    out.extend([2, 4, mss[0], mss[1]]);
                }
                _ => out.extend(option),
            }
            rest = tail;
        }
        [&out[..], rest].concat()
    }

    fn options() -> impl Strategy<Value = Vec<u8>> {
        let mss = any::<[u8; 2]>().prop_map(|[high, low]| vec![2, 4, high, low]);
        let odd = proptest::collection::vec(any::<u8>(), 0..5);
        let one = prop_oneof![4 => mss, 3 => Just(vec![1]), 1 => Just(vec![0]), 2 => Just(vec![3, 3, 7]),
                              1 => Just(vec![4, 2]), 1 => odd];
        proptest::collection::vec(one, 0..6).prop_map(|options| {
            let mut options = options.concat();
            options.truncate(40);
            options.resize(options.len().next_multiple_of(4), 1);
            options
        })
    }

    proptest! {
        /// It is the frame that a sender with the lower values had sent, in whatever state its checksum is.
        #[test]
        fn it_is_what_a_humbler_sender_had_sent(v6: bool, syn: bool, options in options(), limit: u16,
                payload in proptest::collection::vec(any::<u8>(), 0..9), state in 0..3, wrong: u16) {
            let sent = frame(v6, syn, &options, &payload);
            let humbler = if syn { lowered(&options, limit) } else { options.clone() };
            let mut expected = frame(v6, syn, &humbler, &payload);
            let transport = Transport::read(&sent).unwrap();
            let (version, field) = (transport.version, transport.at + 16);
            let (mut clamped, csum) = (sent.clone(), match state {
                0 => Csum::Complete,
                1 => Csum::Unknown,
                _ => transport.partial(),
            });
            if state == 0 {
                // A wrong one stays as wrong as it was.
                for frame in [&mut clamped, &mut expected] {
                    let off = fold(u64::from(be16(frame, field)) + u64::from(wrong));
                    frame[field..field + 2].copy_from_slice(&off.to_be_bytes());
                }
            }
            let unfinished = state == 2 || state == 1 && wrong % 2 == 0;
            if unfinished {
                let pseudo = transport.pseudo(&sent);
                clamped[field..field + 2].copy_from_slice(&pseudo.to_be_bytes());
            }
            let before = clamped.clone();
            let known = clamp(&mut clamped, 14, version, limit, csum);
            prop_assert_eq!(known.is_some(), humbler != options);
            if known.is_none() {
                prop_assert_eq!(&clamped, &before);
            }
            if let Csum::Partial { start, field } = known.unwrap_or(csum) {
                checksum::finish(&mut clamped, start, field);
            } else if known.is_none() && unfinished {
                checksum::finish(&mut clamped, transport.at as u16, 16);
            }
            // Zero has two names in one's complement.
            for frame in [&mut clamped, &mut expected] {
                if be16(frame, field) == 0xffff { frame[field..field + 2].fill(0); }
            }
            prop_assert_eq!(clamped, expected);
        }

        #[test]
        fn arbitrary_bytes_do_not_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..120), v6: bool, at in 0usize..20) {
            let version = if v6 { Version::V6 } else { Version::V4 };
            if let Some(byte) = bytes.get_mut(at) { *byte = if v6 { 0x60 } else { 0x45 }; }
            if let Some(byte) = bytes.get_mut(at + if v6 { 6 } else { 9 }) { *byte = ip::TCP; }
            let len = bytes.len().saturating_sub(at);
            if let Some(place) = bytes.get_mut(at + 2..at + 4).filter(|_| !v6) { place.copy_from_slice(&(len as u16).to_be_bytes()); }
            _ = clamp(&mut bytes, at, version, 500, Csum::Unknown);
        }
    }

    #[test]
    fn limits_leave_room_for_the_headers() {
        assert_eq!((of_mtu(1500, Version::V4), of_mtu(1500, Version::V6)), (1460, 1440));
        assert_eq!(of_mtu(20, Version::V6), 0);
    }
}
