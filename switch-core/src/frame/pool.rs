//! A worker's free frames. Every frame has a home pool; another worker that ends up with it sends it
//! home in batches, so that one-way traffic between workers does not drain the sender.
//!
//! The pool also keeps its worker's ledger. A worker holds what it started with, plus what it took in,
//! less what it gave out: `free + in_rings + in_flight == home + taken_in - given_out`. The worker
//! asserts it after every turn in debug builds ([`Pool::balance`]).

use super::{Area, Frame};
use arrayvec::ArrayVec;
use crossbeam::queue::ArrayQueue;
use std::sync::Arc;

/// Frames that travel home together. Half a batch: one queue operation for 32 frames.
pub const RETURN_FRAMES: usize = 32;
/// Return batches a pool can be owed at one time. Beyond it the sender keeps them and tries again: a
/// delay, never a loss.
const RETURN_QUEUE_BATCHES: usize = 256;

type Returns = ArrayVec<Frame, RETURN_FRAMES>;

/// See the module.
#[derive(Debug)]
pub struct Pool {
    area: Arc<Area>,
    id: usize,
    free: Vec<Frame>,
    large: Vec<Frame>,
    /// Chunks a pool: `chunk / share` is the home.
    share: u32,
    /// The first chunk that is at home here.
    first: u32,
    /// The same of large chunks as `share`.
    share_large: u32,
    home: i64,
    taken_in: i64,
    given_out: i64,
    outgoing: Box<[Returns]>,
    arrivals: Arc<[ArrayQueue<Returns>]>,
}

impl Pool {
    /// Deals the frames of a fresh area out to `pools` pools, evenly by chunk number.
    pub fn deal(area: Arc<Area>, frames: Vec<Frame>, pools: usize) -> Vec<Self> {
        let pools = pools.max(1);
        let size = area.size();
        let share = size.chunks.div_ceil(pools as u32);
        let share_large = size.large.div_ceil(pools as u32).max(1);
        let arrivals: Arc<[_]> = (0..pools).map(|_| ArrayQueue::new(RETURN_QUEUE_BATCHES)).collect();
        let make = |id| Self {
            area: area.clone(),
            id,
            // Room for every frame there is: whatever happens, freeing one does not allocate.
            free: Vec::with_capacity(size.chunks as usize),
            large: Vec::with_capacity(size.large as usize),
            share,
            first: id as u32 * share,
            share_large,
            home: 0,
            taken_in: 0,
            given_out: 0,
            outgoing: (0..pools).map(|_| Returns::new()).collect(),
            arrivals: arrivals.clone(),
        };
        let mut dealt: Vec<Self> = (0..pools).map(make).collect();
        for frame in frames {
            let home = dealt[0].home_of(&frame);
            dealt[home].keep(frame);
            dealt[home].home += 1;
        }
        dealt
    }

    /// The memory.
    #[inline(always)]
    pub fn area(&self) -> &Area {
        &self.area
    }

    /// The memory, to keep.
    pub fn area_shared(&self) -> Arc<Area> {
        self.area.clone()
    }

    /// A free frame, emptied; none if the pool has run dry.
    #[inline(always)]
    pub fn take(&mut self) -> Option<Frame> {
        let mut frame = self.free.pop()?;
        self.area.reset(&mut frame);
        Some(frame)
    }

    /// A free large frame, emptied; none if all are in use.
    pub fn take_large(&mut self) -> Option<Frame> {
        let mut frame = self.large.pop()?;
        self.area.reset(&mut frame);
        Some(frame)
    }

    /// A free frame in which a packet of `len` bytes fits, emptied.
    pub fn take_for(&mut self, len: usize) -> Option<Frame> {
        if len <= self.area.packet_len_max() { self.take() } else { self.take_large() }
    }

    #[inline(always)]
    fn home_of(&self, frame: &Frame) -> usize {
        let share = if frame.is_large() { self.share_large } else { self.share };
        (frame.chunk / share) as usize
    }

    #[inline(always)]
    fn keep(&mut self, frame: Frame) {
        if frame.is_large() { self.large.push(frame) } else { self.free.push(frame) }
    }

    /// Gives a frame back: into this pool, or onto its way home.
    #[inline(always)]
    pub fn give(&mut self, frame: Frame) {
        // Whether it is from here takes no division, which would be dearer than all the rest.
        let is_own = !frame.is_large() && frame.chunk.wrapping_sub(self.first) < self.share;
        if is_own { self.free.push(frame) } else { self.give_further(frame) }
    }

    fn give_further(&mut self, frame: Frame) {
        let home = self.home_of(&frame);
        if home == self.id { self.keep(frame) } else { self.send_home(home, frame) }
    }

    #[cold]
    fn send_home(&mut self, home: usize, frame: Frame) {
        if self.outgoing[home].is_full() {
            self.flush_to(home);
        }
        match self.outgoing[home].try_push(frame) {
            Ok(()) => {}
            // Its home is owed too much at the moment: the frame serves here until it passes by again.
            Err(full) => self.keep(full.element()),
        }
    }

    fn flush_to(&mut self, home: usize) {
        let batch = std::mem::take(&mut self.outgoing[home]);
        let frames = batch.len() as i64;
        match self.arrivals[home].push(batch) {
            Ok(()) => self.given_out += frames,
            Err(batch) => self.outgoing[home] = batch,
        }
    }

    /// Sends started batches home and takes in what arrived. Called once a turn.
    pub fn service(&mut self) {
        for home in 0..self.outgoing.len() {
            if !self.outgoing[home].is_empty() {
                self.flush_to(home);
            }
        }
        while let Some(batch) = self.arrivals[self.id].pop() {
            self.taken_in += batch.len() as i64;
            batch.into_iter().for_each(|frame| self.keep(frame));
        }
    }

    /// Whether frames wait to be taken in: a worker does not sleep on them.
    pub fn has_arrivals(&self) -> bool {
        !self.arrivals[self.id].is_empty()
    }

    /// Notes `frames` that left for another worker's inbox.
    pub fn note_given(&mut self, frames: usize) {
        self.given_out += frames as i64;
    }

    /// Notes `frames` that came from another worker's inbox.
    pub fn note_taken(&mut self, frames: usize) {
        self.taken_in += frames as i64;
    }

    /// Frames ready to be taken, without large ones.
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// Large frames ready to be taken.
    pub fn free_large(&self) -> usize {
        self.large.len()
    }

    /// Frames that are on their way home but not sent yet.
    pub fn leaving(&self) -> usize {
        self.outgoing.iter().map(|batch| batch.len()).sum()
    }

    /// Frames this worker holds by its books.
    pub fn expected(&self) -> i64 {
        self.home + self.taken_in - self.given_out
    }

    /// Books against reality: 0, or the number of frames that are too many (positive) or lost.
    pub fn balance(&self, in_rings: usize, queued: usize) -> i64 {
        (self.free.len() + self.large.len() + self.leaving() + in_rings + queued) as i64 - self.expected()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::AreaSize;

    fn pools(n: usize) -> Vec<Pool> {
        let (area, frames) = Area::new(AreaSize { chunk_bytes: 2048, chunks: 100, large: 6 }).unwrap();
        Pool::deal(Arc::new(area), frames, n)
    }

    #[test]
    fn frames_that_crossed_over_come_home() {
        let mut pools = pools(2);
        let [a, b] = &mut pools[..] else { unreachable!() };
        // One-way traffic: everything a takes ends at b, ten times a's size.
        for _ in 0..500 {
            let frame = a.take().expect("one-way traffic drained the sender");
            a.note_given(1);
            b.note_taken(1);
            b.give(frame);
            b.service();
            a.service();
            assert_eq!((a.balance(0, 0), b.balance(0, 0)), (0, 0));
        }
        assert_eq!((a.free(), b.free()), (50, 50));
    }

    #[test]
    fn large_frames_cross_over_and_come_home_too() {
        let mut pools = pools(2);
        let [a, b] = &mut pools[..] else { unreachable!() };
        assert_eq!((a.free_large(), b.free_large()), (3, 3));
        let (small, large) = (a.take_for(1792).unwrap(), a.take_for(1793).unwrap());
        assert_eq!((small.is_large(), large.is_large()), (false, true));
        a.note_given(2);
        b.note_taken(2);
        b.give(small);
        b.give(large);
        b.service();
        a.service();
        assert_eq!((a.free(), a.free_large(), b.free(), b.free_large()), (50, 3, 50, 3));
        assert_eq!((a.balance(0, 0), b.balance(0, 0)), (0, 0));
        assert!(
            (0..3).all(|_| a.take_large().map(|frame| b.give(frame)).is_some()) && a.take_large().is_none()
        );
    }

    #[test]
    fn an_owed_queue_that_is_full_loses_nothing() {
        let (area, frames) = Area::new(AreaSize { chunk_bytes: 2048, chunks: 20_000, large: 0 }).unwrap();
        let mut pools = Pool::deal(Arc::new(area), frames, 2);
        let [a, b] = &mut pools[..] else { unreachable!() };
        let mut crossed = 0;
        while let Some(frame) = a.take() {
            crossed += 1;
            b.give(frame);
        }
        a.note_given(crossed);
        b.note_taken(crossed);
        assert_eq!(b.balance(0, 0), 0);
        for _ in 0..3 {
            a.service();
            b.service();
        }
        assert_eq!((a.balance(0, 0), b.balance(0, 0)), (0, 0));
    }
}
