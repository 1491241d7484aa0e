//! What wakes a sleeping worker: its bell and its lanes' descriptors, in one set that the kernel watches.
//!
//! A socket in such a set is dear while it is busy: after every frame that it sent, the kernel looks through
//! those who wait for room in it (`sock_wfree`), under a lock: a tenth of what a frame over a veth costs. So
//! a lane that sends much leaves the set, and before the worker sleeps all of them are in it again. A lane
//! that sends little stays: nothing stands between its first frame and the pipeline.

use super::Turn;
use rustix::event::{Timespec, epoll};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// Lanes that are told of at a time. The others are found by the turn, which looks at every lane.
const EVENTS: usize = 8;
/// What the bell is called in the set; a lane goes by its number.
const BELL: u64 = u64::MAX;

/// What woke the worker.
#[derive(Debug, Default)]
pub struct Woken {
    /// Lanes, by number.
    pub lanes: arrayvec::ArrayVec<usize, EVENTS>,
    /// The bell.
    pub by_bell: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Watch(OwnedFd);

impl Watch {
    /// Nothing in it yet.
    pub fn new() -> io::Result<Self> {
        Ok(Self(epoll::create(epoll::CreateFlags::CLOEXEC)?))
    }

    /// Begins anew with the bell alone: a fresh set cannot hold a lane that is gone. Lanes change rarely.
    pub fn renew(&mut self, bell: BorrowedFd, turn: &mut Turn) {
        let Ok(fresh) = Self::new() else { return };
        fresh.enter(BELL, bell);
        *self = fresh;
        turn.forget_watched();
    }

    /// Whether it is in the set now.
    fn enter(&self, name: u64, fd: BorrowedFd) -> bool {
        epoll::add(&self.0, fd, epoll::EventData::new_u64(name), epoll::EventFlags::IN).is_ok()
    }

    /// Every lane into the set. What is readable already wakes at once, so nothing is missed between this and
    /// [`Watch::sleep`]. A lane that finds no room is still served at every beat.
    pub fn enter_all(&self, turn: &mut Turn) {
        turn.watch(|lane, fd| self.enter(lane as u64, fd));
    }

    /// Lanes that sent much out of the set.
    pub fn leave_busy(&self, turn: &mut Turn) {
        // One that cannot leave is gone from the set already.
        turn.unwatch_busy(|fd| _ = epoll::delete(&self.0, fd));
    }

    /// Sleeps until something in the set is readable, or for `limit`. What is.
    pub fn sleep(&self, limit: Duration) -> Woken {
        let mut events = [const { std::mem::MaybeUninit::uninit() }; EVENTS];
        let limit = Timespec { tv_sec: limit.as_secs() as i64, tv_nsec: i64::from(limit.subsec_nanos()) };
        // Interrupted or timed out: either way the next turn looks.
        let (woken, _) = epoll::wait(self.0.as_fd(), &mut events, Some(&limit)).unwrap_or_default();
        let names = woken.iter().map(|event| event.data.u64());
        Woken {
            by_bell: names.clone().any(|name| name == BELL),
            lanes: names.filter(|name| *name != BELL).map(|lane| lane as usize).collect(),
        }
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
    use std::io::{PipeWriter, Write};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Instant;
    use switch_api::PortSettings;

    struct Scene {
        rig: Rig,
        source: MemoryPeer,
        sink: MemoryPeer,
        hurried: Arc<AtomicUsize>,
        _bell: PipeWriter,
    }

    impl Scene {
        fn new() -> Self {
            let mut rig = Rig::new(Size::default());
            let ((from, source), (to, sink)) = (wire(), wire());
            let (reader, mut bell) = std::io::pipe().unwrap();
            bell.write_all(&[1]).unwrap();
            rig.add_port("a", PortSettings::default(), Box::new(from), 0).unwrap();
            let hurried = Arc::new(AtomicUsize::new(0));
            let to = Piped { inner: to, pipe: reader, hurried: hurried.clone(), by_call: false };
            rig.add_port("b", PortSettings::default(), Box::new(to), 0).unwrap();
            Self { rig, source, sink, hurried, _bell: bell }
        }

        /// Sends so many frames by the readable port; whether a turn said that it was much.
        fn send(&mut self, frames: u32) -> bool {
            let mut much = false;
            for flow in 0..frames {
                assert!(self.source.send(udp_frame(server(flow), client(flow), flow, 60)));
                much |= self.rig.turns[0].run(Now::default()).sent_much;
                assert!(self.sink.recv().is_some());
            }
            much
        }

        fn serve(&mut self, lanes: &[usize]) -> usize {
            self.turn().serve_first(lanes.iter().copied(), Now::default())
        }

        fn turn(&mut self) -> &mut Turn {
            &mut self.rig.turns[0]
        }
    }

    const LONG: Duration = Duration::from_secs(10);

    fn wakes(watch: &Watch) -> bool {
        !watch.sleep(Duration::ZERO).lanes.is_empty()
    }

    #[test]
    fn a_lane_that_sends_much_leaves_the_set_and_is_back_before_the_worker_sleeps() {
        let mut scene = Scene::new();
        let watch = Watch::new().unwrap();
        scene.turn().run(Now::default());
        watch.enter_all(scene.turn());
        assert!(!scene.send(255), "it has not sent much yet");
        watch.leave_busy(scene.turn());
        assert!(wakes(&watch), "a lane that sent little stays");
        assert!(scene.send(1));
        watch.leave_busy(scene.turn());
        assert!(!wakes(&watch), "it is still in the set");
        assert!(!scene.send(600), "it cannot leave twice");
        watch.enter_all(scene.turn());
        assert!(wakes(&watch), "it is readable, but a sleeping worker would not know");
        assert!(scene.send(256), "it is counted from the beginning");
    }

    #[test]
    fn a_fresh_set_has_the_bell_and_then_every_lane() {
        let mut scene = Scene::new();
        let mut watch = Watch::new().unwrap();
        scene.turn().run(Now::default());
        let (bell, mut rope) = std::io::pipe().unwrap();
        watch.enter_all(scene.turn());
        watch.renew(bell.as_fd(), scene.turn());
        assert!(!wakes(&watch), "a lane of the old set is in the fresh one");
        rope.write_all(&[1]).unwrap();
        let start = Instant::now();
        let woken = watch.sleep(LONG);
        assert!(woken.by_bell && woken.lanes.is_empty(), "the bell is not a lane");
        assert!(start.elapsed() < LONG, "the bell does not wake");
        watch.renew(bell.as_fd(), scene.turn());
        watch.enter_all(scene.turn());
        watch.enter_all(scene.turn());
        assert!(scene.send(256), "it is watched again");
    }

    #[test]
    fn the_lane_that_woke_is_served_and_sent_on_before_any_other() {
        let mut scene = Scene::new();
        let watch = Watch::new().unwrap();
        scene.turn().run(Now::default());
        watch.enter_all(scene.turn());
        let woken = watch.sleep(Duration::ZERO);
        assert_eq!(woken.lanes.as_slice(), [1], "only the second lane has a descriptor");
        assert!(!woken.by_bell);

        scene.send(1);
        assert_eq!(scene.hurried.load(Ordering::Relaxed), 0, "in a whole turn nobody is hurried");
        assert!(scene.source.send(udp_frame(server(7), client(7), 7, 60)));
        assert_eq!(scene.serve(&[1, 99]), 0, "the frame is at another lane, and there is no lane 99");
        assert!(scene.sink.recv().is_none());
        assert_eq!(scene.serve(&[0]), 1);
        assert!(scene.sink.recv().is_some(), "it is on its way without a turn");
        assert_eq!(scene.hurried.load(Ordering::Relaxed), 1);
        scene.turn().run(Now::default());
        scene.rig.assert_conserved();
    }

    #[test]
    fn a_command_that_waits_comes_before_the_lane_that_woke() {
        let mut scene = Scene::new();
        scene.turn().run(Now::default());
        assert!(scene.source.send(udp_frame(server(7), client(7), 7, 60)));
        // The snapshot knows it already, the worker does not.
        scene.rig.add_port("c", PortSettings::default(), Box::new(wire().0), 0).unwrap();
        assert_eq!(scene.serve(&[0]), 0);
        assert_eq!(scene.turn().run(Now::default()).frames, 1);
        assert!(scene.sink.recv().is_some());
        scene.rig.assert_conserved();
    }
}
