//! A memory port whose packets come in with little room in front, as a device may put them that was asked for none. For tests.

use super::memory::MemoryPort;
use super::{Port, Remains, Sent, Serviced};
use crate::counter::Counters;
use crate::frame::{Area, Batch, Pool, TxQueue};
use std::os::fd::BorrowedFd;

/// See the module.
#[derive(Debug)]
pub struct Cramped {
    /// What does all else.
    pub port: MemoryPort,
    /// Bytes in front of each packet.
    pub room: u16,
}

impl Port for Cramped {
    fn recv(&mut self, pool: &mut Pool, batch: &mut Batch) {
        self.port.recv(pool, batch);
        for frame in batch.iter_mut() {
            let packet = pool.area().bytes(frame).to_vec();
            let too_much = frame.headroom() - self.room;
            assert!(frame.push_front(too_much) && pool.area().set_len(frame, packet.len()));
            pool.area().bytes_mut(frame).copy_from_slice(&packet);
        }
    }

    fn send(&mut self, pool: &mut Pool, queue: &mut TxQueue) -> Sent {
        self.port.send(pool, queue)
    }

    fn service(&mut self, pool: &mut Pool, busy: bool, counters: &Counters) -> Serviced {
        self.port.service(pool, busy, counters)
    }

    fn wait_on(&self) -> Option<BorrowedFd<'_>> {
        self.port.wait_on()
    }

    fn held(&self) -> usize {
        self.port.held()
    }

    fn close(self: Box<Self>, area: &Area) -> Remains {
        Box::new(self.port).close(area)
    }
}
