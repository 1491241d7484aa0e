//! `parse`: the Ethernet header becomes words. Nothing later reads the frame's first bytes again.
//! A bridge carries what it does not understand, so only a header that is not there costs a frame.

use super::note::{Note, src_ethertype};
use super::verdict::Verdict;
use crate::counter::DropReason;
use crate::frame::{Area, Frame};
use crate::wire::ethernet::{self, GROUP_BIT};
use crate::wire::gso;

#[inline]
pub(super) fn run(area: &Area, frames: &[Frame], notes: &mut [Note]) {
    for (frame, note) in frames.iter().zip(notes) {
        let Ok(header) = ethernet::parse(area.bytes(frame)) else {
            *note = Note { verdict: Verdict::Drop(DropReason::Runt), ..Note::default() };
            continue;
        };
        *note = Note {
            dst: header.dst,
            src_ethertype: src_ethertype(header.src, header.ethertype),
            tci: header.tci.unwrap_or(0),
            tagged: header.tci.is_some(),
            routed: false,
            fid: 0,
            dst_home: 0,
            segments: frame.offload.gso.map_or(1, |gso| gso::segments(area.bytes(frame), gso) as u16),
            verdict: check_source(header.src),
        };
    }
}

#[inline(always)]
fn check_source(src: u64) -> Verdict {
    if src & GROUP_BIT == 0 && src != 0 { Verdict::Undecided } else { no_station(src) }
}

#[cold]
fn no_station(src: u64) -> Verdict {
    Verdict::Drop(if src == 0 { DropReason::SourceZero } else { DropReason::SourceGroup })
}
