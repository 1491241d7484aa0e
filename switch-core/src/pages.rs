//! Memory by the page, past the allocator: what is large and read at random.
//!
//! A read in more memory than the TLB reaches waits for a walk of the page tables; so does a prefetch, and it stops what comes behind it.
//! On huge pages a table of some MiB is a handful of places instead of thousands. The allocator lays a large piece wherever there is room, so that
//! how many whole huge pages are in it was a matter of luck; here it begins where one begins (ADR 0049).

#![allow(unsafe_code)]

#[cfg(not(any(loom, miri)))]
pub use kernel::Pages;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use std::ptr::NonNull;

/// Huge pages are 2 MiB on x86-64 and on aarch64 with 4 KiB pages; with other sizes the kernel says no.
pub const HUGE_PAGE_BYTES: usize = 2 << 20;

/// Addresses that nothing else gets, from a huge page's border on.
pub fn set_aside(bytes: usize, protection: ProtFlags, flags: MapFlags) -> rustix::io::Result<NonNull<u8>> {
    let whole = bytes + HUGE_PAGE_BYTES;
    // SAFETY: an anonymous mapping at an address the kernel chooses touches nothing of ours.
    let start = unsafe { mmap_anonymous(std::ptr::null_mut(), whole, protection, flags)? };
    let before = start.align_offset(HUGE_PAGE_BYTES).min(HUGE_PAGE_BYTES);
    let base = start.cast::<u8>().wrapping_add(before);
    // SAFETY: both ends belong to the mapping that was just made, and nobody knows of it.
    unsafe {
        let cut = |at: *mut u8, len: usize| if len > 0 { munmap(at.cast(), len) } else { Ok(()) };
        cut(start.cast(), before)?;
        cut(base.wrapping_add(bytes), HUGE_PAGE_BYTES - before)?;
    }
    NonNull::new(base).ok_or(rustix::io::Errno::NOMEM)
}

/// Memory of the kernel.
#[cfg(not(any(loom, miri)))]
mod kernel {
    use super::{HUGE_PAGE_BYTES, set_aside};
    use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, munmap};
    use std::alloc::{Layout, handle_alloc_error};
    use std::ops::{Deref, DerefMut};
    use std::ptr::NonNull;
    use zerocopy::FromZeros;

    /// A boxed slice on pages of its own: all zero at first, and a page is there once something was written into it or read from it.
    pub struct Pages<T> {
        start: NonNull<T>,
        len: usize,
    }

    // SAFETY: it is a `Box<[T]>` in all but where it lies: nothing else knows of its memory.
    unsafe impl<T: Send> Send for Pages<T> {}
    // SAFETY: as above; by `&self` there is only `&[T]`.
    unsafe impl<T: Sync> Sync for Pages<T> {}

    impl<T: FromZeros> Pages<T> {
        const NOTHING_TO_DROP: () = assert!(!std::mem::needs_drop::<T>() && size_of::<T>() > 0);

        /// So many, all zero. `_zero` makes one where there is no such memory. Without memory it ends the process, as any other allocation
        /// does.
        pub fn new(len: usize, zero: impl Fn() -> T) -> Self {
            let pages = Self::small(len, zero);
            let whole = Self::bytes(len).unwrap_or_default() / HUGE_PAGE_BYTES * HUGE_PAGE_BYTES;
            if whole > 0 {
                // SAFETY: the range was just mapped; what pages it is made of changes no byte. Nor does a kernel that makes no huge
                // pages.
                _ = unsafe { madvise(pages.start.as_ptr().cast(), whole, Advice::LinuxHugepage) };
            }
            pages
        }

        /// The same, on small pages until somebody asks for huge ones: of what is mostly air a huge page is one for a few words. The allocator
        /// is no place for it: when such a piece was given back, the next one comes from its heap, and is written over to be zero, all of it.
        pub fn small(len: usize, _zero: impl Fn() -> T) -> Self {
            const { Self::NOTHING_TO_DROP };
            let Some(bytes) = Self::bytes(len) else { return Self { start: NonNull::dangling(), len: 0 } };
            let protection = ProtFlags::READ | ProtFlags::WRITE;
            let Ok(start) = set_aside(bytes, protection, MapFlags::PRIVATE) else {
                handle_alloc_error(Layout::new::<T>())
            };
            Self { start: start.cast(), len }
        }

        /// The same, all there from the start: whoever writes into it waits for no page.
        pub fn resident(len: usize, zero: impl Fn() -> T) -> Self {
            let pages = Self::new(len, zero);
            if let Some(bytes) = Self::bytes(len) {
                // SAFETY: the range was just mapped; that its pages are there changes no byte. A kernel before 5.14 makes them when they are used.
                _ = unsafe { madvise(pages.start.as_ptr().cast(), bytes, Advice::LinuxPopulateWrite) };
            }
            pages
        }
    }

    impl<T> Pages<T> {
        /// What is mapped for so many; none for none.
        fn bytes(len: usize) -> Option<usize> {
            let bytes = len.checked_mul(size_of::<T>()).filter(|bytes| *bytes <= isize::MAX as usize / 2);
            let bytes = bytes.unwrap_or_else(|| handle_alloc_error(Layout::new::<T>()));
            (bytes > 0).then(|| bytes.next_multiple_of(rustix::param::page_size()))
        }
    }

    impl<T> Drop for Pages<T> {
        fn drop(&mut self) {
            if let Some(bytes) = Self::bytes(self.len) {
                // SAFETY: the range was mapped by `new` with this length, and nobody can have a reference into it any more.
                let unmapped = unsafe { munmap(self.start.as_ptr().cast(), bytes) };
                debug_assert!(unmapped.is_ok());
            }
        }
    }

    impl<T> Deref for Pages<T> {
        type Target = [T];

        #[inline(always)]
        fn deref(&self) -> &[T] {
            // SAFETY: so many are mapped there, aligned to a page, for as long as this lives; all zero is a `T` (`FromZeros`), and whatever
            // was written since was one.
            unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
        }
    }

    impl<T> DerefMut for Pages<T> {
        #[inline(always)]
        fn deref_mut(&mut self) -> &mut [T] {
            // SAFETY: as above, and by `&mut self` nobody else has a reference into it.
            unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
        }
    }

    impl<T: std::fmt::Debug> std::fmt::Debug for Pages<T> {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            (**self).fmt(f)
        }
    }
}

/// The allocator's memory: loom's atomics are more than their bytes, and miri is to see who has which.
#[cfg(any(loom, miri))]
#[derive(Debug)]
pub struct Pages<T>(Box<[T]>);

#[cfg(any(loom, miri))]
impl<T> Pages<T> {
    /// So many, each made by `zero`.
    pub fn new(len: usize, zero: impl Fn() -> T) -> Self {
        Self((0..len).map(|_| zero()).collect())
    }

    /// The same.
    pub fn small(len: usize, zero: impl Fn() -> T) -> Self {
        Self::new(len, zero)
    }

    /// The same.
    pub fn resident(len: usize, zero: impl Fn() -> T) -> Self {
        Self::new(len, zero)
    }
}

#[cfg(any(loom, miri))]
impl<T> std::ops::Deref for Pages<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

#[cfg(any(loom, miri))]
impl<T> std::ops::DerefMut for Pages<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.0
    }
}

#[cfg(all(test, not(any(loom, miri))))]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    /// How many of its small pages are there.
    fn resident<T>(pages: &[T]) -> usize {
        let page = rustix::param::page_size();
        let mut there = vec![0u8; size_of_val(pages).div_ceil(page)];
        let start = pages.as_ptr().cast::<libc::c_void>().cast_mut();
        // SAFETY: mincore(2) reads nothing of the range and writes a byte for each of its pages.
        assert_eq!(unsafe { libc::mincore(start, there.len() * page, there.as_mut_ptr()) }, 0);
        there.iter().filter(|there| **there & 1 == 1).count()
    }

    /// The flags of the mapping in which an address is.
    fn flags(at: usize) -> String {
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap_or_default();
        let mut is_it = false;
        for line in smaps.lines() {
            let ends = line.split_whitespace().next().and_then(|range| range.split_once('-'));
            let ends = ends.and_then(|(from, to)| {
                Some(usize::from_str_radix(from, 16).ok()?..usize::from_str_radix(to, 16).ok()?)
            });
            is_it = ends.map_or(is_it, |ends| ends.contains(&at));
            if let Some(flags) = line.strip_prefix("VmFlags:").filter(|_| is_it) {
                return flags.to_owned();
            }
        }
        panic!("nothing is mapped at {at:x}");
    }

    #[test]
    fn they_are_zero_and_whole_and_begin_at_a_huge_pages_border() {
        for len in [1, 511, 512, 513, 300_000] {
            let pages = Pages::new(len, || AtomicU64::new(0));
            assert_eq!(pages.len(), len);
            assert_eq!(pages.as_ptr().addr() % HUGE_PAGE_BYTES, 0);
            assert!(pages.iter().all(|word| word.load(Relaxed) == 0));
            pages.iter().zip(1..).for_each(|(word, n)| word.store(n, Relaxed));
            assert!(pages.iter().zip(1..).all(|(word, n)| word.load(Relaxed) == n));
        }
        assert!(Pages::new(0, || AtomicU64::new(0)).is_empty());
    }

    #[test]
    fn what_is_to_be_there_is_there_and_zero() {
        let pages = Pages::resident(HUGE_PAGE_BYTES / size_of::<u64>() + 1000, || AtomicU64::new(0));
        assert_eq!(resident(&pages) * rustix::param::page_size() / size_of_val(&*pages), 1);
        assert!(pages.iter().all(|word| word.load(Relaxed) == 0));
    }

    #[test]
    fn what_is_to_lie_on_small_pages_takes_what_is_used_however_often_it_is_made() {
        for _ in 0..3 {
            let pages = Pages::small(2 * HUGE_PAGE_BYTES / size_of::<u64>(), || AtomicU64::new(0));
            assert_eq!((resident(&pages), pages[1000].swap(7, Relaxed)), (0, 0));
            assert_eq!(resident(&pages), 1);
            assert!(!flags(pages.as_ptr().addr()).split_whitespace().any(|flag| flag == "hg"));
        }
    }

    #[test]
    fn what_is_not_used_is_not_there_and_what_is_lies_on_huge_pages() {
        // Two of them, and some that fill none.
        let words = 2 * HUGE_PAGE_BYTES / size_of::<u64>() + 1000;
        let pages = Pages::new(words, || AtomicU64::new(0));
        assert_eq!(resident(&pages), 0);
        pages[0].store(1, Relaxed);
        let there = resident(&pages) * rustix::param::page_size();
        assert!((1..=HUGE_PAGE_BYTES).contains(&there), "{there} bytes for one word");
        let has_some = std::path::Path::new("/sys/kernel/mm/transparent_hugepage").exists();
        let start = pages.as_ptr().addr();
        // What fills none is as any other memory.
        for (at, is_asked) in
            [(start, has_some), (start + HUGE_PAGE_BYTES, has_some), (start + 2 * HUGE_PAGE_BYTES, false)]
        {
            assert_eq!(flags(at).split_whitespace().any(|flag| flag == "hg"), is_asked, "{:x}", at - start);
        }
    }
}
