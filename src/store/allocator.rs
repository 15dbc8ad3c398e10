//! Gives freed memory back to the system.
//!
//! The allocator of glibc keeps most of what was freed, for later use: after one burst of large answers a server would
//! hold their memory for good. Other allocators give back large blocks by themselves.

/// Gives back the memory that is not in use. Other threads may wait for it meanwhile.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "the only call of the C library that the `rustix` crate lacks")]
pub(crate) fn return_freed_memory() {
    // SAFETY: it takes no pointer, and locks the data of the allocator that it changes.
    unsafe { libc::malloc_trim(0) };
}

/// Gives back the memory that is not in use.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn return_freed_memory() {}
