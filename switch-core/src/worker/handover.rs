//! Lanes move from worker to worker, and no frame is lost or overtakes another.
//!
//! A frame that came in by a lane may be on its way at three places when the lane moves: in a queue of the worker that
//! took it in, in the inbox of the worker that sends it, and in that worker's queue. The next frame of its flow, taken
//! in by the new worker, must not arrive before it; nor may what leaves by the moving lane, which others send. So
//! all workers stand still for a moment, in steps that each of them has to say it has made:
//!
//! | step | what has been said | so that |
//! |---|---|---|
//! | stop | nobody takes anything in, and own queues are empty | no inbox gets anything from here on |
//! | drain | inboxes and queues are empty | nothing is on its way |
//! | pack | the old workers handed the lanes back, with the packets that wait for a neighbour | |
//! | unpack | the new workers have both | |
//! | go on | with the snapshot that says who has the lanes now | others' frames reach the new worker |
//!
//! Until *pack* it can be given up, and everything is as it was. Meanwhile frames wait where they came from: in the ring
//! or the TAP's queue, as when a worker is late.
//!
//! This file is the control thread's side, without waiting: it is told what the workers say and says what they are to be
//! told, so that the simulator drives it as the daemon does. The worker's is [`super::turn`]'s `pause`. What is shared
//! between the two are the queues of [`super::mail`].

#[cfg(test)]
mod tests;

use super::{Command, Report};
use crate::config::snapshot::PortId;
use crate::pipeline::hold::Luggage;

/// Tells one handover's answers from another's, which was given up.
pub type Ticket = u64;

/// One lane of a port and its workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// The lane's queue.
    pub queue: u16,
    /// Who has it.
    pub from: u16,
    /// Who gets it.
    pub to: u16,
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Stop,
    Drain,
    Move,
}

/// See the module.
#[derive(Debug)]
pub struct Handover {
    ticket: Ticket,
    port: PortId,
    moves: Vec<Move>,
    step: Step,
    /// Workers that have not answered in this step.
    awaited: Vec<bool>,
    /// Lanes that a worker handed back and no worker has yet.
    packed: usize,
    /// Moves that were carried out.
    done: Vec<Move>,
    due: Vec<(u16, Command)>,
}

impl Handover {
    /// Moves lanes of `port` between `workers` workers. Nothing is told to anybody yet: [`Handover::due`].
    pub fn new(ticket: Ticket, port: PortId, moves: Vec<Move>, workers: u16) -> Self {
        let awaited = vec![true; usize::from(workers)];
        let due = (0..workers).map(|worker| (worker, Command::Pause(ticket, port))).collect();
        Self { ticket, port, moves, step: Step::Stop, awaited, packed: 0, done: Vec::new(), due }
    }

    /// What is to be told to whom, in this order.
    pub fn due(&mut self) -> Vec<(u16, Command)> {
        std::mem::take(&mut self.due)
    }

    /// What a worker said; it comes back if it was not for us.
    pub fn hear(&mut self, worker: u16, report: Report) -> Option<Report> {
        match report {
            Report::Stopped(ticket) if ticket == self.ticket => {
                if self.all_said(worker, Step::Stop) {
                    self.step = Step::Drain;
                    self.awaited.fill(true);
                    self.tell_all(Command::Drain);
                }
            }
            Report::Drained(ticket) if ticket == self.ticket => {
                if self.all_said(worker, Step::Drain) {
                    self.step = Step::Move;
                    let pack =
                        |lane: &Move| (lane.from, Command::PackLane(self.port, lane.queue, Luggage::new()));
                    self.packed = self.moves.len();
                    self.due.extend(self.moves.iter().map(pack));
                }
            }
            // Of one that was given up.
            Report::Stopped(_) | Report::Drained(_) => {}
            Report::Packed { from, port, queue, lane, luggage }
                if port == self.port && self.step == Step::Move =>
            {
                self.move_on(from, queue, lane, luggage);
            }
            Report::Unpacked(_) => self.packed = self.packed.saturating_sub(1),
            other => return Some(other),
        }
        None
    }

    fn move_on(&mut self, from: u16, queue: u16, lane: Option<super::mail::MovedLane>, luggage: Luggage) {
        let wanted = self.moves.iter().find(|lane| (lane.from, lane.queue) == (from, queue)).copied();
        match (lane, wanted) {
            (Some((door, load)), Some(wanted)) => {
                self.due.push((wanted.to, Command::AddLane(self.port, queue, door, load)));
                self.due.push((wanted.to, Command::Unpack(luggage)));
                self.done.push(wanted);
            }
            // The worker did not have it: there is nothing to move.
            _ => self.packed = self.packed.saturating_sub(1),
        }
    }

    /// Notes that this worker has made this step; whether all have.
    fn all_said(&mut self, worker: u16, step: Step) -> bool {
        if self.step != step {
            return false;
        }
        if let Some(awaited) = self.awaited.get_mut(usize::from(worker)) {
            *awaited = false;
        }
        !self.awaited.contains(&true)
    }

    fn tell_all(&mut self, command: impl Fn(Ticket) -> Command) {
        let told = (0..self.awaited.len()).map(|worker| (worker as u16, command(self.ticket)));
        self.due.extend(told);
    }

    /// Whether every lane is with its new worker. What is left is to publish who has them, and [`Handover::end`].
    pub fn is_moved(&self) -> bool {
        self.step == Step::Move && self.packed == 0 && self.due.is_empty()
    }

    /// Whether it can be given up: no lane has left its worker.
    pub fn can_be_given_up(&self) -> bool {
        self.step != Step::Move
    }

    /// A worker that has not answered.
    pub fn awaited(&self) -> Option<u16> {
        self.awaited.iter().position(|awaited| *awaited).map(|worker| worker as u16)
    }

    /// Whether every lane was where it should have been.
    pub fn is_complete(&self) -> bool {
        self.done.len() == self.moves.len()
    }

    /// Lanes that have moved.
    pub fn done(&self) -> &[Move] {
        &self.done
    }

    /// Lets everybody go on, with the snapshot of this generation at the earliest.
    pub fn end(&self, generation: u64) -> impl Iterator<Item = (u16, Command)> {
        (0..self.awaited.len() as u16).map(move |worker| (worker, Command::Resume(generation)))
    }
}
