//! The doors to the outside. A port moves frames between the switch and something else; it knows
//! frames and nothing of bridges, VLANs or policy.
//!
//! | module | what |
//! |---|---|
//! | [`xdp`] | AF_XDP sockets on a network device |
//! | [`tap`] | a TAP device: a pod's own network device |
//! | [`memory`] | packets pushed and popped by a test or the simulator |
//! | [`traffic`] | seeded flows out of memory: benches of a running daemon |
//! | [`pcap`] | replay a capture in, write a capture out |
//! | [`recorder`], [`faulty`] | wrappers: write down what passes; lose, repeat, delay, corrupt it |

#[cfg(test)]
pub mod cramped;
pub mod faulty;
pub mod memory;
pub mod pcap;
pub mod recorder;
pub mod tap;
pub mod traffic;
#[cfg(test)]
mod wrapper_tests;
pub mod xdp;

use crate::counter::{Counters, DropReason};
use crate::frame::{Area, Batch, Frame, Holder, Pool, TxQueue};
use std::os::fd::BorrowedFd;

/// What left in one `send`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Frames.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Frames the outside refused; they are in the pool again.
    pub refused: u64,
}

/// How a port is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It works.
    Good,
    /// It will never work again; the control thread should take it away. The kernel's error number.
    Dead(i32),
}

/// What came of a `service`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Serviced {
    /// How the port is.
    pub health: Health,
    /// Frames the kernel could not hand over since the last time.
    pub missed: u64,
    /// Frames that it dropped by itself, for one reason; of another it tells the next time.
    pub dropped: Option<Dropped>,
}

/// Frames that a port dropped by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// How many.
    pub frames: u64,
    /// Why.
    pub reason: DropReason,
    /// Where they were.
    pub at: At,
}

/// Where a port drops a frame, by the law of packets (`counter::ledger`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// It was to leave, and was not counted as sent.
    Exit,
    /// Before it came in, or behind the port when it had been counted as sent.
    Outside,
}

impl Serviced {
    /// Nothing to tell.
    pub const WELL: Self = Self { health: Health::Good, missed: 0, dropped: None };
}

/// What is left of a closed port.
#[derive(Debug, Default)]
pub struct Remains {
    /// Frames it had in hand.
    pub frames: Vec<Frame>,
    /// The record of frames the kernel had. Nobody writes them any more.
    pub holder: Option<Holder>,
    /// Frames outside, by the law of packets, of which it had not told: what the kernel had for it, and what that lost.
    pub lost: Vec<(DropReason, u64)>,
}

/// One lane: one queue of a port, owned by one worker. No method blocks or allocates, but for `close`,
/// which the control thread calls, and wrappers, which say so.
pub trait Port: Send + std::fmt::Debug {
    /// Takes what arrived, as long as the batch has room.
    fn recv(&mut self, pool: &mut Pool, batch: &mut Batch);

    /// Whether the last `recv` left something although the batch had room: it had taken in as much as a batch is worth.
    fn has_more(&self) -> bool {
        false
    }

    /// Sends from the front of `queue` what the outside takes now; the rest stays in it.
    fn send(&mut self, pool: &mut Pool, queue: &mut TxQueue) -> Sent;

    /// Takes sent frames back, gives the outside room to receive into, and lets go of what `send` held
    /// back to send together. `busy`: the last `recv` filled its batch, more is coming.
    fn service(&mut self, pool: &mut Pool, busy: bool, counters: &Counters) -> Serviced;

    /// Lets go at once of what `send` held back: nobody waits for more to send with it.
    fn hurry(&mut self) {}

    /// Nothing came for a while, and there is time: the next `service` tells all that the kernel knows by now.
    fn rested(&mut self) {}

    /// What becomes readable when something arrives; none if the port must be asked.
    fn wait_on(&self) -> Option<BorrowedFd<'_>>;

    /// Whether `recv` costs a system call also when nothing arrived: it is called only when what it waits on
    /// is readable.
    fn is_asked_by_call(&self) -> bool {
        false
    }

    /// Whether the worker may sleep as far as this port knows.
    fn may_sleep(&self) -> bool {
        true
    }

    /// Frames that the port has: in its rings, or in hand.
    fn held(&self) -> usize;

    /// Ends it and leaves its frames to the caller. May block.
    fn close(self: Box<Self>, area: &Area) -> Remains;
}
