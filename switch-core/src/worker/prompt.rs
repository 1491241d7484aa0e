//! What a worker asks of the kernel's scheduler: to run as soon as frames come (ADR 0048).
//!
//! A core of a small node is shared: another program may be under way when frames come. As one among equals the worker waits
//! for the end of the other's slice, 3 ms, and what its devices have no room for meanwhile is lost: 64 frames are 640 µs of a hundred
//! thousand a second. So it asks for two things. *Short slices*: a thread that has them has its deadlines early and goes first when it wakes, as long as
//! it has not had more than its share (EEVDF, Documentation/scheduler/sched-eevdf.rst). *A larger share*: one that asks empty rings
//! between two frames has soon had its share of an equal. Whoever else is on its core gets what it leaves, and a tenth when it leaves nothing.

#![allow(unsafe_code)]

use std::io;
use std::num::NonZeroU64;

/// How much later than asked the kernel may end a worker's rest. Its own default, 50 µs, is most of a nap.
const TIMER_SLACK_NS: NonZeroU64 = NonZeroU64::new(1_000).unwrap();
/// Of a slice: the least that the kernel gives (`sched_setattr(2)`, kernel/sched/syscalls.c; from Linux 6.12, before that it is not looked at).
const SLICE_NS: u64 = 100_000;

/// How a worker stands with others that want its core, unless `switchd --nice` says otherwise (sched(7)): nine times what an equal
/// gets, so that a tenth is left for others, the kernel's own threads among them, whatever comes.
pub const NICE_DEFAULT: i8 = -10;

/// How the calling thread was scheduled before it took the workers' place.
#[derive(Debug)]
pub struct Before {
    nice: i32,
    slack_ns: Option<NonZeroU64>,
}

/// What cannot be had, and why not.
pub type Refused = Vec<(&'static str, io::Error)>;

/// The calling thread has the workers' place from now on, and those that it starts inherit it. To be called before the sandbox, which takes the
/// right to. What was refused is as it was: a worker without is as late as others let it be.
pub fn take_place(nice: i8) -> (Before, Refused) {
    use rustix::process::{getpriority_process, setpriority_process};
    let before = Before {
        nice: getpriority_process(None).unwrap_or(0),
        slack_ns: rustix::thread::current_timer_slack().ok().and_then(NonZeroU64::new),
    };
    let asked = [
        ("naps that end in time", set_slack(Some(TIMER_SLACK_NS))),
        ("short slices", set_slice(SLICE_NS)),
        ("to go before others (--nice)", setpriority_process(None, i32::from(nice)).map_err(io::Error::from)),
    ];
    (before, refused(asked))
}

impl Before {
    /// The calling thread steps back, in the sandbox: it may always.
    pub fn again(self) -> Refused {
        let nice = rustix::process::setpriority_process(None, self.nice).map_err(io::Error::from);
        refused([
            ("slack as before", set_slack(self.slack_ns)),
            // 0: the kernel's own.
            ("slices as before", set_slice(0)),
            ("a nice value as before", nice),
        ])
    }
}

fn refused<const N: usize>(asked: [(&'static str, io::Result<()>); N]) -> Refused {
    asked.into_iter().filter_map(|(what, done)| Some((what, done.err()?))).collect()
}

fn set_slack(slack_ns: Option<NonZeroU64>) -> io::Result<()> {
    Ok(rustix::thread::set_current_timer_slack(slack_ns)?)
}

/// All else as it is. Who runs the daemon by another policy (systemd's `CPUSchedulingPolicy`) knows why: then nothing is changed.
fn set_slice(ns: u64) -> io::Result<()> {
    // SAFETY: all zero is a valid structure of numbers.
    let mut attr: libc::sched_attr = unsafe { std::mem::zeroed() };
    let size = size_of_val(&attr) as u32;
    // SAFETY: a live structure and its size, which the kernel does not write beyond; 0 is the calling thread.
    done(unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attr, size, 0) })?;
    if attr.sched_policy != libc::SCHED_OTHER as u32 {
        return Ok(());
    }
    attr.sched_runtime = ns;
    // SAFETY: a live structure of the size that it names, which the kernel only reads.
    done(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0) })
}

fn done(result: libc::c_long) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
