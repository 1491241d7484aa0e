//! The packet memory: addresses set aside for as much as there may ever be, of which *regions* are mapped and
//! unmapped ([`Area::grow`], [`Area::shrink`]), each cut into chunks of one size; and one record a chunk of who
//! has it. Beside it a second mapping of a few large chunks, for what a TAP hands over as one packet of up to
//! 64 KiB. Only regions are registered with the kernel, each by itself, and only their chunks can be in a ring;
//! a page of the large chunks costs nothing until something is written into it.
//!
//! # Why this is sound
//! A [`Frame`] is the right to its chunk's bytes. Frames are minted in two places only: once for every
//! chunk when it is mapped, and in [`Area::claim`], which takes back a chunk whose record says that the
//! calling [`Holder`] has it. A chunk's record names a holder only after [`Area::record`] consumed the
//! frame. A `Holder` is not `Clone` and claiming needs it by `&mut`, so no two threads can claim from
//! the same one: at any time each chunk is either one `Frame` or one record, never both.
//!
//! The kernel writes into chunks that are recorded in a socket's holder. It got them from its rings and
//! gives them back by its rings; [`Area::claim`] refuses a chunk that the ring had no right to name. A
//! dead socket's rings are not trusted at all: [`Area::reclaim`] walks the records.
//!
//! A region is unmapped by giving up every one of its frames: then nobody has a right to its bytes, no record
//! names a holder, and it may be mapped, and its frames minted, again.

#![allow(unsafe_code)]

use super::{Frame, Offload};
use crate::pages::{HUGE_PAGE_BYTES, set_aside};
use crate::prefetch::prefetch;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};
use rustix::param::page_size;
use std::ptr::NonNull;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering::Relaxed};

/// Smallest chunk: a 1514-byte frame, its tag and [`super::HEADROOM`] fit, and AF_XDP takes no smaller one.
pub const CHUNK_BYTES_MIN: u32 = 2048;
/// Largest chunk that AF_XDP takes is a page.
pub const CHUNK_BYTES_MAX: u32 = 4096;
/// Most chunks: 4 GiB of 2 KiB chunks, far beyond an edge node.
pub const CHUNKS_MAX: u32 = 1 << 21;
/// Most regions: a pool that has run dry looks through all of them.
pub const REGIONS_MAX: u16 = 256;
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
    /// Chunks of a region, all pools together.
    pub chunks: u32,
    /// Large chunks beside them ([`LARGE_CHUNK_BYTES`]), all pools together.
    pub large: u32,
}

impl AreaSize {
    /// Chunks from one region to the next: a power of two, and no fewer than fill a page, so that every region begins with
    /// one and is mapped and given back without its neighbours.
    pub fn stride(&self) -> u32 {
        let least = (page_size() as u32).div_ceil(self.chunk_bytes.max(1));
        self.chunks.max(least).checked_next_power_of_two().unwrap_or(u32::MAX)
    }
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
    /// A region's first chunk has its number times 1 << this.
    region_shift: u32,
    records: Box<[AtomicU16]>,
    holders_free: Mutex<Vec<u16>>,
    /// Which regions are mapped.
    mapped: Mutex<Box<[bool]>>,
    regions: AtomicU32,
    /// Of its chunks; its large chunks have the next one.
    tag: u16,
}

/// What tells large chunks from the others of the same area.
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
    /// Maps one region, with large chunks, and mints one frame a chunk.
    pub fn new(size: AreaSize) -> Result<(Self, Vec<Frame>), AreaError> {
        let (area, large) = Self::reserve(size, 1)?;
        let mut frames = area.grow(0)?;
        frames.extend(large);
        Ok((area, frames))
    }

    /// Sets addresses aside for up to `regions_max` regions, of which none is mapped yet. Maps the large chunks
    /// and mints their frames.
    pub fn reserve(size: AreaSize, regions_max: u16) -> Result<(Self, Vec<Frame>), AreaError> {
        let stride = size.stride();
        let chunks_max = u64::from(stride) * u64::from(regions_max);
        let fits = [CHUNK_BYTES_MIN, CHUNK_BYTES_MAX].contains(&size.chunk_bytes)
            && (1..=CHUNKS_MAX).contains(&size.chunks)
            && (1..=REGIONS_MAX).contains(&regions_max)
            && chunks_max <= u64::from(CHUNKS_MAX)
            && size.large <= LARGE_CHUNKS_MAX;
        if !fits {
            return Err(AreaError::Size(size));
        }
        let bytes = chunks_max as usize * size.chunk_bytes as usize;
        let base = set_aside(bytes, ProtFlags::empty(), MapFlags::PRIVATE | MapFlags::NORESERVE)
            .map_err(|error| AreaError::Memory { bytes, error })?;
        let mut area = Self {
            base,
            large: None,
            size,
            chunk_shift: size.chunk_bytes.trailing_zeros(),
            region_shift: stride.trailing_zeros(),
            records: (0..chunks_max).map(|_| AtomicU16::new(IN_HAND)).collect(),
            holders_free: Mutex::new((1..HOLDERS_MAX).rev().collect()),
            mapped: Mutex::new(vec![false; usize::from(regions_max)].into()),
            regions: AtomicU32::new(0),
            tag: AREAS.fetch_add(2, Relaxed),
        };
        // Only now: should there be none, what is set aside goes with the area.
        if size.large > 0 {
            let bytes = area.large_bytes_total();
            area.large = Some(map_pages(bytes).map_err(|error| AreaError::Memory { bytes, error })?);
        }
        let large = (0..size.large).map(|chunk| area.mint(chunk, area.tag | LARGE)).collect();
        Ok((area, large))
    }

    fn mint(&self, chunk: u32, tag: u16) -> Frame {
        Frame { chunk, len: 0, offset: super::HEADROOM, tag, offload: Offload::default() }
    }

    /// Maps a region that is not mapped: one frame a chunk.
    pub fn grow(&self, region: u16) -> Result<Vec<Frame>, AreaError> {
        let bytes = self.region_bytes();
        let none = |error| AreaError::Memory { bytes, error };
        let mut mapped = self.mapped.lock().map_err(|_| none(rustix::io::Errno::NOMEM))?;
        if mapped.get(usize::from(region)) != Some(&false) {
            return Err(none(rustix::io::Errno::EXIST));
        }
        map_at(self.region_base(region), bytes).map_err(none)?;
        mapped[usize::from(region)] = true;
        self.regions.fetch_add(1, Relaxed);
        let first = u32::from(region) << self.region_shift;
        Ok((first..first + self.size.chunks).map(|chunk| self.mint(chunk, self.tag)).collect())
    }

    /// Gives a region back to the kernel. It takes all of its frames, and no others; otherwise, or should the
    /// kernel not want it, they are returned and nothing is changed.
    pub fn shrink(&self, region: u16, frames: Vec<Frame>) -> Result<(), Vec<Frame>> {
        let ours = |frame: &Frame| frame.tag == self.tag && self.region_of(frame) == Some(region);
        if frames.len() != self.size.chunks as usize || !frames.iter().all(ours) {
            return Err(frames);
        }
        let Ok(mut mapped) = self.mapped.lock() else { return Err(frames) };
        if unmap_at(self.region_base(region), self.region_bytes()).is_err() {
            return Err(frames);
        }
        mapped[usize::from(region)] = false;
        self.regions.fetch_sub(1, Relaxed);
        Ok(())
    }

    /// Its size.
    pub fn size(&self) -> AreaSize {
        self.size
    }

    /// Most regions.
    pub fn regions_max(&self) -> u16 {
        (self.records.len() >> self.region_shift) as u16
    }

    /// Regions that are mapped.
    pub fn regions(&self) -> u16 {
        self.regions.load(Relaxed) as u16
    }

    /// The region a frame's chunk is in; large chunks are in none.
    #[inline(always)]
    pub fn region_of(&self, frame: &Frame) -> Option<u16> {
        (!frame.is_large()).then_some((frame.chunk >> self.region_shift) as u16)
    }

    /// A chunk's number in its region.
    #[inline(always)]
    pub(super) fn within_region(&self, chunk: u32) -> u32 {
        chunk & ((1 << self.region_shift) - 1)
    }

    /// The first chunk of a region.
    pub(super) fn first_of(&self, region: u16) -> u32 {
        u32::from(region) << self.region_shift
    }

    /// Bytes of a region.
    pub fn region_bytes(&self) -> usize {
        self.size.chunk_bytes as usize * self.size.chunks as usize
    }

    /// Where a region begins in what [`Area::position`] counts.
    pub fn origin(&self, region: u16) -> usize {
        (usize::from(region) << self.region_shift) * self.size.chunk_bytes as usize
    }

    /// A region's first byte, to register it with the kernel.
    pub fn region_base(&self, region: u16) -> NonNull<u8> {
        assert!(region < self.regions_max(), "a region that cannot be");
        // SAFETY: what is set aside has room for all regions.
        unsafe { self.base.add(self.origin(region)) }
    }

    fn large_bytes_total(&self) -> usize {
        LARGE_CHUNK_BYTES as usize * self.size.large as usize
    }

    /// Frames of what is mapped, large ones included.
    pub fn frames_total(&self) -> u32 {
        u32::from(self.regions()) * self.size.chunks + self.size.large
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
        if frame.tag != self.tag {
            return self.place_large(frame);
        }
        // SAFETY: position() is inside the mapping.
        unsafe { self.base.add(self.position(frame)) }
    }

    /// The same of a large chunk. A call: inlined wherever a packet is read it costs the others registers.
    #[inline(never)]
    fn place_large(&self, frame: &Frame) -> NonNull<u8> {
        let base = self.large.filter(|_| frame.tag == self.tag | LARGE);
        let base = base.unwrap_or_else(|| panic!("a frame of another area"));
        debug_assert!(u32::from(frame.offset) + frame.len <= LARGE_CHUNK_BYTES);
        let at = frame.chunk as usize * LARGE_CHUNK_BYTES as usize + usize::from(frame.offset);
        // SAFETY: chunk, offset and length were checked when they were set, all of them in this room.
        unsafe { base.add(at) }
    }

    /// Byte offset of the packet from the first region's beginning. A descriptor names it less its region's
    /// [`Area::origin`]. Not for large frames.
    #[inline(always)]
    pub fn position(&self, frame: &Frame) -> usize {
        // Chunk, offset and length were checked when they were set, all of them in this room. What is
        // left is a frame of another area: a defect of the switch, not of its input.
        assert!(frame.tag == self.tag, "a frame of another area");
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

    /// Makes `to` a copy of `from`, whose chunk is of the same size: its packet, headroom and offload.
    pub fn copy(&self, from: &Frame, to: &mut Frame) {
        assert!(from.is_large() == to.is_large(), "frames of two sizes");
        (to.offset, to.len, to.offload) = (from.offset, from.len, from.offload);
        self.bytes_mut(to).copy_from_slice(self.bytes(from));
    }

    /// A fresh holder; none if all [`HOLDERS_MAX`] are out.
    pub fn holder(&self) -> Option<Holder> {
        self.holders_free.lock().ok()?.pop().map(Holder)
    }

    /// Gives a frame into `holder`'s rings. Returns its [`Area::position`].
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
        Some(Frame { chunk, len, offset: offset as u16, tag: self.tag, offload })
    }

    /// Takes back everything `holder` has, by the records, and retires the holder. The caller has closed
    /// the socket: the kernel writes no more.
    pub fn reclaim(&self, holder: Holder, mut home: impl FnMut(Frame)) -> usize {
        let mut found = 0;
        for (chunk, record) in self.records.iter().enumerate() {
            if record.load(Relaxed) == holder.0 {
                record.store(IN_HAND, Relaxed);
                home(self.mint(chunk as u32, self.tag));
                found += 1;
            }
        }
        if let Ok(mut free) = self.holders_free.lock() {
            free.push(holder.0);
        }
        found
    }

    /// Chunks that each holder has recorded, by [`Holder::number`].
    pub fn recorded_by(&self) -> Vec<u32> {
        let mut counts = vec![0; usize::from(HOLDERS_MAX)];
        for record in &self.records {
            let holder = record.load(Relaxed);
            if let Some(count) = counts.get_mut(usize::from(holder)).filter(|_| holder != IN_HAND) {
                *count += 1;
            }
        }
        counts
    }

    /// Chunks recorded in anybody's rings, by a walk over all of them: what a leak cannot hide from.
    pub fn recorded(&self) -> u64 {
        self.records.iter().filter(|record| record.load(Relaxed) != IN_HAND).count() as u64
    }
}

impl Holder {
    /// Its number: whose frames [`Area::recorded_by`] counts under it.
    pub fn number(&self) -> u16 {
        self.0
    }
}

impl Drop for Area {
    fn drop(&mut self) {
        let bytes = self.records.len() * self.size.chunk_bytes as usize;
        // SAFETY: this range was set aside by `set_aside` with this length, and no Frame outlives its use:
        // every access to bytes goes through `&self`.
        let unmapped = unsafe { munmap(self.base.as_ptr().cast(), bytes) };
        debug_assert!(unmapped.is_ok());
        if let Some(large) = self.large {
            // SAFETY: as above; this one was made by `map_pages`.
            let unmapped = unsafe { munmap(large.as_ptr().cast(), self.large_bytes_total()) };
            debug_assert!(unmapped.is_ok());
        }
    }
}

/// Maps memory over addresses that were set aside, on huge pages as far as the kernel makes some. Never by
/// `MAP_HUGETLB`: where there are none, it fails after it has let go of the addresses, and another thread's mapping
/// may be there before ours.
fn map_at(at: NonNull<u8>, bytes: usize) -> rustix::io::Result<()> {
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    let flags = MapFlags::PRIVATE | MapFlags::FIXED;
    // SAFETY: the range is one that `set_aside` gave to this area, and no frame of it exists.
    unsafe { mmap_anonymous(at.as_ptr().cast(), bytes, protection, flags)? };
    if bytes.is_multiple_of(HUGE_PAGE_BYTES) {
        // SAFETY: the range was just mapped; what pages it is made of changes no byte. Nor does a kernel that
        // makes no huge pages.
        _ = unsafe { madvise(at.as_ptr().cast(), bytes, Advice::LinuxHugepage) };
    }
    Ok(())
}

/// Gives a region's memory back and keeps its addresses. Whoever touched them now would be killed, not obeyed.
fn unmap_at(at: NonNull<u8>, bytes: usize) -> rustix::io::Result<()> {
    let flags = MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE;
    // SAFETY: the caller has taken back every frame of this range: nobody may touch its bytes any more.
    unsafe { mmap_anonymous(at.as_ptr().cast(), bytes, ProtFlags::empty(), flags).map(|_| ()) }
}

fn map_pages(bytes: usize) -> rustix::io::Result<NonNull<u8>> {
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: an anonymous mapping at an address the kernel chooses touches nothing of ours.
    let base = unsafe { mmap_anonymous(std::ptr::null_mut(), bytes, protection, MapFlags::PRIVATE)? };
    NonNull::new(base.cast()).ok_or(rustix::io::Errno::NOMEM)
}

#[cfg(not(loom))]
#[cfg(test)]
mod tests;
