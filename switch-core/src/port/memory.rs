//! A port whose outside is a test: packets go in and out as byte vectors. For tests and the simulator; a
//! packet that crosses it is allocated, so benches use [`super::traffic`].

use super::{Port, Remains, Sent, Serviced};
use crate::counter::Counters;
use crate::frame::{Area, Batch, Pool, TxQueue};
use crate::wire::checksum::{self, Csum};
use crossbeam::queue::ArrayQueue;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

/// Packets each direction holds.
const CAPACITY: usize = 4096;

#[derive(Debug)]
struct Wire {
    inward: ArrayQueue<Vec<u8>>,
    outward: ArrayQueue<Vec<u8>>,
}

/// The switch's end.
#[derive(Debug)]
pub struct MemoryPort(Arc<Wire>);

/// The test's end.
#[derive(Clone, Debug)]
pub struct MemoryPeer(Arc<Wire>);

/// A wire's two ends.
pub fn wire() -> (MemoryPort, MemoryPeer) {
    let queue = || ArrayQueue::new(CAPACITY);
    let wire = Arc::new(Wire { inward: queue(), outward: queue() });
    (MemoryPort(wire.clone()), MemoryPeer(wire))
}

impl MemoryPeer {
    /// Sends a packet into the switch. False if the wire is full.
    #[must_use]
    pub fn send(&self, packet: Vec<u8>) -> bool {
        self.0.inward.push(packet).is_ok()
    }

    /// What the switch sent, oldest first.
    pub fn recv(&self) -> Option<Vec<u8>> {
        self.0.outward.pop()
    }

    /// Packets that wait for the switch.
    pub fn waiting(&self) -> usize {
        self.0.inward.len()
    }
}

impl Port for MemoryPort {
    fn recv(&mut self, pool: &mut Pool, batch: &mut Batch) {
        while !batch.is_full() {
            let Some(mut frame) = pool.take() else { return };
            let packet = self.0.inward.pop();
            match packet {
                // A packet no frame can hold is not let in, as a device drops what exceeds its buffers.
                Some(packet) if pool.area().fill(&mut frame, &packet) => batch.push(frame),
                Some(_) => pool.give(frame),
                None => return pool.give(frame),
            }
        }
    }

    fn send(&mut self, pool: &mut Pool, queue: &mut TxQueue) -> Sent {
        let room = CAPACITY - self.0.outward.len().min(CAPACITY);
        let mut sent = Sent::default();
        for frame in queue.take(room) {
            let mut packet = pool.area().bytes(&frame).to_vec();
            if let Csum::Partial { start, field } = frame.offload.csum {
                checksum::finish(&mut packet, start, field);
            }
            sent.packets += 1;
            sent.bytes += packet.len() as u64;
            // The room was checked and this is the only sender.
            _ = self.0.outward.push(packet);
            pool.give(frame);
        }
        sent
    }

    fn service(&mut self, _: &mut Pool, _: bool, _: &Counters) -> Serviced {
        Serviced::WELL
    }

    fn wait_on(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn may_sleep(&self) -> bool {
        self.0.inward.is_empty()
    }

    fn held(&self) -> usize {
        0
    }

    fn close(self: Box<Self>, _: &Area) -> Remains {
        Remains::default()
    }
}
