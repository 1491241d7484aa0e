//! A worker that stands still, so that lanes can move ([`super::super::handover`]): it takes nothing in, lets nothing that
//! waits for a neighbour go, and works off what it has. It says when it has stopped, and when it is empty.

use super::{Lane, Turn};
use crate::config::snapshot::{PortId, Snapshot};
use crate::counter::{DropReason, LaneLoad};
use crate::pipeline::hold::Luggage;
use crate::port::Port;
use crate::worker::Report;
use crate::worker::handover::Ticket;
use std::sync::Arc;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pause {
    ticket: Ticket,
    /// Whose lanes move.
    port: PortId,
    owes: Option<Owed>,
    /// The generation with which it may go on.
    until: Option<u64>,
}

/// What the control thread waits for.
#[derive(Clone, Copy, Debug)]
enum Owed {
    Stopped,
    Drained,
}

impl Turn {
    /// Stands still from the next lane on.
    pub(super) fn pause(&mut self, ticket: Ticket, port: PortId) {
        self.pause = Some(Pause { ticket, port, owes: Some(Owed::Stopped), until: None });
    }

    /// Says when nothing is left here. By now nobody takes anything in.
    pub(super) fn drain(&mut self, ticket: Ticket) {
        if let Some(pause) = self.pause.as_mut().filter(|pause| pause.ticket == ticket) {
            pause.owes = Some(Owed::Drained);
        }
    }

    /// Goes on with the snapshot of this generation, or a later one: an older one says who served the lanes before.
    pub(super) fn resume(&mut self, generation: u64) {
        if let Some(pause) = &mut self.pause {
            pause.until = Some(generation);
        }
        self.go_on();
    }

    pub(super) fn go_on(&mut self) {
        let has_come = |until| self.reader.generation() >= until;
        if self.pause.is_some_and(|pause| pause.until.is_some_and(has_come)) {
            self.pause = None;
        }
    }

    /// Tells the control thread what it waits for, once it is so.
    pub(super) fn acknowledge(&mut self, snapshot: &Snapshot) {
        let Some(pause) = self.pause else { return };
        let Some(owed) = pause.owes.filter(|_| self.is_settled(pause.port, snapshot)) else { return };
        let report = match owed {
            Owed::Stopped => Report::Stopped(pause.ticket),
            Owed::Drained if self.mail().inbox.is_empty() => Report::Drained(pause.ticket),
            Owed::Drained => return,
        };
        self.pause = Some(Pause { owes: None, ..pause });
        self.report(report);
    }

    /// Whether nothing waits here that could be overtaken. What a port of one lane does not take now may wait on: the lane
    /// stays, and whoever sends by it later comes behind.
    fn is_settled(&self, moving: PortId, snapshot: &Snapshot) -> bool {
        let stays_in_order = |port: &PortId| {
            *port != moving && snapshot.port(*port).is_some_and(|facts| facts.lanes.len() == 1)
        };
        self.pipeline.private.dirty.iter().all(stays_in_order)
    }

    /// Hands a lane over, with the packets that came in by it and wait for a neighbour.
    pub(super) fn pack(&mut self, port: PortId, queue: u16, luggage: Luggage) {
        let mut luggage = luggage;
        let found = self.lanes.iter().position(|lane| (lane.port, lane.queue) == (port, queue));
        let lane = found.map(|index| {
            let Lane { door, load, .. } = self.lanes.remove(index);
            self.pipeline.private.holds.pack((port, queue), &mut luggage);
            self.pool.note_given(door.held() + luggage.len());
            self.pipeline.private.counters.ledger.handed_over.add(luggage.len() as u64);
            (door, load)
        });
        self.report(Report::Packed { from: self.id, port, queue, lane, luggage });
    }

    /// Takes packets in that wait for a neighbour. There may be no room for all: others wait here as well.
    pub(super) fn unpack(&mut self, luggage: Luggage) {
        let mut luggage = luggage;
        self.pool.note_taken(luggage.len());
        let most = self.pool.expected().max(0) as usize;
        let private = &mut self.pipeline.private;
        private.counters.ledger.taken_over.add(luggage.len() as u64);
        for (key, held) in luggage.drain() {
            let port = held.in_port;
            if let Err(frame) = private.holds.push(key, held, most, self.now) {
                private.drop(&mut self.pool, port, DropReason::HoldFull, frame);
            }
        }
        // Their neighbour may have answered on the way.
        private.holds.poke();
        self.report(Report::Unpacked(luggage));
    }

    /// Serves a lane from now on.
    pub(super) fn add_lane(&mut self, port: PortId, queue: u16, door: Box<dyn Port>, load: Arc<LaneLoad>) {
        self.pool.note_taken(door.held());
        self.lanes.push(Lane::new(port, queue, door, load));
    }
}
