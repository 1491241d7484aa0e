//! Ethernet II and IEEE 802.1Q. One read of 16 bytes yields both addresses and the EtherType as
//! words, which is all that switching needs.

use super::{Malformed, be16};

/// Two addresses and an EtherType.
pub const HEADER_LEN: usize = 14;
/// A VLAN tag: TPID and TCI.
pub const TAG_LEN: usize = 4;
/// Customer VLAN tag (IEEE 802.1Q §9.5).
pub const TPID_C: u16 = 0x8100;
/// Service VLAN tag (IEEE 802.1ad). A C-bridge does not look into it: it is payload with this EtherType.
pub const TPID_S: u16 = 0x88a8;
/// What stood for a service tag before IEEE 802.1ad, and still does here and there.
const TPID_OLD: u16 = 0x9100;

/// Whether what has this EtherType begins with a VLAN tag. Behind the tag that a bridge reads it is payload to it, but not to hosts: Linux takes
/// off every tag of VLAN 0 in turn (`net/8021q/vlan_core.c`, `net/core/dev.c`), and what is behind is a packet.
pub fn is_tag(ethertype: u16) -> bool {
    matches!(ethertype, TPID_C | TPID_S | TPID_OLD)
}

/// Internet Protocol version 4.
pub const IPV4: u16 = 0x0800;
/// Address Resolution Protocol.
pub const ARP: u16 = 0x0806;
/// Internet Protocol version 6.
pub const IPV6: u16 = 0x86dd;

/// The broadcast address as the low 48 bits of a word.
pub const BROADCAST: u64 = 0xffff_ffff_ffff;
/// The group bit of an address in the low 48 bits of a word (IEEE 802-2014 §8.2).
pub const GROUP_BIT: u64 = 1 << 40;
/// First of the sixteen addresses that no bridge forwards (IEEE 802.1Q table 8-1).
const LINK_LOCAL_FIRST: u64 = 0x0180_c200_0000;

/// Whether `mac` (48 bits) is 01-80-C2-00-00-00 to -0F: between two neighbours only.
#[inline(always)]
pub fn is_link_local_group(mac: u64) -> bool {
    mac & !0xf == LINK_LOCAL_FIRST
}

/// What the Ethernet header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ethernet {
    /// Destination, low 48 bits, first byte highest.
    pub dst: u64,
    /// Source, likewise.
    pub src: u64,
    /// The EtherType after the tag if there is one; a length below 0x600 for IEEE 802.3 LLC.
    pub ethertype: u16,
    /// Tag control information: PCP, DEI, VID. Present only if the frame carries a C-tag.
    pub tci: Option<u16>,
}

impl Ethernet {
    /// Where the payload begins.
    pub fn payload_at(&self) -> usize {
        HEADER_LEN + if self.tci.is_some() { TAG_LEN } else { 0 }
    }
}

/// Reads the header and at most one C-tag; a second tag is payload.
#[inline(always)]
pub fn parse(frame: &[u8]) -> Result<Ethernet, Malformed> {
    // Two overlapping words hold it all: bytes 0 to 7 and 6 to 13.
    let (Some(head), Some(tail)) = (frame.first_chunk::<8>(), frame.get(6..14)) else {
        return Err(Malformed::Truncated);
    };
    let dst = u64::from_be_bytes(*head) >> 16;
    let tail = tail.first_chunk::<8>().map_or(0, |tail| u64::from_be_bytes(*tail));
    let (src, outer) = (tail >> 16, tail as u16);
    if outer != TPID_C {
        return Ok(Ethernet { dst, src, ethertype: outer, tci: None });
    }
    if frame.len() < HEADER_LEN + TAG_LEN {
        return Err(Malformed::Truncated);
    }
    Ok(Ethernet { dst, src, ethertype: be16(frame, 16), tci: Some(be16(frame, 14)) })
}

/// Reads the header of a frame without a tag as it lies there: the destination, low 48 bits, and all that follows it in one word, the source
/// above the EtherType. None: there is a tag, or no header; [`parse`] says.
#[inline(always)]
pub fn parse_plain(frame: &[u8]) -> Option<(u64, u64)> {
    let header = frame.first_chunk::<HEADER_LEN>()?;
    // Two overlapping words hold it all: bytes 0 to 7 and 6 to 13.
    let (head, tail) = (header.first_chunk()?, header.last_chunk()?);
    let (head, tail) = (u64::from_be_bytes(*head), u64::from_be_bytes(*tail));
    (tail as u16 != TPID_C).then_some((head >> 16, tail))
}

/// Writes both addresses, the low 48 bits of a word each.
#[inline(always)]
pub fn set_addresses(frame: &mut [u8], dst: u64, src: u64) {
    let (head, tail) = frame[..12].split_at_mut(8);
    head.copy_from_slice(&(dst << 16 | src >> 32 & 0xffff).to_be_bytes());
    tail.copy_from_slice(&(src as u32).to_be_bytes());
}

/// The reverse of [`parse_plain`]: both addresses and the EtherType of a frame without a tag. The two words overlap, and the second one has
/// the source's first bytes.
#[inline(always)]
pub fn write_plain(header: &mut [u8; HEADER_LEN], dst: u64, src_ethertype: u64) {
    header[..8].copy_from_slice(&(dst << 16).to_be_bytes());
    header[6..].copy_from_slice(&src_ethertype.to_be_bytes());
}

/// Writes a C-tag into `frame`, whose first [`TAG_LEN`] bytes are room in front of an untagged frame.
pub fn push_tag(frame: &mut [u8], tci: u16) {
    frame.copy_within(TAG_LEN..TAG_LEN + 12, 0);
    frame[12..14].copy_from_slice(&TPID_C.to_be_bytes());
    frame[14..16].copy_from_slice(&tci.to_be_bytes());
}

/// Moves the addresses over a C-tag; the frame then begins [`TAG_LEN`] bytes later.
pub fn pop_tag(frame: &mut [u8]) {
    frame.copy_within(0..12, TAG_LEN);
}

#[cfg(not(loom))]
#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// The dull twin reads byte by byte.
        #[test]
        fn the_header_is_what_its_bytes_say(frame in proptest::collection::vec(any::<u8>(), 0..64), tag: bool) {
            let mut frame = frame;
            if tag && frame.len() > 14 { frame[12] = 0x81; frame[13] = 0; }
            let parsed = parse(&frame);
            if frame.len() < 14 {
                prop_assert_eq!(parsed, Err(Malformed::Truncated));
            } else if frame[12..14] == [0x81, 0] && frame.len() < 18 {
                prop_assert_eq!(parsed, Err(Malformed::Truncated));
            } else {
                let header = parsed.unwrap();
                let mut dst = 0u64;
                let mut src = 0u64;
                for i in 0..6 { dst = dst << 8 | u64::from(frame[i]); src = src << 8 | u64::from(frame[6 + i]); }
                prop_assert_eq!((header.dst, header.src), (dst, src));
                prop_assert_eq!(header.tci.is_some(), frame[12..14] == [0x81, 0]);
                let at = header.payload_at() - 2;
                prop_assert_eq!(header.ethertype, u16::from(frame[at]) << 8 | u16::from(frame[at + 1]));
            }
            let plain = parsed.ok().filter(|header| header.tci.is_none());
            let words = plain.map(|header| (header.dst, header.src << 16 | u64::from(header.ethertype)));
            prop_assert_eq!(parse_plain(&frame), words);
        }

        /// Byte by byte, whatever was there before.
        #[test]
        fn a_plain_header_is_written_as_it_is_read(mut header: [u8; HEADER_LEN], dst in 0..1u64 << 48, src_ethertype: u64) {
            write_plain(&mut header, dst, src_ethertype);
            prop_assert_eq!(&header[..6], &dst.to_be_bytes()[2..]);
            prop_assert_eq!(&header[6..], &src_ethertype.to_be_bytes());
        }

        #[test]
        fn a_pushed_tag_pops_off(payload in proptest::collection::vec(any::<u8>(), 14..64), tci: u16) {
            let mut room = vec![0u8; TAG_LEN];
            room.extend(&payload);
            push_tag(&mut room, tci);
            prop_assert_eq!(parse(&room).unwrap().tci, Some(tci));
            pop_tag(&mut room);
            prop_assert_eq!(&room[TAG_LEN..], &payload[..]);
        }
    }

    #[test]
    fn sixteen_group_addresses_are_link_local() {
        assert!(!is_link_local_group(0x0180_c1ff_ffff));
        assert!((0..16).all(|i| is_link_local_group(0x0180_c200_0000 + i)));
        assert!(!is_link_local_group(0x0180_c200_0010));
    }
}
