//! Closing ports: what workers have of them is taken back, and their frames go home. A worker that does not answer is not waited for any
//! longer than [`WORKER_PATIENCE`]: the device is let go of all the same, and what the worker hands over later is taken then.

use super::cable;
use super::doors::{Door, Doors, LOOK_AGAIN, WORKER_PATIENCE};
use crate::config::snapshot::PortId;
use crate::pipeline::hold::Luggage;
use crate::port::Port;
use crate::worker::mail::MovedLane;
use crate::worker::{Command, Report, thread};
use std::time::Instant;
use switch_api::{ApiError, Code};

impl Doors {
    /// Takes a port's lanes from their workers, closes them, and sends their frames home. No snapshot in
    /// use names the port any more. Its device is for [`Door::let_go_of_device`], whatever comes of this.
    pub fn close(&mut self, id: PortId, door: &Door) -> Result<usize, ApiError> {
        // Its lanes cannot be kept: whatever goes wrong from here on, it needs no frames any more.
        self.leave(id);
        let reclaimed = self.close_lanes(id, &door.workers);
        if door.ifindex > 0 {
            self.note_left(door.ifindex);
        }
        reclaimed
    }

    /// Takes lanes and room from all workers at once: what is asked for together is waited for together. Each answers in the order in
    /// which it was asked. What comes after an error is for [`Doors::bury`].
    fn close_lanes(&mut self, id: PortId, workers: &[u16]) -> Result<usize, ApiError> {
        for (queue, worker) in workers.iter().enumerate() {
            self.tell_for_sure(*worker, Command::TakeLane(id, queue as u16));
        }
        let everybody = 0..self.mail.len() as u16;
        everybody.clone().for_each(|worker| self.tell_for_sure(worker, Command::CloseQueue(id)));
        let mut taking_in = Vec::new();
        for (queue, worker) in workers.iter().enumerate() {
            let ours = |report: &Report| matches!(report, Report::LaneOut(port, q, _) if (*port, usize::from(*q)) == (id, queue));
            let Report::LaneOut(_, _, Some(lane)) = self.await_report(*worker, ours)? else { continue };
            self.bury(*worker, id, lane);
            taking_in.push(*worker);
        }
        for worker in everybody {
            self.await_report(worker, |report| matches!(report, Report::QueueOut(port, _) if *port == id))?;
        }
        let mut reclaimed = 0;
        for worker in taking_in {
            if let Report::TakenIn(frames) =
                self.await_report(worker, |report| matches!(report, Report::TakenIn(_)))?
            {
                reclaimed += frames;
            }
        }
        Ok(reclaimed)
    }

    /// Closes a lane that its worker has handed back, in time or not, and gives it what frames the lane had.
    pub(super) fn bury(&mut self, worker: u16, port: PortId, lane: Box<dyn Port>) {
        let load = &mut self.load[usize::from(worker)];
        *load = load.saturating_sub(1);
        let mut remains = lane.close(&self.area);
        self.lost.extend(remains.lost.drain(..).map(|(reason, frames)| (port, reason, frames)));
        self.tell_for_sure(worker, Command::TakeIn(remains));
    }

    /// Gives a lane that was to move, and that nobody waited for any more, back to the worker that had it. If its port is closed by now it is
    /// too late for that.
    pub(super) fn give_back(
        &mut self,
        from: u16,
        (port, queue): (PortId, u16),
        lane: MovedLane,
        luggage: Luggage,
        is_open: bool,
    ) {
        match is_open {
            true => self.tell_for_sure(from, Command::AddLane(port, queue, lane.0, lane.1)),
            false => self.bury(from, port, lane.0),
        }
        self.tell_for_sure(from, Command::Unpack(luggage));
    }

    pub(super) fn tell(&mut self, worker: u16, command: Command) -> Result<(), ApiError> {
        if self.catch_up(worker) && thread::command(&self.mail[usize::from(worker)], command) {
            return Ok(());
        }
        Err(ApiError::new(Code::Timeout, format!("worker {worker} takes no commands"))
            .hint("its core may be taken by another program; see `switch-ctl worker list`"))
    }

    /// Tells a worker what must not be lost. If its box is full it is told when there is room, and nothing else before it.
    pub(super) fn tell_for_sure(&mut self, worker: u16, command: Command) {
        self.backlog[usize::from(worker)].push_back(command);
        self.catch_up(worker);
    }

    /// Tells a worker what found no room in its box before. Whether that was all.
    fn catch_up(&mut self, worker: u16) -> bool {
        let (mail, backlog) = (&self.mail[usize::from(worker)], &mut self.backlog[usize::from(worker)]);
        while let Some(command) = backlog.pop_front() {
            let refused = mail.commands.push(command);
            mail.ring(|| thread::now().ns);
            if let Err(command) = refused {
                backlog.push_front(command);
                return false;
            }
        }
        true
    }

    /// The same, of all workers.
    pub(super) fn catch_up_with_all(&mut self) {
        for worker in 0..self.mail.len() {
            self.catch_up(worker as u16);
        }
    }

    /// Waits for a report; others that come meanwhile are kept.
    fn await_report(&mut self, worker: u16, is_it: impl Fn(&Report) -> bool) -> Result<Report, ApiError> {
        let deadline = Instant::now() + WORKER_PATIENCE;
        while Instant::now() < deadline {
            match self.mail[usize::from(worker)].reports.pop() {
                Some(report) if is_it(&report) => return Ok(report),
                Some(other) => self.stash.push((worker, other)),
                None => std::thread::park_timeout(LOOK_AGAIN),
            }
        }
        Err(ApiError::new(Code::Timeout, format!("worker {worker} did not answer"))
            .hint("its core may be taken by another program; see `switch-ctl worker list`"))
    }
}

impl Door {
    /// Takes the program off its device, or removes a device that we made.
    pub(super) fn let_go_of_device(self) -> Result<(), ApiError> {
        // Before its program is off: by a bare cable the pod would speak to the node's kernel. With it goes what is in its namespace. One that
        // is gone with the pod is what we want.
        let removed = self.cable.map_or(Ok(()), |wanted| cable::remove(&wanted));
        if let Some(attached) = self.attached {
            // A pin that is gone already, because somebody removed it, is what we want.
            _ = attached.detach();
        }
        if let Some(tap) = self.tap {
            // A device that the pod deleted already is what we want.
            _ = tap.remove();
        }
        removed
    }
}
