//! Two TAPs and a loop that moves every frame of the one to the other: by `read` and `write`, a system call a frame; by
//! `io_uring`, a system call a batch; or by `io_uring` with reads that are asked for once and go on. Nothing else is done to a frame, so what they differ in is what a frame's way through the
//! kernel differs in.

#![allow(unsafe_code)]

use io_uring::squeue::{Entry, Flags};
use io_uring::{IoUring, cqueue, opcode, types};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use switch_core::port::tap::device::Descriptor;
use switch_lab::{Node, Pod};

/// Frames a turn and direction, as a lane takes them.
const BATCH: usize = 64;
/// A superframe of 64 KiB and its headers.
const FRAME_BYTES: usize = 65_536 + 64;
/// All that a turn asks for: a batch to read and one to write, each way.
const ENTRIES: u32 = 256;
/// Where the loop runs; senders and receivers have core 0.
const CORE: usize = 1;

/// How frames are moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// `read` and `write`.
    Calls,
    /// `io_uring`, a batch of reads and writes a call.
    Ring,
    /// `io_uring`, one read for all packets of a device (`IORING_OP_READ_MULTISHOT`, Linux 6.7), a batch of writes a call.
    Shots,
}

/// Two pods whose devices are joined by a loop, until it is dropped.
#[derive(Debug)]
pub struct Joined {
    /// The pods.
    pub pods: [Pod; 2],
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<io::Result<()>>>,
    _node: Node,
}

impl Joined {
    /// Makes pods and devices and starts the loop.
    pub fn start(engine: Engine) -> Result<Self, String> {
        let node = Node::new();
        let pods = [node.bare_pod(1), node.bare_pod(2)];
        let [a, b] = [tap(&pods[0])?, tap(&pods[1])?];
        let stop = Arc::new(AtomicBool::new(false));
        let asked = stop.clone();
        let thread = std::thread::spawn(move || {
            core_affinity::set_for_current(core_affinity::CoreId { id: CORE });
            match engine {
                Engine::Calls => by_calls(&[a, b], &asked),
                Engine::Ring => by_ring(&[a, b], &asked),
                Engine::Shots => by_shots(&[a, b], &asked),
            }
        });
        Ok(Self { pods, stop, thread: Some(thread), _node: node })
    }

    /// Ends the loop; an error if it had ended by itself.
    pub fn end(mut self) -> Result<(), String> {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        match ended {
            Some(Ok(Err(error))) => Err(format!("the loop ended: {error}")),
            Some(Err(_)) => Err("the loop panicked".into()),
            _ => Ok(()),
        }
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().into_iter().for_each(|thread| _ = thread.join());
    }
}

/// The pod's device, with all offloads, as a tap port has it.
fn tap(pod: &Pod) -> Result<Descriptor, String> {
    let made = pod.net.inside(|| {
        let descriptor = Descriptor::create("eth0", false)?;
        descriptor.offload_all().map(|_| descriptor)
    });
    let made = made.join().map_err(|_| "the maker panicked")?.map_err(|error| format!("a TAP: {error}"))?;
    let n = pod.number();
    pod.net.ip(&format!("link set eth0 address {} up", pod.mac()));
    pod.net.ip(&format!("addr add {}/24 dev eth0", pod.ip));
    pod.net.ip(&format!("addr add fd66::{n}/64 dev eth0 nodad"));
    Ok(made)
}

/// What a frame that cannot be written now is: dropped, as a full queue drops it.
fn moved(outcome: rustix::io::Result<usize>) -> io::Result<Option<usize>> {
    match outcome {
        Ok(bytes) => Ok(Some(bytes)),
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::NOBUFS) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn by_calls(ends: &[Descriptor; 2], stop: &AtomicBool) -> io::Result<()> {
    let mut frame = vec![0; FRAME_BYTES];
    while !stop.load(Ordering::Relaxed) {
        for from in 0..2 {
            for _ in 0..BATCH {
                let Some(bytes) = moved(rustix::io::read(ends[from].as_fd(), &mut frame))? else { break };
                moved(rustix::io::write(ends[1 - from].as_fd(), &frame[..bytes]))?;
            }
        }
    }
    Ok(())
}

/// One direction: what was read in the last turn, and room for what is read in this one.
struct Way {
    frames: Vec<Vec<u8>>,
    /// Which frames were read, and how long each is. A read that failed leaves a gap: the next may have been in time for a packet.
    read: Vec<(usize, usize)>,
    /// The half of `frames` that is read into; the other one is written from.
    half: usize,
    /// Reads asked for in this turn: one more than came, so that none fails for nothing for long.
    asked: usize,
}

impl Way {
    fn new() -> Self {
        Self {
            frames: vec![vec![0; FRAME_BYTES]; 2 * BATCH],
            read: Vec::with_capacity(BATCH),
            half: 0,
            asked: 1,
        }
    }
}

/// Every turn is one system call: it writes what the turn before has read and reads what there is.
fn by_ring(ends: &[Descriptor; 2], stop: &AtomicBool) -> io::Result<()> {
    let fds = [0, 1].map(|end: usize| types::Fd(ends[end].as_fd().as_raw_fd()));
    let mut ring = IoUring::new(ENTRIES)?;
    let mut ways = [Way::new(), Way::new()];
    while !stop.load(Ordering::Relaxed) {
        let mut entries = 0;
        for (from, way) in ways.iter_mut().enumerate() {
            for (at, len) in way.read.drain(..) {
                let frame = way.frames[at].as_ptr();
                let write = opcode::Write::new(fds[1 - from], frame, len as u32).rw_flags(NOW);
                // SAFETY: the frame lives until after its completion, which is waited for below.
                unsafe { ring.submission().push(&write.build().user_data(WRITE)) }
                    .map_err(io::Error::other)?;
                entries += 1;
            }
            way.half = 1 - way.half;
            let first = way.half * BATCH;
            for at in first..first + way.asked {
                let frame = way.frames[at].as_mut_ptr();
                let read = opcode::Read::new(fds[from], frame, FRAME_BYTES as u32).rw_flags(NOW);
                let name = (from * 2 * BATCH + at) as u64;
                // SAFETY: as above; nobody else has this half until then.
                unsafe { ring.submission().push(&read.build().user_data(name)) }.map_err(io::Error::other)?;
                entries += 1;
            }
        }
        ring.submit_and_wait(entries)?;
        for done in ring.completion() {
            let outcome = match done.result() {
                bytes @ 0.. => Ok(bytes as usize),
                error => Err(rustix::io::Errno::from_raw_os_error(-error)),
            };
            let name = done.user_data() as usize;
            if let (Some(bytes), Some(way)) = (moved(outcome)?, ways.get_mut(name / (2 * BATCH))) {
                way.read.push((name % (2 * BATCH), bytes));
            }
        }
        for way in &mut ways {
            way.asked = (way.read.len() * 2 + 1).min(BATCH);
        }
    }
    Ok(())
}

/// Frames that a read which goes on may fill, of each device: as many as [`by_ring`] has.
const SHOTS: usize = 2 * BATCH;
/// What giving a frame back is called; it says something only when it fails.
const PROVIDED: u64 = u64::MAX - 1;

/// A read of each device that is asked for once: the kernel fills a frame of its group for every packet. Each turn is a system call
/// that writes what has come and gives the frames back.
fn by_shots(ends: &[Descriptor; 2], stop: &AtomicBool) -> io::Result<()> {
    let fds = [0, 1].map(|end: usize| types::Fd(ends[end].as_fd().as_raw_fd()));
    // Before the ring, so that they go after it, whatever happens.
    let mut frames = [vec![0u8; SHOTS * FRAME_BYTES], vec![0u8; SHOTS * FRAME_BYTES]];
    let mut ring = IoUring::new((8 * SHOTS) as u32)?;
    let places = frames.each_mut().map(|frames| frames.as_mut_ptr());
    let provide = |from: usize, first: usize, count: usize| {
        let place = places[from].wrapping_add(first * FRAME_BYTES);
        let given =
            opcode::ProvideBuffers::new(place, FRAME_BYTES as i32, count as u16, from as u16, first as u16);
        given.build().user_data(PROVIDED).flags(Flags::SKIP_SUCCESS)
    };
    let read = |from: usize| opcode::ReadMulti::new(fds[from], 0, from as u16).build().user_data(from as u64);
    let mut wanted: Vec<Entry> = (0..2).flat_map(|from| [provide(from, 0, SHOTS), read(from)]).collect();
    while !stop.load(Ordering::Relaxed) {
        for entry in wanted.drain(..) {
            // SAFETY: the frames outlive the ring; the kernel has one from when it is provided until the completion that names it,
            // and for the time of its write. Nobody else touches them.
            unsafe { ring.submission().push(&entry) }.map_err(io::Error::other)?;
        }
        ring.submit()?;
        for done in ring.completion() {
            let name = done.user_data();
            let outcome = match done.result() {
                bytes @ 0.. => Ok(bytes as usize),
                error => Err(rustix::io::Errno::from_raw_os_error(-error)),
            };
            let bytes = moved(outcome)?;
            let Some(from) = (name < 2).then_some(name as usize) else { continue };
            if let (Some(bytes), Some(at)) = (bytes, cqueue::buffer_select(done.flags())) {
                let frame = places[from].wrapping_add(usize::from(at) * FRAME_BYTES);
                let write = opcode::Write::new(fds[1 - from], frame, bytes as u32).rw_flags(NOW).build();
                wanted.push(write.user_data(WRITE).flags(Flags::SKIP_SUCCESS));
                // Behind the write, which is done when its turn is over.
                wanted.push(provide(from, usize::from(at), 1));
            }
            // It ends where there is no frame for it (ENOBUFS).
            if !cqueue::more(done.flags()) {
                wanted.push(read(from));
            }
        }
    }
    Ok(())
}

/// Each is done when the call returns, reads in their order. Without it the kernel, which may wait on a TAP by itself, lets a read that
/// finds nothing wait for a packet although the descriptor does not (O_NONBLOCK), and the call with it.
const NOW: i32 = libc::RWF_NOWAIT;
/// What a completed write is called; a read goes by its direction and its frame.
const WRITE: u64 = u64::MAX;
