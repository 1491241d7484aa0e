//! Neighbour discovery (RFC 4861): solicitations and advertisements. A packet that came over a router
//! (hop limit below 255) or has a wrong checksum says nothing.

use super::{checksums, ipv6_header, mac_bytes, mac_word, v6};
use crate::wire::hop::Hop;
use crate::wire::ip::ICMPV6;
use smoltcp::wire::{
    EthernetAddress, Icmpv6Packet, Icmpv6Repr, NdiscNeighborFlags, NdiscRepr, RawHardwareAddress,
};

/// The longest packet made here: header, message, link-layer address option.
pub const LEN: usize = 40 + 24 + 8;
/// Only neighbours can send this (RFC 4861 §6.1).
const HOP_LIMIT: u8 = 255;
/// ff02::1: all nodes of a link.
pub const ALL_NODES: u128 = 0xff02 << 112 | 1;

/// What a neighbour says. A MAC it does not name is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nd {
    /// Who has `target`?
    Solicit {
        /// That address.
        target: u128,
        /// The asker's station.
        mac: u64,
    },
    /// `target` is mine.
    Advert {
        /// That address.
        target: u128,
        /// Its station.
        mac: u64,
        /// It was asked.
        solicited: bool,
    },
    /// Who is a router here?
    RouterSolicit,
}

/// Reads a packet whose header is `hop`; none if it says nothing of neighbours.
pub fn read(packet: &[u8], hop: &Hop) -> Option<Nd> {
    if hop.ttl != HOP_LIMIT || hop.protocol != ICMPV6 || hop.is_v4() {
        return None;
    }
    let message = Icmpv6Packet::new_checked(packet.get(hop.header_len..hop.len)?).ok()?;
    match Icmpv6Repr::parse(&v6(hop.src), &v6(hop.dst), &message, &checksums()).ok()? {
        Icmpv6Repr::Ndisc(NdiscRepr::NeighborSolicit { target_addr, lladdr }) => {
            let mac = mac_of(lladdr);
            // RFC 4861 §7.1.1: one who has no address yet has no station to be answered.
            let is_well_formed = !target_addr.is_multicast() && (hop.src != 0 || mac == 0);
            is_well_formed.then_some(Nd::Solicit { target: target_addr.to_bits(), mac })
        }
        Icmpv6Repr::Ndisc(NdiscRepr::NeighborAdvert { flags, target_addr, lladdr }) => {
            let solicited = flags.contains(NdiscNeighborFlags::SOLICITED);
            // RFC 4861 §7.1.2.
            let is_odd = target_addr.is_multicast() || solicited && hop.dst >> 120 == 0xff;
            (!is_odd).then_some(Nd::Advert { target: target_addr.to_bits(), mac: mac_of(lladdr), solicited })
        }
        Icmpv6Repr::Ndisc(NdiscRepr::RouterSolicit { lladdr }) => {
            // RFC 4861 §6.1.1, the same.
            (hop.src != 0 || lladdr.is_none()).then_some(Nd::RouterSolicit)
        }
        _ => None,
    }
}

fn mac_of(lladdr: Option<RawHardwareAddress>) -> u64 {
    lladdr.map_or(0, |address| mac_word(address.as_bytes()))
}

/// ff02::1:ff00:0/104 and the address's last 24 bits (RFC 4291 §2.7.1).
pub fn solicited_node(target: u128) -> u128 {
    0xff02 << 112 | 0x1_ff00_0000 | target & 0xff_ffff
}

/// The Ethernet address of an IPv6 group (RFC 2464 §7).
pub fn group_mac(group: u128) -> u64 {
    0x3333_0000_0000 | group as u64 & 0xffff_ffff
}

/// Writes "who has `target`?" from the station `mac`; its length.
pub fn solicit(out: &mut [u8], src: u128, dst: u128, target: u128, mac: u64) -> usize {
    let lladdr = Some(EthernetAddress(mac_bytes(mac)).into());
    write(out, src, dst, NdiscRepr::NeighborSolicit { target_addr: v6(target), lladdr })
}

/// Writes "`target` is mine" from the station `mac`, a router or not; its length.
pub fn advert(out: &mut [u8], dst: u128, target: u128, mac: u64, router: bool, solicited: bool) -> usize {
    let mut flags = NdiscNeighborFlags::OVERRIDE;
    flags.set(NdiscNeighborFlags::ROUTER, router);
    flags.set(NdiscNeighborFlags::SOLICITED, solicited);
    let lladdr = Some(EthernetAddress(mac_bytes(mac)).into());
    write(out, target, dst, NdiscRepr::NeighborAdvert { flags, target_addr: v6(target), lladdr })
}

fn write(out: &mut [u8], src: u128, dst: u128, repr: NdiscRepr) -> usize {
    let repr = Icmpv6Repr::Ndisc(repr);
    let len = repr.buffer_len();
    let at = ipv6_header(out, src, dst, HOP_LIMIT, len);
    repr.emit(&v6(src), &v6(dst), &mut Icmpv6Packet::new_unchecked(&mut out[at..at + len]), &checksums());
    at + len
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::hop;
    use crate::wire::ip::Version;
    use proptest::prelude::*;

    fn read_all(packet: &[u8]) -> Option<Nd> {
        read(packet, &hop::read(packet, Version::V6).ok()?)
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(src: u128, target: u128, mac in 1u64..1 << 48, solicited: bool) {
            let (src, target) = (src >> 8 | 1, target >> 8 | 1);
            let mut out = [0; LEN];
            let len = solicit(&mut out, src, solicited_node(target), target, mac);
            prop_assert_eq!(read_all(&out[..len]), Some(Nd::Solicit { target, mac }));
            let len = advert(&mut out, src, target, mac, !solicited, solicited);
            prop_assert_eq!(read_all(&out[..len]), Some(Nd::Advert { target, mac, solicited }));
            // From afar, or damaged, it says nothing.
            out[7] = 254;
            prop_assert_eq!(read_all(&out[..len]), None);
            out[7] = 255;
            out[50] ^= 1;
            prop_assert_eq!(read_all(&out[..len]), None);
        }

        #[test]
        fn arbitrary_bytes_do_not_panic(mut bytes in proptest::collection::vec(any::<u8>(), 40..120)) {
            bytes[0] = 0x60;
            let len = (bytes.len() - 40) as u16;
            bytes[4..6].copy_from_slice(&len.to_be_bytes());
            (bytes[6], bytes[7]) = (58, 255);
            // With a right checksum, so that the message itself is looked at.
            let hop = hop::read(&bytes, Version::V6).unwrap();
            if bytes.len() >= 44 {
                Icmpv6Packet::new_unchecked(&mut bytes[40..]).fill_checksum(&v6(hop.src), &v6(hop.dst));
            }
            _ = read(&bytes, &hop);
        }
    }

    #[test]
    fn groups_are_those_of_the_rfcs() {
        let target: std::net::Ipv6Addr = "4037::1:800:200e:8c6c".parse().unwrap();
        let group: std::net::Ipv6Addr = "ff02::1:ff0e:8c6c".parse().unwrap();
        assert_eq!(solicited_node(target.to_bits()), group.to_bits());
        assert_eq!(group_mac(group.to_bits()), 0x3333_ff0e_8c6c);
    }
}
