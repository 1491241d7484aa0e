//! Frames: who owns which bytes. A [`Frame`] is moved, never cloned; whoever holds it may read and
//! write its chunk and nobody else can.
//!
//! | module | what |
//! |---|---|
//! | [`area`] | the memory, and the record of who has each chunk |
//! | [`batch`] | frames that came in by one port in one turn |
//! | [`pool`] | a worker's free frames, and the way home for those of others |
//! | [`queue`] | what waits to leave by one port |

pub mod area;
pub mod batch;
pub mod pool;
pub mod queue;

pub use area::{Area, AreaSize, Holder};
pub use batch::{BATCH_FRAMES, Batch};
pub use pool::Pool;
pub use queue::{TX_QUEUE_FRAMES, TxQueue};

use crate::wire::checksum::Csum;
use crate::wire::gso::Gso;

/// Bytes in front of a received frame that a header push may use: VXLAN over IPv6 with a VLAN tag is
/// 14 + 4 + 40 + 8 + 8 = 74, and the 24 bytes of TX metadata go before that. The kernel gives
/// AF_XDP 256 (`XDP_PACKET_HEADROOM`); memory ports give the same.
pub const HEADROOM: u16 = 256;

/// Work that is left to whoever sends the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Offload {
    /// Its transport checksum.
    pub csum: Csum,
    /// Its segments, if it stands for several. Its checksum is then [`Csum::Partial`].
    pub gso: Option<Gso>,
}

/// One packet in one chunk of an [`Area`]. Dropping it on the floor leaks the chunk: give it to a
/// pool, a queue or a port.
#[must_use = "a frame that is dropped never comes home"]
#[derive(Debug)]
pub struct Frame {
    chunk: u32,
    len: u32,
    offset: u16,
    /// Of which area, and whether the chunk is a large one.
    tag: u16,
    /// What the sender still has to do.
    pub offload: Offload,
}

impl Frame {
    /// Which chunk.
    pub fn chunk(&self) -> u32 {
        self.chunk
    }

    /// Bytes of the packet, without FCS. Never 0 bytes more than its chunk holds.
    #[inline(always)]
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether its chunk is a large one: up to 64 KiB, and never in an AF_XDP ring.
    #[inline(always)]
    pub fn is_large(&self) -> bool {
        self.tag & area::LARGE != 0
    }

    /// Where the packet begins in its chunk: the room for a push.
    pub fn headroom(&self) -> u16 {
        self.offset
    }

    /// Opens `n` bytes in front. False, and nothing changed, if there is no room.
    #[must_use]
    pub fn push_front(&mut self, n: u16) -> bool {
        if n > self.offset {
            return false;
        }
        self.offset -= n;
        self.len += u32::from(n);
        self.offload.csum = self.offload.csum.pushed(n);
        true
    }

    /// Takes `n` bytes off the front. False, and nothing changed, if there are not so many.
    #[must_use]
    pub fn pop_front(&mut self, n: u16) -> bool {
        if u32::from(n) > self.len {
            return false;
        }
        self.offset += n;
        self.len -= u32::from(n);
        self.offload.csum = self.offload.csum.popped(n);
        true
    }
}
