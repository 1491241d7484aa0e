//! The packet memory: one mapping cut into chunks of one size, and one record a chunk of who has it; beside
//! it a second mapping of a few large chunks, for what a TAP hands over as one packet of up to 64 KiB. Only
//! the first is registered with the kernel and only its chunks can be in a ring; a page of the second costs
//! nothing until something is written into it.
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
use crate::prefetch::prefetch;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
use std::ptr::NonNull;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};

/// Smallest chunk: a 1514-byte frame, its tag and [`super::HEADROOM`] fit, and AF_XDP takes no smaller one.
pub const CHUNK_BYTES_MIN: u32 = 2048;
/// Largest chunk that AF_XDP takes is a page.
pub const CHUNK_BYTES_MAX: u32 = 4096;
/// Most chunks: 4 GiB of 2 KiB chunks, far beyond an edge node.
pub const CHUNKS_MAX: u32 = 1 << 21;
/// Most holders: twice the port limit, for ports of several queues. Records are 16 bits.
pub const HOLDERS_MAX: u16 = 4096;

/// Bytes of a large chunk: headroom, an Ethernet header with two tags, an IPv6 header and the 65 535 bytes it
/// can announce are 65 853; rounded up to pages of 4 KiB.
pub const LARGE_CHUNK_BYTES: u32 = 68 << 10;
/// Most large chunks: 1 GiB of them.
pub const LARGE_CHUNKS_MAX: u32 = 1 << 14;

/// Nobody's ring has it: it is a `Frame` in a pool, a batch or a queue.
const IN_HAND: u16 = 0;

/// How large an [`Area`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AreaSize {
    /// Bytes of a chunk: 2048 or 4096.
    pub chunk_bytes: u32,
    /// Chunks, all pools together.
    pub chunks: u32,
    /// Large chunks beside them ([`LARGE_CHUNK_BYTES`]), all pools together.
    pub large: u32,
}

/// Why packet memory cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum AreaError {
    /// The numbers do not fit.
    #[error(
        "packet memory of {0:?} is not possible: chunks are 2048 or 4096 bytes, 1 to 2097152 of them, and 0 to \
         16384 large ones"
    )]
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
    large: Option<NonNull<u8>>,
    size: AreaSize,
    /// `chunk_bytes` is 1 << this.
    chunk_shift: u32,
    records: Box<[AtomicU16]>,
    holders_free: Mutex<Vec<u16>>,
    huge: bool,
    /// Of its chunks; its large chunks have the next one.
    region: u16,
}

/// What tells the region of large chunks from that of the others of the same area.
pub(super) const LARGE: u16 = 1;

/// Twice the areas made so far: each gets two numbers, and so do its frames, which keeps a frame out of
/// another area.
static AREAS: AtomicU16 = AtomicU16::new(0);

// SAFETY: the pointers are to mappings that live as long as the Area; access to its bytes goes through
// Frames, each of which is the only right to its chunk (see the module).
unsafe impl Send for Area {}
// SAFETY: as above; everything else in it is atomic or locked.
unsafe impl Sync for Area {}

impl Area {
    /// Maps the memory (huge pages if the kernel has some to spare) and mints one frame a chunk.
    pub fn new(size: AreaSize) -> Result<(Self, Vec<Frame>), AreaError> {
        let fits = [CHUNK_BYTES_MIN, CHUNK_BYTES_MAX].contains(&size.chunk_bytes)
            && (1..=CHUNKS_MAX).contains(&size.chunks)
            && size.large <= LARGE_CHUNKS_MAX;
        if !fits {
            return Err(AreaError::Size(size));
        }
        let bytes = size.chunk_bytes as usize * size.chunks as usize;
        let (base, huge) = map(bytes).map_err(|error| AreaError::Memory { bytes, error })?;
        // Made before the second mapping is asked for: should there be none, the first is unmapped with it.
        let records = (0..size.chunks).map(|_| AtomicU16::new(IN_HAND)).collect();
        let holders_free = Mutex::new((1..HOLDERS_MAX).rev().collect());
        let region = AREAS.fetch_add(2, Relaxed);
        let chunk_shift = size.chunk_bytes.trailing_zeros();
        let mut area = Self { base, large: None, size, chunk_shift, records, holders_free, huge, region };
        if size.large > 0 {
            let bytes = area.large_bytes_total();
            area.large = Some(map_pages(bytes).map_err(|error| AreaError::Memory { bytes, error })?);
        }
        let small = (0..size.chunks).map(|chunk| area.mint(chunk, area.region));
        let large = (0..size.large).map(|chunk| area.mint(chunk, area.region | LARGE));
        let frames = small.chain(large).collect();
        Ok((area, frames))
    }

    fn mint(&self, chunk: u32, region: u16) -> Frame {
        Frame { chunk, len: 0, offset: super::HEADROOM, region, offload: Offload::default() }
    }

    /// Its size.
    pub fn size(&self) -> AreaSize {
        self.size
    }

    /// Bytes of the mapping that is registered, without the large chunks.
    pub fn bytes_total(&self) -> usize {
        self.size.chunk_bytes as usize * self.size.chunks as usize
    }

    fn large_bytes_total(&self) -> usize {
        LARGE_CHUNK_BYTES as usize * self.size.large as usize
    }

    /// Frames that were minted, large ones included.
    pub fn frames_total(&self) -> u32 {
        self.size.chunks + self.size.large
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
        // SAFETY: place() keeps [at, at + len) inside a mapping; the shared borrow of the frame keeps
        // everybody from writing its chunk meanwhile.
        unsafe { std::slice::from_raw_parts(self.place(frame).as_ptr(), frame.len()) }
    }

    /// Asks for the frame's first line: another core wrote it, and its header is read soon.
    #[inline(always)]
    pub fn touch(&self, frame: &Frame) {
        prefetch(self.place(frame).as_ptr());
    }

    /// A frame's packet, to write.
    #[inline(always)]
    #[allow(clippy::mut_from_ref)]
    pub fn bytes_mut<'a>(&'a self, frame: &'a mut Frame) -> &'a mut [u8] {
        // SAFETY: as above, and the frame is borrowed alone: it is the only right to these bytes.
        unsafe { std::slice::from_raw_parts_mut(self.place(frame).as_ptr(), frame.len()) }
    }

    /// The 24 bytes in front of the packet, for AF_XDP's TX metadata; none if there is no room.
    #[inline(always)]
    #[allow(clippy::mut_from_ref)]
    pub fn metadata_mut<'a>(&'a self, frame: &'a mut Frame) -> Option<&'a mut [u8; 24]> {
        if frame.offset < 24 {
            return None;
        }
        // SAFETY: offset ≥ 24, so the bytes are in the frame's own chunk, which is borrowed alone.
        Some(unsafe { &mut *self.place(frame).sub(24).as_ptr().cast::<[u8; 24]>() })
    }

    /// The packet's first byte in memory.
    #[inline(always)]
    fn place(&self, frame: &Frame) -> NonNull<u8> {
        if frame.region != self.region {
            return self.place_large(frame);
        }
        // SAFETY: position() is inside the mapping.
        unsafe { self.base.add(self.position(frame)) }
    }

    fn place_large(&self, frame: &Frame) -> NonNull<u8> {
        let base = self.large.filter(|_| frame.region == self.region | LARGE);
        let base = base.unwrap_or_else(|| panic!("a frame of another area"));
        debug_assert!(u32::from(frame.offset) + frame.len <= LARGE_CHUNK_BYTES);
        let at = frame.chunk as usize * LARGE_CHUNK_BYTES as usize + usize::from(frame.offset);
        // SAFETY: chunk, offset and length were checked when they were set, all of them in this room.
        unsafe { base.add(at) }
    }

    /// Byte offset of the packet in the registered memory: what a descriptor names. Not for large frames.
    #[inline(always)]
    pub fn position(&self, frame: &Frame) -> usize {
        // Chunk, offset and length were checked when they were set, all of them in this room. What is
        // left is a frame of another area: a defect of the switch, not of its input.
        assert!(frame.region == self.region, "a frame of another area");
        debug_assert!(u32::from(frame.offset) + frame.len <= self.size.chunk_bytes);
        frame.chunk as usize * self.size.chunk_bytes as usize + usize::from(frame.offset)
    }

    /// Largest packet that fits behind the usual headroom of a frame that is not large.
    pub fn packet_len_max(&self) -> usize {
        self.size.chunk_bytes as usize - usize::from(super::HEADROOM)
    }

    fn chunk_bytes(&self, frame: &Frame) -> usize {
        if frame.is_large() { LARGE_CHUNK_BYTES as usize } else { self.size.chunk_bytes as usize }
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
        if usize::from(frame.offset) + len > self.chunk_bytes(frame) {
            return false;
        }
        frame.len = len as u32;
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
        // Chunks are a power of two: a division here, twice a frame, is what the pipeline's parser takes.
        let chunk = u32::try_from(at >> self.chunk_shift).ok()?;
        let offset = at as u32 & (self.size.chunk_bytes - 1);
        let record = self.records.get(chunk as usize)?;
        if record.load(Relaxed) != holder.0 || len > self.size.chunk_bytes - offset {
            return None;
        }
        record.store(IN_HAND, Relaxed);
        let offload = Offload::default();
        Some(Frame { chunk, len, offset: offset as u16, region: self.region, offload })
    }

    /// Takes back everything `holder` has, by the records, and retires the holder. The caller has closed
    /// the socket: the kernel writes no more.
    pub fn reclaim(&self, holder: Holder, mut home: impl FnMut(Frame)) -> usize {
        let mut found = 0;
        for (chunk, record) in self.records.iter().enumerate() {
            if record.load(Relaxed) == holder.0 {
                record.store(IN_HAND, Relaxed);
                home(self.mint(chunk as u32, self.region));
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
        if let Some(large) = self.large {
            // SAFETY: as above; this one was made by `map_pages`.
            let unmapped = unsafe { rustix::mm::munmap(large.as_ptr().cast(), self.large_bytes_total()) };
            debug_assert!(unmapped.is_ok());
        }
    }
}

/// Huge pages are 2 MiB on x86-64 and on aarch64 with 4 KiB pages; with other sizes the kernel says no.
const HUGE_PAGE_BYTES: usize = 2 << 20;

fn map(bytes: usize) -> rustix::io::Result<(NonNull<u8>, bool)> {
    if bytes.is_multiple_of(HUGE_PAGE_BYTES)
        && let Ok(base) = map_with(bytes, MapFlags::PRIVATE | MapFlags::HUGETLB)
    {
        return Ok((base, true));
    }
    Ok((map_pages(bytes)?, false))
}

fn map_pages(bytes: usize) -> rustix::io::Result<NonNull<u8>> {
    map_with(bytes, MapFlags::PRIVATE)
}

fn map_with(bytes: usize, flags: MapFlags) -> rustix::io::Result<NonNull<u8>> {
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: an anonymous mapping at an address the kernel chooses touches nothing of ours.
    let base = unsafe { mmap_anonymous(std::ptr::null_mut(), bytes, protection, flags)? };
    NonNull::new(base.cast()).ok_or(rustix::io::Errno::NOMEM)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> (Area, Vec<Frame>) {
        Area::new(AreaSize { chunk_bytes: 2048, chunks: 8, large: 0 }).unwrap()
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
        assert!(!area.fill(&mut area.mint(1, area.region), &[7; 1793]));
        assert!(frame.push_front(256) && !frame.push_front(1));
        assert_eq!(area.bytes(frame).len(), 316);
        assert!(frame.pop_front(316) && !frame.pop_front(1));
        assert!(area.metadata_mut(frame).is_some());
    }

    #[test]
    fn large_frames_are_beside_the_others_and_in_nobodys_way() {
        let size = AreaSize { chunk_bytes: 2048, chunks: 2, large: 2 };
        let (area, mut frames) = Area::new(size).unwrap();
        assert_eq!((frames.len(), area.frames_total()), (4, 4));
        let longest = LARGE_CHUNK_BYTES as usize - usize::from(super::super::HEADROOM);
        for (n, frame) in frames.iter_mut().enumerate() {
            let len = if n < 2 { area.packet_len_max() } else { longest };
            assert_eq!(frame.is_large(), n >= 2);
            assert!(!area.fill(frame, &vec![0; len + 1]) && area.fill(frame, &vec![n as u8; len]));
            assert!(frame.push_front(256));
            area.bytes_mut(frame).fill(n as u8);
        }
        for (n, frame) in frames.iter().enumerate() {
            assert!(area.bytes(frame).iter().all(|byte| *byte == n as u8));
        }
    }

    #[test]
    #[should_panic(expected = "another area")]
    fn a_large_frame_is_in_no_ring() {
        let (area, mut frames) = Area::new(AreaSize { chunk_bytes: 2048, chunks: 1, large: 1 }).unwrap();
        let mut holder = area.holder().unwrap();
        area.record(frames.pop().unwrap(), &mut holder);
    }

    #[test]
    #[should_panic(expected = "another area")]
    fn a_frame_of_another_area_is_refused() {
        let (one, _frames) = small();
        let (_other, mut frames) = Area::new(AreaSize { chunk_bytes: 2048, chunks: 1, large: 1 }).unwrap();
        one.bytes_mut(&mut frames[1]);
    }

    #[test]
    fn sizes_that_cannot_be_are_refused() {
        let too_many = (2048, 8, LARGE_CHUNKS_MAX + 1);
        for size in [(1024, 8, 0), (2048, 0, 0), (8192, 8, 0), (2048, CHUNKS_MAX + 1, 0), too_many] {
            let size = AreaSize { chunk_bytes: size.0, chunks: size.1, large: size.2 };
            assert!(matches!(Area::new(size), Err(AreaError::Size(_))), "{size:?}");
        }
    }
}
