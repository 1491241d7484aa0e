//! A TAP device: its other end is a pod's own network device, with the offloads the pod's kernel is used to.
//! One system call a frame; what makes it fast is that a frame may be a superframe of up to 64 KiB.
//!
//! | module | what |
//! |---|---|
//! | [`device`] | the descriptor: create, attach, offloads |
//!
//! This file is the lane: one queue of the device.

pub mod device;

use super::{Health, Port, Remains, Sent, Serviced};
use crate::counter::Counters;
use crate::frame::{Area, Batch, Frame, Pool, TxQueue};
use crate::wire::checksum::{self, Csum};
use device::Descriptor;
use rustix::io::Errno;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

/// `struct virtio_net_hdr`.
const HEADER_LEN: usize = 10;
const NEEDS_CSUM: u8 = 1;

/// One queue of a TAP device.
#[derive(Debug)]
pub struct TapPort {
    descriptor: Arc<Descriptor>,
    missed: u64,
    dead: Option<i32>,
}

impl TapPort {
    /// A lane over a descriptor.
    pub fn new(descriptor: Arc<Descriptor>) -> Self {
        Self { descriptor, missed: 0, dead: None }
    }

    /// One frame into `frame`; none if there is nothing to read, or the device is gone.
    fn read(&mut self, pool: &Pool, frame: &mut Frame) -> Option<usize> {
        let area = pool.area();
        let mut header = [0; HEADER_LEN];
        if !area.set_len(frame, area.packet_len_max()) {
            return None;
        }
        let mut parts = [IoSliceMut::new(&mut header), IoSliceMut::new(area.bytes_mut(frame))];
        match rustix::io::readv(&*self.descriptor, &mut parts) {
            Ok(n) => {
                frame.offload.csum = if header[0] & NEEDS_CSUM != 0 {
                    let start = u16::from_ne_bytes([header[6], header[7]]);
                    Csum::Partial { start, field: header[8] }
                } else {
                    Csum::Complete
                };
                Some(n.saturating_sub(HEADER_LEN))
            }
            Err(Errno::AGAIN | Errno::INTR) => None,
            Err(errno) => {
                self.dead = Some(errno.raw_os_error());
                None
            }
        }
    }

    fn write(&mut self, area: &Area, frame: &Frame) -> Result<(), Errno> {
        let bytes = area.bytes(frame);
        let mut csum = frame.offload.csum;
        if csum == Csum::Unknown {
            csum = checksum::state(bytes);
        }
        let mut header = [0; HEADER_LEN];
        if let Csum::Partial { start, field } = csum {
            header[0] = NEEDS_CSUM;
            header[6..8].copy_from_slice(&start.to_ne_bytes());
            header[8..10].copy_from_slice(&u16::from(field).to_ne_bytes());
        }
        let written = rustix::io::writev(&*self.descriptor, &[IoSlice::new(&header), IoSlice::new(bytes)])?;
        if written == HEADER_LEN + bytes.len() { Ok(()) } else { Err(Errno::MSGSIZE) }
    }
}

impl Port for TapPort {
    fn recv(&mut self, pool: &mut Pool, batch: &mut Batch) {
        while !batch.is_full() && self.dead.is_none() {
            let Some(mut frame) = pool.take() else { return };
            match self.read(pool, &mut frame) {
                Some(len) if pool.area().set_len(&mut frame, len) => batch.push(frame),
                Some(_) => pool.give(frame),
                None => return pool.give(frame),
            }
        }
    }

    fn send(&mut self, pool: &mut Pool, queue: &mut TxQueue) -> Sent {
        let mut sent = Sent::default();
        let mut done = 0;
        let waiting = queue.len();
        if self.dead.is_some() {
            return sent;
        }
        while done < waiting {
            let Some(frame) = queue.iter().nth(done) else { break };
            match self.write(pool.area(), frame) {
                Ok(()) => {
                    sent.packets += 1;
                    sent.bytes += frame.len() as u64;
                }
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => continue,
                Err(Errno::BADFD) => {
                    self.dead = Some(Errno::BADFD.raw_os_error());
                    break;
                }
                Err(_) => sent.refused += 1,
            }
            done += 1;
        }
        for frame in queue.take(done) {
            pool.give(frame);
        }
        sent
    }

    fn service(&mut self, _: &mut Pool, _: bool, _: &Counters) -> Serviced {
        Serviced {
            health: self.dead.map_or(Health::Good, Health::Dead),
            missed: std::mem::take(&mut self.missed),
        }
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
