//! What others may put before a worker, and what it tells the control thread. Bounded queues; whoever
//! puts something in rings the worker's bell.

use super::handover::Ticket;
use super::idle::Waker;
use super::parcel::Parcel;
use crate::config::snapshot::PortId;
use crate::counter::LaneLoad;
use crate::frame::{Frame, TxQueue};
use crate::pipeline::capture::Capture;
use crate::pipeline::drops;
use crate::pipeline::hold::Luggage;
use crate::pipeline::refusals::{Logged, Refused};
use crate::pipeline::{Advertising, Moved};
use crate::port::{Port, Remains};
use crate::table::flow::watch::Watch;
use crate::table::wide::Key;
use crossbeam::queue::ArrayQueue;
use crossbeam::utils::CachePadded;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::thread::{self, Thread};

/// Parcels an inbox holds: 4 096 frames. A worker that is behind by more will not catch up by being
/// given more.
const INBOX_PARCELS: usize = 128;
/// Commands that wait. The control thread sends few and waits for their effect.
const COMMANDS: usize = 256;

/// What the control thread asks of a worker, carried out at the next turn's boundary.
#[derive(Debug)]
pub enum Command {
    /// Serve this queue of this port from now on.
    AddLane(PortId, u16, Box<dyn Port>, Arc<LaneLoad>),
    /// Hand this port's queue back: [`Report::LaneOut`].
    TakeLane(PortId, u16),
    /// Here is room for what leaves by this port, from now on.
    OpenQueue(PortId, TxQueue),
    /// Drop what waits to leave by this port and hand the room back: [`Report::QueueOut`].
    CloseQueue(PortId),
    /// Take in what a closed port left.
    TakeIn(Remains),
    /// Here are frames of a region of packet memory, new or wanted again.
    Grow(u16, Vec<Frame>),
    /// Use this region no more and hand its frames back as they come home: [`Report::Emptied`]. With room for them.
    Empty(u16, Vec<Frame>),
    /// Take nothing in any more, because lanes of this port are to move: [`Report::Stopped`].
    Pause(Ticket, PortId),
    /// Say when nothing is left that could be overtaken: [`Report::Drained`].
    Drain(Ticket),
    /// Hand this port's queue over to another worker: [`Report::Packed`].
    PackLane(PortId, u16, Luggage),
    /// Take in the packets that came with a lane: [`Report::Unpacked`].
    Unpack(Luggage),
    /// Go on, with the snapshot of this generation at the earliest.
    Resume(u64),
    /// Hand on copies of what passes, or no longer.
    Capture(Option<Arc<Capture>>),
    /// Tell what becomes of flows, or no longer.
    WatchFlows(Option<Arc<Watch>>),
    /// Tell the neighbours of the gateway with this filtering identifier that it is here.
    Announce(u16),
    /// Tell the hosts there of their router.
    Advertise(Box<Advertising>),
    /// End.
    Stop,
}

/// A lane between two workers.
pub type MovedLane = (Box<dyn Port>, Arc<LaneLoad>);

/// What a worker tells the control thread.
#[derive(Debug)]
pub enum Report {
    /// A lane that was asked for; none if the worker does not have it.
    LaneOut(PortId, u16, Option<Box<dyn Port>>),
    /// The room that was asked for, empty.
    QueueOut(PortId, TxQueue),
    /// What a closed port left was taken in: so many frames.
    TakenIn(usize),
    /// All frames of a region that were at home here.
    Emptied(u16, Vec<Frame>),
    /// The worker takes nothing in, and its own queues are empty.
    Stopped(Ticket),
    /// Nothing is on its way here.
    Drained(Ticket),
    /// A lane that is to move; none if the worker does not have it.
    Packed {
        /// Who had it.
        from: u16,
        /// Whose it is.
        port: PortId,
        /// Which.
        queue: u16,
        /// The lane.
        lane: Option<MovedLane>,
        /// What came in by it and waits for a neighbour.
        luggage: Luggage,
    },
    /// What came with a lane is here.
    Unpacked(Luggage),
    /// A loop was found behind a port.
    Loop,
    /// A station moved.
    Moved(Moved),
    /// Packets go to a neighbour that the node's kernel is to be asked for.
    Wanted(Key),
    /// Policies stopped the first packet of a flow.
    Refused(Refused),
    /// A rule that wants it told decided about the first packet of a flow.
    Logged(Logged),
    /// The first packet of a flow was dropped.
    Dropped(drops::Dropped),
    /// A lane died: the one with this load, for its port's number may be another's by now; the kernel's error number.
    Died(PortId, Arc<LaneLoad>, i32),
}

/// A worker's letter box; everybody may hold one.
#[derive(Debug)]
pub struct Mail {
    /// From the control thread.
    pub commands: ArrayQueue<Command>,
    /// From other workers.
    pub inbox: ArrayQueue<Parcel>,
    /// To the control thread.
    pub reports: ArrayQueue<Report>,
    /// The bell.
    pub waker: Waker,
    /// Whose box it is, once it runs: it may nap.
    thread: OnceLock<Thread>,
    /// Until then the control thread needs a core, CLOCK_MONOTONIC.
    core_needed_until: CachePadded<AtomicU64>,
}

impl Mail {
    /// An empty one.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self {
            commands: ArrayQueue::new(COMMANDS),
            inbox: ArrayQueue::new(INBOX_PARCELS),
            reports: ArrayQueue::new(COMMANDS * 4),
            waker: Waker::new()?,
            thread: OnceLock::new(),
            core_needed_until: CachePadded::default(),
        })
    }

    /// The control thread has work until then: whoever polls in vain leaves it the core. [`u64::MAX`]: nobody knows yet how long.
    pub fn need_core_until(&self, ns: u64) {
        self.core_needed_until.store(ns, Relaxed);
    }

    /// See [`Self::need_core_until`].
    #[inline]
    pub fn core_is_needed_until(&self) -> u64 {
        self.core_needed_until.load(Relaxed)
    }

    /// The calling thread is the worker whose box this is.
    pub fn move_in(&self) {
        self.thread.get_or_init(thread::current);
    }

    /// What the control thread put down is looked at now, whether the worker sleeps or naps. A system call only if it does. Other
    /// workers, who have frames for it, let it nap on.
    pub fn ring(&self, now_ns: impl FnOnce() -> u64) {
        self.waker.wake(now_ns);
        self.thread.get().inspect(|thread| thread.unpark());
    }

    /// Whether something waits for the worker.
    pub fn is_waiting(&self) -> bool {
        !self.inbox.is_empty() || !self.commands.is_empty()
    }
}
