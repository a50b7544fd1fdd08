//! The C library's allocator, where its defaults do not suit a server.

/// The size in bytes of memory that comes from the kernel, and goes back to it when it is freed: more than the largest
/// message, and less than a decoder's large window.
#[cfg(target_env = "gnu")]
const MAPPED_BYTES_MIN: libc::c_int = 8 << 20;

/// Bounds the heaps that threads allocate from.
///
/// glibc makes up to eight for each CPU and gives what was freed in one to nobody else: threads for
/// file I/O that come and go left each of them with the largest buffers that they ever had. And once 32 MiB were freed, it
/// takes as much from a heap: a hundred windows of decoders, one after the other, left holes of their size. Must
/// be called before there are threads. Other C libraries have one heap.
#[cfg(target_env = "gnu")]
pub fn limit_heaps(heaps: usize) {
    let heaps = libc::c_int::try_from(heaps).unwrap_or(libc::c_int::MAX);
    for (parameter, value) in [
        (libc::M_ARENA_MAX, heaps),
        (libc::M_MMAP_THRESHOLD, MAPPED_BYTES_MIN),
        // As glibc has it for such a threshold, where it chooses both.
        (libc::M_TRIM_THRESHOLD, 2 * MAPPED_BYTES_MIN),
    ] {
        // SAFETY: mallopt(3) takes two integers. It is not safe beside allocating threads, hence the
        // condition above; a value that it refuses changes nothing.
        let is_set = unsafe { libc::mallopt(parameter, value) } != 0;
        debug_assert!(is_set, "mallopt takes {value} for {parameter}");
    }
}

/// The bytes of the heaps that are free and may still be resident.
#[cfg(target_env = "gnu")]
#[must_use]
pub fn free_bytes() -> u64 {
    // SAFETY: mallinfo(3) takes nothing and returns numbers.
    let info = unsafe { libc::mallinfo() };
    // The old call counts in 32 bits, and overflows into the sign.
    u64::from(info.fordblks as u32)
}

/// Other C libraries do not tell.
#[cfg(not(target_env = "gnu"))]
#[must_use]
pub fn free_bytes() -> u64 {
    0
}

/// Gives the memory of the heaps that is free back to the system, malloc_trim(3).
#[cfg(target_env = "gnu")]
pub fn give_back() {
    // SAFETY: malloc_trim(3) takes a number and locks the heaps that it works on.
    unsafe { libc::malloc_trim(0) };
}

/// Other C libraries do that by themselves.
#[cfg(not(target_env = "gnu"))]
pub fn give_back() {}

/// See the other one: here there is one heap.
#[cfg(not(target_env = "gnu"))]
pub fn limit_heaps(_heaps: usize) {}
