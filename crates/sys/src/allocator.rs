//! The C library's allocator, where its defaults do not suit a server.

/// Bounds the heaps that threads allocate from.
///
/// glibc makes up to eight for each CPU and gives what was freed in one to nobody else: threads for
/// file I/O that come and go left each of them with the largest buffers that they ever had. Must
/// be called before there are threads. Other C libraries have one heap.
#[cfg(target_env = "gnu")]
pub fn limit_heaps(heaps: usize) {
    let heaps = libc::c_int::try_from(heaps).unwrap_or(libc::c_int::MAX);
    // SAFETY: mallopt(3) takes two integers. It is not safe beside allocating threads, hence the
    // condition above; a value that it refuses changes nothing.
    let is_set = unsafe { libc::mallopt(libc::M_ARENA_MAX, heaps) } != 0;
    debug_assert!(is_set, "M_ARENA_MAX takes any count");
}

/// See the other one: here there is one heap.
#[cfg(not(target_env = "gnu"))]
pub fn limit_heaps(_heaps: usize) {}
