//! "I will read this soon." A batch of these overlaps its cache misses with each other and with the work
//! in between. Unlike a load, nothing waits for it and it never faults; where there is no such
//! instruction it is nothing.

#![allow(unsafe_code)]

/// Asks for the cache line in which `place` begins.
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
