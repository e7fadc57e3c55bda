//! Memory of this process that is no longer used.

/// Returns freed memory to the kernel. The allocator of glibc keeps blocks below 128 KiB, and after a while
/// also larger ones, although nothing uses them. Other allocators are left alone.
pub(crate) fn release_unused() {
    #[cfg(target_env = "gnu")]
    // SAFETY: `malloc_trim` takes no pointer, and may be called at any time and by any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}
