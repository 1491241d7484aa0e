//! One turn of a worker: refresh the snapshot, and for each lane recv, process, send, service. Knows no
//! thread and no sleep, so the simulator and the tests drive it by hand.

mod intake;
mod lane;
mod limit;
mod news;
mod pause;
mod share;
mod watched;

use super::mail::{Command, Mail, Report};
use super::parcel::Outgoing;
use crate::config::snapshot::{PortId, Snapshot};
use crate::config::{PORTS_MAX, Reader};
use crate::counter::DropReason;
use crate::frame::{Batch, Frame, Pool, TX_QUEUE_FRAMES};
use crate::pipeline::capture::Outbound;
use crate::pipeline::{Now, Pipeline, Private, Tables, World};
use crate::port::{At, Dropped, Health, Port, Remains, Serviced};
use lane::Lane;
use pause::Pause;
use quanta::Clock;
use share::Shares;
use std::sync::Arc;

/// No lane of this worker serves the port.
const ELSEWHERE: u16 = u16::MAX;
/// Parcels that are opened in a turn: 512 frames. A tap's receiver runs within the call that sends to it, for 3 µs a frame or for hundreds a
/// superframe; the turn's end is when its worker beats, obeys and takes in what its own lanes have.
const PARCELS_A_TURN: usize = 16;

/// Everything one worker has.
#[derive(Debug)]
pub struct Turn {
    id: u16,
    reader: Reader,
    tables: Arc<Tables>,
    mail: Arc<[Mail]>,
    pool: Pool,
    pipeline: Pipeline,
    lanes: Vec<Lane>,
    /// The first lane that serves a port, by port number.
    lane_of: Box<[u16]>,
    shares: Shares,
    outgoing: Outgoing,
    batch: Batch,
    clock: Clock,
    batches: u64,
    loops_reported: u64,
    sent_much: bool,
    /// What is sent goes at once ([`Turn::serve_first`]).
    hurried: bool,
    /// Frames were served first, and no turn was since.
    was_woken: bool,
    /// What the neighbour table knows of our holding packets.
    holds: bool,
    pause: Option<Pause>,
    /// When this turn began.
    now: Now,
    stopping: bool,
}

/// What became of a turn's lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lanes {
    /// They are those that there were.
    Same,
    /// There are more; those that there were have their numbers.
    More,
    /// Some are gone, and the others have other numbers.
    Others,
}

/// What came of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Frames that came in, or were sent on for another worker.
    pub frames: usize,
    /// What became of the lanes: what to wait on changes with them.
    pub lanes: Lanes,
    /// A lane has sent much since it was watched: [`Turn::unwatch_busy`].
    pub sent_much: bool,
    /// The worker was told to stop.
    pub stop: bool,
}

impl Turn {
    /// Worker `id`, with everything it will ever own.
    pub fn new(
        id: u16,
        reader: Reader,
        tables: Arc<Tables>,
        mail: Arc<[Mail]>,
        pool: Pool,
        pipeline: Pipeline,
        clock: Clock,
    ) -> Self {
        Self {
            id,
            reader,
            tables,
            outgoing: Outgoing::new(mail.len()),
            mail,
            pool,
            pipeline,
            lanes: Vec::with_capacity(PORTS_MAX),
            lane_of: vec![ELSEWHERE; PORTS_MAX].into(),
            shares: Shares::new(),
            batch: Batch::new(),
            clock,
            batches: 0,
            loops_reported: 0,
            sent_much: false,
            hurried: false,
            was_woken: false,
            holds: false,
            pause: None,
            now: Now::default(),
            stopping: false,
        }
    }

    /// Its number.
    pub fn id(&self) -> u16 {
        self.id
    }

    fn mail(&self) -> &Mail {
        &self.mail[usize::from(self.id)]
    }

    /// The whole turn.
    pub fn run(&mut self, now: Now) -> Outcome {
        // In this order: a command that was given before a snapshot was published is carried out before
        // the first frame meets that snapshot.
        let snapshot = self.reader.refresh().clone();
        self.pipeline.meet(&snapshot, now);
        self.now = now;
        self.pipeline.private.drops.begin_turn(now);
        self.go_on();
        let lanes = self.obey();
        if let Some(capture) = &self.pipeline.private.capture {
            capture.begin_turn(now);
        }
        self.pool.service();
        self.hand_over_emptied();
        let mut frames = self.open_parcels(&snapshot, now);
        if frames > 0 {
            self.flush(&snapshot, now, true);
        }
        let mut busy = false;
        if self.pause.is_none() {
            let (received, is_full) = self.take_all_in(&snapshot, now);
            frames += received;
            busy = is_full;
            self.send_probes(&snapshot);
            let world = World { snapshot: &snapshot, tables: &self.tables, now };
            // Before what is due is done in smaller shares. Who was woken by a frame waits for its answer.
            if frames == 0 && !std::mem::take(&mut self.was_woken) {
                self.pipeline.rest(world);
            }
            self.pipeline.attend(world, &mut self.batch, &mut self.pool);
        }
        self.pass_news_on(now);
        if !self.pipeline.private.dirty.is_empty() {
            self.flush(&snapshot, now, false);
        }
        self.service_lanes(busy);
        self.acknowledge(&snapshot);
        self.report_news();
        self.keep_books(frames);
        let sent_much = std::mem::take(&mut self.sent_much);
        Outcome { frames, lanes, sent_much, stop: self.stopping }
    }

    /// What woke the worker, before anything else of a turn: a batch of each of these lanes, and what comes of it
    /// is on its way before another lane is looked at. A turn must follow. How many frames it were.
    pub fn serve_first(&mut self, lanes: impl Iterator<Item = usize>, now: Now) -> usize {
        let snapshot = self.reader.refresh().clone();
        // A command that waits comes before the first frame that meets the snapshot, see `run`.
        if self.mail().is_waiting() || self.pause.is_some() {
            return 0;
        }
        self.pipeline.meet(&snapshot, now);
        if let Some(capture) = &self.pipeline.private.capture {
            capture.begin_turn(now);
        }
        self.pipeline.private.drops.begin_turn(now);
        self.hurried = true;
        let mut frames = 0;
        for lane in lanes {
            let Some(woken) = self.lanes.get_mut(lane) else { continue };
            woken.readable = true;
            frames += self.take_in_and_send(lane, &snapshot, now);
        }
        self.hurried = false;
        self.was_woken = frames > 0;
        frames
    }

    /// Nothing came for as long as a beat may pause: the next turn asks the kernel what it dropped.
    pub fn rested(&mut self) {
        self.lanes.iter_mut().for_each(|lane| lane.door.rested());
    }

    /// Sends what the stages left in queues: by an own lane, or to the worker that has one. What is for other workers costs
    /// the lane it leaves by; what was just taken in costs the lane it came by, where the time is taken.
    fn flush(&mut self, snapshot: &Snapshot, now: Now, for_others: bool) {
        let private = &mut self.pipeline.private;
        let mut dirty = std::mem::take(&mut private.dirty);
        let mut again = 0;
        for i in 0..dirty.len() {
            let port = dirty[i];
            match self.lane_of[usize::from(port)] {
                ELSEWHERE => {
                    let pool = &mut self.pool;
                    match worker_of(snapshot, port, self.id).filter(|to| usize::from(*to) < self.mail.len()) {
                        Some(to) => self.outgoing.pack(to, &self.mail, port, private, pool, now),
                        None => drop_queue(port, DropReason::PortDown, private, pool),
                    }
                }
                lane => {
                    let lane = &mut self.lanes[usize::from(lane)];
                    if lane.dead {
                        drop_queue(port, DropReason::PortDown, private, &mut self.pool);
                        continue;
                    }
                    if let Some(facts) = snapshot.port(port)
                        && let Some(rates) = &facts.rates
                    {
                        let to = (port, facts);
                        limit::hold_to(&rates.tx, to, lane.left, private, &mut self.pool, self.id, now);
                    }
                    let queue = &mut private.queues[usize::from(port)];
                    let before = (for_others && lane.is_sampled()).then(|| self.clock.raw());
                    let capture = private.capture.as_deref().filter(|capture| capture.wants_out(port));
                    let outbound = capture
                        .map(|capture| Outbound::new(capture, self.pool.area(), port, queue.as_slice()));
                    let waiting = queue.len();
                    let sent = lane.door.send(&mut self.pool, queue);
                    lane.left = queue.len();
                    if self.hurried {
                        lane.door.hurry();
                    }
                    if let Some(outbound) = outbound {
                        outbound.left(waiting - queue.len());
                    }
                    if let Some(before) = before {
                        lane.note_time(&self.clock, before);
                    }
                    lane.load.tx_packets.add(sent.packets);
                    if let Some(before) = &mut lane.watched {
                        *before += sent.packets as u32;
                        self.sent_much |= lane.sent_much();
                    }
                    let traffic = private.counters.port(port);
                    traffic.tx_packets.add(sent.packets);
                    traffic.tx_bytes.add(sent.bytes);
                    private.counters.ledger.sent.add(sent.packets);
                    if sent.refused > 0 {
                        private.counters.dropped_unread(port, DropReason::TxRefused, sent.refused);
                    }
                }
            }
            // What a slow port left behind is tried again next turn, in its order.
            if !private.queues[usize::from(port)].is_empty() {
                dirty[again] = port;
                again += 1;
            }
        }
        dirty.truncate(again);
        let private = &mut self.pipeline.private;
        private.dirty = dirty;
        self.outgoing.send(&self.mail, private, &mut self.pool, now);
    }

    /// Frames other workers have for our lanes. They went through the stages there. A turn ends, however fast more of them come.
    fn open_parcels(&mut self, snapshot: &Snapshot, now: Now) -> usize {
        let mut frames = 0;
        for _ in 0..PARCELS_A_TURN {
            let Some(parcel) = self.mail[usize::from(self.id)].inbox.pop() else { break };
            frames += parcel.len();
            self.pipeline.private.counters.ledger.taken_over.add(parcel.len() as u64);
            self.pool.note_taken(parcel.len());
            parcel.unpack(|port, frames| self.open_run(snapshot, now, port, frames));
        }
        frames
    }

    /// Frames of a parcel that are to leave by one port.
    fn open_run(
        &mut self,
        snapshot: &Snapshot,
        now: Now,
        port: PortId,
        frames: &mut dyn ExactSizeIterator<Item = Frame>,
    ) {
        // An inbox holds more than a queue: what is in front is sent first.
        let waiting = self.pipeline.private.queues[usize::from(port)].len();
        if waiting + frames.len() > TX_QUEUE_FRAMES {
            self.flush(snapshot, now, true);
        }
        for frame in frames {
            // Were a lane to move away with frames on their way to it, they would go round for ever:
            // only a port that is served here is enqueued.
            if self.lane_of[usize::from(port)] == ELSEWHERE {
                self.pipeline.private.drop(&mut self.pool, port, DropReason::PortDown, frame);
            } else {
                self.pipeline.private.enqueue(&mut self.pool, port, frame);
            }
        }
    }

    fn send_probes(&mut self, snapshot: &Snapshot) {
        while let Some((port, frame)) = self.pipeline.private.loop_watch.next(snapshot, &mut self.pool) {
            self.pipeline.private.counters.ledger.generated.add(1);
            self.pipeline.private.enqueue(&mut self.pool, port, frame);
        }
    }

    /// Tells the other workers that hold packets of neighbours that were heard, and says whether this one
    /// holds some.
    fn pass_news_on(&mut self, now: Now) {
        let holds = !self.pipeline.private.holds.is_empty();
        if holds != self.holds {
            self.holds = holds;
            self.tables.neigh.note_holder(self.id, holds);
        }
        if std::mem::take(&mut self.pipeline.private.news) {
            let holders = self.tables.neigh.holders();
            let others = self.mail.iter().enumerate().filter(|(id, _)| *id != usize::from(self.id));
            for (_, mail) in others.filter(|(id, _)| holders & (1 << id) != 0) {
                mail.waker.wake(|| now.ns);
            }
        }
    }

    fn service_lanes(&mut self, busy: bool) {
        for lane in &mut self.lanes {
            let counters = &self.pipeline.private.counters;
            let Serviced { health, missed, dropped } = lane.door.service(&mut self.pool, busy, counters);
            if missed > 0 {
                counters.ledger.outside.add(missed);
                counters.dropped_unread(lane.port, DropReason::RxMissed, missed);
            }
            if let Some(Dropped { frames, reason, at }) = dropped {
                if at == At::Outside {
                    counters.ledger.outside.add(frames);
                }
                counters.dropped_unread(lane.port, reason, frames);
            }
            if let Health::Dead(errno) = health
                && !lane.dead
            {
                lane.dead = true;
                // A report that finds no room is not lost: the control thread hears of the device itself.
                let died = Report::Died(lane.port, lane.load.clone(), errno);
                _ = self.mail[usize::from(self.id)].reports.push(died);
            }
        }
    }

    /// The ledger: in debug builds checked after every turn.
    fn keep_books(&mut self, frames: usize) {
        let in_rings: usize = self.lanes.iter().map(|lane| lane.door.held()).sum();
        let private = &self.pipeline.private;
        let queued: usize = private.dirty.iter().map(|port| private.queues[usize::from(*port)].len()).sum();
        let queued = queued + private.holds.frames();
        debug_assert_eq!(self.pool.balance(in_rings, queued), 0, "frames lost or doubled");
        let ledger = &private.counters.ledger;
        ledger.waiting.set(queued as u64);
        let unaccounted = ledger.balance();
        debug_assert_eq!(unaccounted, 0, "packets unaccounted for: {ledger:?}");
        ledger.unaccounted.set(unaccounted as u64);
        debug_assert_eq!(
            private.counters.told_of(),
            ledger.dropped(),
            "drops that are told of by none or by two"
        );
        let life = &private.counters.life;
        life.turns.add(1);
        life.empty_turns.add(u64::from(frames == 0));
        life.generation.set(self.reader.generation());
        life.free.set((self.pool.free() + self.pool.free_large()) as u64);
        life.free_large.set(self.pool.free_large() as u64);
        life.in_rings.set(in_rings as u64);
        life.in_flight.set((queued + self.pool.leaving()) as u64);
        life.expected.set(self.pool.expected() as u64);
    }

    /// Carries out what the control thread asked. Whether the lanes changed.
    fn obey(&mut self) -> Lanes {
        let mut lanes = Lanes::Same;
        while let Some(command) = self.mail().commands.pop() {
            lanes = lanes.max(match command {
                Command::AddLane(..) => Lanes::More,
                Command::TakeLane(..) | Command::PackLane(..) => Lanes::Others,
                _ => Lanes::Same,
            });
            match command {
                Command::AddLane(port, queue, door, load) => self.add_lane(port, queue, door, load),
                Command::PackLane(port, queue, luggage) => self.pack(port, queue, luggage),
                Command::Unpack(luggage) => self.unpack(luggage),
                Command::Pause(ticket, port) => self.pause(ticket, port),
                Command::Drain(ticket) => self.drain(ticket),
                Command::Resume(generation) => self.resume(generation),
                Command::TakeLane(port, queue) => self.hand_back(port, queue),
                Command::OpenQueue(port, room) => self.pipeline.private.queues[usize::from(port)] = room,
                Command::CloseQueue(port) => self.close_queue(port),
                Command::TakeIn(remains) => self.take_remains(remains),
                Command::Grow(region, frames) => self.pool.grow(region, frames),
                Command::Empty(region, room) => self.pool.empty(region, room),
                Command::Capture(capture) => self.pipeline.private.capture = capture,
                Command::WatchFlows(watch) => self.pipeline.private.flows.keeper.watch = watch,
                Command::Announce(fid) => self.pipeline.private.announce(fid),
                Command::Advertise(said) => self.pipeline.private.advertise(*said),
                Command::Stop => self.stopping = true,
            }
        }
        if lanes > Lanes::Same {
            self.lane_of.fill(ELSEWHERE);
            for (index, lane) in self.lanes.iter().enumerate().rev() {
                self.lane_of[usize::from(lane.port)] = index as u16;
            }
        }
        lanes
    }

    fn report(&self, report: Report) {
        // The control thread waits for what it asked for and asks for no more than fit; of loops it
        // learns by their counter as well.
        _ = self.mail().reports.push(report);
    }

    fn hand_back(&mut self, port: PortId, queue: u16) {
        let found = self.lanes.iter().position(|lane| (lane.port, lane.queue) == (port, queue));
        let door = found.map(|index| self.lanes.remove(index).door);
        if let Some(door) = &door {
            // Its frames leave with it and come back as remains.
            self.pool.note_given(door.held());
        }
        self.report(Report::LaneOut(port, queue, door));
    }

    fn close_queue(&mut self, port: PortId) {
        drop_queue(port, DropReason::PortClosed, &mut self.pipeline.private, &mut self.pool);
        let room = std::mem::take(&mut self.pipeline.private.queues[usize::from(port)]);
        self.pipeline.private.dirty.retain(|dirty| *dirty != port);
        self.report(Report::QueueOut(port, room));
    }

    /// A region of packet memory whose frames have all come home goes to the control thread.
    fn hand_over_emptied(&mut self) {
        // Nobody else reports for this worker: what has room now is not refused.
        if !self.mail().reports.is_full()
            && let Some((region, frames)) = self.pool.emptied()
        {
            self.report(Report::Emptied(region, frames));
        }
    }

    fn take_remains(&mut self, remains: Remains) {
        let Remains { frames, holder, .. } = remains;
        let mut taken = frames.len();
        self.pool.note_taken(taken);
        for frame in frames {
            self.pool.give(frame);
        }
        if let Some(holder) = holder {
            let (area, pool) = (self.pool.area_shared(), &mut self.pool);
            taken += area.reclaim(holder, |frame| {
                pool.note_taken(1);
                pool.give(frame);
            });
        }
        self.report(Report::TakenIn(taken));
    }

    /// Whether nothing waits for this worker, so that it may sleep.
    pub fn may_sleep(&self) -> bool {
        !self.mail().is_waiting()
            && !self.reader.is_stale()
            && !self.pool.has_arrivals()
            && self.pipeline.private.dirty.is_empty()
            && !self.pipeline.private.holds.wants_attention(self.tables.neigh.changes(), Now::default())
            && self.lanes.iter().all(|lane| lane.dead || lane.door.may_sleep())
    }

    /// Its lanes, when it has ended.
    pub fn into_doors(self) -> Vec<Box<dyn Port>> {
        self.lanes.into_iter().map(|lane| lane.door).collect()
    }

    /// Milliseconds that the beat may pause, by the snapshot in use.
    pub fn beat_ms(&mut self) -> u32 {
        self.reader.refresh().beat_ms
    }

    /// Its counters and memory, for tests.
    pub fn pipeline(&self) -> &Pipeline {
        &self.pipeline
    }

    /// The same, to be changed.
    #[cfg(test)]
    pub(crate) fn pipeline_mut(&mut self) -> &mut Pipeline {
        &mut self.pipeline
    }

    /// Its pool, for tests.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }
}

/// The worker that serves `port`. Which of several depends on the sender alone, so that several senders keep several busy and a flow, which
/// one worker receives, keeps its order.
fn worker_of(snapshot: &Snapshot, port: PortId, from: u16) -> Option<u16> {
    let lanes = &snapshot.port(port)?.lanes;
    lanes.get(usize::from(from) % lanes.len().max(1)).copied()
}

/// Whatever waits for a port.
#[cold]
fn drop_queue(port: PortId, reason: DropReason, private: &mut Private, pool: &mut Pool) {
    let mut queue = std::mem::take(&mut private.queues[usize::from(port)]);
    for frame in queue.take(usize::MAX) {
        private.drop(pool, port, reason, frame);
    }
    private.queues[usize::from(port)] = queue;
}
