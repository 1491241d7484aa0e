//! `rewrite`: what a routed packet looks like on its next link: the next hop's address and the gateway's
//! own, one hop less to go. Where a bridge asks for it, what a TCP SYN offers as its largest segment fits.

use super::binding::{self, Turn};
use super::flow::{Track, Tracked};
use super::note::Note;
use super::verdict::Verdict;
use super::{Private, View};
use crate::config::gateway::NO_MTU;
use crate::counter::{DropReason, Event};
use crate::frame::{Area, Frame};
use crate::table::flow::key::End;
use crate::wire::ip::Version;
use crate::wire::nat::{self, Ends};
use crate::wire::{ethernet, hop, mss};

/// Bytes of a frame without a tag that has an IPv4 header without options.
const PLAIN_LEN: usize = ethernet::HEADER_LEN + 20;

#[inline]
pub(super) fn run(area: &Area, frames: &mut [Frame], notes: &[Note]) {
    for (frame, note) in frames.iter_mut().zip(notes) {
        if note.routed && matches!(note.verdict, Verdict::Port(_) | Verdict::Flood(_)) {
            // `route` read the packet's header: what is written here is there.
            let bytes = area.bytes_mut(frame);
            // The common packet first: every place in it is known.
            if !note.tagged
                && note.ethertype() == ethernet::IPV4
                && let Some(head) = bytes.first_chunk_mut::<PLAIN_LEN>()
            {
                let (ethernet, packet) = head.split_at_mut(ethernet::HEADER_LEN);
                if let Some(ethernet) = ethernet.first_chunk_mut() {
                    ethernet::write_plain(ethernet, note.dst, note.src_ethertype);
                }
                hop::step(packet, Version::V4);
            } else {
                with_care(bytes, note);
            }
        }
    }
}

#[inline(never)]
fn with_care(bytes: &mut [u8], note: &Note) {
    ethernet::set_addresses(bytes, note.dst, note.src());
    let version = if note.ethertype() == ethernet::IPV4 { Version::V4 } else { Version::V6 };
    hop::step(&mut bytes[note.payload_at()..], version);
}

/// Lowers what TCP offers as its largest segment to what both ways carry: the answer comes by the port that the SYN
/// leaves by, and leaves by the one that the SYN came from; and routes may allow less. A superframe is no SYN.
#[cold]
#[inline(never)]
pub(super) fn clamp(view: &View, area: &Area, frames: &mut [Frame], notes: &[Note], private: &Private) {
    for (index, (frame, note)) in frames.iter_mut().zip(notes).enumerate() {
        if !note.routed || frame.offload.gso.is_some() {
            continue;
        }
        let Some(out) = way_out(view, note).filter(|out| out.asked || view.facts.mss_clamp) else { continue };
        let version = if note.ethertype() == ethernet::IPV4 { Version::V4 } else { Version::V6 };
        let packet = &area.bytes(frame)[note.payload_at()..];
        if !mss::is_syn(packet, version) {
            continue;
        }
        let ports = view.facts.mtu.min(out.mtu);
        let real = binding::real(view, private, index);
        let limit = mss::of_mtu(ports.min(mtu_of_routes(view, note, packet, version, real)), version);
        let csum = frame.offload.csum;
        let clamped = mss::clamp(area.bytes_mut(frame), note.payload_at(), version, limit, csum);
        if let Some(csum) = clamped {
            frame.offload.csum = csum;
            private.counters.event(Event::MssClamped).add(1);
        }
    }
}

/// What the routes to and from a packet's ends allow, as they really are; all of a packet's ways are of one table.
fn mtu_of_routes(view: &View, note: &Note, packet: &[u8], version: Version, real: Option<u128>) -> u16 {
    let (Some(out), Ok(hop)) = (view.snapshot.gateway(note.fid), hop::read(packet, version)) else {
        return NO_MTU;
    };
    let mtu = |ip| view.snapshot.routing.find(out.vrf, ip).map_or(NO_MTU, |entry| entry.mtu);
    mtu(hop.src).min(mtu(real.unwrap_or(hop.dst)))
}

/// Writes the new ends of what is translated; of an ICMP error, into what it quotes as well.
#[inline(never)]
pub(super) fn turn(area: &Area, frames: &mut [Frame], notes: &mut [Note], private: &Private) {
    let of_each = private.flows.tracks.iter().zip(private.flows.turns.iter());
    for ((frame, note), (track, turn)) in frames.iter_mut().zip(notes).zip(of_each) {
        if !matches!(note.verdict, Verdict::Port(_) | Verdict::Flood(_)) {
            continue;
        }
        match turn {
            Turn::Stays | Turn::Begins { .. } => {}
            Turn::Plain(plain) => {
                let csum = frame.offload.csum;
                let bytes = area.bytes_mut(frame);
                frame.offload.csum = nat::translate_plain(bytes, note.payload_at(), plain, csum);
            }
            Turn::Bound { from, to } => turn_with_care(area, frame, note, track, [from, to]),
        }
    }
}

#[inline(never)]
fn turn_with_care(area: &Area, frame: &mut Frame, note: &mut Note, track: &Track, [from, to]: [&End; 2]) {
    let version = if note.ethertype() == ethernet::IPV4 { Version::V4 } else { Version::V6 };
    let (at, csum) = (note.payload_at(), frame.offload.csum);
    let bytes = area.bytes_mut(frame);
    let turned = match track.tracked {
        Tracked::Related(_) => {
            // It goes back to whoever sent what it quotes, which came as `to` and went to `from`. A router on the way
            // speaks for itself.
            let src = if track.packet.src == track.quoted_dst { from.ip } else { track.packet.src };
            let quoted = Ends { src: to.ip, dst: from.ip, ports: [to.port, from.port] };
            nat::translate_error(bytes, at, version, src, to.ip, &quoted).map(|()| csum)
        }
        _ => {
            let ends = Ends { src: from.ip, dst: to.ip, ports: [from.port, to.port] };
            nat::translate(bytes, at, version, &ends, csum)
        }
    };
    match turned {
        Ok(csum) => frame.offload.csum = csum,
        // `track` has read it.
        Err(_) => note.verdict = Verdict::Drop(DropReason::IpHeader),
    }
}

/// Where a packet leaves.
struct Out {
    mtu: u16,
    /// Its bridge asks for segments that fit.
    asked: bool,
}

/// The port, or of several that a copy goes to the narrowest; all are of one bridge.
fn way_out(view: &View, note: &Note) -> Option<Out> {
    let out = |port| view.snapshot.port(port).map(|to| Out { mtu: to.mtu, asked: to.mss_clamp });
    match note.verdict {
        Verdict::Port(port) => out(port),
        Verdict::Flood(_) => {
            let members = view.snapshot.fids.get(usize::from(note.fid))?.members.iter();
            members.filter_map(|member| out(member.port)).min_by_key(|out| out.mtu)
        }
        _ => None,
    }
}
