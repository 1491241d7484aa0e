//! `egress`: what the way out asks for, once for every copy: the VLAN tag the port wants, its MTU, and whether a
//! superframe has to be cut up for it. By a port with a loop behind it nothing leaves.

use super::View;
use super::note::Note;
use super::verdict::{Fit, Verdict};
use crate::config::snapshot::{PortFacts, PortId};
use crate::counter::DropReason;
use crate::frame::{Area, Frame};
use crate::wire::ethernet::{self, HEADER_LEN, TAG_LEN};
use crate::wire::gso;
use crate::wire::ip::{self, Version};

/// Prepares the frames that have one destination. Flooded copies are prepared when they are made. If all of them
/// leave by one port, and as they are, then by which: so it is with most batches.
#[inline(always)]
pub(super) fn run(view: &View, area: &Area, frames: &mut [Frame], notes: &mut [Note]) -> Option<PortId> {
    ready(view, frames, notes).or_else(|| prepare_all(view, area, frames, notes))
}

/// The port by which all leave, if there is nothing to be done for any of them.
#[inline(always)]
fn ready(view: &View, frames: &[Frame], notes: &[Note]) -> Option<PortId> {
    let Verdict::Port(port) = notes.first()?.verdict else { return None };
    let to = view.snapshot.port(port)?;
    let (untagged, frame_max) = (to.vlans.untagged.0, frame_max(to));
    let is_ready = |(note, frame): (&Note, &Frame)| {
        note.verdict == Verdict::Port(port) && is_ready(frame, note, untagged, frame_max)
    };
    let are_ready = notes.iter().zip(frames).all(is_ready);
    (are_ready && !view.tables.loops.is_blocked(port, view.now_s)).then_some(port)
}

/// Whether a frame may leave as it is: there is no tag on it and none wanted, it is short enough, and it is no superframe.
#[inline(always)]
fn is_ready(frame: &Frame, note: &Note, untagged: u16, frame_max: usize) -> bool {
    !note.tagged && note.fid == untagged && frame.len() <= frame_max && frame.offload.gso.is_none()
}

/// The longest frame without a tag that a port takes.
#[inline(always)]
fn frame_max(to: &PortFacts) -> usize {
    usize::from(to.mtu) + HEADER_LEN
}

#[inline(never)]
fn prepare_all(view: &View, area: &Area, frames: &mut [Frame], notes: &mut [Note]) -> Option<PortId> {
    if let Some(port) = one_way(notes)
        && let Some(to) = view.snapshot.port(port)
    {
        return prepare_run(area, frames, notes, (port, to), view).then_some(port);
    }
    each_way(view, area, frames, notes);
    None
}

fn one_way(notes: &[Note]) -> Option<PortId> {
    let Verdict::Port(port) = notes.first()?.verdict else { return None };
    notes.iter().all(|note| note.verdict == Verdict::Port(port)).then_some(port)
}

fn each_way(view: &View, area: &Area, frames: &mut [Frame], notes: &mut [Note]) {
    let mut frames = frames;
    // Neighbours mostly go the same way: what the port wants is looked up once for all of them.
    for notes in notes.chunk_by_mut(|one, next| one.verdict == next.verdict) {
        let (these, others) = frames.split_at_mut(notes.len());
        frames = others;
        if let Some(Note { verdict: Verdict::Port(port), .. }) = notes.first()
            && let Some(to) = view.snapshot.port(*port)
        {
            prepare_run(area, these, notes, (*port, to), view);
        }
    }
}

/// For neighbours that leave by one port. Whether all of them do so as they are.
#[inline(always)]
fn prepare_run(
    area: &Area,
    frames: &mut [Frame],
    notes: &mut [Note],
    (port, to): (PortId, &PortFacts),
    view: &View,
) -> bool {
    if view.tables.loops.is_blocked(port, view.now_s) {
        notes.iter_mut().for_each(|note| note.verdict = Verdict::Drop(DropReason::LoopBlocked));
        return false;
    }
    let mut all_whole = true;
    let (untagged, frame_max) = (to.vlans.untagged.0, frame_max(to));
    for (frame, note) in frames.iter_mut().zip(notes) {
        if is_ready(frame, note, untagged, frame_max) {
            continue;
        }
        let before = note.verdict;
        note.verdict = match (prepare(area, frame, note, to, view), note.verdict) {
            (Ok(Fit::Whole), verdict) => verdict,
            (Ok(Fit::InSegments), Verdict::Port(port)) => Verdict::Segments(port),
            // Only what goes out by a port is prepared.
            (Ok(Fit::InSegments), verdict) => verdict,
            (Err(reason), _) => Verdict::Drop(reason),
        };
        all_whole &= note.verdict == before;
    }
    all_whole
}

/// Makes `frame` fit to leave by `to`.
pub(super) fn prepare(
    area: &Area,
    frame: &mut Frame,
    note: &Note,
    to: &PortFacts,
    view: &View,
) -> Result<Fit, DropReason> {
    if note.tagged || to.vlans.untagged.0 != note.fid {
        retag(area, frame, note, to, view)?;
    }
    let tag = if to.vlans.untagged.0 == note.fid { 0 } else { TAG_LEN };
    if note.routed && frame.len() > HEADER_LEN + tag + usize::from(to.mtu) {
        trim(area, frame, HEADER_LEN + tag);
    }
    // On the wire are the segments, whoever cuts them: theirs is the length that counts.
    let len = frame.offload.gso.map_or(frame.len(), |gso| gso::longest(area.bytes(frame), gso));
    if len - HEADER_LEN - tag > usize::from(to.mtu) {
        return Err(DropReason::MtuExceeded);
    }
    Ok(if frame.offload.gso.is_some() && !to.gso { Fit::InSegments } else { Fit::Whole })
}

/// Takes away what follows a packet that was routed: it was the last link's (RFC 894), and a packet that fits is not too long
/// because of it.
#[cold]
fn trim(area: &Area, frame: &mut Frame, payload_at: usize) {
    if frame.offload.gso.is_some() {
        return;
    }
    let packet = area.bytes(frame).get(payload_at..).unwrap_or_default();
    let version = if packet.first().is_some_and(|byte| byte >> 4 == 4) { Version::V4 } else { Version::V6 };
    if let Ok(packet) = ip::parse(packet, version) {
        // Shorter than it is: there is room.
        _ = area.set_len(frame, payload_at + packet.end);
    }
}

fn retag(area: &Area, frame: &mut Frame, note: &Note, to: &PortFacts, view: &View) -> Result<(), DropReason> {
    if to.vlans.untagged.0 == note.fid {
        ethernet::pop_tag(area.bytes_mut(frame));
        return if frame.pop_front(TAG_LEN as u16) { Ok(()) } else { Err(DropReason::Runt) };
    }
    let vid = view.snapshot.fids.get(usize::from(note.fid)).map_or(0, |fid| fid.vid);
    let member = to.vlans.tagged.as_ref().is_some_and(|map| map[usize::from(vid)] == note.fid);
    if !member {
        return Err(DropReason::EgressVlan);
    }
    // PCP and DEI of the tag it came with live on; without one they are 0.
    let tci = note.tci & 0xf000 | vid;
    if note.tagged {
        area.bytes_mut(frame)[14..16].copy_from_slice(&tci.to_be_bytes());
    } else {
        if !frame.push_front(TAG_LEN as u16) {
            return Err(DropReason::NoHeadroom);
        }
        ethernet::push_tag(area.bytes_mut(frame), tci);
    }
    Ok(())
}
