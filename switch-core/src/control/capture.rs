//! `capture`: one at a time, for the client that asked for it, as long as it is there. The records are the workers'
//! to fill ([`crate::pipeline::capture`]); here they become lines.

use super::daemon::Daemon;
use crate::config::PORTS_MAX;
use crate::config::model::no_such;
use crate::counter::{DropReason, Stage};
use crate::pipeline::Now;
use crate::pipeline::capture::{Capture, Record, SNAPLEN_MAX, SNAPLEN_MIN, Seen, Wanted};
use crate::pipeline::live::Live;
use crate::wire::bpf::{Instruction, Program};
use crate::worker::Command;
use crate::worker::thread::{command, now};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use switch_api::codec::encode_notice;
use switch_api::{
    ApiError, CaptureEnd, CaptureStart, CaptureStarted, CapturedFrame, Code, Direction, Hex, Name,
};

/// A capture that runs.
#[derive(Debug)]
pub(super) struct Running {
    capture: Arc<Capture>,
    /// By port number, as they were called when it began.
    names: Vec<Option<Name>>,
    frames: u64,
    /// From the workers' clock to the time of day.
    epoch_ns: u64,
}

impl Running {
    /// The workers' time, in nanoseconds since 1970.
    pub(super) fn time_of(&self, now: Now) -> u64 {
        self.epoch_ns + now.ns
    }
}

/// From CLOCK_MONOTONIC to nanoseconds since 1970.
pub(super) fn epoch_ns() -> u64 {
    let day = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64;
    day.saturating_sub(now().ns)
}

impl Daemon {
    /// Begins a capture.
    pub(super) fn start_capture(&mut self, start: &CaptureStart) -> Result<CaptureStarted, ApiError> {
        let (wanted, ports) = self.wanted(start)?;
        self.run_capture(Capture::new(wanted))?;
        Ok(CaptureStarted { ports })
    }

    /// Gives it to the workers, if they have none.
    pub(super) fn run_capture(&mut self, capture: Capture) -> Result<(), ApiError> {
        if self.capture.is_some() {
            return Err(ApiError::new(Code::Busy, "another client captures, or traces frames live")
                .hint("wait until it has ended; one runs at a time, over as many ports as wanted"));
        }
        let mut names = vec![None; PORTS_MAX];
        for (name, port) in &self.model.ports {
            names[usize::from(port.id)] = Some(name.clone());
        }
        let capture = Arc::new(capture);
        self.tell_workers(Some(&capture));
        self.capture = Some(Running { capture, names, frames: 0, epoch_ns: epoch_ns() });
        Ok(())
    }

    fn tell_workers(&self, capture: Option<&Arc<Capture>>) {
        for mail in self.doors.mail.iter() {
            // A worker that takes no commands is stopped as a whole: see `await_seen`.
            _ = command(mail, Command::Capture(capture.cloned()));
        }
    }

    fn wanted(&self, start: &CaptureStart) -> Result<(Wanted, Vec<Name>), ApiError> {
        let mut ports = vec![start.ports.is_empty(); PORTS_MAX];
        for name in &start.ports {
            let port = self.model.ports.get(name).ok_or_else(|| no_such("port", name).field("ports"))?;
            ports[usize::from(port.id)] = true;
        }
        let named = if start.ports.is_empty() {
            self.model.ports.keys().cloned().collect()
        } else {
            start.ports.clone()
        };
        let mut directions = start.directions.clone();
        match (directions.is_empty(), start.reasons.is_empty()) {
            (true, true) if start.stage.is_some() => directions.push(Direction::In),
            (true, true) => directions.extend([Direction::In, Direction::Out]),
            (true, false) => directions.push(Direction::Drop),
            (false, _) => {}
        }
        let mut reasons =
            vec![start.reasons.is_empty() && directions.contains(&Direction::Drop); DropReason::ALL.len()];
        for name in &start.reasons {
            let reason = DropReason::ALL.iter().find(|reason| reason.name() == name).ok_or_else(|| {
                ApiError::new(Code::InvalidParams, format!("no frame is dropped for {name:?}"))
                    .field("reasons")
                    .hint("`switch-ctl stats` names those that occurred; docs/API.md says where all are")
            })?;
            reasons[*reason as usize] = true;
        }
        let stage = start.stage.as_deref().map(|name| stage(name, start)).transpose()?;
        let snaplen = start.snaplen as usize;
        if !(SNAPLEN_MIN..=SNAPLEN_MAX).contains(&snaplen) {
            return Err(ApiError::new(
                Code::InvalidParams,
                format!("{snaplen} bytes of a frame cannot be kept"),
            )
            .field("snaplen")
            .hint(format!("{SNAPLEN_MIN} to {SNAPLEN_MAX}")));
        }
        let wanted = Wanted {
            ports: ports.into(),
            inbound: directions.contains(&Direction::In),
            outbound: directions.contains(&Direction::Out),
            reasons: reasons.into(),
            stage,
            filter: program(&start.filter)?,
            snaplen,
        };
        Ok((wanted, named))
    }

    pub(super) fn is_capturing(&self) -> bool {
        self.capture.is_some()
    }

    /// Up to `most` frames that were seen, as lines.
    pub(super) fn drain_capture(&mut self, most: usize, out: &mut Vec<u8>) {
        let Some(mut running) = self.capture.take() else { return };
        for _ in 0..most {
            if let Some(marked) = running.capture.following().and_then(Live::take) {
                if let Some(port) = running.names.get(usize::from(marked.port)).cloned().flatten() {
                    running.frames += 1;
                    out.extend(encode_notice("trace.frame", &self.followed(&running, port, &marked)));
                }
                continue;
            }
            let Some(record) = running.capture.take() else { break };
            let port = running.names.get(usize::from(record.port)).cloned().flatten();
            if let Some(port) = port {
                running.frames += 1;
                out.extend(encode_notice("capture.frame", &self.captured(&running, port, &record)));
            }
            running.capture.give(record);
        }
        self.capture = Some(running);
    }

    fn captured(&self, running: &Running, port: Name, record: &Record) -> CapturedFrame {
        let (direction, verdict) = match record.seen {
            Seen::In(verdict) => {
                let stage =
                    running.capture.stage().map_or(String::new(), |stage| format!(" at {}", stage.name()));
                (Direction::In, self.verdict_text(verdict) + &stage)
            }
            Seen::Out => (Direction::Out, "sent".into()),
            Seen::Dropped(reason) => (Direction::Drop, format!("drop {}", reason.name())),
        };
        CapturedFrame {
            time_ns: running.time_of(record.now),
            port,
            direction,
            verdict,
            len: record.len as u32,
            data: Hex(record.bytes.clone()),
        }
    }

    /// Its client has enough, or is gone: what is left, and how it was.
    pub(super) fn end_capture(&mut self, out: &mut Vec<u8>) {
        self.tell_workers(None);
        self.drain_capture(usize::MAX, out);
        if let Some(running) = self.capture.take() {
            let end = CaptureEnd { frames: running.frames, lost: running.capture.lost() };
            let what = if running.capture.following().is_some() { "trace.end" } else { "capture.end" };
            out.extend(encode_notice(what, &end));
            // Freed here, when no worker has it any more; a worker frees nothing.
            self.captures_ended.push(running.capture);
        }
        self.forget_captures();
    }

    /// Frees what no worker has any more.
    pub(super) fn forget_captures(&mut self) {
        self.captures_ended.retain(|capture| Arc::strong_count(capture) > 1);
    }
}

/// A stage that decides about frames. With it only what comes in is captured: what leaves, and what is dropped behind the stages, has
/// passed them all.
fn stage(name: &str, start: &CaptureStart) -> Result<Stage, ApiError> {
    if !start.reasons.is_empty() || start.directions.iter().any(|direction| *direction != Direction::In) {
        let text = "a stage is about frames that come in, with whatever is decided about them";
        return Err(ApiError::new(Code::InvalidParams, text).field("stage").hint(
            "leave directions and reasons out; or ask by reason alone, which also has what is dropped on its way out",
        ));
    }
    Capture::STAGES.into_iter().find(|stage| stage.name() == name).ok_or_else(|| {
        let stages = Capture::STAGES.map(Stage::name).join(", ");
        ApiError::new(Code::InvalidParams, format!("no stage {name:?} decides about frames"))
            .field("stage")
            .hint(format!(
                "those that do: {stages}; what is dropped before and behind them has its reason: --reason"
            ))
    })
}

/// A filter as it is sent; none: every frame.
pub(super) fn program(lines: &[(u16, u8, u8, u32)]) -> Result<Option<Program>, ApiError> {
    if lines.is_empty() {
        return Ok(None);
    }
    let read = |(code, jt, jf, k): &(u16, u8, u8, u32)| Instruction { code: *code, jt: *jt, jf: *jf, k: *k };
    let lines: Vec<_> = lines.iter().map(read).collect();
    Program::new(&lines).map(Some).map_err(|error| {
        ApiError::new(Code::InvalidParams, error.to_string())
            .field("filter")
            .hint("a filter is classic BPF over Ethernet: what `tcpdump -ddd` prints")
    })
}
