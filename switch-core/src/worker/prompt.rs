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

/// The calling thread, and those that it starts, have this place from now on: what is asked for before the sandbox takes the right to.
/// The place it had.
pub fn take_place(nice: i8) -> io::Result<i32> {
    use rustix::process::{getpriority_process, setpriority_process};
    let before = getpriority_process(None)?;
    setpriority_process(None, i32::from(nice))?;
    Ok(before)
}

/// And from now on this one again. Whoever goes first may always go back.
pub fn give_place_back(before: i32) -> io::Result<()> {
    Ok(rustix::process::setpriority_process(None, before)?)
}

/// Asks for exact timers and short slices for the calling thread; the errors of what was refused. A worker without is as late as others
/// let it be.
pub(super) fn ask() -> impl Iterator<Item = (&'static str, io::Error)> {
    let slack = rustix::thread::set_current_timer_slack(Some(TIMER_SLACK_NS)).map_err(io::Error::from);
    let refused = [("end its naps in time", slack), ("give it short slices", short_slices())];
    refused.into_iter().filter_map(|(what, asked)| Some((what, asked.err()?)))
}

/// All else as it is. Who runs the daemon by another policy (systemd's `CPUSchedulingPolicy`) knows why: then nothing is changed.
fn short_slices() -> io::Result<()> {
    // SAFETY: all zero is a valid structure of numbers.
    let mut attr: libc::sched_attr = unsafe { std::mem::zeroed() };
    let size = size_of_val(&attr) as u32;
    // SAFETY: a live structure and its size, which the kernel does not write beyond; 0 is the calling thread.
    done(unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attr, size, 0) })?;
    if attr.sched_policy != libc::SCHED_OTHER as u32 {
        return Ok(());
    }
    attr.sched_runtime = SLICE_NS;
    // SAFETY: a live structure of the size that it names, which the kernel only reads.
    done(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0) })
}

fn done(result: libc::c_long) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
