//! The pipeline run dry: one frame through the very stages, the slow path included, over the live snapshot and a copy
//! of what is learned, with counters, queues and packet memory of its own. So it cannot disagree with what the switch
//! would do, and changes nothing. What only a worker has at the moment is not copied and counts as at rest: storm and
//! answer limits with room in them, no packets waiting for neighbours, empty queues.

use super::binding::Turn;
use super::note::Note;
use super::refusals::Refused;
use super::{Now, Pipeline, Private, Tables, Watch, World};
use crate::config::PORTS_MAX;
use crate::config::snapshot::{PortId, Snapshot};
use crate::counter::{Counters, DropReason, Event, Stage};
use crate::frame::area::AreaError;
use crate::frame::{Area, AreaSize, Batch, Frame, Pool, TxQueue};
use crate::policy::{RULES_MAX, Slot};
use std::sync::Arc;

/// Frames: a copy for every port there may be, and what the switch says or cuts up.
const FRAMES: u32 = PORTS_MAX as u32 + 512;
/// Large ones: a jumbo frame is flooded to so many ports, and to more only by name.
const LARGE_FRAMES: u32 = 64;

/// What one stage made of the frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Which.
    pub stage: Stage,
    /// What is known of the frame after it.
    pub note: Note,
    /// What becomes of its addresses, as far as is known then.
    pub turn: Turn,
    /// What happened in it beside.
    pub events: Vec<Event>,
}

/// What leaves by a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaving {
    /// Which.
    pub port: PortId,
    /// As it would be sent.
    pub bytes: Vec<u8>,
    /// The frame itself, or a copy; else the switch's own word, or a piece of what it cut up.
    pub is_itself: bool,
}

/// What would become of a frame.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traced {
    /// Stage by stage.
    pub steps: Vec<Step>,
    /// What leaves, by port and in order.
    pub leaving: Vec<Leaving>,
    /// What is dropped: whose, why, how many.
    pub drops: Vec<(PortId, DropReason, u64)>,
    /// What happens behind the stages: answers, questions, refusals.
    pub events: Vec<Event>,
    /// It waits for its neighbour.
    pub held: bool,
    /// Rules of policies and of access control lists that said something, in the order of their slots.
    pub rules: Vec<Slot>,
    /// What they stopped.
    pub refused: Vec<Refused>,
}

/// The memory that a dry run needs; kept for the next one.
#[derive(Debug)]
pub struct Dry {
    pool: Pool,
    batch: Batch,
    secret: u64,
}

impl Dry {
    /// `chunk_bytes` as the workers' memory has them; `secret` is what marks the daemon's loop probes.
    pub fn new(chunk_bytes: u32, secret: u64) -> Result<Self, AreaError> {
        let (area, frames) = Area::new(AreaSize { chunk_bytes, chunks: FRAMES, large: LARGE_FRAMES })?;
        let pool = Pool::deal(Arc::new(area), frames, 1).remove(0);
        Ok(Self { pool, batch: Batch::new(), secret })
    }

    /// What would become of `packet`, were it to come in by `in_port` now. None if no frame is so long.
    pub fn run(
        &mut self,
        snapshot: &Snapshot,
        tables: &Tables,
        now: Now,
        in_port: PortId,
        packet: &[u8],
    ) -> Option<Traced> {
        let mut frame = self.pool.take_for(packet.len())?;
        if !self.pool.area().fill(&mut frame, packet) {
            self.pool.give(frame);
            return None;
        }
        self.batch.push(frame);
        let tables = tables.copy();
        let counters = Arc::new(Counters::new(PORTS_MAX));
        if snapshot.policed || !snapshot.nat.is_idle() {
            counters.make_rules(RULES_MAX);
        }
        let mut private = Private::new(counters.clone(), self.secret, &tables);
        let opened = private.queues.iter_mut().zip(snapshot.ports.iter()).filter(|(_, port)| port.open);
        opened.for_each(|(queue, _)| *queue = TxQueue::with_room());
        let mut pipeline = Pipeline::new(private);
        let mut witness = Witness::default();
        let world = World { snapshot, tables: &tables, now };
        pipeline.run(world, in_port, &mut self.batch, &mut self.pool, &mut witness);
        Some(self.gather(witness, pipeline.private, &counters))
    }

    /// Takes everything out that the run left, and with it every frame.
    fn gather(&mut self, witness: Witness, mut private: Private, counters: &Counters) -> Traced {
        let mut leaving = Vec::new();
        for (port, queue) in private.queues.iter_mut().enumerate() {
            let own = witness.queued.get(port).copied().unwrap_or(0);
            for (n, frame) in queue.take(usize::MAX).enumerate() {
                let bytes = self.pool.area().bytes(&frame).to_vec();
                leaving.push(Leaving { port: port as PortId, bytes, is_itself: n < own });
                self.pool.give(frame);
            }
        }
        let held = !private.holds.is_empty();
        for key in private.holds.find(|_| true) {
            while let Some(held) = private.holds.pop(key, None) {
                self.pool.give(held.frame);
            }
        }
        let dropped = |port, reason: &DropReason| {
            let frames = counters.drops(port, *reason);
            (frames > 0).then_some((port, *reason, frames))
        };
        let by_port = |port| DropReason::ALL.iter().filter_map(move |reason| dropped(port, reason));
        let drops = (0..PORTS_MAX as PortId).flat_map(by_port).collect();
        debug_assert_eq!(self.pool.free() + self.pool.free_large(), (FRAMES + LARGE_FRAMES) as usize);
        let events = Counted::of(counters).since(&witness.counted);
        let mut refused = Vec::new();
        private.refusals.hand_on(counters, |it| {
            refused.push(it);
            true
        });
        let counted = (0..).zip(counters.rules()).filter(|(_, counter)| counter.get() > 0);
        let rules = counted.map(|(slot, _)| slot).collect();
        Traced { steps: witness.steps, leaving, drops, events, held, rules, refused }
    }
}

/// Events, as they were counted at some time.
#[derive(Clone, Copy, Debug, Default)]
struct Counted([u64; Event::ALL.len()]);

impl Counted {
    fn of(counters: &Counters) -> Self {
        Self(Event::ALL.map(|event| counters.event(event).get()))
    }

    fn since(&self, before: &Self) -> Vec<Event> {
        let more = |event: &Event| self.0[*event as usize] > before.0[*event as usize];
        // What is dropped is said for itself.
        let is_beside =
            |event: &Event| !matches!(event, Event::DropUntold | Event::DropAgain | Event::DropNameless);
        Event::ALL.into_iter().filter(more).filter(is_beside).collect()
    }
}

/// Writes down what each stage did.
#[derive(Debug, Default)]
struct Witness {
    steps: Vec<Step>,
    translated: bool,
    counted: Counted,
    /// After `emit`: how many frames each port's queue has.
    queued: Vec<usize>,
}

impl Watch for Witness {
    const GOES_ALONG: bool = true;

    fn after(&mut self, stage: Stage, _: &[Frame], notes: &[Note], private: &Private) {
        let counted = Counted::of(&private.counters);
        let events = counted.since(&self.counted);
        self.counted = counted;
        // Where nothing is translated nobody looked.
        self.translated |= stage == Stage::Translate;
        let turn = if self.translated { private.flows.turns[0] } else { Turn::Stays };
        self.steps.extend(notes.first().map(|note| Step { stage, note: *note, turn, events }));
        if stage == Stage::Emit {
            self.queued = private.queues.iter().map(TxQueue::len).collect();
        }
    }
}
