//! `egress`: what the way out asks for, once for every copy: the VLAN tag the port wants, its MTU.

use super::View;
use super::note::Note;
use super::verdict::Verdict;
use crate::config::snapshot::PortFacts;
use crate::counter::DropReason;
use crate::frame::{Area, Frame};
use crate::wire::ethernet::{self, HEADER_LEN, TAG_LEN};

/// Prepares the frames that have one destination. Flooded copies are prepared when they are made.
#[inline]
pub(super) fn run(view: &View, area: &Area, frames: &mut [Frame], notes: &mut [Note]) {
    let mut last = None;
    for (frame, note) in frames.iter_mut().zip(notes) {
        let Verdict::Port(port) = note.verdict else { continue };
        // Neighbours mostly go the same way: the port is looked up when it changes.
        let to = match last {
            Some((same, to)) if same == port => to,
            _ => match view.snapshot.port(port) {
                Some(to) => to,
                None => continue,
            },
        };
        last = Some((port, to));
        if let Err(reason) = prepare(area, frame, note, to, view) {
            note.verdict = Verdict::Drop(reason);
        }
    }
}

/// Makes `frame` fit to leave by `to`.
#[inline(always)]
pub(super) fn prepare(
    area: &Area,
    frame: &mut Frame,
    note: &Note,
    to: &PortFacts,
    view: &View,
) -> Result<(), DropReason> {
    // The common frame first: no tag on it and none wanted.
    if note.tagged || to.vlans.untagged.0 != note.fid {
        retag(area, frame, note, to, view)?;
    }
    let tag = if to.vlans.untagged.0 == note.fid { 0 } else { TAG_LEN };
    if frame.len() - HEADER_LEN - tag > usize::from(to.mtu) {
        return Err(DropReason::MtuExceeded);
    }
    Ok(())
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
