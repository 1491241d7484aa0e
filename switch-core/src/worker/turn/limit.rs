//! How fast a port may be sent: held to by the worker that serves it, when it is about to send. Whoever the frames come
//! from and whatever worker switched them, they meet here.

use crate::config::rates::{Pace, Share};
use crate::config::snapshot::{PortFacts, PortId};
use crate::counter::DropReason;
use crate::frame::{Frame, Pool};
use crate::pipeline::{Now, Private};
use crate::wire::gso;

/// Takes out of the queue of `port` what is above its limit, but for the first `before`, which were let through
/// when they came and found no room with the port.
#[inline(never)]
pub(super) fn hold_to(
    pace: &Pace,
    (port, facts): (PortId, &PortFacts),
    before: usize,
    private: &mut Private,
    pool: &mut Pool,
    worker: u16,
    now: Now,
) {
    if pace.is_none() {
        return;
    }
    // Both are taken out for as long as frames are dropped; what is left in their place is no memory.
    let mut queue = std::mem::take(&mut private.queues[usize::from(port)]);
    let mut meters = std::mem::take(&mut private.meters);
    let mut meter = meters.tx(port, pace, Share::of(&facts.lanes, worker), now);
    let area = pool.area_shared();
    let is_above = |frame: &mut Frame| {
        let (segments, bytes) = gso::on_wire(area.bytes(frame), frame.offload.gso);
        !meter.admit(segments, bytes)
    };
    for frame in queue.sift(before, is_above) {
        private.drop(pool, port, DropReason::RateLimitedTx, frame);
    }
    private.meters = meters;
    private.queues[usize::from(port)] = queue;
}
