//! Cutting up an IPv4 packet that is too long for its next link and may be cut (RFC 791 §3.2). IPv6 is cut by
//! its sender alone.

use crate::wire::be16;
use crate::wire::checksum::{fold, sum};
use crate::wire::hop::Hop;

/// The header without options.
const HEADER_LEN: usize = 20;
/// An option of this kind is in every piece, one without only in the first (RFC 791 §3.1).
const COPIED: u8 = 0x80;
/// The options of one byte: no more of them, and nothing.
const END: u8 = 0;
const NOTHING: u8 = 1;
/// More pieces follow, in the word that has the offset.
const MORE: u16 = 0x2000;
const OFFSET: u16 = 0x1fff;
/// The most pieces: a jumbo packet of 9 000 bytes over the smallest link that anything uses (RFC 1122's 576).
pub const FRAGMENTS_MAX: usize = 17;

/// How one packet is cut.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    /// Bytes of the header, in every piece the same: what a later one leaves out is filled up.
    header: usize,
    /// Payload of each piece but the last, a multiple of eight.
    piece: usize,
    /// Payload of the packet.
    payload: usize,
}

impl Cut {
    /// How `packet` is cut to fit `mtu`; none if it must not be, or cannot.
    pub fn new(hop: &Hop, mtu: usize) -> Option<Self> {
        let piece = mtu.checked_sub(hop.header_len)? / 8 * 8;
        let payload = hop.len.checked_sub(hop.header_len)?;
        let cut = Self { header: hop.header_len, piece, payload };
        let may = hop.is_v4() && !hop.whole && piece > 0;
        (may && cut.count() <= FRAGMENTS_MAX).then_some(cut)
    }

    /// How many pieces.
    pub fn count(&self) -> usize {
        self.payload.div_ceil(self.piece).max(1)
    }

    /// Bytes of piece `n`.
    pub fn len(&self, n: usize) -> usize {
        self.header + self.piece.min(self.payload - n * self.piece)
    }

    /// Writes piece `n` of `packet` into `out`, which is as long.
    pub fn write(&self, packet: &[u8], n: usize, out: &mut [u8]) {
        let (from, len) = (n * self.piece, out.len());
        let header = self.header;
        out[..header].copy_from_slice(&packet[..header]);
        out[header..].copy_from_slice(&packet[header + from..from + len]);
        if n > 0 {
            leave_out(&mut out[HEADER_LEN..header]);
        }
        let word = be16(packet, 6);
        let more = if n + 1 < self.count() { MORE } else { word & MORE };
        let offset = (word & OFFSET) + (from / 8) as u16;
        out[2..4].copy_from_slice(&(len as u16).to_be_bytes());
        out[6..8].copy_from_slice(&(more | offset & OFFSET).to_be_bytes());
        out[10..12].fill(0);
        let checksum = !fold(sum(&out[..header]));
        out[10..12].copy_from_slice(&checksum.to_be_bytes());
    }
}

/// Makes nothing of the options that only the first piece has. What cannot be read is left as it is.
fn leave_out(options: &mut [u8]) {
    let mut rest = options;
    while let [kind, tail @ ..] = &*rest {
        let len = match (*kind, tail.first()) {
            (END, _) => return,
            (NOTHING, _) => 1,
            (_, Some(len)) if (2..=rest.len()).contains(&usize::from(*len)) => usize::from(*len),
            _ => return,
        };
        let (option, behind) = rest.split_at_mut(len);
        if option[0] & COPIED == 0 {
            option.fill(NOTHING);
        }
        rest = behind;
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

    /// A recorded route goes with the first piece, a router alert with all.
    #[test]
    fn options_go_where_they_belong() {
        let mut packet = vec![0x48, 0, 0, 132, 0, 1, 0, 0, 9, 99, 0, 0, 10, 0, 0, 1, 10, 0, 1, 2];
        packet.extend([7, 7, 4, 0, 0, 0, 0, 1, 148, 4, 0, 0]);
        packet.extend([9; 100]);
        let checksum = !fold(sum(&packet[..32]));
        packet[10..12].copy_from_slice(&checksum.to_be_bytes());
        let cut = Cut::new(&hop::read(&packet, Version::V4).unwrap(), 100).unwrap();
        let piece = |n| {
            let mut out = vec![0; cut.len(n)];
            cut.write(&packet, n, &mut out);
            assert_eq!(hop::read(&out, Version::V4).unwrap().header_len, 32);
            out
        };
        assert_eq!((cut.count(), piece(0)[20..32].to_vec()), (2, packet[20..32].to_vec()));
        assert_eq!(piece(1)[20..32], [1, 1, 1, 1, 1, 1, 1, 1, 148, 4, 0, 0]);
        assert_eq!((piece(0).len(), piece(1).len()), (96, 68));
        // What cannot be read stays.
        let mut odd = [7, 40, 4, 0];
        leave_out(&mut odd);
        assert_eq!(odd, [7, 40, 4, 0]);
    }
}
