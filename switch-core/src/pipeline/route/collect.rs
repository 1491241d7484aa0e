//! Which packets of a batch are to be routed, and where each of them goes. What is odd about a frame is looked at in calls of its own:
//! inlined, it would cost the others registers.

use super::super::note::Note;
use super::super::verdict::Verdict;
use super::super::{Private, View, binding, hear};
use super::Ask;
use super::head::{Header, header, header_with_care};
use crate::config::gateway::{Gateway, is_link_local};
use crate::counter::DropReason;
use crate::frame::{Area, BATCH_FRAMES, Frame};
use crate::wire::ethernet::{ARP, GROUP_BIT, IPV6};
use arrayvec::ArrayVec;

/// The packets whose way is looked for. What becomes of the others that are the switch's is decided.
#[inline(never)]
pub(super) fn collect<'a>(
    view: &View<'a>,
    area: &Area,
    frames: &[Frame],
    notes: &mut [Note],
    asks: &mut ArrayVec<Ask<'a>, BATCH_FRAMES>,
    private: &mut Private,
) {
    let mut here = Here { fid: 0, gateway: None, source: u64::MAX };
    let routes_first = private.ways.are_routes_first();
    for (index, (frame, note)) in frames.iter().zip(notes.iter_mut()).enumerate().take(BATCH_FRAMES) {
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
            if is_ours | (note.dst & GROUP_BIT != 0) {
                pass_by(view, area, frame, note, gateway, private);
            }
            continue;
        }
        let bytes = area.bytes(frame);
        let read = match header(bytes, note, gateway, &mut here.source) {
            Some(read) => read,
            None => match header_with_care(bytes, note, gateway) {
                Ok(read) => read,
                Err(verdict) => {
                    note.verdict = verdict;
                    continue;
                }
            },
        };
        let Header { dst, len, is_odd } = match binding::real(view, private, index) {
            Some(real) => Header { dst: real, is_odd: read.is_odd | is_link_local(real), ..read },
            None => read,
        };
        let set = private.ways.set(gateway.vrf, dst);
        if !routes_first {
            private.ways.touch(set);
        }
        asks.push(Ask { dst, gateway, len, set, index: index as u8, is_odd });
    }
}

/// Nobody sends as the switch does; of what is sent to groups it hears some.
#[inline(never)]
fn pass_by(
    view: &View,
    area: &Area,
    frame: &Frame,
    note: &mut Note,
    gateway: &Gateway,
    private: &mut Private,
) {
    if note.src() == gateway.mac {
        note.verdict = Verdict::Drop(DropReason::SourceOurs);
    } else if (!gateway.is_kernels || !gateway.stands_for.is_empty())
        && matches!(note.ethertype(), ARP | IPV6)
    {
        note.verdict = hear::group(view, area.bytes(frame), note, gateway, private);
    }
}

/// Where the packets of a batch come in: neighbours mostly come in by one bridge, and from one source.
struct Here<'a> {
    fid: u16,
    gateway: Option<&'a Gateway>,
    /// An IPv4 source that may be one here; more than 32 bits: none was seen yet.
    source: u64,
}
