//! Packet memory grows and shrinks: what [`super::budget`] decided, done. A region that comes is mapped and its
//! frames are dealt out to the workers; one that goes is emptied by them, frame by frame as they come home, and
//! only when every frame is here does the kernel get it back. At any time each frame is in somebody's books, so
//! `free + in rings + in flight = total` holds throughout.

use super::budget::{Step, Wants};
use super::doors::Doors;
use crate::config::snapshot::PortId;
use crate::frame::{Frame, Pool};
use crate::worker::{Command, Mail, thread};
use std::collections::VecDeque;
use switch_api::{ApiError, Code};

impl Doors {
    /// Makes room for a port: the region whose frames it gets, if it is bound to one. It is in the books until
    /// [`Doors::leave`].
    pub(super) fn admit(&mut self, id: PortId, wants: &Wants) -> Result<Option<u16>, ApiError> {
        let (region, step) = self.budget.admit(id, wants)?;
        let done = match step {
            Step::Ready => Ok(()),
            Step::Map(region) => self.map(region),
            Step::Revive(region) => self.revive(region),
        };
        let done = done.and_then(|()| match (&mut self.engine, region) {
            (Ok(engine), Some(region)) => engine.register(region).map_err(|error| {
                ApiError::new(
                    Code::System,
                    format!("region {region} of packet memory was not registered: {error}"),
                )
                .hint("AF_XDP locks packet memory: raise `ulimit -l` (LimitMEMLOCK=)")
            }),
            _ => Ok(()),
        });
        done.inspect_err(|_| self.leave(id))?;
        Ok(region)
    }

    /// A port is gone, or did not open.
    pub(super) fn leave(&mut self, id: PortId) {
        self.budget.release(id);
    }

    fn map(&mut self, region: u16) -> Result<(), ApiError> {
        let mapped = self.workers_take_commands().and_then(|()| {
            self.area.grow(region).map_err(|error| {
                ApiError::new(Code::System, error.to_string()).hint("free memory, or delete ports")
            })
        });
        let frames = mapped.inspect_err(|_| self.budget.absent(region))?;
        tracing::info!(region, frames = frames.len(), "packet memory grows");
        self.hand_out(region, frames);
        Ok(())
    }

    /// Takes back a region that is being emptied. What is still out comes home by itself.
    fn revive(&mut self, region: u16) -> Result<(), ApiError> {
        self.workers_take_commands().inspect_err(|_| self.budget.emptying(region))?;
        let frames = std::mem::take(&mut self.emptied);
        self.hand_out(region, frames);
        Ok(())
    }

    fn hand_out(&mut self, region: u16, frames: Vec<Frame>) {
        let dealt = Pool::deal_region(&self.area, frames, self.mail.len());
        for (worker, frames) in dealt.into_iter().enumerate() {
            self.tell_for_sure(worker as u16, Command::Grow(region, frames));
        }
    }

    /// Whether every worker has room for a command: nobody else gives any, so it is there when it is needed.
    pub(super) fn workers_take_commands(&self) -> Result<(), ApiError> {
        let is_behind =
            |(mail, backlog): (&Mail, &VecDeque<_>)| mail.commands.is_full() || !backlog.is_empty();
        match self.mail.iter().zip(&self.backlog).position(is_behind) {
            None => Ok(()),
            Some(worker) => Err(ApiError::new(Code::Timeout, format!("worker {worker} takes no commands"))
                .hint("its core may be taken by another program; see `switch-ctl worker list`")),
        }
    }

    /// Once a second: starts to give a region back, if one is not needed.
    pub(super) fn shrink(&mut self, now_s: u32) {
        if self.workers_take_commands().is_err() {
            return;
        }
        let Some(region) = self.budget.surplus(now_s) else { return };
        let room = self.area.size().chunks as usize;
        for mail in self.mail.iter() {
            // There is room: see above.
            _ = thread::command(mail, Command::Empty(region, Vec::with_capacity(room)));
        }
    }

    /// A worker handed its part of a region over.
    pub(super) fn take_emptied(&mut self, region: u16, frames: Vec<Frame>) {
        if !self.budget.is_emptying(region) {
            // It is wanted again since.
            self.hand_out(region, frames);
            return;
        }
        self.emptied.extend(frames);
        if self.emptied.len() < self.area.size().chunks as usize {
            return;
        }
        if let Ok(engine) = &mut self.engine {
            engine.unregister(region);
        }
        let frames = std::mem::take(&mut self.emptied);
        match self.area.shrink(region, frames) {
            Ok(()) => {
                self.budget.absent(region);
                tracing::info!(region, "packet memory shrinks");
            }
            Err(frames) => {
                tracing::warn!("the kernel did not take region {region} of packet memory back");
                self.budget.serving(region);
                self.hand_out(region, frames);
            }
        }
    }
}
