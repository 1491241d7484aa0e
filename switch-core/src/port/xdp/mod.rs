//! AF_XDP: our own thin layer over the kernel's interface (Documentation/networking/af_xdp.rst).
//!
//! | module | one kernel concept each |
//! |---|---|
//! | [`umem`] | the packet memory, registered |
//! | [`ring`] | a ring shared with the kernel |
//! | [`socket`] | a socket's system calls |
//! | [`program`] | the XDP program, and what it is told of devices |
//! | [`attach`] | the program on a device |
//! | `ranges` | places of queues in the program's maps |
//! | [`networks`] | what the program of an uplink takes |
//! | [`beat`] | the dead-man timer's pulse |
//! | [`promiscuous`] | hearing what is addressed to others |
//! | [`jumbo`] | a frame that lies in several chunks |
//! | `kicks` | when the kernel is asked to transmit |
//! | [`open`] | a device becomes lanes: modes are tried from fast to slow |
//!
//! This file is the lane: one queue of one device.

#![allow(unsafe_code)]

pub mod attach;
pub mod beat;
pub(crate) mod jumbo;
mod kicks;
pub mod networks;
pub mod open;
pub mod program;
pub mod promiscuous;
mod ranges;
pub mod ring;
pub mod socket;
pub mod umem;

use super::{At, Dropped, Health, Port, Remains, Sent, Serviced};
use crate::counter::{Counters, DropReason, Event};
use crate::frame::{Area, BATCH_FRAMES, Batch, Frame, Holder, Pool, TxQueue};
use crate::wire::checksum::{self, Csum};
use crate::wire::ethernet::{HEADER_LEN, TAG_LEN};
use kicks::Kicks;
use socket::{Kick, RawSocket, Rings};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use umem::TxMetadata;

/// Frames an idle lane lets the kernel receive into: one NAPI poll of a veth. 128 KiB.
pub const IDLE_FRAMES: u32 = 64;
/// So many times what came in one turn a lane has at hand for the kernel: its worker may be kept from its core for as many turns as long as the
/// last, of which a nap is one. With twice as much, a lane of 100 000 packets a second, of which a nap brings nine, stayed at [`IDLE_FRAMES`],
/// and those are 640 µs; with this it has what its region lets it have, some 4 ms (ADR 0048).
const TURNS_AT_HAND: u32 = 32;
/// Free frames of its region that a lane leaves alone when it wants more than [`IDLE_FRAMES`]: what others send by the lanes of this
/// region is copied into such, a batch a turn, and comes home with the kick. Without them a region whose lanes had all grown sent nothing
/// any more, and nothing gave its frames back.
const RESERVE_FRAMES: u32 = 2 * BATCH_FRAMES as u32;
/// Turns between two looks at the kernel's own drop counts, a system call, so a few hundred a second; and one when a worker has rested.
const STATISTICS_EVERY: u32 = 4096;
/// `struct xsk_tx_metadata`: `XDP_TXMD_FLAGS_CHECKSUM`.
const TXMD_CHECKSUM: u64 = libc::XDP_TXMD_FLAGS_CHECKSUM as u64;

/// Largest L3 packet of a device whose frames come and go in several chunks.
pub fn jumbo_mtu_max(area: &Area) -> u16 {
    (jumbo::frame_len_max(area) - HEADER_LEN - TAG_LEN) as u16
}

/// One queue of one device.
#[derive(Debug)]
pub struct XdpPort {
    // Dropped in this order: the rings' mappings, then the socket.
    rings: Rings,
    socket: RawSocket,
    area: Arc<Area>,
    /// The only one whose frames it can have.
    region: u16,
    /// Where that region begins in the memory: descriptors count from there.
    origin: u64,
    holder: Holder,
    tx_metadata: TxMetadata,
    /// Frames may be larger than a chunk.
    jumbo: bool,
    /// Frames the kernel may receive into, or has received into and we did not take yet.
    in_fill: u32,
    /// Frames the kernel has to transmit, or has transmitted and we did not take back yet.
    in_tx: u32,
    fill_target: u32,
    /// The last refill brought the kernel's supply up to the target.
    primed: bool,
    kicks: Kicks,
    lies: u64,
    /// Frames of other regions that found no frame here to be copied into.
    uncopied: u64,
    /// Frames that the kernel took and its device dropped: there was no room behind it.
    refused: u64,
    unjoined: u64,
    serviced: u32,
    missed: u64,
    dead: Option<i32>,
}

impl XdpPort {
    fn new(
        socket: RawSocket,
        rings: Rings,
        area: Arc<Area>,
        region: u16,
        holder: Holder,
        tx_metadata: TxMetadata,
        jumbo: bool,
    ) -> Self {
        let origin = area.origin(region) as u64;
        Self {
            rings,
            socket,
            area,
            region,
            origin,
            holder,
            tx_metadata,
            jumbo,
            in_fill: 0,
            in_tx: 0,
            fill_target: IDLE_FRAMES,
            primed: false,
            kicks: Kicks::default(),
            lies: 0,
            uncopied: 0,
            refused: 0,
            unjoined: 0,
            serviced: 0,
            missed: 0,
            dead: None,
        }
    }

    /// What goes into the TX ring for `frame`. An unfinished checksum is left to the kernel if it offers
    /// that, and finished here if not.
    #[inline(always)]
    fn describe(&mut self, mut frame: Frame) -> libc::xdp_desc {
        let mut csum = frame.offload.csum;
        if csum == Csum::Unknown {
            csum = checksum::state(self.area.bytes(&frame));
        }
        let (mut options, len) = (0, frame.len());
        if let Csum::Partial { start, field } = csum {
            let is_left = self.tx_metadata == TxMetadata::Offered && checksum::is_within(start, field, len);
            match self.area.metadata_mut(&mut frame) {
                Some(metadata) if is_left => {
                    metadata[..8].copy_from_slice(&TXMD_CHECKSUM.to_ne_bytes());
                    metadata[8..10].copy_from_slice(&start.to_ne_bytes());
                    metadata[10..12].copy_from_slice(&u16::from(field).to_ne_bytes());
                    metadata[12..].fill(0);
                    options = libc::XDP_TX_METADATA;
                }
                _ => checksum::finish(self.area.bytes_mut(&mut frame), start, field),
            }
        }
        let addr = self.area.record(frame, &mut self.holder) as u64 - self.origin;
        libc::xdp_desc { addr, len: len as u32, options }
    }

    /// The frame, or a copy of it in this lane's region; none, and counted, if no frame is free there.
    #[inline(always)]
    fn brought_here(&mut self, frame: Frame, pool: &mut Pool) -> Option<Frame> {
        if self.area.region_of(&frame) == Some(self.region) { Some(frame) } else { self.copied(frame, pool) }
    }

    fn copied(&mut self, frame: Frame, pool: &mut Pool) -> Option<Frame> {
        let copy = pool.take_of(self.region);
        let copy = copy.map(|mut copy| {
            self.area.copy(&frame, &mut copy);
            copy
        });
        self.uncopied += u64::from(copy.is_none());
        pool.give(frame);
        copy
    }

    fn kick(&mut self) {
        match self.socket.kick_tx() {
            Kick::Done => self.kicks.taken(),
            // What is left goes with the next kick, which the next turn makes.
            Kick::Again => {}
            Kick::Refused => self.refused += 1,
            Kick::Dead(errno) => {
                self.kicks.taken();
                self.dead = Some(errno);
            }
        }
    }

    /// Frames the kernel dropped before this socket since it was last asked: no frame in the fill ring, or
    /// no room in the receive ring.
    fn newly_missed(&mut self) -> u64 {
        let Ok(statistics) = self.socket.statistics() else { return 0 };
        let total = statistics.rx_dropped + statistics.rx_ring_full;
        total - std::mem::replace(&mut self.missed, total)
    }

    /// Frames that came, and that nobody takes in any more. Of one in several chunks the last counts.
    fn unread(&mut self) -> u64 {
        let rx = &mut self.rings.rx;
        let ends = |desc: libc::xdp_desc| u64::from(desc.options & libc::XDP_PKT_CONTD == 0);
        (0..rx.waiting(u32::MAX)).map(|_| ends(rx.get())).sum()
    }

    /// Frames that were for this lane and went nowhere since it was last asked, of one reason; of the other the next time.
    #[inline]
    fn newly_dropped(&mut self) -> Option<Dropped> {
        let (reason, at, count) = match self.uncopied {
            0 => (DropReason::TxRefused, At::Outside, &mut self.refused),
            _ => (DropReason::NoCopyFrame, At::Exit, &mut self.uncopied),
        };
        let frames = std::mem::take(count);
        (frames > 0).then_some(Dropped { frames, reason, at })
    }

    fn reap(&mut self, pool: &mut Pool) {
        let waiting = self.rings.completion.waiting(u32::MAX);
        for _ in 0..waiting {
            let at = self.rings.completion.get();
            match self.area.claim(at.wrapping_add(self.origin), 0, &mut self.holder) {
                Some(frame) => {
                    self.in_tx -= 1;
                    pool.give(frame);
                }
                None => self.lies += 1,
            }
        }
        if waiting > 0 {
            self.rings.completion.release();
        }
    }

    fn refill(&mut self, pool: &mut Pool) {
        let free = pool.free_of(self.region) as u32;
        if free < RESERVE_FRAMES {
            self.fill_target = shrunk(self.fill_target);
        // What the kernel has left is in the ring; what it received waits for a turn of ours, of which each takes in a batch alone.
        } else if self.primed && is_scarce(self.rings.fill.left(), self.fill_target) {
            let there = self.in_fill + free - RESERVE_FRAMES;
            self.fill_target = grown(self.fill_target, self.rings.fill.size(), there);
        }
        // Whatever one port wants, the others find something in the pool.
        let spare = free / 2;
        let wanted = self.fill_target.saturating_sub(self.in_fill).min(spare);
        if wanted == 0 {
            return;
        }
        let room = self.rings.fill.room(wanted).min(wanted);
        for _ in 0..room {
            let Some(frame) = pool.take_of(self.region) else { break };
            let at = self.area.record(frame, &mut self.holder) as u64 - self.origin;
            self.rings.fill.put(at);
            self.in_fill += 1;
        }
        self.primed = self.in_fill == self.fill_target;
        self.rings.fill.publish();
    }
}

/// What a lane gives the kernel where too few are left: half of what it had grown to. What the kernel has it gives back as it receives.
fn shrunk(target: u32) -> u32 {
    (target / 2).max(IDLE_FRAMES)
}

/// Whether the kernel has used so much of `target` since the last turn that it wants more at hand: so much is left.
fn is_scarce(left: u32, target: u32) -> bool {
    target.saturating_sub(left) * TURNS_AT_HAND > target
}

/// What a lane has at hand for the kernel from now on: twice as many as before, but no more than the ring holds, and not more than half of
/// what is there, its own and the free ones. Never less than before.
fn grown(target: u32, ring: u32, there: u32) -> u32 {
    (target * 2).min(ring).min(there / 2).max(target)
}

impl Port for XdpPort {
    #[inline]
    fn recv(&mut self, pool: &mut Pool, batch: &mut Batch) {
        let mut waiting = self.rings.rx.waiting(batch.room() as u32);
        let any = waiting > 0;
        while waiting > 0 {
            waiting -= 1;
            let desc = self.rings.rx.get();
            if desc.options & libc::XDP_PKT_CONTD != 0 {
                self.join(desc, pool, batch);
                waiting = self.rings.rx.waiting(batch.room() as u32);
                continue;
            }
            match self.area.claim(desc.addr.wrapping_add(self.origin), desc.len, &mut self.holder) {
                Some(frame) => {
                    self.in_fill -= 1;
                    self.area.touch(&frame);
                    batch.push(frame);
                }
                None => self.lies += 1,
            }
        }
        if any {
            self.rings.rx.release();
        }
    }

    #[inline]
    fn send(&mut self, pool: &mut Pool, queue: &mut TxQueue) -> Sent {
        if self.dead.is_some() {
            return Sent::default();
        }
        let room =
            if self.jumbo { self.fitting(queue) } else { self.rings.tx.room(queue.len() as u32) as usize };
        let mut sent = Sent::default();
        let mut entries = 0;
        for frame in queue.take(room) {
            let len = frame.len() as u64;
            if frame.is_large() {
                match self.split(frame, pool) {
                    0 => {
                        sent.refused += 1;
                        continue;
                    }
                    pieces => entries += pieces,
                }
            } else {
                let Some(frame) = self.brought_here(frame, pool) else { continue };
                let desc = self.describe(frame);
                self.rings.tx.put(desc);
                entries += 1;
            }
            sent.packets += 1;
            sent.bytes += len;
        }
        self.rings.tx.publish();
        self.in_tx += entries;
        self.kicks.put(entries);
        sent
    }

    #[inline]
    fn service(&mut self, pool: &mut Pool, busy: bool, counters: &Counters) -> Serviced {
        if self.kicks.are_due(busy) {
            self.kick();
        }
        if self.in_tx > 0 {
            self.reap(pool);
        }
        self.refill(pool);
        // Every turn, not only after filling: a driver that found the ring empty says so a moment later.
        if self.rings.fill.needs_wakeup() {
            self.socket.kick_rx();
        }
        if self.lies > 0 {
            counters.event(Event::RingLied).add(std::mem::take(&mut self.lies));
        }
        let health = self.dead.map_or(Health::Good, Health::Dead);
        self.serviced = self.serviced.wrapping_add(1);
        let mut missed = std::mem::take(&mut self.unjoined);
        if self.serviced.is_multiple_of(STATISTICS_EVERY) {
            missed += self.newly_missed();
        }
        Serviced { health, missed, dropped: self.newly_dropped() }
    }

    fn rested(&mut self) {
        self.serviced = STATISTICS_EVERY - 1;
    }

    fn hurry(&mut self) {
        if !self.kicks.is_none() {
            self.kick();
        }
    }

    fn wait_on(&self) -> Option<BorrowedFd<'_>> {
        Some(self.socket.as_fd())
    }

    fn may_sleep(&self) -> bool {
        self.kicks.is_none() && self.rings.rx.is_empty()
    }

    fn held(&self) -> usize {
        (self.in_fill + self.in_tx) as usize
    }

    fn close(mut self: Box<Self>, _: &Area) -> Remains {
        let missed = self.unjoined + self.newly_missed();
        let lost = vec![
            (DropReason::PortClosed, self.unread()),
            (DropReason::RxMissed, missed),
            (DropReason::TxRefused, self.refused),
        ];
        let Self { rings, socket, holder, .. } = *self;
        drop(rings);
        // The kernel waits for its own readers before close returns: after it, no frame is written.
        drop(socket);
        Remains { frames: Vec::new(), holder: Some(holder), lost }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_has_at_hand_what_many_turns_like_the_last_would_take() {
        let grows_to = |used: u32| {
            (6..11).map(|n| 1 << n).find(|target| !is_scarce(target - used.min(*target), *target))
        };
        assert_eq!([0, 2, 3, 9, 32].map(grows_to), [Some(64), Some(64), Some(128), Some(512), Some(1024)]);
        assert!(!is_scarce(70, 64), "the kernel may give back more than it was given last");
    }

    #[test]
    fn a_lane_grows_with_what_comes_and_leaves_others_half() {
        assert_eq!([grown(64, 1024, 1088), grown(512, 1024, 4096)], [128, 1024]);
        assert_eq!(
            [grown(1024, 1024, 9000), grown(512, 1024, 1088), grown(544, 1024, 700)],
            [1024, 544, 544]
        );
        // Two lanes that want all there is: neither takes the other's, and some are free.
        let (all, mut one, mut two) = (1024, IDLE_FRAMES, IDLE_FRAMES);
        for _ in 0..10 {
            one = grown(one, 1024, all - two);
            two = grown(two, 1024, all - one);
        }
        assert!(one + two <= all * 7 / 8, "{one} and {two}");
    }

    /// As many lanes as a region of 1024 frames has at its most, all of which have bursts, for as long as one likes.
    #[test]
    fn lanes_that_all_grow_leave_frames_to_send_with() {
        let (all, mut targets) = (1024, [IDLE_FRAMES; 12]);
        for turn in 0..1000 {
            let lane = turn % targets.len();
            let free = all - targets.iter().sum::<u32>();
            let target = targets[lane];
            targets[lane] = match free < RESERVE_FRAMES {
                true => shrunk(target),
                false => grown(target, 1024, target + free - RESERVE_FRAMES),
            };
            assert!(targets.iter().sum::<u32>() + RESERVE_FRAMES / 2 <= all, "{turn}: {targets:?}");
        }
        assert_eq!([shrunk(1024), shrunk(100), shrunk(64)], [512, 64, 64]);
    }
}
