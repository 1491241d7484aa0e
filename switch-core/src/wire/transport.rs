//! Where TCP and UDP lie in a frame, with every offset checked once. What cuts superframes up, joins
//! segments or checks a `vnet_hdr` begins here; what it hands out lies inside the frame.

use super::checksum::{Csum, fold, sum};
use super::{Malformed, be16, ethernet, ip};

/// A TCP header without options.
const TCP_HEADER_LEN_MIN: usize = 20;
/// A UDP header.
pub const UDP_HEADER_LEN: usize = 8;
/// Where TCP keeps its checksum (RFC 9293 §3.1).
pub const TCP_FIELD: u8 = 16;
/// Where UDP keeps its checksum (RFC 768).
pub const UDP_FIELD: u8 = 6;

/// Why a frame has no TCP or UDP header that could be worked on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoTransport {
    /// Behind the addresses and at most one C-tag there is neither IPv4 nor IPv6.
    #[error("the frame is not IP behind at most one C-tag")]
    NotIp,
    /// The Ethernet, IP, TCP or UDP header contradicts itself or the frame's length.
    #[error("the frame's own headers contradict its length")]
    Headers,
    /// A fragment has no whole segment.
    #[error("the frame is an IP fragment")]
    Fragment,
    /// IP, but another protocol than TCP and UDP.
    #[error("the frame's IP protocol is {0}, neither TCP nor UDP")]
    Foreign(u8),
}

impl From<Malformed> for NoTransport {
    fn from(_: Malformed) -> Self {
        Self::Headers
    }
}

/// The IP packet in a frame: where it begins, and what [`ip::parse`] says of it.
pub(super) fn packet(frame: &[u8]) -> Result<(usize, ip::Ip), NoTransport> {
    let header = ethernet::parse(frame)?;
    let version = match header.ethertype {
        ethernet::IPV4 => ip::Version::V4,
        ethernet::IPV6 => ip::Version::V6,
        _ => return Err(NoTransport::NotIp),
    };
    let at = header.payload_at();
    Ok((at, ip::parse(&frame[at..], version)?))
}

/// Offsets count from the frame's first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transport {
    /// Version of the IP packet.
    pub version: ip::Version,
    /// TCP; otherwise UDP.
    pub tcp: bool,
    /// Where the IP header begins.
    pub ip_at: usize,
    /// Where the transport header begins.
    pub at: usize,
    /// Where its payload begins.
    pub payload_at: usize,
    /// Where the packet ends; bytes behind are Ethernet padding.
    pub end: usize,
}

impl Transport {
    /// Reads a frame down to the payload of TCP or UDP.
    pub fn read(frame: &[u8]) -> Result<Self, NoTransport> {
        let (ip_at, read) = packet(frame)?;
        if read.fragment {
            return Err(NoTransport::Fragment);
        }
        let (at, end) = (ip_at + read.transport_at, ip_at + read.end);
        let (header_min, tcp) = match read.protocol {
            ip::TCP => (TCP_HEADER_LEN_MIN, true),
            ip::UDP => (UDP_HEADER_LEN, false),
            other => return Err(NoTransport::Foreign(other)),
        };
        if at + header_min > end {
            return Err(NoTransport::Headers);
        }
        let header_len = if tcp { usize::from(frame[at + 12] >> 4) * 4 } else { UDP_HEADER_LEN };
        let udp_len_fits = tcp || usize::from(be16(frame, at + 4)) == end - at;
        if header_len < header_min || at + header_len > end || !udp_len_fits {
            return Err(NoTransport::Headers);
        }
        Ok(Self { version: read.version, tcp, ip_at, at, payload_at: at + header_len, end })
    }

    /// Where the checksum is, from the transport header's first byte.
    pub fn field(&self) -> u8 {
        if self.tcp { TCP_FIELD } else { UDP_FIELD }
    }

    /// What an unfinished checksum of this segment is called.
    pub fn partial(&self) -> Csum {
        // A header that begins beyond 64 KiB cannot exist: an IP packet is no longer than that, and its
        // first bytes come before it.
        Csum::Partial { start: u16::try_from(self.at).unwrap_or(u16::MAX), field: self.field() }
    }

    /// Bytes of TCP or UDP header and payload.
    pub fn segment_len(&self) -> usize {
        self.end - self.at
    }

    /// Bytes of payload.
    pub fn payload_len(&self) -> usize {
        self.end - self.payload_at
    }

    /// Folded, not complemented sum of the pseudo-header: what an unfinished checksum field holds.
    pub fn pseudo(&self, frame: &[u8]) -> u16 {
        let (addresses, protocol) = match self.version {
            ip::Version::V4 => (&frame[self.ip_at + 12..self.ip_at + 20], self.protocol()),
            ip::Version::V6 => (&frame[self.ip_at + 8..self.ip_at + 40], self.protocol()),
        };
        fold(sum(addresses) + u64::from(protocol) + self.segment_len() as u64)
    }

    fn protocol(&self) -> u8 {
        if self.tcp { ip::TCP } else { ip::UDP }
    }

    /// What the checksum field holds.
    pub fn stored(&self, frame: &[u8]) -> u16 {
        be16(frame, self.at + usize::from(self.field()))
    }
}
