//! `struct virtio_net_hdr`, the ten bytes before every frame of a TAP with `IFF_VNET_HDR`
//! (`include/uapi/linux/virtio_net.h`; virtio 1.2 §5.1.6).
//!
//! ```text
//!  0      1         2        4         6           8            10
//! | flags | gso_type | hdr_len | gso_size | csum_start | csum_offset |
//! ```
//!
//! **Byte order.** Little endian. Who opens the TAP says so with `TUNSETVNETLE`; without it Linux takes
//! the machine's own order, which on a big-endian machine is another one. The legacy layout, without `num_buffers`:
//! `TUNSETVNETHDRSZ` stays at its default, [`LEN`].
//!
//! **It is hostile input.** A pod that may open a packet socket writes this header itself
//! (`PACKET_VNET_HDR`), and the kernel hands on more than it checks. So nothing in it is believed that
//! the frame's own bytes do not bear out:
//!
//! | field | what is asked of it |
//! |---|---|
//! | `flags` | `NEEDS_CSUM` or nothing. `DATA_VALID` is not an error and not believed: whoever gets the frame verifies it |
//! | `gso_type` | TCPv4, TCPv6, either with `ECN`, or `UDP_L4`: what was offered with `TUNSETOFFLOAD`. IP version and protocol of the frame are the same |
//! | `gso_size` | not 0; at most [`SEGMENTS_MAX`](gso::SEGMENTS_MAX) segments come of it. As long as the payload or longer: not a superframe after all |
//! | `csum_start`, `csum_offset` | the checksum field of the frame's TCP or UDP header, or, inside a tunnel, one behind the outer headers and within the outer packet |
//! | `hdr_len` | nothing: it is a hint to whoever allocates, and is not read |
//!
//! **Tunnels.** A pod's VXLAN, Geneve, GRE or IP-in-IP leaves the *inner* checksum to the device (seen
//! with VXLAN over a TAP on Linux 6.18: `csum_start` 84), while the outer one is done or absent. Such a frame
//! is accepted as it is; the field may only lie in what is payload to a switch, so that nothing a filter has
//! looked at changes when it is filled in.
//!
//! **SCTP.** Its CRC32c can be left to a device that has `NETIF_F_SCTP_CRC`. A TAP does not have it (`tx-checksum-sctp:
//! off [fixed]`), so the pod's kernel computes the CRC before we see the frame, and the header says nothing.
//! A header that asks for it all the same (`csum_offset` 8) was made by hand; Linux would put a 16-bit sum into
//! the middle of the CRC, we refuse it.
//!
//! **Not covered.** Behind a second tag the frame is not IP to this switch, so an unfinished checksum there is refused.

use super::checksum::{self, Csum};
use super::gso::{self, BadGso, Gso, GsoKind};
use super::ip;
use super::transport::{self, NoTransport, TCP_FIELD, Transport, UDP_FIELD};
use std::num::NonZeroU16;

/// Bytes of the header.
pub const LEN: usize = 10;

const F_NEEDS_CSUM: u8 = 1;
const F_DATA_VALID: u8 = 2;
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
const GSO_ECN: u8 = 0x80;

/// IP protocols with packets inside whose checksum may be the unfinished one: IPv4, UDP (VXLAN, Geneve), IPv6, GRE.
const TUNNELS: [u8; 4] = [4, ip::UDP, 41, 47];
/// Least distance from the outer transport header to the inner one: an inner IPv4 header lies between.
const INNER_MIN: usize = 20;

/// Why a frame's `virtio_net_hdr` is not believed. The frame is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadVnet {
    /// A flag besides `NEEDS_CSUM` and `DATA_VALID`.
    #[error("vnet_hdr has flags {0:#04x}; only NEEDS_CSUM and DATA_VALID were agreed on")]
    Flags(u8),
    /// A type that was not offered: UFO, a tunnel's, `ECN` without TCP, or none that is known.
    #[error("vnet_hdr has gso_type {0:#04x}; only TCPv4, TCPv6 and UDP_L4 were agreed on")]
    GsoType(u8),
    /// A superframe's segments each need a checksum.
    #[error("vnet_hdr asks for segmentation without NEEDS_CSUM")]
    GsoWithoutChecksum,
    /// Segments of no bytes never end.
    #[error("vnet_hdr asks for segments of 0 bytes")]
    GsoSizeZero,
    /// The superframe cannot be cut.
    #[error(transparent)]
    Gso(#[from] BadGso),
    /// There is no checksum that could be unfinished.
    #[error("vnet_hdr says the checksum is unfinished, but {0}")]
    NoChecksum(NoTransport),
    /// SCTP's CRC32c is not a sum.
    #[error("vnet_hdr leaves the CRC32c of an SCTP packet to a TAP, which does not offer that")]
    Sctp,
    /// The place is not that of a TCP or UDP checksum.
    #[error("vnet_hdr has csum_start {start}, csum_offset {offset}: not where the frame has its checksum")]
    ChecksumPlace {
        /// `csum_start`.
        start: u16,
        /// `csum_offset`.
        offset: u16,
    },
}

impl BadVnet {
    /// What the drop is counted as: the variants, in three words.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Flags(_) | Self::GsoType(_) => "vnet-not-agreed",
            Self::NoChecksum(_) | Self::Sctp | Self::ChecksumPlace { .. } => "vnet-checksum",
            Self::GsoWithoutChecksum | Self::GsoSizeZero | Self::Gso(_) => "vnet-segments",
        }
    }
}

/// What the header says of the frame behind it.
#[inline]
pub fn decode(header: &[u8; LEN], frame: &[u8]) -> Result<(Csum, Option<Gso>), BadVnet> {
    let &[flags, gso_type, _, _, size_low, size_high, start_low, start_high, offset_low, offset_high] =
        header;
    if flags & !(F_NEEDS_CSUM | F_DATA_VALID) != 0 {
        return Err(BadVnet::Flags(flags));
    }
    let kind = kind(gso_type)?;
    if flags & F_NEEDS_CSUM == 0 {
        return if kind.is_none() { Ok((Csum::Complete, None)) } else { Err(BadVnet::GsoWithoutChecksum) };
    }
    let start = u16::from_le_bytes([start_low, start_high]);
    let offset = u16::from_le_bytes([offset_low, offset_high]);
    let Some(kind) = kind else { return Ok((place(frame, start, offset)?, None)) };
    let size = NonZeroU16::new(u16::from_le_bytes([size_low, size_high])).ok_or(BadVnet::GsoSizeZero)?;
    superframe(frame, (start, offset), Gso { kind, ecn: gso_type & GSO_ECN != 0, size })
}

fn kind(gso_type: u8) -> Result<Option<GsoKind>, BadVnet> {
    match gso_type {
        GSO_NONE => Ok(None),
        GSO_UDP_L4 => Ok(Some(GsoKind::Udp)),
        _ if gso_type & !GSO_ECN == GSO_TCPV4 => Ok(Some(GsoKind::Tcp4)),
        _ if gso_type & !GSO_ECN == GSO_TCPV6 => Ok(Some(GsoKind::Tcp6)),
        _ => Err(BadVnet::GsoType(gso_type)),
    }
}

fn superframe(frame: &[u8], (start, offset): (u16, u16), gso: Gso) -> Result<(Csum, Option<Gso>), BadVnet> {
    let transport = Transport::read(frame).map_err(BadGso::from)?;
    if !gso.kind.fits(&transport) {
        return Err(BadGso::Kind.into());
    }
    let csum = transport.partial();
    if named(start, offset) != Some(csum) {
        return Err(BadVnet::ChecksumPlace { start, offset });
    }
    match gso::count(transport.payload_len(), gso.size) {
        // Linux too takes this for a frame like any other.
        1 => Ok((csum, None)),
        2..=gso::SEGMENTS_MAX => Ok((csum, Some(gso))),
        count => Err(BadGso::TooMany(count).into()),
    }
}

fn named(start: u16, offset: u16) -> Option<Csum> {
    let field = u8::try_from(offset).ok().filter(|field| [UDP_FIELD, TCP_FIELD].contains(field))?;
    Some(Csum::Partial { start, field })
}

/// The unfinished checksum of a frame that is one segment.
fn place(frame: &[u8], start: u16, offset: u16) -> Result<Csum, BadVnet> {
    let elsewhere = BadVnet::ChecksumPlace { start, offset };
    let own = Transport::read(frame);
    match (named(start, offset), own) {
        (Some(named), Ok(own)) if named == own.partial() => return Ok(named),
        (_, Ok(own)) if own.tcp => return Err(elsewhere),
        (_, Err(NoTransport::Foreign(ip::SCTP))) => return Err(BadVnet::Sctp),
        (_, Ok(_) | Err(NoTransport::Foreign(_))) => {}
        (_, Err(reason)) => return Err(BadVnet::NoChecksum(reason)),
    }
    let (ip_at, outer) = transport::packet(frame).map_err(BadVnet::NoChecksum)?;
    if !TUNNELS.contains(&outer.protocol) {
        return Err(BadVnet::NoChecksum(NoTransport::Foreign(outer.protocol)));
    }
    let named = named(start, offset).ok_or(elsewhere)?;
    let first = ip_at + outer.transport_at + INNER_MIN;
    let field_end = usize::from(start) + usize::from(offset) + 2;
    if usize::from(start) >= first && field_end <= ip_at + outer.end { Ok(named) } else { Err(elsewhere) }
}

/// The header to put before `frame`. A checksum nobody looked at yet is looked at: a TAP's reader drops
/// what is unfinished and not said to be. A superframe's checksum is [`Csum::Partial`], as [`decode`]
/// and coalescing leave it; Linux takes no other.
#[inline]
pub fn encode(csum: Csum, gso: Option<Gso>, frame: &[u8]) -> [u8; LEN] {
    let csum = if csum == Csum::Unknown { checksum::state(frame) } else { csum };
    let headers_len =
        gso.and_then(|_| Transport::read(frame).ok()).map_or(0, |transport| transport.payload_at);
    encode_known(csum, gso, headers_len)
}

/// The same of a frame that has been read already: its first `headers_len` bytes are headers, and somebody looked at
/// its checksum.
#[inline]
pub fn encode_known(csum: Csum, gso: Option<Gso>, headers_len: usize) -> [u8; LEN] {
    debug_assert!(csum != Csum::Unknown, "nobody looked at the checksum");
    let mut header = [0; LEN];
    if let Csum::Partial { start, field } = csum {
        header[0] = F_NEEDS_CSUM;
        header[6..8].copy_from_slice(&start.to_le_bytes());
        header[8] = field;
    }
    let Some(gso) = gso else { return header };
    debug_assert!(header[0] == F_NEEDS_CSUM, "a superframe with a finished checksum");
    header[1] = match gso.kind {
        GsoKind::Tcp4 => GSO_TCPV4,
        GsoKind::Tcp6 => GSO_TCPV6,
        GsoKind::Udp => GSO_UDP_L4,
    } | if gso.ecn { GSO_ECN } else { 0 };
    // How much Linux keeps together in front: all headers.
    header[2..4].copy_from_slice(&(headers_len as u16).to_le_bytes());
    header[4..6].copy_from_slice(&gso.size.get().to_le_bytes());
    header
}

#[cfg(not(loom))]
#[cfg(test)]
mod tests;
