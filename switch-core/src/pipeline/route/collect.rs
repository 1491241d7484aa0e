//! Which packets of a batch are to be routed, and where each of them goes. What is odd about a frame is looked at in calls of its own:
//! inlined, it would cost the others registers.

use super::super::note::Note;
use super::super::verdict::Verdict;
use super::super::{Private, View, binding, hear};
use super::head::{Header, header, header_with_care};
use super::{Ask, Asks};
use crate::config::gateway::{Gateway, is_link_local};
use crate::counter::DropReason;
use crate::frame::{Area, BATCH_FRAMES, Frame};
use crate::wire::ethernet::{ARP, GROUP_BIT, IPV6};

/// The packets whose way is looked for: so many are in `asks` then. What becomes of the others that are the switch's is decided.
#[inline(never)]
pub(super) fn collect(
    view: &View,
    area: &Area,
    frames: &[Frame],
    notes: &mut [Note],
    asks: &mut Asks,
    private: &mut Private,
) -> usize {
    let (mut count, mut has_others) = (0, false);
    let mut here = Here { fid: 0, gateway: None, source: u64::MAX };
    let ways = &private.ways;
    let routes_first = ways.are_routes_first();
    // By one number for all of them: a pair of iterators has three.
    let frames = &frames[..notes.len()];
    for index in 0..frames.len() {
        let (frame, note) = (&frames[index], &mut notes[index]);
        if !note.is_undecided() {
            continue;
        }
        if note.fid != here.fid {
            here = Here { fid: note.fid, gateway: view.snapshot.gateway(note.fid), source: u64::MAX };
        }
        let Some(gateway) = here.gateway else { continue };
        let is_ours = note.src() == gateway.mac;
        if (note.dst != gateway.mac) | is_ours {
            // Most of what is not to be routed is the bridge's, and of no concern here.
            has_others |= is_other(note, is_ours);
            continue;
        }
        let bytes = area.bytes(frame);
        let Header { dst, len, is_odd } = match header(bytes, note, gateway, &mut here.source) {
            Some(read) => read,
            None => match header_with_care(bytes, note, gateway) {
                Ok(read) => read,
                Err(verdict) => {
                    note.verdict = verdict;
                    continue;
                }
            },
        };
        let set = ways.set(gateway.vrf, dst);
        if !routes_first {
            ways.touch(set);
        }
        let is_odd = is_odd | frame.offload.gso.is_some();
        asks[count % BATCH_FRAMES] = Ask { dst, len, vrf: gateway.vrf, set, index: index as u8, is_odd };
        count += 1;
    }
    if view.facts.translated {
        lead(view, &mut asks[..count.min(BATCH_FRAMES)], private);
    }
    if has_others {
        pass_by(view, area, frames, notes, private);
    }
    count
}

/// What is translated is looked for where it really goes.
#[inline(never)]
fn lead(view: &View, asks: &mut [Ask], private: &Private) {
    for ask in asks {
        if let Some(real) = binding::real(view, private, usize::from(ask.index)) {
            (ask.dst, ask.is_odd) = (real, ask.is_odd | is_link_local(real));
            ask.set = private.ways.set(ask.vrf, real);
            private.ways.touch(ask.set);
        }
    }
}

/// A packet that is not to be routed and is no matter of the bridge alone.
#[inline(always)]
fn is_other(note: &Note, is_ours: bool) -> bool {
    is_ours | (note.dst & GROUP_BIT != 0)
}

/// Nobody sends as the switch does; of what is sent to groups it hears some.
#[cold]
#[inline(never)]
fn pass_by(view: &View, area: &Area, frames: &[Frame], notes: &mut [Note], private: &mut Private) {
    for (frame, note) in frames.iter().zip(notes).filter(|(_, note)| note.is_undecided()) {
        let Some(gateway) = view.snapshot.gateway(note.fid) else { continue };
        let is_ours = note.src() == gateway.mac;
        if is_ours {
            note.verdict = Verdict::Drop(DropReason::SourceOurs);
        } else if is_other(note, is_ours)
            && (!gateway.is_kernels || !gateway.stands_for.is_empty())
            && matches!(note.ethertype(), ARP | IPV6)
        {
            note.verdict = hear::group(view, area.bytes(frame), note, gateway, private);
        }
    }
}

/// Where the packets of a batch come in: neighbours mostly come in by one bridge, and from one source.
struct Here<'a> {
    fid: u16,
    gateway: Option<&'a Gateway>,
    /// An IPv4 source that may be one here; more than 32 bits: none was seen yet.
    source: u64,
}
