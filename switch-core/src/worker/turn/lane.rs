//! A worker's side of a port's queue, and what it costs.

use super::share::Account;
use crate::config::snapshot::PortId;
use crate::counter::{LOAD_SAMPLE_EVERY, LaneLoad};
use crate::port::Port;
use quanta::Clock;
use std::sync::Arc;

/// Frames that a lane sends before it is no longer watched ([`crate::worker::watch`]): leaving the set and coming back
/// into it cost as much as being in it costs 20 frames.
const SENT_WATCHED_MAX: u32 = 256;

#[derive(Debug)]
pub(super) struct Lane {
    pub(super) port: PortId,
    pub(super) queue: u16,
    pub(super) door: Box<dyn Port>,
    pub(super) dead: bool,
    /// Its `recv` costs a call.
    pub(super) by_call: bool,
    /// Its `recv` may be called. Always, unless that costs a call and [`super::Turn::set_readable`] said no.
    pub(super) readable: bool,
    pub(super) load: Arc<LaneLoad>,
    /// Batches that were taken in by it, and lots sent for other workers: of some the time is taken.
    pub(super) batches: u64,
    /// Frames that it did not take when it sent last: they wait in front of its port's queue.
    pub(super) left: usize,
    /// It is in the set that wakes a sleeping worker, and has sent so many frames since.
    pub(super) watched: Option<u32>,
    /// What it has had of the worker's time.
    pub(super) account: Account,
}

impl Lane {
    pub(super) fn new(port: PortId, queue: u16, door: Box<dyn Port>, load: Arc<LaneLoad>) -> Self {
        let by_call = door.is_asked_by_call();
        Self {
            port,
            queue,
            door,
            dead: false,
            by_call,
            readable: true,
            load,
            batches: 0,
            left: 0,
            watched: None,
            account: Account::default(),
        }
    }

    /// Whether the time of what comes next is taken.
    pub(super) fn is_sampled(&mut self) -> bool {
        self.batches += 1;
        self.batches.is_multiple_of(LOAD_SAMPLE_EVERY)
    }

    /// Books the time since then. Nanoseconds.
    pub(super) fn note_time(&self, clock: &Clock, since: u64) -> u64 {
        let ns = clock.delta_as_nanos(since, clock.raw());
        self.load.busy_ns.add(ns * LOAD_SAMPLE_EVERY);
        ns
    }

    pub(super) fn sent_much(&self) -> bool {
        self.watched.is_some_and(|sent| sent >= SENT_WATCHED_MAX)
    }
}
