//! `parse`: the Ethernet header becomes words. Nothing later reads the frame's first bytes again.
//! A bridge carries what it does not understand, so only a header that is not there costs a frame.

use super::note::{Gist, Note, src_ethertype};
use super::verdict::Verdict;
use crate::counter::DropReason;
use crate::frame::{Area, Frame};
use crate::wire::ethernet::{self, GROUP_BIT};
use crate::wire::gso::{self, Gso};

#[inline]
pub(super) fn run(area: &Area, frames: &[Frame], notes: &mut [Note]) -> Gist {
    let (mut is_plain, mut destinations) = (true, 0);
    for (frame, note) in frames.iter().zip(notes) {
        let bytes = area.bytes(frame);
        // The common frame first: no tag on it. Written where it belongs: by way of the stack it would be copied field by field.
        if let Some((dst, src_ethertype)) = ethernet::parse_plain(bytes) {
            *note = Note { dst, src_ethertype, segments: 1, ..Note::default() };
            destinations |= dst;
            if !is_station(src_ethertype >> 16) {
                is_plain = false;
                note.verdict = no_station(src_ethertype >> 16);
            }
        } else {
            is_plain = false;
            with_care(bytes, note);
        }
        if let Some(gso) = frame.offload.gso {
            note.segments = segments(bytes, gso);
        }
    }
    Gist { is_plain, has_groups: destinations & GROUP_BIT != 0 }
}

/// A frame with a tag, or none at all.
#[inline(never)]
fn with_care(bytes: &[u8], note: &mut Note) {
    let Ok(header) = ethernet::parse(bytes) else {
        *note = Note { verdict: Verdict::Drop(DropReason::Runt), ..Note::default() };
        return;
    };
    *note = Note {
        dst: header.dst,
        src_ethertype: src_ethertype(header.src, header.ethertype),
        tci: header.tci.unwrap_or(0),
        tagged: header.tci.is_some(),
        segments: 1,
        verdict: if is_station(header.src) { Verdict::Undecided } else { no_station(header.src) },
        ..Note::default()
    };
}

/// Superframes are few, and stand for many.
#[cold]
#[inline(never)]
fn segments(bytes: &[u8], gso: Gso) -> u16 {
    gso::segments(bytes, gso) as u16
}

/// Whether frames may come from `src`.
#[inline(always)]
fn is_station(src: u64) -> bool {
    src & GROUP_BIT == 0 && src != 0
}

#[cold]
fn no_station(src: u64) -> Verdict {
    Verdict::Drop(if src == 0 { DropReason::SourceZero } else { DropReason::SourceGroup })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::AreaSize;

    const STATION: [u8; 6] = [2, 0, 0, 0, 0, 1];

    /// One frame that is anything but ordinary is enough, wherever in the batch.
    #[test]
    fn what_is_so_of_a_batch_is_so_of_each_of_its_frames() {
        let frame = |dst: [u8; 6], src: [u8; 6], tail: &[u8]| [&dst[..], &src, tail].concat();
        let ip = [8, 0, 0x45];
        let ordinary = frame(STATION, STATION, &ip);
        for (odd, is_plain, has_groups) in [
            (ordinary.clone(), true, false),
            (frame([1, 0, 0x5e, 0, 0, 1], STATION, &ip), true, true),
            (frame(STATION, STATION, &[0x81, 0, 0, 7, 8, 0]), false, false),
            (frame(STATION, [0; 6], &ip), false, false),
            (frame(STATION, [3; 6], &ip), false, false),
            (vec![2; 13], false, false),
        ] {
            for at in 0..3 {
                let (area, mut frames) =
                    Area::new(AreaSize { chunk_bytes: 2048, chunks: 3, large: 0 }).unwrap();
                for (n, frame) in frames.iter_mut().enumerate() {
                    assert!(area.fill(frame, if n == at { &odd } else { &ordinary }));
                }
                let mut notes = [Note::default(); 3];
                let gist = run(&area, &frames, &mut notes);
                assert_eq!(gist, Gist { is_plain, has_groups }, "{odd:x?} at {at}");
                let are_plain = notes.iter().all(|note| note.is_undecided() && !note.tagged);
                assert_eq!(gist.is_plain, are_plain, "{odd:x?} at {at}");
            }
        }
    }
}
