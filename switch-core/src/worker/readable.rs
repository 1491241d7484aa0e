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
    /// Lanes that were considered: those that came since have higher numbers.
    lanes: usize,
}

impl Readable {
    /// No lane yet.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self { epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?, any: false, lanes: 0 })
    }

    /// Lanes are gone. A fresh set cannot hold a dead one.
    pub fn renew(&mut self, turn: &Turn) {
        let Ok(fresh) = Self::new() else { return };
        *self = fresh;
        self.extend(turn);
    }

    /// Lanes have come, behind those that there were: a port more costs the same however many there are.
    pub fn extend(&mut self, turn: &Turn) {
        let known = std::mem::replace(&mut self.lanes, turn.lanes());
        for (index, fd) in turn.asked_by_call().filter(|(index, _)| *index >= known) {
            self.any = true;
            let lane = epoll::EventData::new_u64(index as u64);
            // The kernel refuses for want of memory only; the lane is then served when lanes go.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::Now;
    use crate::port::memory::{MemoryPeer, wire};
    use crate::port::traffic::{client, server, udp_frame};
    use crate::rig::{Rig, Size};
    use crate::worker::piped::Piped;
    use crate::worker::turn::Lanes;
    use std::io::{PipeWriter, Write};
    use std::sync::Arc;
    use switch_api::PortSettings;

    /// A port more. Its number, its other end, and what makes it readable.
    fn add(rig: &mut Rig, name: &str) -> (u16, MemoryPeer, PipeWriter) {
        let ((port, peer), (pipe, bell)) = (wire(), std::io::pipe().unwrap());
        let port = Piped { inner: port, pipe, hurried: Arc::default(), by_call: true };
        let id = rig.add_port(name, PortSettings::default(), Box::new(port), 0).unwrap();
        (id, peer, bell)
    }

    /// A turn behind a look, in which a frame waits at each of some ports. How many were taken in, and what became of the lanes.
    fn turn(rig: &mut Rig, readable: &Readable, peers: &[&MemoryPeer]) -> (usize, Lanes) {
        for (peer, flow) in peers.iter().zip(0..) {
            assert!(peer.send(udp_frame(server(flow), client(flow), flow, 60)));
        }
        readable.look(&mut rig.turns[0]);
        let outcome = rig.turns[0].run(Now::default());
        (outcome.frames, outcome.lanes)
    }

    #[test]
    fn lanes_that_come_are_looked_at_beside_those_that_there_were() {
        let (mut rig, mut readable) = (Rig::new(Size::default()), Readable::new().unwrap());
        let (first, a, _quiet) = add(&mut rig, "a");
        assert_eq!(turn(&mut rig, &readable, &[]), (0, Lanes::More));
        readable.extend(&rig.turns[0]);
        assert_eq!(turn(&mut rig, &readable, &[&a]), (0, Lanes::Same), "nobody says that it has something");

        let (_, b, mut bell) = add(&mut rig, "b");
        bell.write_all(&[1]).unwrap();
        assert_eq!(turn(&mut rig, &readable, &[]).1, Lanes::More);
        readable.extend(&rig.turns[0]);
        readable.extend(&rig.turns[0]);
        assert_eq!(turn(&mut rig, &readable, &[&b]), (1, Lanes::Same));

        // Two at once: who goes makes all others' numbers other ones.
        rig.take_lane(first, 0, 0);
        let (_, c, mut bell) = add(&mut rig, "c");
        bell.write_all(&[1]).unwrap();
        assert_eq!(turn(&mut rig, &readable, &[]).1, Lanes::Others);
        readable.renew(&rig.turns[0]);
        assert_eq!(turn(&mut rig, &readable, &[&b, &c]), (2, Lanes::Same));
    }
}
