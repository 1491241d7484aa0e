//! A port for tests of what is waited on: a memory port with a descriptor that is readable while there is something in a pipe.

use crate::counter::Counters;
use crate::frame::{Area, Batch, Pool, TxQueue};
use crate::port::memory::MemoryPort;
use crate::port::{Port, Remains, Sent, Serviced};
use std::io::PipeReader;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// See the module.
#[derive(Debug)]
pub struct Piped {
    /// Its frames.
    pub inner: MemoryPort,
    /// What is readable.
    pub pipe: PipeReader,
    /// How often it was hurried.
    pub hurried: Arc<AtomicUsize>,
    /// It is asked by a call.
    pub by_call: bool,
}

impl Port for Piped {
    fn recv(&mut self, pool: &mut Pool, batch: &mut Batch) {
        self.inner.recv(pool, batch);
    }
    fn send(&mut self, pool: &mut Pool, queue: &mut TxQueue) -> Sent {
        self.inner.send(pool, queue)
    }
    fn service(&mut self, pool: &mut Pool, busy: bool, counters: &Counters) -> Serviced {
        self.inner.service(pool, busy, counters)
    }
    fn hurry(&mut self) {
        self.hurried.fetch_add(1, Ordering::Relaxed);
    }
    fn wait_on(&self) -> Option<BorrowedFd<'_>> {
        Some(self.pipe.as_fd())
    }
    fn is_asked_by_call(&self) -> bool {
        self.by_call
    }
    fn held(&self) -> usize {
        self.inner.held()
    }
    fn close(self: Box<Self>, area: &Area) -> Remains {
        Box::new(self.inner).close(area)
    }
}
