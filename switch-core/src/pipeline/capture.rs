//! A capture: copies of frames that pass, for the control thread to hand on. A worker fills records that were made
//! before it began, and takes none when there are none: what found no record is counted as lost, and no frame waits.
//! While there is no capture all of this is one look at an empty option a batch.

use super::live::Live;
use super::note::Note;
use super::verdict::Verdict;
use super::{Now, Private, Watch};
use crate::config::snapshot::PortId;
use crate::counter::{DropReason, Stage};
use crate::frame::{Area, BATCH_FRAMES, Frame, queue::TX_QUEUE_FRAMES};
use crate::wire::bpf::Program;
use arrayvec::ArrayVec;
use crossbeam::queue::ArrayQueue;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Memory of a capture, in bytes; with records of 2 KiB, 4 096 frames: 20 ms of 200 000 frames a second.
const MEMORY_BYTES: usize = 8 << 20;
/// Most bytes of a frame that are kept.
pub const SNAPLEN_MAX: usize = 65_535;
/// Fewest: an Ethernet and an IPv6 header with their ports.
pub const SNAPLEN_MIN: usize = 64;

/// Where a frame was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It came in by the port; this was decided about it.
    In(Verdict),
    /// It left by the port.
    Out,
    /// It was dropped; the port is the one it is counted with.
    Dropped(DropReason),
}

/// What is captured.
#[derive(Debug)]
pub struct Wanted {
    /// By port number; a port beyond is not.
    pub ports: Box<[bool]>,
    /// Frames that come in.
    pub inbound: bool,
    /// Frames that leave.
    pub outbound: bool,
    /// Frames that are dropped, by reason number.
    pub reasons: Box<[bool]>,
    /// Of frames that come in only those that were decided about at this stage of [`Capture::STAGES`].
    pub stage: Option<Stage>,
    /// Only those it accepts.
    pub filter: Option<Program>,
    /// Bytes kept of a frame.
    pub snaplen: usize,
}

/// A frame, as far as it is kept.
#[derive(Debug)]
pub struct Record {
    /// When.
    pub now: Now,
    /// Where.
    pub port: PortId,
    /// See [`Seen`].
    pub seen: Seen,
    /// Bytes it had.
    pub len: usize,
    /// Those that are kept.
    pub bytes: Vec<u8>,
}

/// See the module.
#[derive(Debug)]
pub struct Capture {
    wanted: Wanted,
    free: ArrayQueue<Box<Record>>,
    full: ArrayQueue<Box<Record>>,
    lost: AtomicU64,
    now_ns: AtomicU64,
    live: Option<Live>,
}

impl Capture {
    /// Stages that decide about a frame: what comes behind them is done with it, and drops by reason.
    pub const STAGES: [Stage; 11] = [
        Stage::Parse,
        Stage::Guard,
        Stage::Learn,
        Stage::Tunnel,
        Stage::Track,
        Stage::Translate,
        Stage::Route,
        Stage::Forward,
        Stage::Admit,
        Stage::Rewrite,
        Stage::Egress,
    ];

    /// The stage that is wanted.
    pub fn stage(&self) -> Option<Stage> {
        self.wanted.stage
    }

    /// With all the memory it will ever have.
    pub fn new(wanted: Wanted) -> Self {
        let snaplen = wanted.snaplen.clamp(SNAPLEN_MIN, SNAPLEN_MAX);
        let records = MEMORY_BYTES / snaplen.next_power_of_two();
        let wanted = Wanted { snaplen, ..wanted };
        let (free, full) = (ArrayQueue::new(records), ArrayQueue::new(records));
        for _ in 0..records {
            let bytes = Vec::with_capacity(snaplen);
            let record = Record { now: Now::default(), port: 0, seen: Seen::Out, len: 0, bytes };
            _ = free.push(Box::new(record));
        }
        Self { wanted, free, full, lost: AtomicU64::new(0), now_ns: AtomicU64::new(0), live: None }
    }

    /// A live trace in the place of a capture: it copies nothing, and follows what comes in by `ports`.
    pub fn live(ports: Box<[bool]>, live: Live) -> Self {
        let reasons = vec![false; DropReason::ALL.len()].into();
        let wanted = Wanted {
            ports,
            inbound: true,
            outbound: false,
            reasons,
            stage: None,
            filter: None,
            snaplen: SNAPLEN_MIN,
        };
        let (free, full) = (ArrayQueue::new(1), ArrayQueue::new(1));
        Self { wanted, free, full, lost: AtomicU64::new(0), now_ns: AtomicU64::new(0), live: Some(live) }
    }

    /// What follows frames, if this is no capture.
    pub fn following(&self) -> Option<&Live> {
        self.live.as_ref()
    }

    /// The oldest frame that nobody has taken yet. Give it back.
    pub fn take(&self) -> Option<Box<Record>> {
        self.full.pop()
    }

    /// Gives a record back.
    pub fn give(&self, record: Box<Record>) {
        _ = self.free.push(record);
    }

    /// Frames that were wanted and found no record.
    pub fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }

    /// What a worker's turn begins with.
    pub fn begin_turn(&self, now: Now) {
        self.now_ns.store(now.ns, Relaxed);
    }

    fn wants_port(&self, port: PortId) -> bool {
        self.wanted.ports.get(usize::from(port)) == Some(&true)
    }

    /// Whether frames that come in by `port` are wanted.
    pub fn wants_in(&self, port: PortId) -> bool {
        self.wanted.inbound && self.wants_port(port) && self.live.as_ref().is_none_or(Live::is_open)
    }

    /// Whether frames that leave by `port` are wanted.
    pub fn wants_out(&self, port: PortId) -> bool {
        self.wanted.outbound && self.wants_port(port)
    }

    /// A frame that is dropped.
    #[cold]
    #[inline(never)]
    pub(super) fn dropped(&self, area: &Area, port: PortId, reason: DropReason, frame: &Frame) {
        if self.wanted.reasons[reason as usize]
            && self.wants_port(port)
            && let Some(mut record) = self.copy(port, area.bytes(frame))
        {
            record.seen = Seen::Dropped(reason);
            self.keep(record);
        }
    }

    /// A record of a frame, if it is wanted.
    fn copy(&self, port: PortId, bytes: &[u8]) -> Option<Box<Record>> {
        if self.wanted.filter.as_ref().is_some_and(|filter| !filter.accepts(bytes, bytes.len())) {
            return None;
        }
        let Some(mut record) = self.free.pop() else {
            self.lost.fetch_add(1, Relaxed);
            return None;
        };
        record.now = Now { ns: self.now_ns.load(Relaxed) };
        (record.port, record.len) = (port, bytes.len());
        record.bytes.clear();
        record.bytes.extend_from_slice(&bytes[..bytes.len().min(self.wanted.snaplen)]);
        Some(record)
    }

    fn keep(&self, record: Box<Record>) {
        // There is a place for every record.
        _ = self.full.push(record);
    }
}

/// Frames that came in by one port in one batch: copied before the stages change them, kept with what was decided.
#[derive(Debug)]
pub struct Inbound<'a> {
    capture: &'a Capture,
    records: ArrayVec<Option<Box<Record>>, BATCH_FRAMES>,
    /// What was decided so far and at which stage, if that is asked for.
    fates: ArrayVec<(Verdict, Stage), BATCH_FRAMES>,
}

impl<'a> Inbound<'a> {
    /// Copies those that are wanted.
    pub fn new(capture: &'a Capture, area: &Area, port: PortId, frames: &[Frame]) -> Self {
        let records = frames.iter().map(|frame| capture.copy(port, area.bytes(frame))).collect();
        let fate = capture.wanted.stage.map(|_| (Verdict::Undecided, Stage::Parse));
        let fates = frames.iter().filter_map(|_| fate).collect();
        Self { capture, records, fates }
    }

    /// Whether the `n`th was decided about where that is asked for. The last word counts: a stage may change another's.
    fn is_wanted(&self, n: usize) -> bool {
        let stage = self.fates.get(n).map(|(_, stage)| *stage);
        self.capture.wanted.stage == stage
    }
}

impl Watch for Inbound<'_> {
    fn after(&mut self, stage: Stage, _: &[Frame], notes: &[Note], _: &Private) {
        for (fate, note) in self.fates.iter_mut().zip(notes) {
            if fate.0 != note.verdict {
                *fate = (note.verdict, stage);
            }
        }
        if stage == Stage::Egress {
            let records = std::mem::take(&mut self.records);
            for (n, (record, note)) in records.into_iter().zip(notes).enumerate() {
                let Some(mut record) = record else { continue };
                if self.is_wanted(n) {
                    record.seen = Seen::In(note.verdict);
                    self.capture.keep(record);
                } else {
                    self.capture.give(record);
                }
            }
        }
    }
}

/// Frames that wait to leave by one port: copied before the port takes them, kept if it did.
#[derive(Debug)]
pub struct Outbound<'a> {
    capture: &'a Capture,
    records: ArrayVec<Option<Box<Record>>, TX_QUEUE_FRAMES>,
}

impl<'a> Outbound<'a> {
    /// Copies those that are wanted.
    pub fn new(capture: &'a Capture, area: &Area, port: PortId, frames: &[Frame]) -> Self {
        let records = frames.iter().take(TX_QUEUE_FRAMES).map(|frame| capture.copy(port, area.bytes(frame)));
        Self { capture, records: records.collect() }
    }

    /// The first `taken` have left.
    pub fn left(mut self, taken: usize) {
        for (n, record) in self.records.drain(..).enumerate() {
            let Some(mut record) = record else { continue };
            if n < taken {
                record.seen = Seen::Out;
                self.capture.keep(record);
            } else {
                self.capture.give(record);
            }
        }
    }
}
