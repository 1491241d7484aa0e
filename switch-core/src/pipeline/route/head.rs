//! What `route` reads of a packet to the switch's MAC, and which packets no router takes.

use super::super::note::Note;
use super::super::verdict::{Verdict, Why};
use crate::config::gateway::{Gateway, is_link_local};
use crate::counter::DropReason;
use crate::wire::Malformed;
use crate::wire::ethernet::{ARP, IPV4, IPV6};
use crate::wire::hop::{self, Hop, V4_MAPPED};
use crate::wire::ip::Version;

/// What is asked of each header.
pub(super) struct Header {
    /// Destination.
    pub dst: u128,
    /// Bytes of the packet.
    pub len: u32,
    /// See [`super::Ask`].
    pub is_odd: bool,
}

/// Reads what most packets are; none: it is for [`header_with_care`]. `source` is one that may be a source here: often the next packet's as
/// well.
#[inline(always)]
pub(super) fn header(bytes: &[u8], note: &Note, gateway: &Gateway, source: &mut u64) -> Option<Header> {
    if note.ethertype() != IPV4 {
        return None;
    }
    let plain = hop::read_plain(bytes.get(note.payload_at()..)?)?;
    let is_source = u64::from(plain.src) == *source || is_source_v4(plain.src, gateway);
    if !is_ordinary_v4(plain.dst) | !is_source {
        return None;
    }
    *source = u64::from(plain.src);
    let dst = V4_MAPPED | u128::from(plain.dst);
    Some(Header { dst, len: u32::from(plain.len), is_odd: plain.ttl <= 1 })
}

/// The same of any packet; an error is what becomes of one that is not routed.
#[inline(never)]
pub(super) fn header_with_care(bytes: &[u8], note: &Note, gateway: &Gateway) -> Result<Header, Verdict> {
    let hop = read(bytes, note, gateway)?;
    let is_odd = (hop.ttl <= 1) | is_link_local(hop.src) | is_link_local(hop.dst);
    Ok(Header { dst: hop.dst, len: hop.len as u32, is_odd })
}

/// Reads a packet to the switch's MAC; an error is what becomes of one that is not routed.
#[inline]
pub(super) fn read(bytes: &[u8], note: &Note, gateway: &Gateway) -> Result<Hop, Verdict> {
    let version = match note.ethertype() {
        IPV4 => Version::V4,
        IPV6 => Version::V6,
        ARP => return Err(Verdict::Aside(Why::Host)),
        _ => return Err(Verdict::Drop(DropReason::NotRouted)),
    };
    let packet = bytes.get(note.payload_at()..).unwrap_or_default();
    let hop = hop::read(packet, version).map_err(malformed)?;
    check(&hop, packet, gateway)?;
    Ok(hop)
}

#[cold]
fn malformed(reason: Malformed) -> Verdict {
    Verdict::Drop(match reason {
        Malformed::Checksum => DropReason::IpChecksum,
        _ => DropReason::IpHeader,
    })
}

/// Not of 0/8, of 127/8 or of everything from 224/4 up.
#[inline(always)]
fn is_ordinary_v4(ip: u32) -> bool {
    ((ip >> 24).wrapping_sub(1) < 223) & (ip >> 24 != 127)
}

/// Whether packets may come from `ip`.
#[inline]
fn is_source_v4(ip: u32, gateway: &Gateway) -> bool {
    is_ordinary_v4(ip) && !gateway.owns(V4_MAPPED | u128::from(ip))
}

/// Addresses that no packet over a router may have (RFC 1812 §5.3.7, RFC 4291 §2).
#[inline]
fn check(hop: &Hop, packet: &[u8], gateway: &Gateway) -> Result<(), Verdict> {
    let (source, destination) = match hop.version {
        Version::V4 => (is_ordinary_v4(hop.src as u32), is_ordinary_v4(hop.dst as u32)),
        // :: and ::1, groups, IPv4-mapped.
        Version::V6 => {
            let ordinary = |ip: u128| ip > 1 && ip >> 120 != 0xff && ip >> 32 != 0xffff;
            let reachable = !is_link_local(hop.dst) || hop.dst == gateway.link_local;
            (ordinary(hop.src), ordinary(hop.dst) && reachable)
        }
    };
    if !source || gateway.owns(hop.src) {
        return Err(Verdict::Drop(DropReason::MartianSource));
    }
    if !destination {
        return Err(Verdict::Drop(DropReason::MartianDestination));
    }
    if hop.is_v4() && hop.header_len > 20 && hop::has_source_route(&packet[..hop.header_len]) {
        return Err(Verdict::Drop(DropReason::SourceRoute));
    }
    Ok(())
}
