//! `trace.live`: real frames, followed through the stages by the workers ([`crate::pipeline::live`]); here their way becomes
//! words, the same as those of a dry trace. It takes the place of a capture: one of either at a time.

use super::capture::Running;
use super::daemon::Daemon;
use super::trace::Teller;
use crate::config::PORTS_MAX;
use crate::config::model::no_such;
use crate::counter::Stage;
use crate::pipeline::capture::Capture;
use crate::pipeline::dry::Step;
use crate::pipeline::live::{FRAMES_MAX, Live, Marked};
use crate::pipeline::note::Note;
use switch_api::{ApiError, CaptureStarted, Code, Hex, LiveStep, Name, TraceLive, TracedFrame};

impl Daemon {
    /// Begins to follow the next frames that are wanted.
    pub(super) fn start_live(&mut self, asked: &TraceLive) -> Result<CaptureStarted, ApiError> {
        if !(1..=FRAMES_MAX).contains(&asked.count) {
            let text = format!("{} frames cannot be followed at once", asked.count);
            return Err(ApiError::new(Code::InvalidParams, text)
                .field("count")
                .hint(format!("1 to {FRAMES_MAX}; trace again for more")));
        }
        let mut ports = vec![asked.ports.is_empty(); PORTS_MAX];
        for name in &asked.ports {
            let port = self.model.ports.get(name).ok_or_else(|| no_such("port", name).field("ports"))?;
            ports[usize::from(port.id)] = true;
        }
        let filter = super::capture::program(&asked.filter)?;
        self.run_capture(Capture::live(ports.into(), Live::new(filter, asked.count)))?;
        let all = || self.model.ports.keys().cloned().collect();
        Ok(CaptureStarted { ports: if asked.ports.is_empty() { all() } else { asked.ports.clone() } })
    }

    /// A frame's way, in words. They are read off the snapshot that is in force now, which the frame may have been a moment
    /// ahead of.
    pub(super) fn followed(&self, running: &Running, port: Name, marked: &Marked) -> TracedFrame {
        let snapshot = self.publisher.current().clone();
        let teller = Teller::new(self, &snapshot, marked.port, &marked.bytes);
        let clock = quanta::Clock::new();
        let ns = |cycles: u64| clock.delta_as_nanos(0, cycles);
        let received = LiveStep {
            stage: Stage::Recv.name().into(),
            verdict: "undecided".into(),
            why: format!("came in by {port}{}", among(marked.batch)),
            cycles: marked.received,
            ns: ns(marked.received),
        };
        let mut before = Note::default();
        let passed = marked.steps.iter().map(|passed| {
            let (stage, note, events) = (passed.stage, passed.note, passed.events.to_vec());
            let step = Step { stage, note, turn: passed.turn, events };
            let why = match stage {
                Stage::Learn if marked.batch > 1 && note.is_undecided() => teller.learned_before(&note),
                _ => teller.why(&step, &before, None),
            };
            before = note;
            let (stage, verdict) = (stage.name().into(), self.verdict_text(note.verdict));
            LiveStep { stage, verdict, why, cycles: passed.cycles, ns: ns(passed.cycles) }
        });
        TracedFrame {
            time_ns: running.time_of(marked.now),
            len: marked.len as u32,
            data: Hex(marked.bytes.clone()),
            batch: marked.batch as u32,
            generation: snapshot.generation,
            steps: std::iter::once(received).chain(passed).collect(),
            outcome: self.verdict_text(before.verdict),
            port,
        }
    }
}

fn among(batch: usize) -> String {
    if batch == 1 { ", alone".into() } else { format!(", one of a batch of {batch}") }
}
