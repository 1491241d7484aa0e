//! `parse`: the Ethernet header becomes words. Nothing later reads the frame's first bytes again.
//! A bridge carries what it does not understand, so only a header that is not there costs a frame.

use super::note::{Note, src_ethertype};
use super::verdict::Verdict;
use crate::counter::DropReason;
use crate::frame::{Area, Frame};
use crate::wire::ethernet::{self, GROUP_BIT};
use crate::wire::gso::{self, Gso};

#[inline]
pub(super) fn run(area: &Area, frames: &[Frame], notes: &mut [Note]) {
    for (frame, note) in frames.iter().zip(notes) {
        let bytes = area.bytes(frame);
        // The common frame first: no tag on it.
        *note = match ethernet::parse_plain(bytes) {
            Some((dst, src_ethertype)) => {
                let verdict = check_source(src_ethertype >> 16);
                Note { dst, src_ethertype, segments: 1, verdict, ..Note::default() }
            }
            None => with_care(bytes),
        };
        if let Some(gso) = frame.offload.gso {
            note.segments = segments(bytes, gso);
        }
    }
}

/// A frame with a tag, or none at all.
#[inline(never)]
fn with_care(bytes: &[u8]) -> Note {
    let Ok(header) = ethernet::parse(bytes) else {
        return Note { verdict: Verdict::Drop(DropReason::Runt), ..Note::default() };
    };
    Note {
        dst: header.dst,
        src_ethertype: src_ethertype(header.src, header.ethertype),
        tci: header.tci.unwrap_or(0),
        tagged: header.tci.is_some(),
        segments: 1,
        verdict: check_source(header.src),
        ..Note::default()
    }
}

/// Superframes are few, and stand for many.
#[cold]
#[inline(never)]
fn segments(bytes: &[u8], gso: Gso) -> u16 {
    gso::segments(bytes, gso) as u16
}

#[inline(always)]
fn check_source(src: u64) -> Verdict {
    if src & GROUP_BIT == 0 && src != 0 { Verdict::Undecided } else { no_station(src) }
}

#[cold]
fn no_station(src: u64) -> Verdict {
    Verdict::Drop(if src == 0 { DropReason::SourceZero } else { DropReason::SourceGroup })
}
