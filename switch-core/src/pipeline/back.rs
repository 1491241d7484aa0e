//! `back`: an answer to a flow that entered by a port which wants its flows' answers back goes to that port's station, whatever the
//! tables would say. The node's kernel is such a station: it has translated the destination of what it sent here, and who asked waits
//! for an answer from the address that it asked. Between two pods of one bridge the answer would not pass the kernel otherwise.
//!
//! A call after `track`, and a part of it to whoever looks on.

use super::flow::Tracked;
use super::note::Note;
use super::verdict::Verdict;
use super::{Private, View};
use crate::frame::{Area, Frame};
use crate::wire::ethernet::{self, GROUP_BIT};

#[inline]
pub(super) fn run(view: &View, area: &Area, frames: &mut [Frame], notes: &mut [Note], private: &Private) {
    for ((frame, note), track) in frames.iter_mut().zip(notes).zip(private.flows.tracks.iter()) {
        let (Tracked::Known(place) | Tracked::Related(place)) = track.tracked else { continue };
        let (port, origin) = view.tables.flows.began(place);
        if !note.is_undecided() || origin == track.side || port == view.in_port || note.dst & GROUP_BIT != 0 {
            continue;
        }
        let Some(to) = view.snapshot.port(port).filter(|to| to.open) else { continue };
        let Some(station) = to.returns else { continue };
        if to.isolated && view.facts.isolated {
            continue;
        }
        ethernet::set_addresses(area.bytes_mut(frame), station, note.src());
        (note.dst, note.fid, note.verdict) = (station, to.vlans.untagged.0, Verdict::Port(port));
    }
}
