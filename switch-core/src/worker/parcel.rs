//! Frames on their way to another worker. They are gathered by worker while a turn sends, whichever port they are to leave by: a flood to a hundred
//! ports is a few parcels, where a parcel for each port would fill the receiver's inbox.

use super::mail::Mail;
use crate::config::snapshot::PortId;
use crate::counter::DropReason;
use crate::frame::{Frame, Pool, TxQueue};
use crate::pipeline::{Now, Private};
use arrayvec::ArrayVec;

/// Frames that travel to another worker together.
const FRAMES: usize = 32;
const _: () = assert!(FRAMES <= u8::MAX as usize);

/// Frames for ports of the receiver.
#[derive(Debug, Default)]
pub struct Parcel {
    /// By which port how many of the frames are to leave.
    runs: ArrayVec<(PortId, u8), FRAMES>,
    /// In order.
    frames: ArrayVec<Frame, FRAMES>,
}

impl Parcel {
    /// How many frames it has.
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// As much of a queue as there is room for.
    fn pack(&mut self, port: PortId, queue: &mut TxQueue) {
        let count = queue.len().min(self.frames.remaining_capacity());
        if count > 0 {
            self.runs.push((port, count as u8));
            self.frames.extend(queue.take(count));
        }
    }

    /// Takes all frames out, those for one port together.
    pub fn unpack(self, mut each: impl FnMut(PortId, &mut dyn ExactSizeIterator<Item = Frame>)) {
        let Self { runs, mut frames } = self;
        for (port, count) in runs {
            each(port, &mut frames.drain(..usize::from(count)));
        }
    }
}

/// What a turn has for others.
#[derive(Debug)]
pub(super) struct Outgoing {
    /// By worker.
    parcels: Box<[Parcel]>,
    /// Workers that are to be woken.
    rings: Box<[bool]>,
    /// Whether there is anything.
    any: bool,
}

impl Outgoing {
    /// For so many workers.
    pub fn new(workers: usize) -> Self {
        let parcels = (0..workers).map(|_| Parcel::default()).collect();
        Self { parcels, rings: vec![false; workers].into(), any: false }
    }

    /// All of a port's queue, for a worker.
    pub fn pack(
        &mut self,
        worker: u16,
        mail: &[Mail],
        port: PortId,
        private: &mut Private,
        pool: &mut Pool,
        now: Now,
    ) {
        let worker = usize::from(worker);
        (self.any, self.rings[worker]) = (true, true);
        while !private.queues[usize::from(port)].is_empty() {
            let parcel = &mut self.parcels[worker];
            parcel.pack(port, &mut private.queues[usize::from(port)]);
            if parcel.frames.is_full() {
                post(std::mem::take(parcel), &mail[worker], private, pool);
                // It may open this one while the next is packed.
                mail[worker].waker.wake(|| now.ns);
            }
        }
    }

    /// All of it is on its way.
    #[inline]
    pub fn send(&mut self, mail: &[Mail], private: &mut Private, pool: &mut Pool, now: Now) {
        if std::mem::take(&mut self.any) {
            self.send_some(mail, private, pool, now);
        }
    }

    fn send_some(&mut self, mail: &[Mail], private: &mut Private, pool: &mut Pool, now: Now) {
        for ((parcel, rings), mail) in self.parcels.iter_mut().zip(&mut self.rings).zip(mail) {
            if !parcel.is_empty() {
                post(std::mem::take(parcel), mail, private, pool);
            }
            if std::mem::take(rings) {
                mail.waker.wake(|| now.ns);
            }
        }
    }
}

/// Into the worker's inbox. What has no room there is dropped.
fn post(parcel: Parcel, mail: &Mail, private: &mut Private, pool: &mut Pool) {
    let count = parcel.len();
    match mail.inbox.push(parcel) {
        Ok(()) => {
            pool.note_given(count);
            private.counters.ledger.handed_over.add(count as u64);
        }
        Err(parcel) => parcel.unpack(|port, frames| {
            frames.for_each(|frame| private.drop(pool, port, DropReason::InboxFull, frame));
        }),
    }
}
