//! Taking in: of each lane whose turn it is a batch, through the pipeline and on its way.

use super::Turn;
use crate::config::snapshot::Snapshot;
use crate::counter::Laps;
use crate::counter::stage::SAMPLE_EVERY;
use crate::counter::{LOAD_SAMPLE_EVERY, NoLaps, Stage};
use crate::frame::BATCH_FRAMES;
use crate::pipeline::capture::Inbound;
use crate::pipeline::live::Following;
use crate::pipeline::{Now, World};
use crate::worker::laps::StopWatch;

impl Turn {
    /// One batch of each lane that is not to wait for others ([`super::share`]), each sent on before the next is taken in. How many
    /// frames, and whether a batch was full.
    pub(super) fn take_all_in(&mut self, snapshot: &Snapshot, now: Now) -> (usize, bool) {
        let (mut frames, mut is_full, mut waits) = (0, false, false);
        for lane in 0..self.lanes.len() {
            let account = &self.lanes[lane].account;
            if self.shares.is_ahead(account) {
                self.shares.waits(account);
                waits = true;
                continue;
            }
            let received = self.take_in_and_send(lane, snapshot, now);
            frames += received;
            is_full |= received == BATCH_FRAMES;
        }
        if waits && frames == 0 {
            (frames, is_full) = self.take_in_the_rest(snapshot, now);
        }
        self.shares.end_turn();
        // Of a lane that waits more is coming.
        (frames, is_full | waits)
    }

    /// Those for whom others waited had nothing.
    #[cold]
    fn take_in_the_rest(&mut self, snapshot: &Snapshot, now: Now) -> (usize, bool) {
        let (mut frames, mut is_full) = (0, false);
        for lane in 0..self.lanes.len() {
            if self.shares.is_ahead(&self.lanes[lane].account) {
                let received = self.take_in_and_send(lane, snapshot, now);
                frames += received;
                is_full |= received == BATCH_FRAMES;
            }
        }
        (frames, is_full)
    }

    pub(super) fn take_in_and_send(&mut self, lane: usize, snapshot: &Snapshot, now: Now) -> usize {
        let before = self.clock_of(lane);
        let received = self.take_in(lane, snapshot, now);
        if received > 0 {
            self.flush(snapshot, now, false);
            let lane = &mut self.lanes[lane];
            lane.load.rx_packets.add(received as u64);
            if let (true, Some(before)) = (lane.is_sampled(), before) {
                let ns = lane.note_time(&self.clock, before);
                lane.account.measured(received, ns);
            }
            let has_more = received == BATCH_FRAMES || lane.door.has_more();
            self.shares.served(&mut lane.account, received, has_more);
        }
        received
    }

    /// The time, if the next batch of this lane is one whose time is taken.
    #[inline(always)]
    fn clock_of(&self, lane: usize) -> Option<u64> {
        let lane = &self.lanes[lane];
        let is_next = (lane.batches + 1).is_multiple_of(LOAD_SAMPLE_EVERY);
        (is_next && lane.readable).then(|| self.clock.raw())
    }

    /// One batch of one lane, through the pipeline.
    fn take_in(&mut self, lane: usize, snapshot: &Snapshot, now: Now) -> usize {
        let lane = &mut self.lanes[lane];
        // A closed port keeps its frames: they are taken in when its policy is in force, or go home with it.
        if lane.dead || !lane.readable || !snapshot.port(lane.port).is_some_and(|port| port.open) {
            return 0;
        }
        let world = World { snapshot, tables: &self.tables, now };
        let (port, batch, pool) = (lane.port, &mut self.batch, &mut self.pool);
        self.pipeline.private.in_queue = lane.queue;
        let capture = self.pipeline.private.capture.as_ref().filter(|capture| capture.wants_in(port));
        if let Some(capture) = capture.cloned() {
            let before = self.clock.raw();
            lane.door.recv(pool, batch);
            let received = batch.len();
            if let Some(live) = capture.following().filter(|_| received > 0) {
                let came = (port, now, self.clock.raw().wrapping_sub(before));
                let clock = || self.clock.raw();
                match Following::new(live, pool.area(), came, batch, clock) {
                    Some(mut following) => {
                        following.start(&self.pipeline.private);
                        self.pipeline.run(world, port, batch, pool, &mut following);
                    }
                    None => self.pipeline.run(world, port, batch, pool, &mut NoLaps),
                }
            } else if received > 0 {
                let mut inbound = Inbound::new(&capture, pool.area(), port, batch);
                self.pipeline.run(world, port, batch, pool, &mut inbound);
            }
            return received;
        }
        if !self.batches.is_multiple_of(SAMPLE_EVERY) {
            lane.door.recv(pool, batch);
            let received = batch.len();
            if received > 0 {
                self.batches += 1;
                self.pipeline.run(world, port, batch, pool, &mut NoLaps);
            }
            return received;
        }
        let mut watch = StopWatch::start(&self.clock);
        lane.door.recv(pool, batch);
        let received = batch.len();
        if received > 0 {
            self.batches += 1;
            watch.lap(Stage::Recv);
            self.pipeline.run(world, port, batch, pool, &mut watch);
            watch.book(&self.pipeline.private.counters, received);
        }
        received
    }
}
