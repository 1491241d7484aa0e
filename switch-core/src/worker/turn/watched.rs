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

    /// Lanes whose `recv` costs a system call, by number, and what is readable when they have something.
    pub fn asked_by_call(&self) -> impl Iterator<Item = (usize, BorrowedFd<'_>)> {
        let lanes = self.lanes.iter().enumerate().filter(|(_, lane)| lane.by_call && !lane.dead);
        lanes.filter_map(|(index, lane)| Some((index, lane.door.wait_on()?)))
    }

    /// Of the lanes of [`Turn::asked_by_call`], these have something and no others. Nobody has to say so: they
    /// are all asked then.
    pub fn set_readable(&mut self, lanes: impl Iterator<Item = usize>) {
        for lane in &mut self.lanes {
            lane.rested = !lane.readable;
            lane.readable = !lane.by_call;
        }
        for index in lanes {
            if let Some(lane) = self.lanes.get_mut(index) {
                lane.readable = true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on should panic where it stands")]

    use crate::counter::Counters;
    use crate::frame::{Area, Batch, Pool, TxQueue};
    use crate::pipeline::Now;
    use crate::port::memory::wire;
    use crate::port::{Port, Remains, Sent, Serviced};
    use crate::rig::{Rig, Size};
    use std::os::fd::BorrowedFd;
    use std::sync::{Arc, Mutex};
    use switch_api::PortSettings;

    /// How a port was asked, and nothing ever comes.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Asked {
        First,
        More,
    }

    /// A port that is asked by a call, and notes how.
    #[derive(Debug)]
    struct Noting(Box<dyn Port>, Arc<Mutex<Vec<Asked>>>);

    impl Port for Noting {
        fn recv(&mut self, _: &mut Pool, _: &mut Batch) {
            self.1.lock().unwrap().push(Asked::More);
        }
        fn recv_first(&mut self, _: &mut Pool, _: &mut Batch) {
            self.1.lock().unwrap().push(Asked::First);
        }
        fn send(&mut self, pool: &mut Pool, queue: &mut TxQueue) -> Sent {
            self.0.send(pool, queue)
        }
        fn service(&mut self, pool: &mut Pool, busy: bool, counters: &Counters) -> Serviced {
            self.0.service(pool, busy, counters)
        }
        fn wait_on(&self) -> Option<BorrowedFd<'_>> {
            None
        }
        fn is_asked_by_call(&self) -> bool {
            true
        }
        fn held(&self) -> usize {
            self.0.held()
        }
        fn close(self: Box<Self>, area: &Area) -> Remains {
            self.0.close(area)
        }
    }

    #[test]
    fn what_comes_after_a_rest_comes_first_and_alone_and_then_as_much_as_there_is() {
        let mut rig = Rig::new(Size::default());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (port, _peer) = wire();
        rig.add_port("a", PortSettings::default(), Box::new(Noting(Box::new(port), asked.clone())), 0)
            .unwrap();
        let turn = &mut rig.turns[0];
        turn.run(Now::default());
        asked.lock().unwrap().clear();
        let mut after = |readable: &[bool]| {
            for is in readable {
                turn.set_readable(is.then_some(0).into_iter());
                turn.run(Now::default());
            }
            std::mem::take(&mut *asked.lock().unwrap())
        };
        assert_eq!(after(&[false]), []);
        assert_eq!(after(&[true, true, true]), [Asked::First, Asked::More, Asked::More]);
        assert_eq!(after(&[false, false, true, true]), [Asked::First, Asked::More]);
        turn.serve_first([0].into_iter(), Now::default());
        assert_eq!(*asked.lock().unwrap(), [Asked::First], "who woke the worker had slept");
    }
}
