//! The loop around the turn: a pinned thread that beats, and sleeps when there is nothing to do.

use super::naps::Naps;
use super::patience::Patience;
use super::readable::Readable;
use super::turn::{Lanes, Turn};
use super::watch::Watch;
use super::{Command, Mail};
use crate::counter::Counters;
use crate::pipeline::Now;
use crate::port::Port;
use crate::port::xdp::beat::Beats;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

/// Threads that close a worker's lanes when it ends. For each socket of AF_XDP that closes the kernel waits until all its readers have
/// passed, 10 to 20 ms whatever it does: side by side sockets wait together.
const BURIAL_THREADS: usize = 16;

/// What a worker thread starts with.
#[derive(Debug)]
pub struct Start {
    /// Its turn.
    pub turn: Turn,
    /// Everybody's letter boxes.
    pub mail: Arc<[Mail]>,
    /// Its counters.
    pub counters: Arc<Counters>,
    /// Where it beats, if there are XDP programs.
    pub beats: Option<Arc<Beats>>,
    /// The core it is pinned to.
    pub core: Option<core_affinity::CoreId>,
    /// Empty turns before it sleeps.
    pub idle_turns: u32,
    /// How long it naps at low load, microseconds; 0: never.
    pub nap_us: u64,
    /// Tells the control thread that there are reports.
    pub notify: Notify,
}

/// Rings the control thread's bell.
pub struct Notify(pub Box<dyn Fn() + Send>);

impl std::fmt::Debug for Notify {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("Notify")
    }
}

/// A running worker.
#[derive(Debug)]
pub struct Running {
    thread: std::thread::JoinHandle<()>,
    pinned: Arc<AtomicI64>,
}

impl Running {
    /// The core it is pinned to; none if pinning failed.
    pub fn core(&self) -> Option<usize> {
        usize::try_from(self.pinned.load(Ordering::Relaxed)).ok()
    }

    /// Waits until it has ended; it was sent [`Command::Stop`].
    pub fn join(self) {
        _ = self.thread.join();
    }

    /// Whether it ended although nobody asked: a defect that must not go unnoticed.
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }
}

/// Starts a worker's thread.
pub fn start(start: Start) -> std::io::Result<Running> {
    let pinned = Arc::new(AtomicI64::new(-1));
    let seen = pinned.clone();
    let name = format!("worker-{}", start.turn.id());
    let watch = Watch::new()?;
    let readable = Readable::new()?;
    let thread = std::thread::Builder::new().name(name).spawn(move || {
        if let Some(core) = start.core.filter(|core| core_affinity::set_for_current(*core)) {
            seen.store(core.id as i64, Ordering::Relaxed);
        }
        work(start, watch, readable);
    })?;
    Ok(Running { thread, pinned })
}

/// CLOCK_MONOTONIC: what the XDP program reads too.
pub fn now() -> Now {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Now { ns: time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64 }
}

/// Closes lanes. Whoever has no thread to be closed in is closed here.
fn bury(mut doors: Vec<Box<dyn Port>>) {
    let share = doors.len().div_ceil(BURIAL_THREADS).max(1);
    std::thread::scope(|scope| {
        while !doors.is_empty() {
            let some = doors.split_off(doors.len().saturating_sub(share));
            _ = std::thread::Builder::new().spawn_scoped(scope, move || drop(some));
        }
    });
}

fn work(mut start: Start, mut watch: Watch, mut readable: Readable) {
    let id = start.turn.id();
    let mail = start.mail.clone();
    let bell = mail[usize::from(id)].waker.as_fd();
    mail[usize::from(id)].move_in();
    let mut patience = Patience::new(start.idle_turns);
    let mut naps = Naps::new(start.nap_us);
    watch.renew(bell, &mut start.turn);
    loop {
        let now = now();
        if let Some(beats) = &start.beats {
            beats.beat(id, now.ns);
        }
        readable.look(&mut start.turn);
        let outcome = start.turn.run(now);
        match outcome.lanes {
            Lanes::Same => {}
            // The set that wakes takes them in before the worker sleeps.
            Lanes::More => readable.extend(&start.turn),
            Lanes::Others => {
                readable.renew(&start.turn);
                watch.renew(bell, &mut start.turn);
            }
        }
        if outcome.sent_much {
            watch.leave_busy(&mut start.turn);
        }
        if !start.mail[usize::from(id)].reports.is_empty() {
            (start.notify.0)();
        }
        if outcome.stop {
            return bury(start.turn.into_doors());
        }
        let others_ns = mail[usize::from(id)].core_is_needed_until();
        if patience.is_over(now.ns, outcome.frames, others_ns) {
            if sleep(&mut start, &watch) > 0 {
                patience.renew();
            }
        } else if naps.after_turn(now.ns, outcome.frames) && start.turn.may_sleep() {
            start.counters.life.naps.add(1);
            // The control thread may end it: somebody waits for an answer there.
            std::thread::park_timeout(naps.length());
        }
    }
}

/// Sleeps until a lane has frames, somebody rings, or it is time to beat. What woke it is served before anything
/// else is looked at, in caches gone cold: so many frames.
fn sleep(start: &mut Start, watch: &Watch) -> usize {
    let (mut served, mut by_bell) = (0, false);
    let waker = &start.mail[usize::from(start.turn.id())].waker;
    waker.fall_asleep();
    watch.enter_all(&mut start.turn);
    if start.turn.may_sleep() {
        start.counters.life.sleeps.add(1);
        let woken = watch.sleep(Duration::from_millis(u64::from(start.turn.beat_ms())));
        by_bell = woken.by_bell;
        if !woken.lanes.is_empty() {
            served = start.turn.serve_first(woken.lanes.into_iter(), now());
        } else if !by_bell {
            start.turn.rested();
        }
    }
    if let Some(rung_ns) = waker.rise(by_bell) {
        note_latency(&start.counters, now().ns.saturating_sub(rung_ns));
    }
    served
}

fn note_latency(counters: &Counters, ns: u64) {
    let us = ns / 1000;
    let bucket = (u64::BITS - us.leading_zeros()) as usize;
    let histogram = &counters.life.wake_us;
    histogram[bucket.min(histogram.len() - 1)].add(1);
    counters.life.wake_sum_us.add(us);
}

/// Puts a command before a worker and rings. False if its box is full: it has not moved for long.
#[must_use]
pub fn command(mail: &Mail, command: Command) -> bool {
    let accepted = mail.commands.push(command).is_ok();
    mail.ring(|| now().ns);
    accepted
}
