//! `guard`: what a port may send at all. Gives each frame its filtering identifier, or drops it: port
//! closed, loop behind it, VLAN it is no member of, addresses that are not its own ([`source`]), faster than it may
//! ([`rate`]).

mod rate;
mod source;

use super::note::{Gist, Note};
use super::probe::{self, LoopWatch};
use super::verdict::Verdict;
use super::{Private, View};
use crate::config::snapshot::Vlans;
use crate::counter::{DropReason, Event};
use crate::frame::{Area, Frame};
use crate::wire::ethernet::GROUP_BIT;

#[inline]
pub(super) fn run(
    view: &View,
    area: &Area,
    frames: &[Frame],
    notes: &mut [Note],
    gist: Gist,
    private: &mut Private,
) {
    if !view.facts.open {
        return drop_all(notes, DropReason::PortClosed);
    }
    if gist.has_groups | !gist.is_plain {
        watch_for_probes(view, area, frames, notes, private);
    }
    if view.tables.loops.is_blocked(view.in_port, view.now_s) {
        return drop_all(notes, DropReason::LoopBlocked);
    }
    let untagged = view.facts.vlans.untagged.0;
    // The common batch first: no tags, and the port takes such frames.
    match gist.is_plain && untagged != 0 {
        true => notes.iter_mut().for_each(|note| note.fid = untagged),
        false => admit_vlans(&view.facts.vlans, notes),
    }
    if let Some(guard) = &view.facts.source_guard {
        source::run(guard, area, frames, notes);
    }
    if let Some(rates) = &view.facts.rates {
        rate::run(&rates.rx, view, area, frames, notes, private);
    }
}

#[inline(never)]
fn admit_vlans(vlans: &Vlans, notes: &mut [Note]) {
    for note in notes.iter_mut().filter(|note| note.is_undecided()) {
        match admit_vlan(vlans, note) {
            Ok(fid) => note.fid = fid,
            Err(reason) => note.verdict = Verdict::Drop(reason),
        }
    }
}

/// The identifier of a tagged frame, or of one that the port takes only with a tag.
pub(super) fn admit_vlan(vlans: &Vlans, note: &Note) -> Result<u16, DropReason> {
    let vid = note.tci & 0xfff;
    // A priority tag (VID 0) says nothing about the VLAN (IEEE 802.1Q §6.9.1).
    if !note.tagged || vid == 0 {
        return match vlans.untagged.0 {
            0 => Err(DropReason::VlanUntagged),
            fid => Ok(fid),
        };
    }
    match vlans.tagged.as_ref().map(|map| map[usize::from(vid)]) {
        None => Err(DropReason::VlanTagged),
        Some(0) => Err(DropReason::VlanNotMember),
        Some(fid) => Ok(fid),
    }
}

// A batch without frames to groups has none.
const _: () = assert!(probe::DESTINATION & GROUP_BIT != 0);

/// One of our own probes came back: whatever is behind this port leads back to us. Of the two ends of a loop one is
/// blocked, so that what is between them is still reached by the other.
fn watch_for_probes(view: &View, area: &Area, frames: &[Frame], notes: &mut [Note], private: &mut Private) {
    let ours = |note: &Note| private.loop_watch.is_probe(note.dst, note.src(), note.ethertype());
    for (note, frame) in notes.iter_mut().zip(frames).filter(|(note, _)| ours(note)) {
        note.verdict = Verdict::Drop(DropReason::LoopProbe);
        // Who forges the number spares only itself, as if it had sent nothing back.
        let payload = area.bytes(frame).get(note.payload_at()..).unwrap_or_default();
        let ports = view.snapshot.ports.len();
        let other_end = LoopWatch::left_by(payload).filter(|port| usize::from(*port) < ports);
        if view.tables.loops.found(view.in_port, other_end.unwrap_or(view.in_port), view.now_s) {
            private.counters.event(Event::LoopFound).add(1);
        }
    }
}

#[cold]
fn drop_all(notes: &mut [Note], reason: DropReason) {
    for note in notes.iter_mut().filter(|note| note.is_undecided()) {
        note.verdict = Verdict::Drop(reason);
    }
}
