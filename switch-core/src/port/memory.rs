//! A port whose outside is a test: packets go in and out as byte vectors, with their offload if the test wants it. For tests and the simulator; a
//! packet that crosses it is allocated, so benches use [`super::traffic`].

use super::{At, Dropped, Port, Remains, Sent, Serviced};
use crate::counter::{Counters, DropReason};
use crate::frame::{Area, Batch, Offload, Pool, TxQueue};
use crate::wire::checksum::{self, Csum};
use crossbeam::queue::ArrayQueue;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

/// Packets each direction holds.
const CAPACITY: usize = 4096;

#[derive(Debug)]
struct Wire {
    inward: ArrayQueue<(Vec<u8>, Offload)>,
    outward: ArrayQueue<(Vec<u8>, Offload)>,
}

/// The switch's end.
#[derive(Debug)]
pub struct MemoryPort {
    wire: Arc<Wire>,
    /// Packets that no frame could hold, of which nobody was told yet.
    giants: u64,
}

/// The test's end.
#[derive(Clone, Debug)]
pub struct MemoryPeer(Arc<Wire>);

/// A wire's two ends.
pub fn wire() -> (MemoryPort, MemoryPeer) {
    let wire = Arc::new(Wire { inward: ArrayQueue::new(CAPACITY), outward: ArrayQueue::new(CAPACITY) });
    (MemoryPort { wire: wire.clone(), giants: 0 }, MemoryPeer(wire))
}

impl MemoryPeer {
    /// Sends a packet into the switch. False if the wire is full.
    #[must_use]
    pub fn send(&self, packet: Vec<u8>) -> bool {
        self.send_offload(packet, Offload::default())
    }

    /// Sends a packet that leaves work to whoever sends it on. False if the wire is full.
    #[must_use]
    pub fn send_offload(&self, packet: Vec<u8>, offload: Offload) -> bool {
        self.0.inward.push((packet, offload)).is_ok()
    }

    /// What the switch sent, oldest first, with its checksum finished.
    pub fn recv(&self) -> Option<Vec<u8>> {
        let (mut packet, offload) = self.recv_offload()?;
        if let Csum::Partial { start, field } = offload.csum {
            checksum::finish(&mut packet, start, field);
        }
        Some(packet)
    }

    /// What the switch sent, as it is, and what it left to do.
    pub fn recv_offload(&self) -> Option<(Vec<u8>, Offload)> {
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
            if pool.free() == 0 {
                return;
            }
            let Some((packet, offload)) = self.wire.inward.pop() else { return };
            // A packet no frame can hold is not let in, as a device drops what exceeds its buffers.
            let Some(mut frame) = pool.take_for(packet.len()) else {
                self.giants += 1;
                continue;
            };
            if pool.area().fill(&mut frame, &packet) {
                frame.offload = offload;
                batch.push(frame);
            } else {
                self.giants += 1;
                pool.give(frame);
            }
        }
    }

    fn send(&mut self, pool: &mut Pool, queue: &mut TxQueue) -> Sent {
        let room = CAPACITY - self.wire.outward.len().min(CAPACITY);
        let mut sent = Sent::default();
        for frame in queue.take(room) {
            let packet = pool.area().bytes(&frame).to_vec();
            sent.packets += 1;
            sent.bytes += packet.len() as u64;
            // The room was checked and this is the only sender.
            _ = self.wire.outward.push((packet, frame.offload));
            pool.give(frame);
        }
        sent
    }

    fn service(&mut self, _: &mut Pool, _: bool, _: &Counters) -> Serviced {
        let frames = std::mem::take(&mut self.giants);
        let giants = Dropped { frames, reason: DropReason::Giant, at: At::Outside };
        Serviced { dropped: (frames > 0).then_some(giants), ..Serviced::WELL }
    }

    fn wait_on(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn may_sleep(&self) -> bool {
        self.wire.inward.is_empty()
    }

    fn held(&self) -> usize {
        0
    }

    fn close(self: Box<Self>, _: &Area) -> Remains {
        Remains::default()
    }
}
