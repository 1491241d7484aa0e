//! What comes in by one port leaves by another in the memory that it came in: nothing is copied on its way, also to another worker's lane.
//! Of a flooded frame the copies are one fewer than its ways out.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic where it stands")]

use crate::counter::Counters;
use crate::frame::{Area, Batch, Pool, TxQueue};
use crate::pipeline::Now;
use crate::port::memory::{self, MemoryPeer, MemoryPort};
use crate::port::{Port, Remains, Sent, Serviced};
use crate::rig::{Rig, Size};
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex};
use switch_api::PortSettings;

const NOW: Now = Now { ns: 5_000_000_000 };

/// Chunks of frames that came in by a port, and of those that left.
type Seen = Arc<Mutex<(Vec<u32>, Vec<u32>)>>;

/// A memory port that notes in which chunk each frame is.
#[derive(Debug)]
struct Noting(MemoryPort, Seen);

impl Port for Noting {
    fn recv(&mut self, pool: &mut Pool, batch: &mut Batch) {
        let before = batch.len();
        self.0.recv(pool, batch);
        self.1.lock().unwrap().0.extend(batch[before..].iter().map(|frame| frame.chunk()));
    }
    fn send(&mut self, pool: &mut Pool, queue: &mut TxQueue) -> Sent {
        self.1.lock().unwrap().1.extend(queue.iter().map(|frame| frame.chunk()));
        self.0.send(pool, queue)
    }
    fn service(&mut self, pool: &mut Pool, busy: bool, counters: &Counters) -> Serviced {
        self.0.service(pool, busy, counters)
    }
    fn wait_on(&self) -> Option<BorrowedFd<'_>> {
        None
    }
    fn held(&self) -> usize {
        self.0.held()
    }
    fn close(self: Box<Self>, area: &Area) -> Remains {
        Box::new(self.0).close(area)
    }
}

fn port(rig: &mut Rig, n: usize, worker: u16) -> (MemoryPeer, Seen) {
    let ((port, peer), seen) = (memory::wire(), Seen::default());
    let port = Box::new(Noting(port, seen.clone()));
    rig.add_port(&format!("p{n}"), PortSettings::default(), port, worker).unwrap();
    (peer, seen)
}

fn frame(to: u8, from: u8, n: u8) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, to, 2, 0, 0, 0, 0, from, 0x88, 0xb6, n];
    frame.resize(60, n);
    frame
}

#[test]
fn what_comes_in_leaves_in_the_same_chunk_by_whomever() {
    let mut rig = Rig::new(Size { workers: 2, ..Size::default() });
    // The third port is another worker's.
    let ports = [(0, 0), (1, 0), (2, 1)].map(|(n, worker)| port(&mut rig, n, worker));
    let take = |n: usize| std::mem::take(&mut *ports[n].1.lock().unwrap());
    // Every station is heard once; what is for nobody known goes two ways, one of which has the original.
    for n in 0..3u8 {
        assert!(ports[usize::from(n)].0.send(frame(9, n, 0)));
        rig.settle(NOW);
        let all = [0, 1, 2].map(&take);
        let came = all[usize::from(n)].0[0];
        let left: Vec<u32> = all.iter().flat_map(|seen| seen.1.clone()).collect();
        assert_eq!((left.len(), left.iter().filter(|chunk| **chunk == came).count()), (2, 1), "{all:?}");
    }
    for to in [1, 2u8] {
        for n in 0..100 {
            assert!(ports[0].0.send(frame(to, 0, n)));
        }
        rig.settle(NOW);
        let (came, left) = (take(0).0, take(usize::from(to)).1);
        assert_eq!((came.len(), &came), (100, &left), "to port {to}");
    }
    rig.assert_conserved();
}
