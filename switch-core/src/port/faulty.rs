//! Wraps a port and makes trouble with what arrives: loses, repeats, corrupts and delays frames, as its
//! seed says. The same seed makes the same trouble.

use super::{Port, Remains, Sent, Serviced};
use crate::counter::Counters;
use crate::frame::{Area, BATCH_FRAMES, Batch, Frame, Pool, TxQueue};
use std::collections::VecDeque;
use std::os::fd::BorrowedFd;

/// Frames held back at one time; more would be a second queue, not a delay.
const DELAYED_MAX: usize = 16;

/// How often, in parts of 1 000.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// The frame never arrives.
    pub lose: u16,
    /// It arrives twice.
    pub repeat: u16,
    /// One of its bits is another.
    pub corrupt: u16,
    /// It arrives later, behind frames that came after it.
    pub delay: u16,
}

/// See the module.
#[derive(Debug)]
pub struct Faulty {
    inner: Box<dyn Port>,
    faults: Faults,
    state: u64,
    /// What the inner port gave that found no room in a batch yet, with the repeated ones before it.
    arrived: VecDeque<Frame>,
    delayed: VecDeque<Frame>,
}

impl Faulty {
    /// Makes `faults` with what arrives by `inner`.
    pub fn new(inner: Box<dyn Port>, faults: Faults, seed: u64) -> Self {
        let (arrived, delayed) =
            (VecDeque::with_capacity(BATCH_FRAMES), VecDeque::with_capacity(DELAYED_MAX));
        Self { inner, faults, state: seed | 1, arrived, delayed }
    }

    fn draw(&mut self, below: u64) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state.wrapping_mul(0x2545_f491_4f6c_dd1d) % below
    }

    fn happens(&mut self, per_mille: u16) -> bool {
        self.draw(1000) < u64::from(per_mille)
    }

    /// The batch has room for two: the frame, and its copy.
    fn pass(&mut self, mut frame: Frame, pool: &mut Pool, batch: &mut Batch) {
        if self.happens(self.faults.lose) {
            return pool.give(frame);
        }
        if self.happens(self.faults.corrupt) && frame.len() > 0 {
            let (at, bit) = (self.draw(frame.len() as u64) as usize, self.draw(8));
            pool.area().bytes_mut(&mut frame)[at] ^= 1 << bit;
        }
        if self.happens(self.faults.repeat)
            && let Some(mut copy) = pool.take()
        {
            if pool.area().fill(&mut copy, pool.area().bytes(&frame)) {
                copy.offload = frame.offload;
                batch.push(copy);
            } else {
                pool.give(copy);
            }
        }
        if self.happens(self.faults.delay) && self.delayed.len() < DELAYED_MAX {
            self.delayed.push_back(frame);
        } else {
            batch.push(frame);
        }
    }
}

impl Port for Faulty {
    fn recv(&mut self, pool: &mut Pool, batch: &mut Batch) {
        // Nothing is lost but what the seed says: what has no room waits, and meanwhile the inner port is not asked.
        if self.arrived.is_empty() {
            let mut arrived = Batch::new();
            self.inner.recv(pool, &mut arrived);
            self.arrived.extend(arrived.drain());
        }
        let late = self.delayed.len();
        while batch.room() >= 2
            && let Some(frame) = self.arrived.pop_front()
        {
            self.pass(frame, pool, batch);
        }
        for _ in 0..late.min(batch.room()) {
            if let Some(frame) = self.delayed.pop_front() {
                batch.push(frame);
            }
        }
    }

    fn has_more(&self) -> bool {
        !self.arrived.is_empty() || self.inner.has_more()
    }

    fn send(&mut self, pool: &mut Pool, queue: &mut TxQueue) -> Sent {
        self.inner.send(pool, queue)
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
        self.arrived.is_empty() && self.delayed.is_empty() && self.inner.may_sleep()
    }

    fn held(&self) -> usize {
        self.arrived.len() + self.delayed.len() + self.inner.held()
    }

    fn close(self: Box<Self>, area: &Area) -> Remains {
        let mut remains = self.inner.close(area);
        remains.frames.extend(self.arrived);
        remains.frames.extend(self.delayed);
        remains
    }
}
