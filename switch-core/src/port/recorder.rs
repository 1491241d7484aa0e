//! Wraps a port and writes every frame that passes it, in either direction, into a capture: for tests and
//! for bug reports. File I/O may block, see [`super::pcap`].

use super::pcap::Capture;
use super::{Port, Remains, Sent, Serviced};
use crate::counter::Counters;
use crate::frame::{Area, Batch, Pool, TxQueue};
use std::os::fd::BorrowedFd;

/// See the module.
#[derive(Debug)]
pub struct Recorder {
    inner: Box<dyn Port>,
    capture: Capture,
}

impl Recorder {
    /// Records what passes `inner`.
    pub fn new(inner: Box<dyn Port>, capture: Capture) -> Self {
        Self { inner, capture }
    }
}

impl Port for Recorder {
    fn recv(&mut self, pool: &mut Pool, batch: &mut Batch) {
        let before = batch.len();
        self.inner.recv(pool, batch);
        for frame in &batch[before..] {
            self.capture.write(pool.area().bytes(frame));
        }
    }

    fn send(&mut self, pool: &mut Pool, queue: &mut TxQueue) -> Sent {
        for frame in queue.iter() {
            self.capture.write(pool.area().bytes(frame));
        }
        self.inner.send(pool, queue)
    }

    fn service(&mut self, pool: &mut Pool, busy: bool, counters: &Counters) -> Serviced {
        self.inner.service(pool, busy, counters)
    }

    fn hurry(&mut self) {
        self.inner.hurry();
    }

    fn wait_on(&self) -> Option<BorrowedFd<'_>> {
        self.inner.wait_on()
    }

    fn may_sleep(&self) -> bool {
        self.inner.may_sleep()
    }

    fn held(&self) -> usize {
        self.inner.held()
    }

    fn close(self: Box<Self>, area: &Area) -> Remains {
        self.inner.close(area)
    }
}
