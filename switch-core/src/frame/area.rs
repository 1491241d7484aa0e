//! The packet memory: one mapping cut into chunks of one size, and one record a chunk of who has it.
//!
//! # Why this is sound
//! A [`Frame`] is the right to its chunk's bytes. Frames are minted in two places only: once for every
//! chunk in [`Area::new`], and in [`Area::claim`], which takes back a chunk whose record says that the
//! calling [`Holder`] has it. A chunk's record names a holder only after [`Area::record`] consumed the
//! frame. A `Holder` is not `Clone` and claiming needs it by `&mut`, so no two threads can claim from
//! the same one: at any time each chunk is either one `Frame` or one record, never both.
//!
//! The kernel writes into chunks that are recorded in a socket's holder. It got them from its rings and
//! gives them back by its rings; [`Area::claim`] refuses a chunk that the ring had no right to name. A
//! dead socket's rings are not trusted at all: [`Area::reclaim`] walks the records.

#![allow(unsafe_code)]

use super::{Frame, Offload};
use std::ptr::NonNull;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};

/// Smallest chunk: a 1514-byte frame, its tag and [`super::HEADROOM`] fit, and AF_XDP takes no smaller one.
pub const CHUNK_BYTES_MIN: u32 = 2048;
/// Largest chunk that AF_XDP takes is a page; frame offsets and lengths are 16 bits.
pub const CHUNK_BYTES_MAX: u32 = 4096;
/// Most chunks: 4 GiB of 2 KiB chunks, far beyond an edge node.
pub const CHUNKS_MAX: u32 = 1 << 21;
/// Most holders: twice the port limit, for ports of several queues. Records are 16 bits.
pub const HOLDERS_MAX: u16 = 4096;

/// Nobody's ring has it: it is a `Frame` in a pool, a batch or a queue.
const IN_HAND: u16 = 0;

/// How large an [`Area`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AreaSize {
    /// Bytes of a chunk: 2048 or 4096.
    pub chunk_bytes: u32,
    /// Chunks, all pools together.
    pub chunks: u32,
}

/// Why packet memory cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum AreaError {
    /// The numbers do not fit.
    #[error("packet memory of {0:?} is not possible: chunks are 2048 or 4096 bytes, 1 to 2097152 of them")]
    Size(AreaSize),
    /// The kernel has no memory.
    #[error("the kernel gave no {bytes} bytes of packet memory: {error}")]
    Memory {
        /// Asked for.
        bytes: usize,
        /// The kernel's answer.
        error: rustix::io::Errno,
    },
}

/// The right to claim what is recorded under one number. One lane's socket has one.
#[derive(Debug)]
pub struct Holder(u16);

/// See the module.
#[derive(Debug)]
pub struct Area {
    base: NonNull<u8>,
    size: AreaSize,
    records: Box<[AtomicU16]>,
    holders_free: Mutex<Vec<u16>>,
    huge: bool,
    region: u16,
}

/// Areas made so far: each gets a number, and so do its frames, which keeps a frame out of another area.
static AREAS: AtomicU16 = AtomicU16::new(0);

// SAFETY: the pointer is to a mapping that lives as long as the Area; access to its bytes goes through
// Frames, each of which is the only right to its chunk (see the module).
unsafe impl Send for Area {}
// SAFETY: as above; everything else in it is atomic or locked.
unsafe impl Sync for Area {}

impl Area {
    /// Maps the memory (huge pages if the kernel has some to spare) and mints one frame a chunk.
    pub fn new(size: AreaSize) -> Result<(Self, Vec<Frame>), AreaError> {
        let fits = [CHUNK_BYTES_MIN, CHUNK_BYTES_MAX].contains(&size.chunk_bytes)
            && (1..=CHUNKS_MAX).contains(&size.chunks);
        if !fits {
            return Err(AreaError::Size(size));
        }
        let bytes = size.chunk_bytes as usize * size.chunks as usize;
        let (base, huge) = map(bytes).map_err(|error| AreaError::Memory { bytes, error })?;
        let records = (0..size.chunks).map(|_| AtomicU16::new(IN_HAND)).collect();
        let holders_free = Mutex::new((1..HOLDERS_MAX).rev().collect());
        let region = AREAS.fetch_add(1, Relaxed);
        let area = Self { base, size, records, holders_free, huge, region };
        let frames = (0..size.chunks).map(|chunk| area.mint(chunk)).collect();
        Ok((area, frames))
    }

    fn mint(&self, chunk: u32) -> Frame {
        Frame { chunk, len: 0, offset: super::HEADROOM, region: self.region, offload: Offload::default() }
    }

    /// Its size.
    pub fn size(&self) -> AreaSize {
        self.size
    }

    /// Bytes of the mapping.
    pub fn bytes_total(&self) -> usize {
        self.size.chunk_bytes as usize * self.size.chunks as usize
    }

    /// Its first byte, to register it with the kernel.
    pub fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Whether it lies on huge pages.
    pub fn is_huge(&self) -> bool {
        self.huge
    }

    /// A frame's packet.
    #[inline(always)]
    pub fn bytes(&self, frame: &Frame) -> &[u8] {
        let at = self.position(frame);
        // SAFETY: position() keeps [at, at + len) inside the mapping; the shared borrow of the frame
        // keeps everybody from writing its chunk meanwhile.
        unsafe { std::slice::from_raw_parts(self.base.add(at).as_ptr(), frame.len()) }
    }

    /// A frame's packet, to write.
    #[inline(always)]
    #[allow(clippy::mut_from_ref)]
    pub fn bytes_mut<'a>(&'a self, frame: &'a mut Frame) -> &'a mut [u8] {
        let at = self.position(frame);
        // SAFETY: as above, and the frame is borrowed alone: it is the only right to these bytes.
        unsafe { std::slice::from_raw_parts_mut(self.base.add(at).as_ptr(), frame.len()) }
    }

    /// The 24 bytes in front of the packet, for AF_XDP's TX metadata; none if there is no room.
    #[inline(always)]
    #[allow(clippy::mut_from_ref)]
    pub fn metadata_mut<'a>(&'a self, frame: &'a mut Frame) -> Option<&'a mut [u8; 24]> {
        if frame.offset < 24 {
            return None;
        }
        let at = self.position(frame) - 24;
        // SAFETY: offset ≥ 24, so the bytes are in the frame's own chunk, which is borrowed alone.
        Some(unsafe { &mut *self.base.add(at).as_ptr().cast::<[u8; 24]>() })
    }

    /// Byte offset of the packet in the area: what a descriptor names.
    #[inline(always)]
    pub fn position(&self, frame: &Frame) -> usize {
        // Chunk, offset and length were checked when they were set, all of them in this room. What is
        // left is a frame of another area: a defect of the switch, not of its input.
        assert!(frame.region == self.region, "a frame of another area");
        debug_assert!(u32::from(frame.offset) + u32::from(frame.len) <= self.size.chunk_bytes);
        frame.chunk as usize * self.size.chunk_bytes as usize + usize::from(frame.offset)
    }

    /// Largest packet that fits behind the usual headroom.
    pub fn packet_len_max(&self) -> usize {
        self.size.chunk_bytes as usize - usize::from(super::HEADROOM)
    }

    /// Empties the frame: no packet, full headroom.
    #[inline(always)]
    pub fn reset(&self, frame: &mut Frame) {
        frame.offset = super::HEADROOM;
        frame.len = 0;
        frame.offload = Offload::default();
    }

    /// Sets the packet's length behind its headroom. False if the chunk is too small.
    #[must_use]
    pub fn set_len(&self, frame: &mut Frame, len: usize) -> bool {
        if usize::from(frame.offset) + len > self.size.chunk_bytes as usize {
            return false;
        }
        frame.len = len as u16;
        true
    }

    /// Writes `packet` into an emptied frame. False if it does not fit.
    #[must_use]
    pub fn fill(&self, frame: &mut Frame, packet: &[u8]) -> bool {
        self.reset(frame);
        let fits = self.set_len(frame, packet.len());
        if fits {
            self.bytes_mut(frame).copy_from_slice(packet);
        }
        fits
    }

    /// A fresh holder; none if all [`HOLDERS_MAX`] are out.
    pub fn holder(&self) -> Option<Holder> {
        self.holders_free.lock().ok()?.pop().map(Holder)
    }

    /// Gives a frame into `holder`'s rings. Returns its position for the descriptor.
    #[inline(always)]
    pub fn record(&self, frame: Frame, holder: &mut Holder) -> usize {
        let at = self.position(&frame);
        self.records[frame.chunk as usize].store(holder.0, Relaxed);
        at
    }

    /// Takes back the chunk in which byte `at` lies, with a packet of `len` bytes at `at`. None, and
    /// nothing changed, if `holder` does not have it or the packet does not fit: the ring lied.
    #[inline(always)]
    pub fn claim(&self, at: u64, len: u32, holder: &mut Holder) -> Option<Frame> {
        let chunk = u32::try_from(at / u64::from(self.size.chunk_bytes)).ok()?;
        let offset = (at % u64::from(self.size.chunk_bytes)) as u32;
        let record = self.records.get(chunk as usize)?;
        if record.load(Relaxed) != holder.0 || offset + len > self.size.chunk_bytes {
            return None;
        }
        record.store(IN_HAND, Relaxed);
        let offload = Offload::default();
        Some(Frame { chunk, len: len as u16, offset: offset as u16, region: self.region, offload })
    }

    /// Takes back everything `holder` has, by the records, and retires the holder. The caller has closed
    /// the socket: the kernel writes no more.
    pub fn reclaim(&self, holder: Holder, mut home: impl FnMut(Frame)) -> usize {
        let mut found = 0;
        for (chunk, record) in self.records.iter().enumerate() {
            if record.load(Relaxed) == holder.0 {
                record.store(IN_HAND, Relaxed);
                home(self.mint(chunk as u32));
                found += 1;
            }
        }
        if let Ok(mut free) = self.holders_free.lock() {
            free.push(holder.0);
        }
        found
    }

    /// Chunks recorded in anybody's rings, by a walk over all of them: what a leak cannot hide from.
    pub fn recorded(&self) -> u64 {
        self.records.iter().filter(|record| record.load(Relaxed) != IN_HAND).count() as u64
    }
}

impl Drop for Area {
    fn drop(&mut self) {
        // SAFETY: this mapping was made by `map` with this length, and no Frame outlives its use:
        // every access to bytes goes through `&self`.
        let unmapped = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.bytes_total()) };
        debug_assert!(unmapped.is_ok());
    }
}

/// Huge pages are 2 MiB on x86-64 and on aarch64 with 4 KiB pages; with other sizes the kernel says no.
const HUGE_PAGE_BYTES: usize = 2 << 20;

fn map(bytes: usize) -> rustix::io::Result<(NonNull<u8>, bool)> {
    use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    let try_map = |flags| {
        // SAFETY: an anonymous mapping at an address the kernel chooses touches nothing of ours.
        unsafe { mmap_anonymous(std::ptr::null_mut(), bytes, protection, flags) }
    };
    if bytes.is_multiple_of(HUGE_PAGE_BYTES)
        && let Ok(base) = try_map(MapFlags::PRIVATE | MapFlags::HUGETLB)
        && let Some(base) = NonNull::new(base.cast())
    {
        return Ok((base, true));
    }
    let base = try_map(MapFlags::PRIVATE)?;
    NonNull::new(base.cast()).map(|base| (base, false)).ok_or(rustix::io::Errno::NOMEM)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> (Area, Vec<Frame>) {
        Area::new(AreaSize { chunk_bytes: 2048, chunks: 8 }).unwrap()
    }

    #[test]
    fn a_recorded_chunk_comes_back_once_and_only_to_its_holder() {
        let (area, mut frames) = small();
        let (mut mine, mut other) = (area.holder().unwrap(), area.holder().unwrap());
        let at = area.record(frames.pop().unwrap(), &mut mine) as u64;
        assert_eq!(area.recorded(), 1);
        assert!(area.claim(at, 60, &mut other).is_none(), "another ring names it");
        assert!(area.claim(at, 4000, &mut mine).is_none(), "longer than the chunk");
        assert!(area.claim(at + 8 * 2048, 60, &mut mine).is_none(), "outside the area");
        assert!(area.claim(u64::MAX, 60, &mut mine).is_none(), "far outside the area");
        let frame = area.claim(at, 60, &mut mine).unwrap();
        assert!(area.claim(at, 60, &mut mine).is_none(), "a second time");
        frames.push(frame);
        assert_eq!(area.recorded(), 0);
    }

    #[test]
    fn reclaim_finds_every_frame_of_a_dead_holder() {
        let (area, mut frames) = small();
        let (mut dead, mut alive) = (area.holder().unwrap(), area.holder().unwrap());
        for i in 0..5 {
            let frame = frames.pop().unwrap();
            area.record(frame, if i < 3 { &mut dead } else { &mut alive });
        }
        let retired = dead.0;
        assert_eq!(area.reclaim(dead, |frame| frames.push(frame)), 3);
        assert_eq!((frames.len(), area.recorded()), (6, 2));
        assert_eq!(area.holder().unwrap().0, retired, "a retired number is given out again");
    }

    #[test]
    fn pushes_and_pops_stay_in_the_chunk() {
        let (area, mut frames) = small();
        let frame = &mut frames[0];
        assert!(area.fill(frame, &[7; 60]));
        assert!(!area.fill(&mut area.mint(1), &[7; 1793]));
        assert!(frame.push_front(256) && !frame.push_front(1));
        assert_eq!(area.bytes(frame).len(), 316);
        assert!(frame.pop_front(316) && !frame.pop_front(1));
        assert!(area.metadata_mut(frame).is_some());
    }

    #[test]
    fn sizes_that_cannot_be_are_refused() {
        for size in [(1024, 8), (2048, 0), (8192, 8), (2048, CHUNKS_MAX + 1)] {
            let size = AreaSize { chunk_bytes: size.0, chunks: size.1 };
            assert!(matches!(Area::new(size), Err(AreaError::Size(_))), "{size:?}");
        }
    }
}
