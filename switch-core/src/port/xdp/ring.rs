//! A ring shared with the kernel (`include/uapi/linux/if_xdp.h`, `net/xdp/xsk_queue.h`): one side moves
//! the producer index, the other the consumer index, and entries between them belong to the consumer.
//!
//! The kernel's index is not trusted beyond what the ring can hold: an index that claims more is read as
//! "nothing there", so a broken driver stops a port and does not make us read wild memory.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

/// A mapping of a socket's ring.
#[derive(Debug)]
struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: `base` and `len` are those of the mmap in `Ring::map`; the Ring that pointed into the
        // mapping owns it and is gone.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

/// A ring of `T`: `u64` addresses (fill, completion) or `xdp_desc` (receive, transmit).
#[derive(Debug)]
pub struct Ring<T> {
    producer: NonNull<AtomicU32>,
    consumer: NonNull<AtomicU32>,
    flags: NonNull<AtomicU32>,
    entries: NonNull<T>,
    mask: u32,
    /// Our own index, ahead of the shared one by what is not published yet.
    own: u32,
    /// The other side's index as last read.
    other: u32,
    _mapping: Mapping,
    _entries: PhantomData<T>,
}

// SAFETY: the ring's shared words are atomic, its entries are touched only by `&mut self`, and the mapping
// may be used from any thread.
unsafe impl<T: Send> Send for Ring<T> {}

/// Where one ring is: offsets and the page offset that names it to mmap.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// From `XDP_MMAP_OFFSETS`.
    pub offsets: libc::xdp_ring_offset,
    /// `XDP_PGOFF_…`.
    pub page_offset: libc::off_t,
    /// Entries, a power of two.
    pub size: u32,
}

impl<T: Copy> Ring<T> {
    /// Maps the ring of `socket` at `place`.
    pub fn map(socket: BorrowedFd, place: Place) -> io::Result<Self> {
        let len = place.offsets.desc as usize + place.size as usize * size_of::<T>();
        // SAFETY: a shared mapping at an address the kernel chooses; the kernel checks offset and length
        // against the ring it made for this socket.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_POPULATE,
                socket.as_raw_fd(),
                place.page_offset,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
        // SAFETY: the kernel's offsets lie inside the mapping it just made (`desc` is the largest of
        // them), and it aligns them for their types.
        let at = |offset: u64| unsafe { base.add(offset as usize) };
        Ok(Self {
            producer: at(place.offsets.producer).cast(),
            consumer: at(place.offsets.consumer).cast(),
            flags: at(place.offsets.flags).cast(),
            entries: at(place.offsets.desc).cast(),
            mask: place.size - 1,
            own: 0,
            other: 0,
            _mapping: Mapping { base, len },
            _entries: PhantomData,
        })
    }

    fn word(&self, word: NonNull<AtomicU32>) -> &AtomicU32 {
        // SAFETY: points into `_mapping`, which lives as long as `self`; the kernel writes these words
        // atomically too.
        unsafe { word.as_ref() }
    }

    fn entry(&self, index: u32) -> NonNull<T> {
        // SAFETY: masked, so inside the `mask + 1` entries that were mapped.
        unsafe { self.entries.add((index & self.mask) as usize) }
    }

    /// Entries it has room for in all.
    pub fn size(&self) -> u32 {
        self.mask + 1
    }

    /// Whether the kernel sleeps on this ring and wants to be called.
    #[inline(always)]
    pub fn needs_wakeup(&self) -> bool {
        self.word(self.flags).load(Ordering::Relaxed) & libc::XDP_RING_NEED_WAKEUP != 0
    }

    // As the producer (fill, transmit).

    /// Entries that can be put now. Reads the kernel's index only if the last one promises fewer than
    /// `wanted`.
    #[inline(always)]
    pub fn room(&mut self, wanted: u32) -> u32 {
        let used = self.own.wrapping_sub(self.other);
        if self.size() - used < wanted {
            let consumer = self.word(self.consumer).load(Ordering::Acquire);
            // It may only have moved towards us.
            if self.own.wrapping_sub(consumer) <= used {
                self.other = consumer;
            }
        }
        self.size() - self.own.wrapping_sub(self.other)
    }

    /// Entries that were shown to the kernel and that it has not taken yet.
    #[inline(always)]
    pub fn left(&mut self) -> u32 {
        self.size() - self.room(self.size())
    }

    /// Puts an entry; the caller asked for `room` before. The kernel sees it after [`Ring::publish`].
    #[inline(always)]
    pub fn put(&mut self, entry: T) {
        debug_assert!(self.own.wrapping_sub(self.other) < self.size());
        // SAFETY: inside the mapping, and between producer and consumer index + size: ours to write until
        // it is published.
        unsafe { self.entry(self.own).write(entry) };
        self.own = self.own.wrapping_add(1);
    }

    /// Shows the kernel what was put.
    #[inline(always)]
    pub fn publish(&mut self) {
        self.word(self.producer).store(self.own, Ordering::Release);
    }

    // As the consumer (receive, completion).

    /// Entries that wait, at most `wanted`.
    #[inline(always)]
    pub fn waiting(&mut self, wanted: u32) -> u32 {
        let mut waiting = self.other.wrapping_sub(self.own);
        if waiting < wanted {
            let producer = self.word(self.producer).load(Ordering::Acquire);
            let claimed = producer.wrapping_sub(self.own);
            if claimed <= self.size() {
                self.other = producer;
                waiting = claimed;
            }
        }
        waiting.min(wanted)
    }

    /// Whether entries wait, by the shared index.
    pub fn is_empty(&self) -> bool {
        self.word(self.producer).load(Ordering::Acquire) == self.own
    }

    /// Takes an entry; the caller asked how many wait before. The kernel has its place back after
    /// [`Ring::release`].
    #[inline(always)]
    pub fn get(&mut self) -> T {
        debug_assert!(self.other != self.own);
        // SAFETY: inside the mapping, and the kernel published it: it does not write here until released.
        let entry = unsafe { self.entry(self.own).read() };
        self.own = self.own.wrapping_add(1);
        entry
    }

    /// Gives the kernel the places back.
    #[inline(always)]
    pub fn release(&mut self) {
        self.word(self.consumer).store(self.own, Ordering::Release);
    }
}
