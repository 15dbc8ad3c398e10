//! Gives freed memory back to the system.
//!
//! The allocator of glibc keeps most of what was freed, for later use: after one burst of large answers a server would
//! hold their memory for good. Other allocators give back large blocks by themselves.

/// Blocks of at least this size are given back when they are freed. By default the limit grows with the blocks that were
/// freed, up to 32 MiB, and smaller ones stay in the arenas of the threads, whose ends are never given back.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const MAPPED_BYTES: libc::c_int = 1024 * 1024;

/// Prepares the allocator for large requests and answers.
pub(crate) fn prepare_for_large_blocks() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[expect(unsafe_code, reason = "the `rustix` crate lacks the calls of the allocator")]
    // SAFETY: it takes no pointer, and locks the settings of the allocator.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_BYTES);
    }
}

/// Gives back the memory that is not in use. Other threads may wait for it meanwhile.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "the `rustix` crate lacks the calls of the allocator")]
pub(crate) fn return_freed_memory() {
    // SAFETY: it takes no pointer, and locks the data of the allocator that it changes.
    unsafe { libc::malloc_trim(0) };
}

/// Gives back the memory that is not in use.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn return_freed_memory() {}
