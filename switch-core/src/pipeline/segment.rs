//! A superframe is cut up for a port that takes none: into fresh frames, in order, into the port's queue. Their
//! checksums stay unfinished; the port finishes them or leaves that to its device, as for every other frame.

use super::Private;
use crate::config::snapshot::PortId;
use crate::counter::DropReason;
use crate::frame::{Frame, Pool};
use crate::wire::gso::Segmenter;

/// Cuts `frame` up and enqueues its segments. What finds no frame or no room is counted, each segment as one:
/// the sender loses what it would have lost on a wire.
pub(super) fn enqueue(private: &mut Private, pool: &mut Pool, port: PortId, frame: Frame) {
    let area = pool.area_shared();
    let bytes = area.bytes(&frame);
    let segmenter = frame.offload.gso.map(|gso| Segmenter::new(bytes, frame.offload.csum, gso));
    let Some(Ok(segmenter)) = segmenter else {
        return private.drop(pool, port, DropReason::BadSuperframe, frame);
    };
    let count = segmenter.count();
    for n in 0..count {
        match write(pool, &segmenter, n) {
            Some(segment) => private.enqueue(pool, port, segment),
            None => private.count_lost(port, DropReason::NoSegmentFrame, bytes),
        }
    }
    private.replaced(pool, frame, count);
}

fn write(pool: &mut Pool, segmenter: &Segmenter, n: usize) -> Option<Frame> {
    let mut segment = pool.take()?;
    let area = pool.area();
    // `egress` has seen that a segment fits the port's MTU, and with it this frame.
    if !area.set_len(&mut segment, segmenter.len_of(n)) {
        pool.give(segment);
        return None;
    }
    segment.offload.csum = segmenter.partial();
    _ = segmenter.write(n, area.bytes_mut(&mut segment), false);
    Some(segment)
}
