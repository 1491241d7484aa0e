//! The Internet checksum (RFC 1071), and the difference between a finished and an unfinished one.
//!
//! A container's kernel leaves TCP and UDP checksums to "the hardware": the field holds the folded
//! sum of the pseudo-header (`CHECKSUM_PARTIAL`, `Documentation/networking/checksum-offloads.rst`)
//! and somebody on the way must add the rest. Over AF_XDP nobody tells us, so [`state`] looks: a field
//! that equals the bare pseudo-header sum is unfinished.
//!
//! A finished checksum may equal that sum by chance (1 in 65 536). Treating it as unfinished is
//! harmless: for a valid packet the sum over the segment, field included, is the complement of the
//! pseudo-header's, so finishing writes the value that is already there. `finishing_is_idempotent`
//! below holds us to it.

use super::ethernet::{self, Ethernet};
use super::{be16, ip};

/// What is known of a frame's transport checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Csum {
    /// Nobody looked yet: the frame came from a kernel that may leave it unfinished.
    #[default]
    Unknown,
    /// Nothing to do: finished (right or wrong, as it was sent), or there is none.
    Complete,
    /// The field holds the pseudo-header's sum; sum from `start` to the end and store at `start + field`.
    Partial {
        /// Where the transport header begins, from the frame's first byte.
        start: u16,
        /// Where the field is, from `start`.
        field: u8,
    },
}

impl Csum {
    /// The same, now that the frame begins `n` bytes earlier.
    #[must_use]
    pub fn pushed(self, n: u16) -> Self {
        match self {
            Self::Partial { start, field } => Self::Partial { start: start.saturating_add(n), field },
            other => other,
        }
    }

    /// The same, now that the frame begins `n` bytes later. Whoever takes off the transport header itself
    /// leaves nothing to finish.
    #[must_use]
    pub fn popped(self, n: u16) -> Self {
        match self {
            Self::Partial { start, field } => {
                start.checked_sub(n).map_or(Self::Complete, |start| Self::Partial { start, field })
            }
            other => other,
        }
    }
}

/// One's complement sum of `bytes`, not folded. At most 64 KiB, so 64 bits do not overflow.
#[inline]
pub fn sum(bytes: &[u8]) -> u64 {
    let mut total = 0u64;
    let mut words = bytes.chunks_exact(4);
    for word in &mut words {
        total += u64::from(u32::from_be_bytes([word[0], word[1], word[2], word[3]]));
    }
    let mut halves = words.remainder().chunks_exact(2);
    for half in &mut halves {
        total += u64::from(u16::from_be_bytes([half[0], half[1]]));
    }
    if let [last] = halves.remainder() {
        total += u64::from(*last) << 8;
    }
    total
}

/// Folds a sum to 16 bits.
#[inline]
pub fn fold(mut total: u64) -> u16 {
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

/// Looks at a whole frame and says whether its TCP or UDP checksum is unfinished. A frame we cannot
/// read has nothing we could finish: `Complete`.
pub fn state(frame: &[u8]) -> Csum {
    let Ok(header) = ethernet::parse(frame) else { return Csum::Complete };
    transport(frame, &header).map_or(Csum::Complete, |transport| {
        let (start, field) = (transport.start, transport.field);
        let stored = be16(frame, usize::from(start) + usize::from(field));
        if stored == transport.pseudo { Csum::Partial { start, field } } else { Csum::Complete }
    })
}

/// Finishes the checksum of `frame` in software. The IP length, not the frame's, ends the segment:
/// Ethernet padding is not part of it.
pub fn finish(frame: &mut [u8], start: u16, field: u8) {
    let Ok(header) = ethernet::parse(frame) else { return };
    let Some(transport) = transport(frame, &header) else { return };
    let at = usize::from(start) + usize::from(field);
    if at + 2 > transport.end || usize::from(start) > transport.end {
        return;
    }
    let mut checksum = !fold(sum(&frame[usize::from(start)..transport.end]));
    // RFC 768: a computed zero is sent as all ones; zero would mean "no checksum".
    if checksum == 0 && transport.protocol == ip::UDP {
        checksum = 0xffff;
    }
    frame[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
}

struct Transport {
    protocol: u8,
    start: u16,
    field: u8,
    end: usize,
    /// Folded, not complemented sum of the pseudo-header (RFC 793 §3.1, RFC 8200 §8.1).
    pseudo: u16,
}

fn transport(frame: &[u8], header: &Ethernet) -> Option<Transport> {
    let version = match header.ethertype {
        ethernet::IPV4 => ip::Version::V4,
        ethernet::IPV6 => ip::Version::V6,
        _ => return None,
    };
    let at = header.payload_at();
    let packet = &frame[at..];
    let read = ip::parse(packet, version).ok()?;
    let field: u8 = match read.protocol {
        ip::TCP => 16,
        ip::UDP => 6,
        _ => return None,
    };
    let len = read.end - read.transport_at;
    if read.fragment || len < usize::from(field) + 2 {
        return None;
    }
    let addresses = match version {
        ip::Version::V4 => &packet[12..20],
        ip::Version::V6 => &packet[8..40],
    };
    let pseudo = fold(sum(addresses) + u64::from(read.protocol) + len as u64);
    let start = u16::try_from(at + read.transport_at).ok()?;
    Some(Transport { protocol: read.protocol, start, field, end: at + read.end, pseudo })
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::PacketBuilder;
    use proptest::prelude::*;

    /// RFC 1071 §4.1, as it stands there: 16 bits at a time, fold at the end.
    fn rfc1071(bytes: &[u8]) -> u16 {
        let mut total = 0u32;
        for pair in bytes.chunks(2) {
            total += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
            total = (total & 0xffff) + (total >> 16);
        }
        total as u16
    }

    fn frame(v6: bool, tcp: bool, payload: &[u8], ports: (u16, u16)) -> Vec<u8> {
        let mut frame = Vec::new();
        let ethernet = PacketBuilder::ethernet2([2; 6], [4; 6]);
        let ip = if v6 {
            ethernet.ipv6([3; 16], [5; 16], 9)
        } else {
            ethernet.ipv4([10, 0, 0, 1], [10, 0, 9, 2], 9)
        };
        if tcp {
            ip.tcp(ports.0, ports.1, 3, 4).write(&mut frame, payload).unwrap();
        } else {
            ip.udp(ports.0, ports.1).write(&mut frame, payload).unwrap();
        }
        frame
    }

    proptest! {
        #[test]
        fn sum_is_rfc1071(bytes: Vec<u8>) {
            // 0 and 0xffff are the same number in one's complement; fold keeps them apart as the twin does.
            prop_assert_eq!(fold(sum(&bytes)), rfc1071(&bytes));
        }

        #[test]
        fn an_unfinished_checksum_is_seen_and_finished(v6: bool, tcp: bool, pad in 0usize..9,
                payload in proptest::collection::vec(any::<u8>(), 0..200), ports: (u16, u16)) {
            let good = frame(v6, tcp, &payload, ports);
            let field: u8 = if tcp { 16 } else { 6 };
            let start = 14 + if v6 { 40 } else { 20 };
            let mut unfinished = good.clone();
            let len = (good.len() - start) as u64;
            let addresses = if v6 { 22..54 } else { 26..34 };
            let pseudo = fold(sum(&good[addresses]) + len + u64::from(if tcp { ip::TCP } else { ip::UDP }));
            unfinished[start + usize::from(field)..][..2].copy_from_slice(&pseudo.to_be_bytes());
            unfinished.resize(good.len() + pad, 0xaa);
            prop_assert_eq!(state(&unfinished), Csum::Partial { start: start as u16, field });
            finish(&mut unfinished, start as u16, field);
            prop_assert_eq!(&unfinished[..good.len()], &good[..]);
        }

        /// The 1 in 65 536: whatever valid packet, finishing changes nothing.
        #[test]
        fn finishing_is_idempotent(v6: bool, tcp: bool, ports: (u16, u16), payload in proptest::collection::vec(any::<u8>(), 0..64)) {
            let good = frame(v6, tcp, &payload, ports);
            let start = 14 + if v6 { 40u16 } else { 20 };
            let field: u8 = if tcp { 16 } else { 6 };
            // Make the stored checksum equal the pseudo-header's sum by choosing two payload bytes would
            // need a search; summing a valid segment with its field in place is the same statement.
            let mut again = good.clone();
            let at = usize::from(start) + usize::from(field);
            let pseudo = !fold(sum(&good[usize::from(start)..]));
            prop_assume!(pseudo != 0);
            again[at..at + 2].copy_from_slice(&pseudo.to_be_bytes());
            // `again` now holds the pseudo-header's sum, that is: it is unfinished. Finishing restores it.
            let is_partial = matches!(state(&again), Csum::Partial { .. });
            prop_assert!(is_partial);
            finish(&mut again, start, field);
            prop_assert_eq!(again, good);
        }

        #[test]
        fn arbitrary_bytes_do_not_panic(mut bytes: Vec<u8>, start: u16, field: u8) {
            let _ = state(&bytes);
            finish(&mut bytes, start, field);
        }
    }

    /// RFC 768: zero means "none", so a computed zero is sent as all ones.
    #[test]
    fn a_udp_checksum_of_zero_is_sent_as_all_ones() {
        let zero = (0..=u16::MAX).find_map(|port| {
            let mut frame = frame(false, false, &[0, 0], (port, 9));
            let len = frame.len() - 34;
            let pseudo = fold(sum(&frame[26..34]) + len as u64 + u64::from(ip::UDP));
            frame[40..42].copy_from_slice(&pseudo.to_be_bytes());
            (fold(sum(&frame[34..])) == 0xffff).then_some(frame)
        });
        let mut frame = zero.expect("some port makes the sum all ones");
        finish(&mut frame, 34, 6);
        assert_eq!(frame[40..42], [0xff, 0xff]);
    }

    #[test]
    fn fragments_and_foreign_protocols_are_left_alone() {
        let mut fragment = frame(false, false, &[1; 30], (1, 2));
        fragment[20] = 0x20;
        assert_eq!(state(&fragment), Csum::Complete);
        assert_eq!(state(&[0; 60]), Csum::Complete);
    }
}
