//! Bytes ⇄ headers. Pure: a slice in, facts out; nothing here knows what a port is.
//!
//! | module | what |
//! |---|---|
//! | [`ethernet`] | addresses, EtherType, VLAN tags (IEEE 802.3, 802.1Q) |
//! | [`ip`] | IPv4 and IPv6 with extension headers, down to the transport header |
//! | [`hop`] | what a router reads of a packet, and one hop further |
//! | [`checksum`] | the Internet checksum: finished, unfinished, finish it |
//! | [`gro`] | segments of a TCP stream joined into a superframe |
//! | [`gso`] | superframes: one frame that stands for a train of segments, cut up in software |
//! | [`mss`] | what a TCP SYN offers, lowered to what its way carries |
//! | [`nat`] | addresses and ports written anew, and what an ICMP error quotes of them |
//! | [`packet`] | what a flow is told by: addresses, protocol, ports, TCP's words, what an ICMP error quotes |
//! | [`transport`] | where TCP and UDP lie, checked once |
//! | [`vxlan`] | what stands in front of a frame in a tunnel |
//! | [`vnet`] | `virtio_net_hdr`, before every frame of a TAP; hostile |

pub mod bpf;
pub mod checksum;
pub mod ethernet;
pub mod gro;
pub mod gso;
pub mod hop;
pub mod ip;
#[cfg(not(loom))]
#[cfg(test)]
pub(crate) mod made;
pub mod mss;
pub mod nat;
pub mod packet;
pub mod transport;
pub mod vnet;
pub mod vxlan;

/// Why a header cannot be read. The caller decides whether that costs the frame its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// The frame ends inside the header.
    Truncated,
    /// A length field contradicts the bytes that are there.
    Length,
    /// A version or a fixed field has a value the RFC does not allow.
    Field,
    /// The header's checksum is wrong.
    Checksum,
    /// More extension headers than [`ip::EXTENSIONS_MAX`].
    TooManyExtensions,
}

/// Two bytes in network order. The caller has checked that they are there.
#[inline(always)]
pub(crate) fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// Four bytes in network order. The caller has checked that they are there.
#[inline(always)]
pub(crate) fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
