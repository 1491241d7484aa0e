//! The dead-man timer's pulse. Every worker stores the time of its turn into an array map that all our
//! XDP programs read; a program whose worker fell silent stops giving frames to the switch.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

/// Beats the map has room for: `WORKERS_MAX` of program.c.
pub const WORKERS_MAX: usize = 64;

/// The map's memory, shared with the kernel.
#[derive(Debug)]
pub struct Beats {
    base: NonNull<AtomicU64>,
    len: usize,
}

// SAFETY: the mapping lives as long as the value and everything in it is atomic.
unsafe impl Send for Beats {}
// SAFETY: as above.
unsafe impl Sync for Beats {}

impl Beats {
    /// Maps an array map of [`WORKERS_MAX`] words that was made with `BPF_F_MMAPABLE`.
    pub fn map(map: BorrowedFd) -> io::Result<Self> {
        let page = rustix::param::page_size();
        let len = (WORKERS_MAX * size_of::<u64>()).next_multiple_of(page);
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a shared mapping at an address the kernel chooses; it checks the length.
        let base = unsafe {
            libc::mmap(std::ptr::null_mut(), len, protection, libc::MAP_SHARED, map.as_raw_fd(), 0)
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { base, len })
    }

    /// `worker` is alive at `now_ns` of CLOCK_MONOTONIC.
    #[inline(always)]
    pub fn beat(&self, worker: u16, now_ns: u64) {
        let worker = usize::from(worker).min(WORKERS_MAX - 1);
        // SAFETY: inside the mapping, which holds WORKERS_MAX aligned words.
        unsafe { self.base.add(worker).as_ref() }.store(now_ns, Ordering::Relaxed);
    }
}

impl Drop for Beats {
    fn drop(&mut self) {
        // SAFETY: the mapping of `map`, with its length; nobody can hold a reference into it any more.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}
