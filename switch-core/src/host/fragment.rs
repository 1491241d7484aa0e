//! Cutting up an IPv4 packet that is too long for its next link and may be cut (RFC 791 §3.2). IPv6 is cut by
//! its sender alone.

use crate::wire::be16;
use crate::wire::checksum::{fold, sum};
use crate::wire::hop::Hop;

/// The header of a packet without options. One with options is not cut: which of them each piece must have is
/// a question that nobody sends packets to ask.
const HEADER_LEN: usize = 20;
/// More pieces follow, in the word that has the offset.
const MORE: u16 = 0x2000;
const OFFSET: u16 = 0x1fff;
/// The most pieces: a jumbo packet of 9 000 bytes over the smallest link that anything uses (RFC 1122's 576).
pub const FRAGMENTS_MAX: usize = 17;

/// How one packet is cut.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    /// Payload of each piece but the last, a multiple of eight.
    piece: usize,
    /// Payload of the packet.
    payload: usize,
}

impl Cut {
    /// How `packet` is cut to fit `mtu`; none if it must not be, or cannot.
    pub fn new(hop: &Hop, mtu: usize) -> Option<Self> {
        let piece = mtu.checked_sub(HEADER_LEN)? / 8 * 8;
        let payload = hop.len.checked_sub(HEADER_LEN)?;
        let cut = Self { piece, payload };
        let may = hop.is_v4() && !hop.whole && hop.header_len == HEADER_LEN && piece > 0;
        (may && cut.count() <= FRAGMENTS_MAX).then_some(cut)
    }

    /// How many pieces.
    pub fn count(&self) -> usize {
        self.payload.div_ceil(self.piece).max(1)
    }

    /// Bytes of piece `n`.
    pub fn len(&self, n: usize) -> usize {
        HEADER_LEN + self.piece.min(self.payload - n * self.piece)
    }

    /// Writes piece `n` of `packet` into `out`, which is as long.
    pub fn write(&self, packet: &[u8], n: usize, out: &mut [u8]) {
        let (from, len) = (n * self.piece, out.len());
        out[..HEADER_LEN].copy_from_slice(&packet[..HEADER_LEN]);
        out[HEADER_LEN..].copy_from_slice(&packet[HEADER_LEN + from..from + len]);
        let word = be16(packet, 6);
        let more = if n + 1 < self.count() { MORE } else { word & MORE };
        let offset = (word & OFFSET) + (from / 8) as u16;
        out[2..4].copy_from_slice(&(len as u16).to_be_bytes());
        out[6..8].copy_from_slice(&(more | offset & OFFSET).to_be_bytes());
        out[10..12].fill(0);
        let checksum = !fold(sum(&out[..HEADER_LEN]));
        out[10..12].copy_from_slice(&checksum.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::hop;
    use crate::wire::ip::Version;
    use etherparse::{IpNumber, PacketBuilder};
    use proptest::prelude::*;

    proptest! {
        /// Put together again, as a receiver does it, the pieces are the packet; each fits, and pieces are cut
        /// into pieces the same way.
        #[test]
        fn pieces_make_the_packet(payload in proptest::collection::vec(any::<u8>(), 0..3000), mtus in proptest::collection::vec(300usize..1500, 1..3)) {
            let mut packet = Vec::new();
            PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 1, 2], 9).write(&mut packet, IpNumber(99), &payload).unwrap();
            packet[6] &= !0x40;
            packet[10..12].fill(0);
            let checksum = !fold(sum(&packet[..20]));
            packet[10..12].copy_from_slice(&checksum.to_be_bytes());
            let mut pieces = vec![packet.clone()];
            for mtu in mtus {
                let mut smaller = Vec::new();
                for piece in &pieces {
                    let hop = hop::read(piece, Version::V4).unwrap();
                    let cut = Cut::new(&hop, mtu).unwrap();
                    for n in 0..cut.count() {
                        let mut out = vec![0; cut.len(n)];
                        cut.write(piece, n, &mut out);
                        prop_assert!(out.len() <= mtu);
                        prop_assert!(hop::read(&out, Version::V4).is_ok());
                        smaller.push(out);
                    }
                }
                pieces = smaller;
            }
            let mut whole = vec![0; payload.len()];
            for (n, piece) in pieces.iter().enumerate() {
                let word = be16(piece, 6);
                let at = usize::from(word & OFFSET) * 8;
                whole[at..at + piece.len() - 20].copy_from_slice(&piece[20..]);
                prop_assert_eq!(word & MORE != 0, n + 1 < pieces.len());
            }
            prop_assert_eq!(whole, payload);
        }
    }
}
