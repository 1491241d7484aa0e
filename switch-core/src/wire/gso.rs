//! Superframes: one frame that stands for a train of segments (GSO, "generic segmentation offload").
//!
//! A kernel hands a TAP up to 64 KiB of TCP or UDP payload behind one set of headers and says how many
//! payload bytes each segment on the wire carries. [`Gso`] is that saying; it travels beside the frame,
//! never in it. Who cannot pass it on (a port without `IFF_VNET_HDR`) cuts the superframe up with a
//! [`Segmenter`], which writes each segment into a buffer of the caller's, as Linux would have:
//!
//! | field | first | middle | last |
//! |---|---|---|---|
//! | IPv4 total length, IPv6 payload length, UDP length | the segment's own | the segment's own | the segment's own |
//! | IPv4 identification | as it is | +1 each | +1 |
//! | TCP sequence number | as it is | + payload before it | + payload before it |
//! | TCP `FIN`, `PSH` | 0 | 0 | as it is |
//! | TCP `CWR` | as it is | 0 | 0 |
//! | everything else: addresses, tag, DSCP and ECN, TTL, ports, acknowledgement, window, options, extension headers | as it is | as it is | as it is |
//!
//! **Checksums.** The IPv4 header's is always written. The transport's is finished in software while the
//! payload is copied, or left unfinished for who comes after. Either way it starts from what the superframe's field
//! holds, corrected for the length, as Linux does: the sender's own pseudo-header counts (behind a
//! routing header its destination is not the one in the IPv6 header), and a wrong one stays wrong.
//!
//! **Not covered.** A tunnel's inner segments: no port of ours offers that offload, the pod's kernel cuts them itself.
//! AccECN, where `CWR` is part of a counter and belongs on every segment: `vnet_hdr` has no word for it, so
//! Linux cuts such superframes up before they reach a TAP.

use super::checksum::{self, Csum, fold, sum};
use super::transport::{NoTransport, Transport, UDP_FIELD};
use super::{be16, ip};
use std::num::NonZeroU16;

/// Segments one superframe may be cut into. A full superframe holds 65 483 bytes of TCP payload; Linux
/// never lets a peer talk it below a segment of 88 bytes (`TCP_MIN_MSS`), 76 behind timestamps: 862
/// segments. A sender that asks for more wants one frame to cost us as many as it has bytes.
pub const SEGMENTS_MAX: usize = 1024;

/// `FIN` and `PSH`, which are for the last segment.
pub(super) const TCP_LAST_ONLY: u8 = 0x09;
/// `CWR`, which is for the first.
pub(super) const TCP_FIRST_ONLY: u8 = 0x80;
/// Where the TCP flags are, from the TCP header.
pub(super) const TCP_FLAGS_AT: usize = 13;

/// Which protocol the segments of a superframe speak, and so which headers change from one to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GsoKind {
    /// TCP over IPv4.
    Tcp4,
    /// TCP over IPv6.
    Tcp6,
    /// UDP over either (`UDP_SEGMENT`, USO, virtio's `GSO_UDP_L4`): each segment is a datagram of its own.
    Udp,
}

impl GsoKind {
    /// Whether a frame with this transport can be of this kind.
    pub(super) fn fits(self, transport: &Transport) -> bool {
        match self {
            Self::Tcp4 => transport.tcp && transport.version == ip::Version::V4,
            Self::Tcp6 => transport.tcp && transport.version == ip::Version::V6,
            Self::Udp => !transport.tcp,
        }
    }
}

/// What a superframe is cut into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gso {
    /// The protocol of the segments.
    pub kind: GsoKind,
    /// The first segment carries `CWR` (virtio's `GSO_ECN`). It is handed on; cutting looks at the flag itself.
    pub ecn: bool,
    /// Payload bytes of each segment but the last, which may be shorter.
    pub size: NonZeroU16,
}

// It lies in every frame's descriptor: no larger than a `u32`.
const _: () = assert!(size_of::<Option<Gso>>() == 4);

/// Why a superframe cannot be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadGso {
    /// No headers to put in front of each segment.
    #[error(transparent)]
    Transport(#[from] NoTransport),
    /// The headers are of another protocol than [`Gso::kind`].
    #[error("the superframe is of another protocol than its gso_type says")]
    Kind,
    /// The checksum is not unfinished, or at another place than the transport's field.
    #[error("the superframe's own checksum is not left unfinished")]
    Checksum,
    /// More than [`SEGMENTS_MAX`].
    #[error("the superframe would be cut into {0} segments, more than {SEGMENTS_MAX}; gso_size is too small")]
    TooMany(usize),
}

/// Segments that `payload_len` bytes make; a superframe without payload is one segment.
pub(super) fn count(payload_len: usize, size: NonZeroU16) -> usize {
    payload_len.div_ceil(usize::from(size.get())).max(1)
}

/// How many segments a frame stands for: what a storm limit counts. One for a frame that cannot be read.
pub fn segments(frame: &[u8], gso: Gso) -> usize {
    Transport::read(frame).map_or(1, |transport| count(transport.payload_len(), gso.size))
}

/// How many segments a frame stands for, and their bytes together, headers and tags included: what a rate limit counts.
pub fn on_wire(frame: &[u8], gso: Option<Gso>) -> (u64, u64) {
    let Some(gso) = gso else { return (1, frame.len() as u64) };
    Transport::read(frame).map_or((1, frame.len() as u64), |transport| {
        let segments = count(transport.payload_len(), gso.size);
        (segments as u64, (frame.len() + (segments - 1) * transport.payload_at) as u64)
    })
}

/// Length of the longest frame that a superframe is cut into, headers and tag included: what an MTU
/// is held against. The frame's own length for one that cannot be read.
pub fn longest(frame: &[u8], gso: Gso) -> usize {
    Transport::read(frame).map_or(frame.len(), |transport| {
        transport.payload_at + transport.payload_len().min(usize::from(gso.size.get()))
    })
}

/// Writes the segments of one superframe, any of them, in any order. See the module.
#[derive(Clone, Copy, Debug)]
pub struct Segmenter<'a> {
    frame: &'a [u8],
    transport: Transport,
    size: usize,
    count: usize,
    /// The superframe's unfinished checksum without its length.
    pseudo_but_len: u64,
}

impl<'a> Segmenter<'a> {
    /// Checks a superframe, once.
    pub fn new(frame: &'a [u8], csum: Csum, gso: Gso) -> Result<Self, BadGso> {
        let transport = Transport::read(frame)?;
        if !gso.kind.fits(&transport) {
            return Err(BadGso::Kind);
        }
        if csum != transport.partial() {
            return Err(BadGso::Checksum);
        }
        let count = count(transport.payload_len(), gso.size);
        if count > SEGMENTS_MAX {
            return Err(BadGso::TooMany(count));
        }
        // One's complement: to subtract is to add the complement.
        let len = fold(transport.segment_len() as u64);
        let pseudo_but_len = u64::from(transport.stored(frame)) + u64::from(!len);
        Ok(Self { frame, transport, size: usize::from(gso.size.get()), count, pseudo_but_len })
    }

    /// How many segments there are; at least one.
    pub fn count(&self) -> usize {
        self.count
    }

    /// What an unfinished checksum of each segment is called: the headers are as long as the superframe's.
    pub fn partial(&self) -> Csum {
        self.transport.partial()
    }

    /// Length of segment `i` as a frame. 0 if there is none.
    pub fn len_of(&self, i: usize) -> usize {
        let (from, to) = self.payload(i);
        if i < self.count { self.transport.payload_at + (to - from) } else { 0 }
    }

    /// Where in the frame the payload of segment `i` is.
    fn payload(&self, i: usize) -> (usize, usize) {
        let from = (self.transport.payload_at + i.min(self.count) * self.size).min(self.transport.end);
        (from, (from + self.size).min(self.transport.end))
    }

    /// Writes segment `i` to the first [`len_of`](Self::len_of) bytes of `out` and says how many those are.
    /// With `finish` its checksum is complete, otherwise [`partial`](Self::partial). Nothing is written and
    /// nothing said if there is no such segment or `out` is too short.
    pub fn write(&self, i: usize, out: &mut [u8], finish: bool) -> Option<usize> {
        let len = self.len_of(i);
        let out = out.get_mut(..len).filter(|_| len > 0)?;
        let (from, to) = self.payload(i);
        let (head, payload) = out.split_at_mut(self.transport.payload_at);
        head.copy_from_slice(&self.frame[..self.transport.payload_at]);
        let segment_len = len - self.transport.at;
        self.fix_ip(head, i, len - self.transport.ip_at);
        if self.transport.tcp {
            self.fix_tcp(head, i, from);
        } else {
            put16(head, self.transport.at + 4, segment_len as u16);
        }
        let field = self.transport.at + usize::from(self.transport.field());
        let pseudo = fold(self.pseudo_but_len + segment_len as u64);
        put16(head, field, pseudo);
        let source = &self.frame[from..to];
        if finish {
            // The transport header is even in length, so the payload's sum needs no shift.
            let total = checksum::copy(source, payload) + sum(&head[self.transport.at..]);
            put16(head, field, checksum::finished(total, self.transport.field() == UDP_FIELD));
        } else {
            payload.copy_from_slice(source);
        }
        Some(len)
    }

    fn fix_ip(&self, head: &mut [u8], i: usize, packet_len: usize) {
        let at = self.transport.ip_at;
        match self.transport.version {
            ip::Version::V4 => {
                put16(head, at + 2, packet_len as u16);
                let id = be16(head, at + 4).wrapping_add(i as u16);
                put16(head, at + 4, id);
                fix_v4_checksum(&mut head[at..self.transport.at]);
            }
            ip::Version::V6 => put16(head, at + 4, (packet_len - 40) as u16),
        }
    }

    fn fix_tcp(&self, head: &mut [u8], i: usize, from: usize) {
        let tcp = &mut head[self.transport.at..];
        let before = (from - self.transport.payload_at) as u32;
        let sequence = u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]).wrapping_add(before);
        tcp[4..8].copy_from_slice(&sequence.to_be_bytes());
        if i > 0 {
            tcp[TCP_FLAGS_AT] &= !TCP_FIRST_ONLY;
        }
        if i + 1 < self.count {
            tcp[TCP_FLAGS_AT] &= !TCP_LAST_ONLY;
        }
    }
}

/// Writes the checksum of an IPv4 header, options included.
pub(super) fn fix_v4_checksum(header: &mut [u8]) {
    put16(header, 10, 0);
    let checksum = !fold(sum(header));
    put16(header, 10, checksum);
}

/// Writes two bytes in network order. The caller has checked that they are there.
#[inline(always)]
pub(super) fn put16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

#[cfg(not(loom))]
#[cfg(test)]
mod tests;
