//! Wraps a port and writes every frame that passes it, in either direction, into a capture: for tests and
//! for bug reports. Frames are written as they are, unfinished checksums too. Copies what it sends; file I/O may block, see
//! [`super::pcap`].

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

    fn has_more(&self) -> bool {
        self.inner.has_more()
    }

    fn send(&mut self, pool: &mut Pool, queue: &mut TxQueue) -> Sent {
        // What the inner port leaves in the queue has not passed: it would be written down with every attempt.
        let waiting: Vec<Vec<u8>> = queue.iter().map(|frame| pool.area().bytes(frame).to_vec()).collect();
        let sent = self.inner.send(pool, queue);
        for packet in &waiting[..waiting.len() - queue.len()] {
            self.capture.write(packet);
        }
        sent
    }

    fn service(&mut self, pool: &mut Pool, busy: bool, counters: &Counters) -> Serviced {
        self.inner.service(pool, busy, counters)
    }

    fn hurry(&mut self) {
        self.inner.hurry();
    }

    fn rested(&mut self) {
        self.inner.rested();
    }

    fn wait_on(&self) -> Option<BorrowedFd<'_>> {
        self.inner.wait_on()
    }

    fn is_asked_by_call(&self) -> bool {
        self.inner.is_asked_by_call()
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
