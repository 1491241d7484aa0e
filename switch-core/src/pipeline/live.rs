//! A live trace: the next frames that a filter accepts, each with its way through the stages and the time they took. It runs
//! in the place of a capture ([`super::capture`]), so while there is none it costs nothing beside; its records are made before it
//! begins, one for every frame that is wanted, and when the last is used no more is looked for.

use super::binding::Turn;
use super::note::Note;
use super::{Now, Private, Watch};
use crate::config::snapshot::PortId;
use crate::counter::{Event, Stage};
use crate::frame::{Area, BATCH_FRAMES, Frame};
use crate::wire::bpf::Program;
use arrayvec::ArrayVec;
use crossbeam::queue::ArrayQueue;

/// Most frames of one trace: a person reads a few, a script some hundreds. A record takes about 1 KiB.
pub const FRAMES_MAX: u32 = 1000;
/// Bytes kept of a frame: every header that the stages look at.
pub const KEPT_BYTES: usize = 256;
/// Stages that can tell of a frame: each once, `track` twice.
const STEPS_MAX: usize = Stage::ALL.len() + 1;
/// Events of one stage that are kept: what happens to one frame in it.
const EVENTS_MAX: usize = 4;

/// What one stage made of the frame.
#[derive(Clone, Debug)]
pub struct Passed {
    /// Which.
    pub stage: Stage,
    /// What is known of the frame after it.
    pub note: Note,
    /// What becomes of its addresses, as far as is known then.
    pub turn: Turn,
    /// Ticks of the worker's clock that it took for the whole batch.
    pub cycles: u64,
    /// What happened in it beside, if the frame came in alone; of several nobody can say whose it was.
    pub events: ArrayVec<Event, EVENTS_MAX>,
}

/// A frame that was followed.
#[derive(Debug)]
pub struct Marked {
    /// When it came.
    pub now: Now,
    /// By which port.
    pub port: PortId,
    /// Frames of the batch that it came in with.
    pub batch: usize,
    /// Bytes it had.
    pub len: usize,
    /// Those that are kept, as they came.
    pub bytes: Vec<u8>,
    /// Ticks that taking the batch from the port took.
    pub received: u64,
    /// Its way.
    pub steps: ArrayVec<Passed, STEPS_MAX>,
}

/// See the module.
#[derive(Debug)]
pub struct Live {
    filter: Option<Program>,
    free: ArrayQueue<Box<Marked>>,
    full: ArrayQueue<Box<Marked>>,
}

impl Live {
    /// For so many frames, at most [`FRAMES_MAX`], with all the memory it will ever have.
    pub fn new(filter: Option<Program>, frames: u32) -> Self {
        let frames = frames.clamp(1, FRAMES_MAX) as usize;
        let (free, full) = (ArrayQueue::new(frames), ArrayQueue::new(frames));
        for _ in 0..frames {
            let (now, steps) = (Now::default(), ArrayVec::new());
            let bytes = Vec::with_capacity(KEPT_BYTES);
            _ = free.push(Box::new(Marked { now, port: 0, batch: 0, len: 0, bytes, received: 0, steps }));
        }
        Self { filter, free, full }
    }

    /// The oldest frame that nobody has taken yet.
    pub fn take(&self) -> Option<Box<Marked>> {
        self.full.pop()
    }

    /// Whether a frame more is wanted.
    pub fn is_open(&self) -> bool {
        !self.free.is_empty()
    }

    fn mark(&self, frame: &[u8]) -> Option<Box<Marked>> {
        if self.filter.as_ref().is_some_and(|filter| !filter.accepts(frame, frame.len())) {
            return None;
        }
        let mut marked = self.free.pop()?;
        marked.len = frame.len();
        marked.bytes.extend_from_slice(&frame[..frame.len().min(KEPT_BYTES)]);
        Some(marked)
    }
}

/// The frames of one batch that are followed, and a clock that is read after each stage.
#[derive(Debug)]
pub struct Following<'a, C: Fn() -> u64> {
    live: &'a Live,
    marked: ArrayVec<(usize, Box<Marked>), BATCH_FRAMES>,
    batch: usize,
    clock: C,
    last: u64,
    counted: [u64; Event::ALL.len()],
    translated: bool,
}

impl<'a, C: Fn() -> u64> Following<'a, C> {
    /// Marks those of a batch that are wanted; none if no frame is. The batch came in by `port` at `now`, and taking it took
    /// `received` ticks of `clock`.
    pub fn new(
        live: &'a Live,
        area: &Area,
        (port, now, received): (PortId, Now, u64),
        frames: &[Frame],
        clock: C,
    ) -> Option<Self> {
        let all = frames.iter().enumerate();
        let mut marked: ArrayVec<(usize, Box<Marked>), BATCH_FRAMES> =
            all.filter_map(|(n, frame)| Some((n, live.mark(area.bytes(frame))?))).collect();
        for (_, marked) in &mut marked {
            (marked.port, marked.now, marked.received, marked.batch) = (port, now, received, frames.len());
        }
        let counted = [0; Event::ALL.len()];
        (!marked.is_empty()).then_some(Self {
            live,
            marked,
            batch: frames.len(),
            clock,
            last: 0,
            counted,
            translated: false,
        })
    }

    /// The stages begin.
    pub fn start(&mut self, private: &Private) {
        self.events(private);
        self.last = (self.clock)();
    }

    /// What happened since the last look.
    fn events(&mut self, private: &Private) -> ArrayVec<Event, EVENTS_MAX> {
        let mut since = ArrayVec::new();
        for event in Event::ALL {
            let count = private.counters.event(event).get();
            if std::mem::replace(&mut self.counted[event as usize], count) != count {
                _ = since.try_push(event);
            }
        }
        since
    }
}

impl<C: Fn() -> u64> Watch for Following<'_, C> {
    fn after(&mut self, stage: Stage, _: &[Frame], notes: &[Note], private: &Private) {
        let cycles = (self.clock)().wrapping_sub(self.last);
        let events = if self.batch == 1 { self.events(private) } else { ArrayVec::new() };
        // Where nothing is translated nobody looked.
        self.translated |= stage == Stage::Translate;
        for (n, marked) in &mut self.marked {
            let turn = if self.translated { private.flows.turns[*n] } else { Turn::Stays };
            if let Some(note) = notes.get(*n) {
                _ = marked.steps.try_push(Passed {
                    stage,
                    note: *note,
                    turn,
                    cycles,
                    events: events.clone(),
                });
            }
        }
        if stage == Stage::Emit {
            for (_, marked) in self.marked.drain(..) {
                // There is a place for every record.
                _ = self.live.full.push(marked);
            }
        }
        // What was written down here is nobody's time.
        self.last = (self.clock)();
    }
}
