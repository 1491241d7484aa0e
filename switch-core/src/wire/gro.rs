//! Joining segments into a superframe (GRO, "generic receive offload"): the segmenter backwards, for TCP that comes
//! in single segments and leaves by a TAP, whose kernel would rather take 64 KiB once than 45 times 1448 bytes.
//!
//! A [`Train`] begins with a segment; [`Train::push`] takes the next one, if it may follow; [`Train::finish`] corrects the
//! headers in the first. Nothing is copied: the superframe is the first segment and behind it the payloads of the others,
//! wherever they lie, for the caller to send by one gathering write. The law, which the tests hold us to: **cutting what
//! was joined gives back, byte for byte, what came**. So a segment may follow only if all of this holds.
//!
//! - Its headers are those of the first, byte for byte, tag, TTL, DSCP and ECN, IP options, extension headers, window, acknowledgement
//!   and TCP options (timestamps!) included, but for lengths, checksums, `FIN` and `PSH`, and what counts on:
//! - its sequence number is where the train ends, its IPv4 identification one more than that of the segment before. (Linux
//!   also joins segments that all have the same identification; a `vnet_hdr` cannot say so, and cutting would change it.)
//! - It has payload, no more than the first, and no Ethernet padding. One with less, with `FIN` or with `PSH` ends the train.
//! - The flags are `ACK`, perhaps `ECE`. `SYN`, `RST`, `URG` and `CWR` travel alone.
//! - **Its checksums are right**, or are unfinished and say what they must. A superframe's receiver takes its word for it, so
//!   a wrong checksum must not get in: the segment stays single, and whoever receives it sees that it is wrong.
//! - The train stays within [`SEGMENTS_MAX`] segments and the 65 535 bytes of an IP packet.
//!
//! **What it costs.** The headers are compared; a finished checksum is verified in software besides, one pass over the segment, an
//! unfinished one need not be: the criterion bench `wire/gro::push` shows both. The receiver's kernel, told that it is done, then does not.
//!
//! **Not covered.** UDP is not joined: a receiver's application can tell. Frames that are superframes already are not joined further.

use super::checksum::{Csum, fold, sum};
use super::gso::{
    Gso, GsoKind, SEGMENTS_MAX, TCP_FIRST_ONLY, TCP_FLAGS_AT, TCP_LAST_ONLY, fix_v4_checksum, put16,
};
use super::transport::Transport;
use super::{be16, ip};
use std::num::NonZeroU16;

/// `SYN`, `RST` and `URG`: segments with one of them are not joined.
const TCP_ALONE: u8 = 0x26;
/// `ACK`: every segment of a connection that stands has it.
const TCP_ACK: u8 = 0x10;
/// The longest IPv4 packet, and the longest payload of an IPv6 packet.
const IP_LEN_MAX: usize = 65_535;

/// Segments of one TCP stream, joined so far. The bytes are the caller's, and stay where they are.
#[derive(Clone, Copy, Debug)]
pub struct Train {
    /// Of the first segment.
    transport: Transport,
    /// Of the first segment: what to say if it stays alone.
    csum: Csum,
    size: NonZeroU16,
    count: usize,
    /// Where the train ends, counted as if its payloads lay behind the first segment.
    end: usize,
    /// `FIN` and `PSH` of the last segment. With one of them, or after a short segment, the train is `closed`.
    last_flags: u8,
    closed: bool,
}

impl Train {
    /// A train of one segment; or none, if this frame is none that is joined.
    pub fn begin(frame: &[u8], csum: Csum) -> Option<Self> {
        let transport = candidate(frame)?;
        let csum = known_good(frame, &transport, csum)?;
        let size = NonZeroU16::new(transport.payload_len() as u16)?;
        let last_flags = frame[transport.at + TCP_FLAGS_AT] & TCP_LAST_ONLY;
        Some(Self {
            transport,
            csum,
            size,
            count: 1,
            end: transport.end,
            last_flags,
            closed: last_flags != 0,
        })
    }

    /// Takes in the frame as the train's next segment, if it may follow. If not, nothing has changed: finish the
    /// train, and begin another with this frame. `first` is the train's first segment.
    pub fn push(&mut self, first: &[u8], next: &[u8], csum: Csum) -> bool {
        let Some(transport) = self.follows(first, next) else { return false };
        if known_good(next, &transport, csum).is_none() {
            return false;
        }
        let len = transport.payload_len();
        self.count += 1;
        self.end += len;
        self.last_flags = next[transport.at + TCP_FLAGS_AT] & TCP_LAST_ONLY;
        self.closed = self.last_flags != 0 || len < usize::from(self.size.get());
        true
    }

    /// Nothing can follow any more: finish it now.
    pub fn is_closed(&self) -> bool {
        self.closed || self.count == SEGMENTS_MAX
    }

    /// How many segments the train has.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Where the payload begins, in every one of its segments; it goes on to the frame's end.
    pub fn payload_at(&self) -> usize {
        self.transport.payload_at
    }

    /// Corrects the headers in the first segment and says what to say of the superframe; a single segment is left as it came.
    pub fn finish(self, first: &mut [u8]) -> (Csum, Option<Gso>) {
        if self.count == 1 {
            return (self.csum, None);
        }
        let whole = Transport { end: self.end, ..self.transport };
        let kind = match whole.version {
            ip::Version::V4 => {
                put16(first, whole.ip_at + 2, (self.end - whole.ip_at) as u16);
                fix_v4_checksum(&mut first[whole.ip_at..whole.at]);
                GsoKind::Tcp4
            }
            ip::Version::V6 => {
                put16(first, whole.ip_at + 4, (self.end - whole.ip_at - 40) as u16);
                GsoKind::Tcp6
            }
        };
        first[whole.at + TCP_FLAGS_AT] |= self.last_flags;
        let pseudo = whole.pseudo(first);
        put16(first, whole.at + usize::from(whole.field()), pseudo);
        (whole.partial(), Some(Gso { kind, ecn: false, size: self.size }))
    }

    fn follows(&self, first: &[u8], next: &[u8]) -> Option<Transport> {
        let transport = candidate(next)?;
        let len = transport.payload_len();
        let ip_header = if transport.version == ip::Version::V6 { 40 } else { 0 };
        let fits = !self.is_closed()
            && len <= usize::from(self.size.get())
            && self.end + len - transport.ip_at - ip_header <= IP_LEN_MAX;
        let same_shape = Transport { end: self.transport.end, ..transport } == self.transport;
        (fits && same_shape && self.counts_on(first, next) && self.is_same_flow(first, next))
            .then_some(transport)
    }

    /// Sequence number and identification are those that cutting would write.
    fn counts_on(&self, first: &[u8], next: &[u8]) -> bool {
        let at = self.transport.at + 4;
        let sequence = |frame: &[u8]| u32::from(be16(frame, at)) << 16 | u32::from(be16(frame, at + 2));
        let before = (self.end - self.transport.payload_at) as u32;
        let id_at = self.transport.ip_at + 4;
        let id = self.transport.version == ip::Version::V6
            || be16(next, id_at) == be16(first, id_at).wrapping_add(self.count as u16);
        id && sequence(next) == sequence(first).wrapping_add(before)
    }

    /// All other bytes of the headers are equal.
    fn is_same_flow(&self, first: &[u8], next: &[u8]) -> bool {
        let Transport { ip_at, at, payload_at, version, .. } = self.transport;
        let same = |from: usize, to: usize| first[from..to] == next[from..to];
        let ip = match version {
            // Between them: total length and identification, header checksum.
            ip::Version::V4 => same(0, ip_at + 2) && same(ip_at + 6, ip_at + 10) && same(ip_at + 12, at + 4),
            // Between them: payload length.
            ip::Version::V6 => same(0, ip_at + 4) && same(ip_at + 6, at + 4),
        };
        let flags = |frame: &[u8]| frame[at + TCP_FLAGS_AT] & !TCP_LAST_ONLY;
        // Between them: sequence number, flags, checksum.
        ip && same(at + 8, at + TCP_FLAGS_AT)
            && flags(first) == flags(next)
            && same(at + 14, at + 16)
            && same(at + 18, payload_at)
    }
}

/// A frame that may be part of a train: TCP with payload, flags that go together, a right IPv4 header, no padding.
fn candidate(frame: &[u8]) -> Option<Transport> {
    let transport = Transport::read(frame).ok()?;
    let flags = frame.get(transport.at + TCP_FLAGS_AT)?;
    let flags_fit = flags & (TCP_ALONE | TCP_FIRST_ONLY | TCP_ACK) == TCP_ACK;
    let header = &frame[transport.ip_at..transport.at];
    let right = transport.version == ip::Version::V6 || fold(sum(header)) == 0xffff;
    let whole = transport.payload_len() > 0 && transport.end == frame.len();
    (transport.tcp && flags_fit && right && whole).then_some(transport)
}

/// What the checksum is, if it is right or unfinished as it must be. Only one that claims to be finished is summed up.
fn known_good(frame: &[u8], transport: &Transport, csum: Csum) -> Option<Csum> {
    let pseudo = transport.pseudo(frame);
    let unfinished = transport.stored(frame) == pseudo;
    let right = || fold(sum(&frame[transport.at..transport.end]) + u64::from(pseudo)) == 0xffff;
    match csum {
        Csum::Partial { .. } if csum == transport.partial() && unfinished => Some(csum),
        Csum::Unknown if unfinished => Some(transport.partial()),
        Csum::Unknown | Csum::Complete if right() => Some(Csum::Complete),
        _ => None,
    }
}

#[cfg(not(loom))]
#[cfg(test)]
mod tests;
