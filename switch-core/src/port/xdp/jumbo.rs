//! A frame that is larger than a chunk. The kernel hands it over and takes it as several descriptors, all but
//! the last marked `XDP_PKT_CONTD` (Documentation/networking/af_xdp.rst, "XDP_USE_SG"). Inside the switch a
//! frame is always one segment: it is joined into a large frame on the way in and cut on the way out. Both
//! copy, once.

use super::{Csum, XdpPort};
use crate::frame::{Area, Batch, Frame, Pool, TxQueue};
use crate::port::xdp::umem::TxMetadata;
use crate::wire::checksum;

/// Descriptors of one frame. The kernel puts each behind the first into a page of the packet's, of which there
/// are 17 (`MAX_SKB_FRAGS`, include/linux/skbuff.h), and refuses one more.
pub(crate) const PIECES_MAX: usize = 16;

/// Largest frame a jumbo lane of this memory takes.
pub(super) fn frame_len_max(area: &Area) -> usize {
    PIECES_MAX * area.packet_len_max()
}

impl XdpPort {
    /// Joins the frame that begins with `first`, whose other pieces the kernel has put behind it in one go. A
    /// frame that finds no large one to be joined into, or is too long for it, counts as missed.
    #[cold]
    pub(super) fn join(&mut self, first: libc::xdp_desc, pool: &mut Pool, batch: &mut Batch) {
        let mut whole = pool.take_large();
        let mut desc = first;
        loop {
            let Some(piece) =
                self.area.claim(desc.addr.wrapping_add(self.origin), desc.len, &mut self.holder)
            else {
                self.lies += 1;
                whole = discard(whole, pool);
                break;
            };
            self.in_fill -= 1;
            let fits = whole.as_mut().is_some_and(|whole| append(&self.area, whole, &piece));
            pool.give(piece);
            if !fits {
                whole = discard(whole, pool);
            }
            if desc.options & libc::XDP_PKT_CONTD == 0 {
                break;
            }
            if self.rings.rx.waiting(1) == 0 {
                // A frame without an end: the ring broke its promise.
                self.lies += 1;
                whole = discard(whole, pool);
                break;
            }
            desc = self.rings.rx.get();
        }
        match whole {
            Some(whole) => batch.push(whole),
            None => self.unjoined += 1,
        }
    }

    /// Frames at the head of `queue` for whose pieces the ring has room.
    pub(super) fn fitting(&mut self, queue: &TxQueue) -> usize {
        let pieces = |frame: &Frame| frame.len().div_ceil(self.area.packet_len_max()).max(1) as u32;
        let wanted = queue.iter().map(pieces).sum();
        let mut room = self.rings.tx.room(wanted);
        let fits = |frame: &&Frame| {
            let fits = pieces(frame) <= room;
            room = room.saturating_sub(pieces(frame));
            fits
        };
        queue.iter().take_while(fits).count()
    }

    /// Puts a large frame into the transmit ring in pieces. How many; 0 if there are no frames for them, or
    /// the device takes no such frame.
    #[cold]
    pub(super) fn split(&mut self, mut frame: Frame, pool: &mut Pool) -> u32 {
        let piece_len = self.area.packet_len_max();
        let pieces = frame.len().div_ceil(piece_len);
        if !self.jumbo || pieces > PIECES_MAX || pool.free_of(self.region) < pieces {
            pool.give(frame);
            return 0;
        }
        let area = self.area.clone();
        let mut csum = frame.offload.csum;
        if csum == Csum::Unknown {
            csum = checksum::state(area.bytes(&frame));
        }
        // The first piece alone can say that it is left to the device.
        let is_left = |start, field| {
            self.tx_metadata == TxMetadata::Offered && checksum::is_within(start, field, piece_len)
        };
        if let Csum::Partial { start, field } = csum
            && !is_left(start, field)
        {
            checksum::finish(area.bytes_mut(&mut frame), start, field);
            csum = Csum::Complete;
        }
        for (n, bytes) in area.bytes(&frame).chunks(piece_len).enumerate() {
            // The pool was asked and a piece is never longer than a frame holds.
            let Some(mut piece) = pool.take_of(self.region) else { break };
            _ = area.fill(&mut piece, bytes);
            piece.offload.csum = if n == 0 { csum } else { Csum::Complete };
            let mut desc = self.describe(piece);
            if n + 1 < pieces {
                desc.options |= libc::XDP_PKT_CONTD;
            }
            self.rings.tx.put(desc);
        }
        pool.give(frame);
        pieces as u32
    }
}

fn append(area: &Area, whole: &mut Frame, piece: &Frame) -> bool {
    let (from, bytes) = (whole.len(), area.bytes(piece));
    let fits = area.set_len(whole, from + bytes.len());
    if fits {
        area.bytes_mut(whole)[from..].copy_from_slice(bytes);
    }
    fits
}

fn discard(whole: Option<Frame>, pool: &mut Pool) -> Option<Frame> {
    if let Some(whole) = whole {
        pool.give(whole);
    }
    None
}
