//! Which lanes have something, for those whose `recv` costs a system call also when nothing arrived: asking each
//! of 250 idle TAPs would cost 250 calls a turn, asking for all of them costs one. The set is another one than
//! that which wakes a sleeping worker: here no lane is missing, ever.

use super::turn::Turn;
use rustix::event::{Timespec, epoll};
use std::os::fd::OwnedFd;

/// Lanes that are found readable at one look: a turn with so many batches takes a millisecond. Those for which
/// there is no room come first the next time: the kernel goes round.
const LANES_A_LOOK: usize = 64;

/// See the module.
#[derive(Debug)]
pub struct Readable {
    epoll: OwnedFd,
    any: bool,
}

impl Readable {
    /// No lane yet.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self { epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?, any: false })
    }

    /// The lanes have changed. A fresh set cannot hold a dead one.
    pub fn renew(&mut self, turn: &Turn) {
        let Ok(fresh) = Self::new() else { return };
        *self = fresh;
        for (index, fd) in turn.asked_by_call() {
            self.any = true;
            let lane = epoll::EventData::new_u64(index as u64);
            // The kernel refuses for want of memory only; the lane is then served when lanes change again.
            _ = epoll::add(&self.epoll, fd, lane, epoll::EventFlags::IN);
        }
    }

    /// Looks, and tells the turn.
    pub fn look(&self, turn: &mut Turn) {
        if !self.any {
            return;
        }
        let mut events = [const { std::mem::MaybeUninit::uninit() }; LANES_A_LOOK];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        // Interrupted: nobody is readable in this turn, and the next one looks again.
        let (found, _) = epoll::wait(&self.epoll, &mut events, Some(&now)).unwrap_or_default();
        turn.set_readable(found.iter().map(|event| event.data.u64() as usize));
    }
}
