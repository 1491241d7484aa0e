//! `tunnel`: what is addressed to an end of a tunnel is taken out of what it came in, and what leaves by a tunnel is put into what
//! it goes in (RFC 7348). Whoever comes out is no frame of this batch any more: it comes in once more, by the tunnel's port. Who goes in is
//! a packet of the switch's own that is to be routed outside. Only known ends are listened to, and nobody who came in pieces.

use super::View;
use super::next_hop::flow_hash;
use super::note::{Note, src_ethertype};
use super::verdict::{Verdict, Why};
use crate::config::gateway::{Gateway, is_v4};
use crate::config::tunnels::{OUTSIDE_MAC, Tunnel};
use crate::counter::DropReason;
use crate::frame::{Area, Frame};
use crate::wire::checksum::{self, Csum};
use crate::wire::ethernet::{HEADER_LEN, IPV4, IPV6};
use crate::wire::ip::Version;
use crate::wire::{hop, vxlan};

/// Takes out what is for ends of tunnels: what is left of such a frame is the one inside, and its note says the tunnel's bridge and
/// VLAN. It is set aside, for it enters the list once more.
#[inline(never)]
pub(super) fn run(view: &View, area: &Area, frames: &mut [Frame], notes: &mut [Note]) {
    for (frame, note) in frames.iter_mut().zip(notes) {
        if !note.is_undecided() {
            continue;
        }
        let Some(gateway) = view.snapshot.gateway(note.fid).filter(|gateway| gateway.mac == note.dst) else {
            continue;
        };
        note.verdict = match find(view, area.bytes(frame), note, gateway) {
            None => continue,
            Some(Err(reason)) => Verdict::Drop(reason),
            Some(Ok(found)) => match take_off(area, frame, found) {
                Err(reason) => Verdict::Drop(reason),
                Ok(()) => {
                    note.fid = found.fid;
                    Verdict::Aside(Why::Tunnel)
                }
            },
        };
    }
}

/// The frame in a packet.
#[derive(Clone, Copy)]
struct Found {
    /// Bridge and VLAN of its tunnel.
    fid: u16,
    /// Where it begins and ends, from the outer frame's first byte.
    frame: (usize, usize),
    /// DSCP and ECN outside.
    tos: u8,
}

/// What is in a packet, if it is for an end of a tunnel; an error is what becomes of one that may not come in.
fn find(view: &View, bytes: &[u8], note: &Note, gateway: &Gateway) -> Option<Result<Found, DropReason>> {
    let version = match note.ethertype() {
        IPV4 => Version::V4,
        IPV6 => Version::V6,
        _ => return None,
    };
    let packet = bytes.get(note.payload_at()..)?;
    let dst = vxlan::destination(packet, version)?;
    let mut here = view.snapshot.tunnels.iter().filter(|tunnel| tunnel.local == dst && tunnel.at == note.fid);
    // Nearly everything is for somebody else.
    here.clone().next()?;
    let udp = vxlan::read_udp(packet, version)?;
    let Some(port) = udp.port else {
        // Of a later fragment nobody knows the port; from a far end it is a tunnel's.
        return here.any(|tunnel| tunnel.knows(udp.src)).then_some(Err(DropReason::TunnelFragment));
    };
    let mut here = here.filter(|tunnel| tunnel.udp_port == port);
    here.clone().next()?;
    if udp.is_fragment {
        return Some(Err(DropReason::TunnelFragment));
    }
    let (start, end) = udp.payload;
    let Some((vni, at)) = vxlan::read(&packet[start..end]) else {
        return Some(Err(DropReason::TunnelHeader));
    };
    let Some(tunnel) = here.find(|tunnel| tunnel.vni == vni) else {
        // The kernel may have such a network at the same address of its own.
        return (!gateway.is_kernels).then_some(Err(DropReason::TunnelVni));
    };
    if !tunnel.knows(udp.src) {
        return Some(Err(DropReason::TunnelStranger));
    }
    let frame = (note.payload_at() + start + at, note.payload_at() + end);
    Some(Ok(Found { fid: tunnel.fid, frame, tos: udp.tos }))
}

/// Takes off what is in front of the frame inside, and behind it.
fn take_off(area: &Area, frame: &mut Frame, found: Found) -> Result<(), DropReason> {
    let (start, end) = found.frame;
    // Trains of packets are told by the outer headers alone.
    let is_whole = frame.offload.gso.is_none() && area.set_len(frame, end);
    if !is_whole || !frame.pop_front(start as u16) {
        return Err(DropReason::TunnelHeader);
    }
    let Some((_, packet)) = area.bytes_mut(frame).split_at_mut_checked(HEADER_LEN) else {
        return Err(DropReason::TunnelHeader);
    };
    let tos = vxlan::tos(packet);
    let Some(ecn) = vxlan::ecn_out(tos, found.tos) else { return Err(DropReason::TunnelEcn) };
    // Only where there is a header to write it into.
    if ecn != tos & 3 && packet.len() >= 20 {
        vxlan::set_ecn(packet, ecn);
    }
    Ok(())
}

/// Puts a frame that leaves by a tunnel into a packet to the end that its station is behind. What is known of the latter, for `route`.
pub(super) fn put_in(tunnel: &Tunnel, area: &Area, frame: &mut Frame) -> Result<Note, DropReason> {
    let bytes = area.bytes(frame);
    let station = bytes.first_chunk().map_or(0, |head| u64::from_be_bytes(*head) >> 16);
    let dst = tunnel.remote(station).ok_or(DropReason::TunnelStation)?;
    let packet = bytes.get(HEADER_LEN..).unwrap_or_default();
    let (tos, src_port) = (vxlan::tos(packet), vxlan::source_port(hash_of(packet)));
    // Nobody can finish it behind the headers that come in front.
    let unfinished = match frame.offload.csum {
        Csum::Unknown => checksum::state(bytes),
        known => known,
    };
    if let Csum::Partial { start, field } = unfinished {
        checksum::finish(area.bytes_mut(frame), start, field);
    }
    let v4 = is_v4(dst);
    if !frame.push_front(vxlan::overhead(v4) as u16) {
        return Err(DropReason::NoHeadroom);
    }
    let (src, dst_port, vni) = (tunnel.local, tunnel.udp_port, tunnel.vni);
    let outer = vxlan::Outer { src, dst, src_port, dst_port, tos, vni };
    frame.offload.csum = vxlan::write(area.bytes_mut(frame), &outer);
    let src_ethertype = src_ethertype(0, if v4 { IPV4 } else { IPV6 });
    Ok(Note { dst: OUTSIDE_MAC, src_ethertype, fid: tunnel.outside, segments: 1, ..Note::default() })
}

/// The same for all packets of a flow; of what is no IP packet, 0.
fn hash_of(packet: &[u8]) -> u32 {
    let version = match packet.first().map_or(0, |first| first >> 4) {
        4 => Version::V4,
        6 => Version::V6,
        _ => return 0,
    };
    hop::read(packet, version).map_or(0, |hop| flow_hash(packet, &hop))
}
