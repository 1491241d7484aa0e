//! Which packets of a batch are to be routed, and where each of them goes. What is odd about a frame is looked at in calls of its own:
//! inlined, it would cost the others registers.

use super::super::note::Note;
use super::super::verdict::Verdict;
use super::super::{Private, View, binding, hear};
use super::head::{Header, header, header_with_care};
use super::{Ask, Asks, bars, go, leads};
use crate::config::gateway::{Gateway, is_link_local};
use crate::counter::DropReason;
use crate::frame::{Area, BATCH_FRAMES, Frame};
use crate::wire::ethernet::{ARP, GROUP_BIT, IPV6};

/// How many packets went where others of their destination went lately, and how many are left, whose way is looked for: they are in `asks`
/// then. What becomes of the others that are the switch's is decided. Unless `AT_ONCE` none goes anywhere yet: something else is asked
/// first.
#[inline(never)]
pub(super) fn collect<const AT_ONCE: bool>(
    view: &View,
    area: &Area,
    frames: &[Frame],
    notes: &mut [Note],
    asks: &mut Asks,
    private: &mut Private,
) -> (usize, usize) {
    let (mut count, mut has_others, mut gone) = (0, false, 0);
    let bars = bars(view);
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
        let is_odd = is_odd | frame.offload.gso.is_some();
        let ask = Ask { dst, len, vrf: gateway.vrf, set, index: index as u8, is_odd };
        if AT_ONCE
            && let Some(way) = ways.find(set, gateway.vrf, dst, view.now_s).map(|number| ways.way(number))
            && leads(way, &ask, bars)
        {
            go(way, area, frames, notes, &ask, private);
            gone += 1;
            continue;
        }
        if !AT_ONCE && !routes_first {
            ways.touch(set);
        }
        asks[count % BATCH_FRAMES] = ask;
        count += 1;
    }
    if view.facts.translated {
        lead(view, &mut asks[..count.min(BATCH_FRAMES)], private);
    }
    if has_others {
        pass_by(view, area, frames, notes, private);
    }
    (gone, count)
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
