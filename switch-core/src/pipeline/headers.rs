//! What rules are asked about: the packet as `track` knows it, or as it is read from its frame.

use super::View;
use super::flow::{Track, Tracked};
use super::note::Note;
use crate::acl::{FrameHead, Header, Part};
use crate::config::snapshot::PortFacts;
use crate::counter::DropReason;
use crate::wire::ethernet::{ARP, IPV4, IPV6, is_tag};
use crate::wire::hop::{self, Hop};
use crate::wire::ip::{self, ICMP, ICMPV6, SCTP, TCP, UDP, Version};
use crate::wire::packet::{Content, Packet};
use switch_api::Mac;

/// Neighbour discovery (RFC 4861 §4): router solicitation to redirect.
const NEIGHBOUR_DISCOVERY: std::ops::RangeInclusive<u8> = 133..=137;

/// Of a tag, the bits that are the VLAN (IEEE 802.1Q).
const VID_MASK: u16 = 0x0fff;

/// Where a TCP header has its flags (RFC 9293 §3.1).
const TCP_FLAGS_AT: usize = 13;

/// What is read of a frame.
pub(super) enum Read {
    /// Nobody is asked about it: ARP and neighbour discovery, without which nobody reaches anybody.
    Exempt,
    /// It is not IP: policies know nothing of it.
    NotIp,
    Packet(Header),
}

pub(super) fn read(view: &View, bytes: &[u8], note: &Note) -> Result<Read, DropReason> {
    let version = match note.ethertype() {
        ARP => return Ok(Read::Exempt),
        IPV4 => Version::V4,
        IPV6 => Version::V6,
        tag if is_tag(tag) => return Err(DropReason::PolicyOpaque),
        _ => return Ok(Read::NotIp),
    };
    let packet = bytes.get(note.payload_at()..).unwrap_or_default();
    let opaque = |_| DropReason::PolicyOpaque;
    let read = ip::parse(packet, version).map_err(opaque)?;
    let hop: Hop = hop::read(packet, version).map_err(opaque)?;
    let transport = packet.get(read.transport_at..read.end).unwrap_or_default();
    if read.protocol == ICMPV6 && is_neighbour_discovery(transport, &hop, read.later_fragment) {
        return Ok(Read::Exempt);
    }
    let (protocol, ends) = (read.protocol, [hop.src, hop.dst]);
    let head = transport.first_chunk::<4>().ok_or(DropReason::PolicyOpaque);
    let header = match protocol {
        // A later fragment has no ports: only rules that are about none are about it.
        _ if read.later_fragment => Header { ends: Some(ends), protocol, ..Header::NOT_IP },
        TCP | UDP | SCTP | ICMP | ICMPV6 => {
            let [a, b, c, d] = *head?;
            Header::new(ends, protocol, [u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])], [a, b])
        }
        _ => Header::new(ends, protocol, [0; 2], [0; 2]),
    };
    let flags = header.flags.and_then(|_| transport.get(TCP_FLAGS_AT).copied());
    let part = match read.fragment && (read.later_fragment || read.more) {
        false => Part::Whole,
        true if read.later_fragment => Part::Later,
        true => Part::First,
    };
    Ok(Read::Packet(Header { flags, part, frame: Some(frame_head(view, bytes, note)), ..header }))
}

/// Only from the link itself: a router would have taken one from the hop limit.
fn is_neighbour_discovery(transport: &[u8], hop: &Hop, later_fragment: bool) -> bool {
    hop.ttl == 255
        && !later_fragment
        && transport.first().is_some_and(|kind| NEIGHBOUR_DISCOVERY.contains(kind))
}

pub(super) fn not_ip(view: &View, bytes: &[u8], note: &Note) -> Header {
    Header { frame: Some(frame_head(view, bytes, note)), ..Header::NOT_IP }
}

/// What a packet says of its flow.
pub(super) fn plain_header(packet: &Packet) -> Header {
    Header::new([packet.src, packet.dst], packet.protocol, packet.ports, packet.icmp)
}

/// The packet as `track` read it; a later fragment has its first one's ports.
pub(super) fn header(view: &View, bytes: &[u8], note: &Note, track: &Track) -> Header {
    let packet = &track.packet;
    let header = plain_header(packet);
    let flags = match (track.tracked, packet.content) {
        (Tracked::Missing, Content::Tcp(tcp)) => Some(tcp.flags),
        (Tracked::Missing, _) => None,
        // Of a flow it is its first packet that is judged, whichever is at hand.
        _ => header.flags,
    };
    let part = match packet.fragment {
        None => Part::Whole,
        Some(_) if packet.content == Content::Later => Part::Later,
        Some(_) => Part::First,
    };
    Header { flags, part, frame: Some(frame_head(view, bytes, note)), ..header }
}

/// The packet that an answer answers. Of a routed one nobody knows any more in which frame it came: it is taken for one that came the way back by which
/// its answer goes ([`is_guess`]).
pub(super) fn answered(view: &View, bytes: &[u8], note: &Note, track: &Track) -> Header {
    let header = header(view, bytes, note, track).turned();
    if !note.routed {
        return header;
    }
    let vlan = view.snapshot.fids.get(usize::from(note.fid)).map_or(0, |fid| fid.vid);
    Header { frame: Some(FrameHead { macs: [note.dst, note.src()], vlan }), ..header }
}

/// Whether the rules that are asked about what an answer answers, from one port to another, may say something else of it once it is at hand itself: then
/// nothing is decided by the answer.
pub(super) fn is_guess(note: &Note, from: &PortFacts, to: &PortFacts) -> bool {
    note.routed && (from.acl.egress_frames || to.acl.ingress_frames)
}

/// Whether it is an ICMP error.
pub(super) fn is_error(track: &Track) -> bool {
    matches!(track.packet.content, Content::Error { .. })
}

/// The frame as it came in: a note has the MACs and the VLAN by which a routed one leaves.
pub(super) fn frame_head(view: &View, bytes: &[u8], note: &Note) -> FrameHead {
    let mac = |at: usize| {
        let mac = bytes.get(at..).and_then(|bytes| bytes.first_chunk::<6>());
        mac.map_or(0, |mac| Mac(*mac).to_u64())
    };
    let tag = if note.tagged { note.tci & VID_MASK } else { 0 };
    // A tag with no VLAN only has a priority.
    let vlan = if tag == 0 { view.facts.vlans.untagged.1 } else { tag };
    FrameHead { macs: [mac(6), mac(0)], vlan }
}
