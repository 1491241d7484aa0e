//! What the machine is told of memory before it is used; it may listen or not, and nothing else changes.
//!
//! [`prefetch`] and [`prefetch_far`]: "I will read this soon." A batch of these overlaps its cache misses with each other and with
//! the work in between. Unlike a load, nothing waits for it and it never faults; where there is no such
//! instruction it is nothing. [`advise_huge`]: "huge pages would serve here."

#![allow(unsafe_code)]

/// Asks for the cache line in which `place` begins: a line that is near, or of which few are asked for at once.
#[inline(always)]
pub fn prefetch<T>(place: *const T) {
    // SAFETY: PREFETCHT0 reads nothing the program can see and ignores an address it may not touch (Intel
    // SDM vol. 2, PREFETCHh).
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    unsafe {
        core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::_MM_HINT_T0 }>(place.cast());
    }
    // SAFETY: PRFM is a hint and cannot fault (Arm ARM, C6.2 "PRFM (immediate)").
    #[cfg(all(target_arch = "aarch64", not(miri)))]
    unsafe {
        core::arch::asm!("prfm pldl1keep, [{}]", in(reg) place, options(nostack, preserves_flags, readonly));
    }
    #[cfg(any(miri, not(any(target_arch = "x86_64", target_arch = "aarch64"))))]
    let _ = place;
}

/// The same for a line that may be far, of a batch of which each packet asks for one: it comes into the second-level cache only. There is room for
/// a few dozen lines on their way into the first, and who asks for one more waits until one is there (ADR 0054).
#[inline(always)]
pub fn prefetch_far<T>(place: *const T) {
    // SAFETY: as above, of PREFETCHT1.
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    unsafe {
        core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::_MM_HINT_T1 }>(place.cast());
    }
    // SAFETY: as above.
    #[cfg(all(target_arch = "aarch64", not(miri)))]
    unsafe {
        core::arch::asm!("prfm pldl2keep, [{}]", in(reg) place, options(nostack, preserves_flags, readonly));
    }
    #[cfg(any(miri, not(any(target_arch = "x86_64", target_arch = "aarch64"))))]
    let _ = place;
}

/// Asks the kernel to lay `memory` on huge pages, now as far as it can and from now on for what is not there
/// yet: random reads in more than a few MiB wait for the TLB else. A kernel that has none does nothing.
pub fn advise_huge<T>(memory: &[T]) {
    // Linux 6.1: move what is there already onto huge pages.
    #[cfg(not(miri))]
    const COLLAPSE: i32 = 25;
    #[cfg(not(miri))]
    {
        let page = rustix::param::page_size();
        let start = memory.as_ptr().addr().next_multiple_of(page);
        let end = (memory.as_ptr().addr() + size_of_val(memory)) / page * page;
        let whole = memory.as_ptr().cast::<std::ffi::c_void>().with_addr(start).cast_mut();
        if start < end {
            // SAFETY: both advices leave every byte as it is and only choose the pages it lies on (madvise(2));
            // the pages lie in `memory`, which is borrowed meanwhile.
            unsafe {
                libc::madvise(whole, end - start, libc::MADV_HUGEPAGE);
                libc::madvise(whole, end - start, COLLAPSE);
            }
        }
    }
    #[cfg(miri)]
    let _ = memory;
}
