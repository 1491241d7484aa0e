//! `rewrite`: what a routed packet looks like on its next link: the next hop's address and the gateway's
//! own, one hop less to go.

use super::note::Note;
use super::verdict::Verdict;
use crate::frame::{Area, Frame};
use crate::wire::ip::Version;
use crate::wire::{ethernet, hop};

#[inline]
pub(super) fn run(area: &Area, frames: &mut [Frame], notes: &[Note]) {
    for (frame, note) in frames.iter_mut().zip(notes) {
        if note.routed && matches!(note.verdict, Verdict::Port(_) | Verdict::Flood(_)) {
            // `route` read the packet's header: what is written here is there.
            let bytes = area.bytes_mut(frame);
            ethernet::set_addresses(bytes, note.dst, note.src());
            let version = if note.ethertype() == ethernet::IPV4 { Version::V4 } else { Version::V6 };
            hop::step(&mut bytes[note.payload_at()..], version);
        }
    }
}
