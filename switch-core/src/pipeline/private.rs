//! What belongs to one worker alone: what it remembers, counts, and is about to send or to tell.

use super::capture::Capture;
use super::drops::Drops;
use super::hold::Holds;
use super::judge::Foreseen;
use super::meter::Meters;
use super::note::Note;
use super::probe::LoopWatch;
use super::refusals::{Logs, Refusals};
use super::slow::Slow;
use super::storm::Storms;
use super::verdict::Why;
use super::ways::Ways;
use super::{Tables, flow};
use crate::config::PORTS_MAX;
use crate::config::snapshot::PortId;
use crate::counter::{Counters, DropReason};
use crate::frame::{BATCH_FRAMES, Batch, Frame, Pool, TxQueue};
use crate::host::advert::Withdrawn;
use crate::table::wide::Key;
use arrayvec::ArrayVec;
use std::sync::Arc;

/// Stations that moved, told by name in one turn; all are counted.
const MOVES_A_TURN: usize = 8;

/// A station that was heard behind another port than before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved {
    /// Its MAC, low 48 bits.
    pub mac: u64,
    /// Bridge and VLAN.
    pub fid: u16,
    /// Where it was.
    pub from: PortId,
    /// Where it is.
    pub to: PortId,
}

/// What belongs to one worker: plain memory, nobody else looks.
#[derive(Debug)]
pub struct Private {
    /// Which of how many workers it is: its part of ports that are given out.
    pub worker: (u16, u16),
    /// What waits to leave, by port number.
    pub queues: Box<[TxQueue]>,
    /// Ports whose queue is not empty, each once.
    pub dirty: Vec<PortId>,
    /// Counters; others may read them.
    pub counters: Arc<Counters>,
    /// Storm control.
    pub storms: Storms,
    /// Rate limits.
    pub meters: Meters,
    /// Signs of a loop.
    pub loop_watch: LoopWatch,
    /// Packets that wait for their neighbour.
    pub holds: Holds,
    /// Where routed packets went.
    pub(super) ways: Ways,
    /// The queue of the port by which the batch came in.
    pub in_queue: u16,
    /// A neighbour was heard that another worker may wait for; the worker's turn tells it.
    pub news: bool,
    /// Stations that moved, as far as there was room; the worker's turn reports them.
    pub moves: ArrayVec<Moved, MOVES_A_TURN>,
    /// Neighbours that the node's kernel is to be asked for; the worker's turn reports them.
    pub wants: ArrayVec<Key, BATCH_FRAMES>,
    /// What policies stopped; the worker's turn reports it.
    pub refusals: Refusals,
    /// What rules decided that want it told; the worker's turn reports it.
    pub logs: Logs,
    /// What was dropped for other reasons; the worker's turn reports it.
    pub drops: Drops,
    /// Who wants copies of what passes.
    pub capture: Option<Arc<Capture>>,
    /// What the stages set aside.
    pub(super) aside: ArrayVec<Aside, BATCH_FRAMES>,
    /// What is to be asked and answered beside.
    pub(super) asks: ArrayVec<Chore, BATCH_FRAMES>,
    /// What came out of tunnels, and the bridge and VLAN of which.
    pub(super) opened: ArrayVec<(Frame, u16), BATCH_FRAMES>,
    pub(super) slow: Slow,
    /// What gateways are to tell their neighbours.
    pub(super) announces: ArrayVec<Word, ANNOUNCED_MAX>,
    /// The flows of the batch at hand, and what this worker has of the flow table.
    pub flows: flow::Flowing,
    /// What is said of its first packets, by index in the batch: of those of the batch at hand that begin something it is known.
    pub(super) foreseen: Box<[[Foreseen; 2]; BATCH_FRAMES]>,
}

/// What was set aside.
#[derive(Debug)]
pub(super) struct Aside {
    pub(super) frame: Frame,
    pub(super) note: Note,
    pub(super) why: Why,
    /// Where it really goes, if that is not what it says.
    pub(super) real: Option<u128>,
}

/// What is left for behind the list, though its frame goes on.
#[derive(Clone, Copy, Debug)]
pub(super) enum Chore {
    /// Ask a neighbour whether it is still there: it, and its station.
    Ask(Key, Option<u64>),
    /// Tell a host, on a bridge and VLAN, by station and address, of its router.
    Advertise(u16, u64, u128),
}

/// What hosts are told unasked of their router.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Advertising {
    /// Their bridge and VLAN.
    pub fid: u16,
    /// The station that is no router any more; none: their gateway is one.
    pub last: Option<u64>,
    /// Networks that it has no more.
    pub withdrawn: Withdrawn,
}

/// What the switch tells unasked of the gateway of a bridge and VLAN.
#[derive(Clone, Debug)]
pub(super) enum Word {
    /// Its addresses.
    Announce(u16),
    /// That it is a router, or none any more.
    Advertise(Advertising),
}

/// Gateways that are announced in one turn.
pub const ANNOUNCED_MAX: usize = 64;

impl Private {
    /// [`super::Pipeline::attend`] will tell the neighbours of this gateway; what finds no room is left out.
    pub fn announce(&mut self, fid: u16) {
        _ = self.announces.try_push(Word::Announce(fid));
    }

    /// [`super::Pipeline::attend`] will tell hosts of their router; what finds no room is left out.
    pub fn advertise(&mut self, said: Advertising) {
        _ = self.announces.try_push(Word::Advertise(said));
    }

    /// `secret` marks this daemon's loop probes, and scatters what it remembers; of `tables` it will hold places.
    pub fn new(counters: Arc<Counters>, secret: u64, tables: &Tables) -> Self {
        Self {
            worker: (0, 1),
            queues: (0..PORTS_MAX).map(|_| TxQueue::default()).collect(),
            dirty: Vec::with_capacity(PORTS_MAX),
            counters,
            storms: Storms::new(PORTS_MAX),
            meters: Meters::new(PORTS_MAX),
            loop_watch: LoopWatch::new(PORTS_MAX, secret),
            holds: Holds::default(),
            ways: Ways::new(secret),
            in_queue: 0,
            news: false,
            moves: ArrayVec::new(),
            wants: ArrayVec::new(),
            refusals: Refusals::default(),
            logs: Logs::default(),
            drops: Drops::new(secret),
            capture: None,
            aside: ArrayVec::new(),
            asks: ArrayVec::new(),
            opened: ArrayVec::new(),
            announces: ArrayVec::new(),
            slow: Slow::default(),
            flows: flow::Flowing::new(&tables.flows, secret),
            foreseen: Box::new([[Foreseen::NOTHING; 2]; BATCH_FRAMES]),
        }
    }

    /// Counts a frame of `port` that goes nowhere, and gives it back.
    #[inline]
    pub fn drop(&mut self, pool: &mut Pool, port: PortId, reason: DropReason, frame: Frame) {
        self.count_drop(pool, port, reason, &frame);
        pool.give(frame);
    }

    /// Counts a frame of `port` that goes nowhere.
    #[inline]
    pub(super) fn count_drop(&mut self, pool: &Pool, port: PortId, reason: DropReason, frame: &Frame) {
        self.count_lost(port, reason, pool.area().bytes(frame));
        if let Some(capture) = &self.capture {
            capture.dropped(pool.area(), port, reason, frame);
        }
    }

    /// Counts a packet of `port` that goes nowhere, and tells of it if it is the first of its flow.
    #[inline]
    pub(super) fn count_lost(&mut self, port: PortId, reason: DropReason, bytes: &[u8]) {
        self.counters.dropped(port, reason, 1);
        self.drops.note(port, reason, bytes, &self.counters);
    }

    /// Takes a frame that was for the switch itself.
    pub(super) fn consume(&self, pool: &mut Pool, frame: Frame) {
        self.counters.ledger.consumed.add(1);
        pool.give(frame);
    }

    /// Gives back a frame that was cut up into so many.
    pub(super) fn replaced(&self, pool: &mut Pool, frame: Frame, pieces: usize) {
        self.counters.ledger.copied.add((pieces as u64).wrapping_sub(1));
        pool.give(frame);
    }

    /// Puts a frame into the queue of `port`, or counts why not.
    pub fn enqueue(&mut self, pool: &mut Pool, port: PortId, frame: Frame) {
        self.enqueue_run(pool, port, std::iter::once(frame));
    }

    /// Puts a whole batch into the queue of `port`; what finds no room stays in the batch.
    #[inline(always)]
    pub(super) fn enqueue_batch(&mut self, port: PortId, batch: &mut Batch) {
        let queue = &mut self.queues[usize::from(port)];
        let was_empty = queue.is_empty();
        queue.append(batch);
        if was_empty && !queue.is_empty() {
            self.dirty.push(port);
        }
    }

    /// Puts several frames into the queue of `port`, or counts why not.
    #[inline(always)]
    pub fn enqueue_run(&mut self, pool: &mut Pool, port: PortId, frames: impl Iterator<Item = Frame>) {
        let queue = &mut self.queues[usize::from(port)];
        let was_empty = queue.is_empty();
        let mut frames = frames;
        queue.extend(&mut frames);
        if was_empty && !queue.is_empty() {
            self.dirty.push(port);
        }
        let reason = if queue.has_room_at_all() { DropReason::TxQueueFull } else { DropReason::PortClosed };
        for frame in frames {
            self.drop(pool, port, reason, frame);
        }
    }
}
