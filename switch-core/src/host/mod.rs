//! What the switch says for itself: it answers for its gateway addresses, asks for neighbours, and tells
//! senders why their packets do not arrive. Pure: a packet in, a packet out; who asked by which port and how
//! often is `pipeline::slow`'s business. Headers are written and read with `smoltcp`'s representations.
//!
//! | module | what |
//! |---|---|
//! | [`advert`] | that the switch is an IPv6 router, and of which networks |
//! | [`arp`] | who has an IPv4 address |
//! | [`nd`] | who has an IPv6 address |
//! | [`echo`] | ping |
//! | [`error`] | why a packet does not arrive |
//! | [`fragment`] | a packet in pieces that fit |
//! | [`reset`] | that nobody takes a TCP segment |

pub mod advert;
pub mod arp;
pub mod echo;
pub mod error;
pub mod fragment;
pub mod nd;
pub mod reset;

use crate::wire::hop::V4_MAPPED;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{IpProtocol, Ipv6Address, Ipv6Packet, Ipv6Repr};
use std::net::Ipv4Addr;

/// The longest packet made here: an IPv6 error quotes as much as fits 1 280 bytes (RFC 4443 §2.4).
pub const PACKET_LEN_MAX: usize = 1280;
/// Hop limit and TTL of what the switch says (the assigned default, RFC 1700).
const TTL: u8 = 64;

fn v4(ip: u128) -> Ipv4Addr {
    Ipv4Addr::from_bits(ip as u32)
}

fn v6(ip: u128) -> Ipv6Address {
    Ipv6Address::from_bits(ip)
}

fn from_v4(address: Ipv4Addr) -> u128 {
    V4_MAPPED | u128::from(address.to_bits())
}

/// `emit` writes a header whose checksum is the caller's concern, or is checked by what it writes.
fn checksums() -> ChecksumCapabilities {
    ChecksumCapabilities::default()
}

/// Writes an IPv6 header for `len` bytes of ICMPv6; where those begin.
fn ipv6_header(out: &mut [u8], src: u128, dst: u128, hop_limit: u8, len: usize) -> usize {
    let header = Ipv6Repr {
        src_addr: v6(src),
        dst_addr: v6(dst),
        next_header: IpProtocol::Icmpv6,
        payload_len: len,
        hop_limit,
    };
    header.emit(&mut Ipv6Packet::new_unchecked(out));
    header.buffer_len()
}

/// A MAC's six bytes from the low 48 bits of a word.
fn mac_bytes(mac: u64) -> [u8; 6] {
    let [_, _, bytes @ ..] = mac.to_be_bytes();
    bytes
}

fn mac_word(bytes: &[u8]) -> u64 {
    bytes.iter().take(6).fold(0, |word, byte| word << 8 | u64::from(*byte))
}
