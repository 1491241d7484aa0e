//! Falling asleep without missing a wake-up.
//!
//! The sleeper says that it is about to sleep, then looks once more whether there is work, then sleeps. The
//! waker first puts down the work, then looks whether the sleeper said so. In one order of all these
//! steps (they are sequentially consistent) at least one of the two sees the other: either the sleeper
//! finds the work or the waker rings the bell. A bell that rings for nobody costs one empty turn: who saw the sleeper and is kept from his
//! core before he rings may ring when it is long awake for another reason, and be heard when it sleeps next.

use sync::{AtomicU32, AtomicU64, Bell, Ordering, fence};

#[cfg(not(loom))]
mod sync {
    pub use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

    use rustix::event::{EventfdFlags, eventfd};
    use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

    /// An eventfd: it stays rung until it is silenced, so it does not matter who is first.
    #[derive(Debug)]
    pub struct Bell(OwnedFd);

    impl Bell {
        pub fn new() -> std::io::Result<Self> {
            Ok(Self(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
        }
        pub fn ring(&self) {
            // It can fail only if it was rung 2^64 times without being silenced.
            _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
        }
        pub fn silence(&self) {
            _ = rustix::io::read(&self.0, &mut [0u8; 8]);
        }
        pub fn as_fd(&self) -> BorrowedFd<'_> {
            self.0.as_fd()
        }
    }
}

/// Under loom the bell is a flag under a lock with a condition to wait on: it stays rung, as an eventfd.
#[cfg(loom)]
mod sync {
    pub use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
    use loom::sync::{Condvar, Mutex};

    #[derive(Debug)]
    pub struct Bell(Mutex<bool>, Condvar);

    impl Bell {
        pub fn new() -> std::io::Result<Self> {
            Ok(Self(Mutex::new(false), Condvar::new()))
        }
        pub fn ring(&self) {
            *self.0.lock().unwrap() = true;
            self.1.notify_all();
        }
        pub fn silence(&self) {
            *self.0.lock().unwrap() = false;
        }
        pub fn is_rung(&self) -> bool {
            *self.0.lock().unwrap()
        }
        pub fn wait(&self) {
            let mut rung = self.0.lock().unwrap();
            while !*rung {
                rung = self.1.wait(rung).unwrap();
            }
        }
    }
}

const AWAKE: u32 = 0;
const ASLEEP: u32 = 1;

/// One worker's bell and whether somebody has to ring it.
#[derive(Debug)]
pub struct Waker {
    state: AtomicU32,
    rung_ns: AtomicU64,
    bell: Bell,
}

impl Waker {
    /// For a worker that is awake.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self { state: AtomicU32::new(AWAKE), rung_ns: AtomicU64::new(0), bell: Bell::new()? })
    }

    /// Called after the work was put down. A system call only if the worker sleeps.
    pub fn wake(&self, now_ns: impl FnOnce() -> u64) {
        // The work that was put down comes before the look at the state, for everybody.
        fence(Ordering::SeqCst);
        if self.state.load(Ordering::SeqCst) == ASLEEP && self.state.swap(AWAKE, Ordering::SeqCst) == ASLEEP {
            self.rung_ns.store(now_ns(), Ordering::Relaxed);
            self.bell.ring();
        }
    }

    /// Says that the worker is about to sleep. It must look for work once more after this.
    pub fn fall_asleep(&self) {
        self.state.store(ASLEEP, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    /// Says that the worker is awake, whatever woke it; `hears` says that the bell did. When it was rung, if it was.
    pub fn rise(&self, hears: bool) -> Option<u64> {
        let was_rung = self.state.swap(AWAKE, Ordering::SeqCst) == AWAKE;
        if !was_rung && !hears {
            return None;
        }
        // Also a ring that came too late: it would let nobody sleep any more.
        self.bell.silence();
        match self.rung_ns.swap(0, Ordering::Relaxed) {
            0 => None,
            ns => Some(ns),
        }
    }

    /// What becomes readable when the bell rings.
    #[cfg(not(loom))]
    pub fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::sync::Arc;

    /// One piece of work, put down while the worker falls asleep, is always found. The worker sleeps
    /// without a time limit here, so a lost wake-up is a deadlock, which loom reports.
    #[test]
    fn loom_no_wake_up_is_lost() {
        let executions = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let counter = executions.clone();
        loom::model(move || {
            counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let waker = Arc::new(Waker::new().unwrap());
            let work = Arc::new(AtomicU32::new(0));
            let sender = {
                let (waker, work) = (waker.clone(), work.clone());
                loom::thread::spawn(move || {
                    work.store(1, Ordering::Relaxed);
                    waker.wake(|| 1);
                })
            };
            // The order the worker's thread keeps: say so, look once more, sleep, rise.
            while work.load(Ordering::Relaxed) == 0 {
                waker.fall_asleep();
                if work.load(Ordering::Relaxed) == 0 {
                    waker.bell.wait();
                }
                waker.rise(waker.bell.is_rung());
            }
            sender.join().unwrap();
        });
        println!("no_wake_up_is_lost: {} executions", executions.load(std::sync::atomic::Ordering::Relaxed));
    }

    /// The worker falls asleep and is woken by a frame, while somebody rings. However late that is, it finds the bell rung once, and
    /// sleeps then.
    #[test]
    fn loom_a_late_ring_costs_one_turn() {
        let executions = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let counter = executions.clone();
        loom::model(move || {
            counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let waker = Arc::new(Waker::new().unwrap());
            let ringer = {
                let waker = waker.clone();
                loom::thread::spawn(move || waker.wake(|| 1))
            };
            waker.fall_asleep();
            waker.rise(waker.bell.is_rung());
            ringer.join().unwrap();
            waker.fall_asleep();
            waker.rise(waker.bell.is_rung());
            waker.fall_asleep();
            assert!(!waker.bell.is_rung(), "nobody rings any more, and it cannot sleep");
        });
        println!("a_late_ring: {} executions", executions.load(std::sync::atomic::Ordering::Relaxed));
    }
}
