//! A TAP device: its other end is a pod's own network device, with the offloads the pod's kernel is used to.
//! One system call a frame; what makes it fast is that a frame may be a superframe of up to 64 KiB.
//!
//! | module | what |
//! |---|---|
//! | [`device`] | the descriptor: create, attach, offloads |
//! | [`joined`] | what leaves by one write: a frame, or neighbouring segments of one TCP stream |
//! | [`namespace`] | which network namespace a socket is of |
//! | [`steering`] | which queue a flow from the pod comes by (with steering.c) |
//!
//! This file is the lane: one queue of the device. Before every frame goes a `struct virtio_net_hdr` that says
//! what is unfinished in it. The pod's kernel writes it, and a pod can make its kernel write nearly anything: it
//! is hostile input, which [`vnet`] holds against the frame.
//!
//! **Nothing waits here.** What the switch has not read waits in the device's own queue (`txqueuelen`, 1000
//! packets), and the pod's kernel drops what is beyond it. A write runs the pod's receive path then and there
//! and ends in its sockets or nowhere, so a pod that reads nothing holds none of our frames: the kernel drops
//! what its sockets have no room for.

pub mod device;
mod joined;
pub mod namespace;
pub mod steering;

use super::{At, Dropped, Health, Port, Remains, Sent, Serviced};
use crate::counter::{Counters, DropReason};
use crate::frame::{Area, BATCH_FRAMES, Batch, Frame, Offload, Pool, TxQueue};
use crate::wire::gso;
use crate::wire::vnet::{self, BadVnet};
use arrayvec::ArrayVec;
use device::Descriptor;
use joined::{JOINED_FRAMES_MAX, Joined};
use rustix::io::Errno;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

/// Segments that one `recv` takes in, give or take a superframe: as many as a batch of frames, so that a pod
/// that sends superframes has no larger share of the worker than one that does not.
const SEGMENTS_A_TURN: usize = BATCH_FRAMES;
/// Why a frame that came in was not believed, in the order of [`TapPort::untrue`].
const UNTRUE: [DropReason; 3] =
    [DropReason::VnetNotAgreed, DropReason::VnetChecksum, DropReason::VnetSegments];

/// One queue of a TAP device.
#[derive(Debug)]
pub struct TapPort {
    descriptor: Arc<Descriptor>,
    /// Frames whose header was not believed, by [`UNTRUE`], that nobody was told of yet.
    untrue: [u64; UNTRUE.len()],
    /// The last `recv` ended with enough segments, and not with the last packet.
    had_enough: bool,
    dead: Option<i32>,
}

/// What the next packet is read into: a small frame, and a large one for what does not fit. A packet is as
/// large as it is before anybody knows, so both are at hand, and the one that was not needed serves for the
/// next packet.
struct Hands {
    small: Frame,
    large: Frame,
}

impl Hands {
    fn take(pool: &mut Pool) -> Option<Self> {
        let small = pool.take()?;
        match pool.take_large() {
            Some(large) => Some(Self { small, large }),
            None => {
                pool.give(small);
                None
            }
        }
    }

    fn give(self, pool: &mut Pool) {
        pool.give(self.small);
        pool.give(self.large);
    }

    /// The frame that holds the packet of `len` bytes that was read, whole; the other is kept. Should there be
    /// none to replace it, the hands are gone.
    fn hand_over(self, pool: &mut Pool, len: usize) -> (Frame, Option<Self>) {
        let Self { mut small, mut large } = self;
        let area = pool.area();
        let room = area.packet_len_max();
        if len <= room {
            _ = area.set_len(&mut small, len);
            let hands = match pool.take() {
                Some(fresh) => Some(Self { small: fresh, large }),
                None => {
                    pool.give(large);
                    None
                }
            };
            return (small, hands);
        }
        _ = area.set_len(&mut large, len);
        // The first part was read into the small frame.
        area.bytes_mut(&mut large)[..room].copy_from_slice(area.bytes(&small));
        let hands = match pool.take_large() {
            Some(fresh) => Some(Self { small, large: fresh }),
            None => {
                pool.give(small);
                None
            }
        };
        (large, hands)
    }
}

impl TapPort {
    /// A lane over a descriptor.
    pub fn new(descriptor: Arc<Descriptor>) -> Self {
        Self { descriptor, untrue: [0; UNTRUE.len()], had_enough: false, dead: None }
    }

    /// Reads one packet: its header and its length; none if there is nothing to read, or the device is gone.
    fn read(&mut self, area: &Area, hands: &mut Hands) -> Option<([u8; vnet::LEN], usize)> {
        let mut header = [0; vnet::LEN];
        let room = area.packet_len_max();
        let opened = area.set_len(&mut hands.small, room) && area.set_len(&mut hands.large, LARGE_LEN);
        debug_assert!(opened, "frames that were just emptied have this room");
        let (_, rest) = area.bytes_mut(&mut hands.large).split_at_mut(room);
        let first = area.bytes_mut(&mut hands.small);
        let mut parts = [IoSliceMut::new(&mut header), IoSliceMut::new(first), IoSliceMut::new(rest)];
        match rustix::io::readv(&*self.descriptor, &mut parts) {
            Ok(n) => Some((header, n.saturating_sub(vnet::LEN))),
            Err(Errno::AGAIN | Errno::INTR) => None,
            Err(errno) => {
                self.dead = Some(errno.raw_os_error());
                None
            }
        }
    }

    #[cold]
    fn count(&mut self, bad: &BadVnet) {
        let reason = UNTRUE.iter().position(|reason| reason.name() == bad.name());
        self.untrue[reason.unwrap_or(0)] += 1;
    }

    /// Writes the frames that [`Joined`] tells of, the first whole.
    fn write(&self, area: &Area, joined: &Joined, frames: &[Frame]) -> Result<(), Errno> {
        let mut parts = ArrayVec::<IoSlice<'_>, { 1 + JOINED_FRAMES_MAX }>::new();
        parts.push(IoSlice::new(&joined.header));
        for (i, frame) in frames.iter().enumerate() {
            let from = if i == 0 { 0 } else { joined.payload_at };
            parts.push(IoSlice::new(&area.bytes(frame)[from..]));
        }
        let len = parts.iter().map(|part| part.len()).sum::<usize>();
        loop {
            match rustix::io::writev(&*self.descriptor, &parts) {
                Ok(written) if written == len => return Ok(()),
                // The kernel takes a packet whole or not at all; should it ever not, the pod got half a frame.
                Ok(_) => return Err(Errno::MSGSIZE),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
}

/// Bytes that a large frame is opened for: an Ethernet header, two tags, and the longest IPv6 packet that is no
/// jumbogram.
const LARGE_LEN: usize = 14 + 8 + 40 + 65_535;

impl Port for TapPort {
    #[inline]
    fn recv(&mut self, pool: &mut Pool, batch: &mut Batch) {
        self.had_enough = false;
        // A pool that has run dry leaves the packets where they are.
        let Some(mut hands) = Hands::take(pool) else { return };
        let mut segments = 0;
        while !batch.is_full() && segments < SEGMENTS_A_TURN && self.dead.is_none() {
            let Some((header, len)) = self.read(pool.area(), &mut hands) else { break };
            let (mut frame, left) = hands.hand_over(pool, len);
            match vnet::decode(&header, pool.area().bytes(&frame)) {
                Ok((csum, gso)) => {
                    frame.offload = Offload { csum, gso };
                    segments += gso.map_or(1, |gso| gso::segments(pool.area().bytes(&frame), gso));
                    batch.push(frame);
                }
                Err(bad) => {
                    self.count(&bad);
                    segments += 1;
                    pool.give(frame);
                }
            }
            let Some(left) = left else { return };
            hands = left;
        }
        self.had_enough = segments >= SEGMENTS_A_TURN;
        hands.give(pool);
    }

    #[inline]
    fn has_more(&self) -> bool {
        self.had_enough
    }

    #[inline]
    fn send(&mut self, pool: &mut Pool, queue: &mut TxQueue) -> Sent {
        let mut sent = Sent::default();
        if self.dead.is_some() {
            return sent;
        }
        let mut done = 0;
        while let Some(joined) = Joined::front(pool.area(), &mut queue.as_mut_slice()[done..]) {
            let frames = &queue.as_mut_slice()[done..done + joined.frames];
            let bytes = frames.iter().map(|frame| frame.len() as u64).sum::<u64>();
            match self.write(pool.area(), &joined, frames) {
                Ok(()) => {
                    sent.packets += joined.frames as u64;
                    sent.bytes += bytes;
                }
                // The device is gone: what waits goes with the lane.
                Err(errno @ Errno::BADFD) => {
                    self.dead = Some(errno.raw_os_error());
                    break;
                }
                // Down, without memory, or full (which takes 2 GiB: TUNSETSNDBUF). Nothing would tell us when
                // that ends, and whoever sends knows how to send again.
                Err(_) => sent.refused += joined.frames as u64,
            }
            done += joined.frames;
        }
        for frame in queue.take(done) {
            pool.give(frame);
        }
        sent
    }

    fn service(&mut self, _: &mut Pool, _: bool, _: &Counters) -> Serviced {
        let health = self.dead.map_or(Health::Good, Health::Dead);
        let untrue = self.untrue.iter().position(|count| *count > 0);
        let dropped = untrue.map(|i| {
            let frames = std::mem::take(&mut self.untrue[i]);
            Dropped { frames, reason: UNTRUE[i], at: At::Outside }
        });
        Serviced { health, missed: 0, dropped }
    }

    fn wait_on(&self) -> Option<BorrowedFd<'_>> {
        Some((*self.descriptor).as_fd())
    }

    fn is_asked_by_call(&self) -> bool {
        true
    }

    fn held(&self) -> usize {
        0
    }

    fn close(self: Box<Self>, _: &Area) -> Remains {
        Remains::default()
    }
}
