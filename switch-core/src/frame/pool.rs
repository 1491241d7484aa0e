//! A worker's free frames. Every frame has a home pool; another worker that ends up with it sends it
//! home in batches, so that one-way traffic between workers does not drain the sender.
//!
//! Free frames lie in one list a region of packet memory. One region is the *current* one, from which frames are
//! taken as long as it has some: with one region the others cost nothing. A region that is to be given back to
//! the kernel ([`Pool::empty`]) is taken from no more; its frames gather until all that are at home here are
//! there, and leave together ([`Pool::emptied`]).
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
    /// Of the current region.
    free: Vec<Frame>,
    /// Of the others; the current region's place is empty.
    others: Box<[Vec<Frame>]>,
    /// How many lie in `others`.
    others_free: usize,
    current: u16,
    emptying: Option<Emptying>,
    large: Vec<Frame>,
    /// Chunks of a region a pool: `chunk / share`, within its region, is the home.
    share: u32,
    /// Chunks of a region that are at home here: `share`, or less at its end.
    own: u32,
    /// The first chunk of the current region that is at home here.
    first: u32,
    /// The same of large chunks as `share`.
    share_large: u32,
    home: i64,
    taken_in: i64,
    given_out: i64,
    outgoing: Box<[Returns]>,
    arrivals: Arc<[ArrayQueue<Returns>]>,
}

/// A region on its way back to the kernel.
#[derive(Debug)]
struct Emptying {
    region: u16,
    /// Frames that are at home here.
    own: Vec<Frame>,
    /// Frames of others, which must go home: they could not yet.
    strangers: Vec<Frame>,
    handed_over: bool,
}

impl Pool {
    /// Deals the frames of an area that has its first region, or none, out to `pools` pools, evenly by chunk
    /// number.
    pub fn deal(area: Arc<Area>, frames: Vec<Frame>, pools: usize) -> Vec<Self> {
        let pools = pools.max(1);
        let size = area.size();
        let share = size.chunks.div_ceil(pools as u32);
        let share_large = size.large.div_ceil(pools as u32).max(1);
        let arrivals: Arc<[_]> = (0..pools).map(|_| ArrayQueue::new(RETURN_QUEUE_BATCHES)).collect();
        let regions = usize::from(area.regions_max());
        let make = |id| Self {
            area: area.clone(),
            id,
            // Room for every frame there is: whatever happens, freeing one does not allocate.
            free: Vec::with_capacity(size.chunks as usize),
            others: (0..regions).map(|_| Vec::new()).collect(),
            others_free: 0,
            current: 0,
            emptying: None,
            large: Vec::with_capacity(size.large as usize),
            share,
            own: share.min(size.chunks.saturating_sub(id as u32 * share)),
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

    /// The frames of a region that was mapped later, for each of `pools` pools: [`Pool::grow`].
    pub fn deal_region(area: &Area, frames: Vec<Frame>, pools: usize) -> Vec<Vec<Frame>> {
        let share = area.size().chunks.div_ceil(pools.max(1) as u32);
        let room = area.size().chunks as usize;
        let mut dealt: Vec<Vec<Frame>> = (0..pools.max(1)).map(|_| Vec::with_capacity(room)).collect();
        for frame in frames {
            dealt[(area.within_region(frame.chunk) / share) as usize].push(frame);
        }
        dealt
    }

    /// Takes in its part of a region that is new, or that was on its way back to the kernel and is wanted again.
    /// The list brings room for every frame of its region.
    pub fn grow(&mut self, region: u16, mut frames: Vec<Frame>) {
        self.home += frames.len() as i64;
        if let Some(mut gathered) = self.emptying.take_if(|emptying| emptying.region == region) {
            frames.append(&mut gathered.own);
            frames.append(&mut gathered.strangers);
        }
        if region == self.current {
            return self.free.append(&mut frames);
        }
        self.others_free += frames.len();
        let list = &mut self.others[usize::from(region)];
        if list.capacity() == 0 {
            *list = frames;
        } else {
            list.append(&mut frames);
        }
    }

    /// Takes no frame of `region` any more, and gathers those that come back. One region at a time, and never
    /// the only one. `room` is for every frame of it.
    pub fn empty(&mut self, region: u16, room: Vec<Frame>) {
        if region == self.current && !self.turn_to_fullest() {
            // Nothing is free elsewhere: any other region that this pool has a list for will do.
            let other = self.others.iter().position(|list| list.capacity() > 0);
            let Some(other) = other else { return };
            self.turn_to(other as u16);
        }
        let mut frames = std::mem::take(&mut self.others[usize::from(region)]);
        self.others_free -= frames.len();
        self.emptying = Some(Emptying { region, own: room, strangers: Vec::new(), handed_over: false });
        frames.drain(..).for_each(|frame| self.gather(frame));
        if let Some(emptying) = &mut self.emptying {
            // Its room serves once more.
            frames.append(&mut emptying.strangers);
            emptying.strangers = frames;
        }
    }

    /// The region that was to be emptied, and its frames, once all that are at home here are there; they are
    /// this pool's no longer. Called once a turn.
    #[inline(always)]
    pub fn emptied(&mut self) -> Option<(u16, Vec<Frame>)> {
        if self.emptying.is_none() { None } else { self.all_emptied() }
    }

    #[cold]
    fn all_emptied(&mut self) -> Option<(u16, Vec<Frame>)> {
        self.send_strangers_home();
        let emptying = self.emptying.as_mut().filter(|emptying| !emptying.handed_over)?;
        if emptying.own.len() < self.own as usize {
            return None;
        }
        emptying.handed_over = true;
        let frames = std::mem::take(&mut emptying.own);
        self.home -= frames.len() as i64;
        Some((emptying.region, frames))
    }

    /// Frames that served here because their home was owed too much must go there now.
    fn send_strangers_home(&mut self) {
        let strangers = self.emptying.as_ref().map_or(0, |emptying| emptying.strangers.len());
        for _ in 0..strangers {
            let Some(frame) = self.emptying.as_mut().and_then(|emptying| emptying.strangers.pop()) else {
                return;
            };
            self.send_home(self.home_of(&frame), frame);
        }
    }

    fn gather(&mut self, frame: Frame) {
        let is_own = self.home_of(&frame) == self.id;
        if let Some(emptying) = &mut self.emptying {
            if is_own { emptying.own.push(frame) } else { emptying.strangers.push(frame) }
        }
    }

    /// Makes the region that has most free frames the current one. False if none has any.
    fn turn_to_fullest(&mut self) -> bool {
        if self.others_free == 0 {
            return false;
        }
        let fullest = self.others.iter().enumerate().max_by_key(|(_, list)| list.len());
        let region = fullest.map_or(0, |(region, _)| region as u16);
        self.turn_to(region);
        true
    }

    fn turn_to(&mut self, region: u16) {
        let mut list = std::mem::take(&mut self.others[usize::from(region)]);
        self.others_free -= list.len();
        std::mem::swap(&mut list, &mut self.free);
        self.others_free += list.len();
        self.others[usize::from(self.current)] = list;
        self.current = region;
        self.first = self.area.first_of(region) + self.id as u32 * self.share;
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
        let mut frame = match self.free.pop() {
            Some(frame) => frame,
            None => self.take_elsewhere()?,
        };
        self.area.reset(&mut frame);
        Some(frame)
    }

    #[cold]
    fn take_elsewhere(&mut self) -> Option<Frame> {
        if self.turn_to_fullest() { self.free.pop() } else { None }
    }

    /// A free frame of one region, emptied: what a socket that has only this region registered can be given.
    #[inline(always)]
    pub fn take_of(&mut self, region: u16) -> Option<Frame> {
        let mut frame = if region == self.current {
            self.free.pop()?
        } else {
            let frame = self.others[usize::from(region)].pop()?;
            self.others_free -= 1;
            frame
        };
        self.area.reset(&mut frame);
        Some(frame)
    }

    /// Frames of one region ready to be taken.
    #[inline(always)]
    pub fn free_of(&self, region: u16) -> usize {
        if region == self.current { self.free.len() } else { self.others[usize::from(region)].len() }
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
        if frame.is_large() {
            return (frame.chunk / self.share_large) as usize;
        }
        (self.area.within_region(frame.chunk) / self.share) as usize
    }

    #[inline(always)]
    fn keep(&mut self, frame: Frame) {
        match self.area.region_of(&frame) {
            None => self.large.push(frame),
            Some(region) if region == self.current => self.free.push(frame),
            Some(region) => self.keep_elsewhere(region, frame),
        }
    }

    fn keep_elsewhere(&mut self, region: u16, frame: Frame) {
        if self.emptying.as_ref().is_some_and(|emptying| emptying.region == region) {
            return self.gather(frame);
        }
        self.others[usize::from(region)].push(frame);
        self.others_free += 1;
    }

    /// Gives a frame back: into this pool, or onto its way home.
    #[inline(always)]
    pub fn give(&mut self, frame: Frame) {
        // Whether it is from here takes no division, which would be dearer than all the rest.
        let is_own = !frame.is_large() && frame.chunk.wrapping_sub(self.first) < self.own;
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
    #[inline(always)]
    pub fn free(&self) -> usize {
        self.free.len() + self.others_free
    }

    /// Large frames ready to be taken.
    pub fn free_large(&self) -> usize {
        self.large.len()
    }

    /// Frames that are on their way home but not sent yet, or gather to leave with their region.
    pub fn leaving(&self) -> usize {
        let gathered =
            self.emptying.as_ref().map_or(0, |emptying| emptying.own.len() + emptying.strangers.len());
        self.outgoing.iter().map(|batch| batch.len()).sum::<usize>() + gathered
    }

    /// Frames this worker holds by its books.
    pub fn expected(&self) -> i64 {
        self.home + self.taken_in - self.given_out
    }

    /// Books against reality: 0, or the number of frames that are too many (positive) or lost.
    pub fn balance(&self, in_rings: usize, queued: usize) -> i64 {
        (self.free() + self.large.len() + self.leaving() + in_rings + queued) as i64 - self.expected()
    }
}

#[cfg(not(loom))]
#[cfg(test)]
mod tests;
