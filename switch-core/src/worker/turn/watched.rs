//! Which lanes wake a sleeping worker, and which have something to be read.

use super::{Lane, Turn};
use std::os::fd::BorrowedFd;

impl Turn {
    /// Names the lanes that are not watched, by number and descriptor; those for which `enter` says so are from now on.
    pub fn watch(&mut self, enter: impl Fn(usize, BorrowedFd) -> bool) {
        let unwatched = |(_, lane): &(usize, &mut Lane)| lane.watched.is_none() && !lane.dead;
        for (index, lane) in self.lanes.iter_mut().enumerate().filter(unwatched) {
            lane.watched = lane.door.wait_on().filter(|fd| enter(index, *fd)).map(|_| 0);
        }
    }

    /// Names the descriptors of the lanes that sent much while they were watched; now they are not.
    pub fn unwatch_busy(&mut self, leave: impl Fn(BorrowedFd)) {
        for lane in self.lanes.iter_mut().filter(|lane| lane.sent_much()) {
            lane.door.wait_on().into_iter().for_each(&leave);
            lane.watched = None;
        }
    }

    /// No lane is watched any more.
    pub fn forget_watched(&mut self) {
        self.lanes.iter_mut().for_each(|lane| lane.watched = None);
    }

    /// How many lanes there are.
    pub fn lanes(&self) -> usize {
        self.lanes.len()
    }

    /// Lanes whose `recv` costs a system call, by number, and what is readable when they have something.
    pub fn asked_by_call(&self) -> impl Iterator<Item = (usize, BorrowedFd<'_>)> {
        let lanes = self.lanes.iter().enumerate().filter(|(_, lane)| lane.by_call && !lane.dead);
        lanes.filter_map(|(index, lane)| Some((index, lane.door.wait_on()?)))
    }

    /// Of the lanes of [`Turn::asked_by_call`], these have something and no others. Nobody has to say so: they
    /// are all asked then.
    pub fn set_readable(&mut self, lanes: impl Iterator<Item = usize>) {
        for lane in &mut self.lanes {
            lane.readable = !lane.by_call;
        }
        for index in lanes {
            if let Some(lane) = self.lanes.get_mut(index) {
                lane.readable = true;
            }
        }
    }
}
