//! How fast a port may send. What another check of the guard drops is not counted: it goes nowhere.

use super::super::note::Note;
use super::super::verdict::Verdict;
use super::super::{Private, View};
use crate::config::rates::{Pace, Share};
use crate::counter::DropReason;
use crate::frame::{Area, Frame};
use crate::wire::gso;

#[inline(never)]
pub(super) fn run(
    pace: &Pace,
    view: &View,
    area: &Area,
    frames: &[Frame],
    notes: &mut [Note],
    private: &mut Private,
) {
    if pace.is_none() {
        return;
    }
    let lanes = &view.facts.lanes;
    let share = match lanes.get(usize::from(private.in_queue)) {
        Some(worker) => Share::of(lanes, *worker),
        None => Share::WHOLE,
    };
    let mut meter = private.meters.rx(view.in_port, pace, share, view.now);
    let undecided = frames.iter().zip(notes).filter(|(_, note)| note.is_undecided());
    for (frame, note) in undecided {
        let (segments, bytes) = gso::on_wire(area.bytes(frame), frame.offload.gso);
        if !meter.admit(segments, bytes) {
            note.verdict = Verdict::Drop(DropReason::RateLimitedRx);
        }
    }
}
