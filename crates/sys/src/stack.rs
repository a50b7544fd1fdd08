//! A stack of its own for a process that shares our memory.

use std::ffi::c_void;
use std::ptr;

use rustix::mm::{MapFlags, MprotectFlags, ProtFlags};

/// Bytes that can be used. The code that runs here walks lists and makes system
/// calls; it needs a few KiB even without optimisation.
const USABLE_BYTES: usize = 64 << 10;

/// Bytes below it that fault when touched; a multiple of every page size there is.
const GUARD_BYTES: usize = 64 << 10;

/// Anonymous memory with a guard below it, unmapped when dropped.
#[derive(Debug)]
pub(crate) struct Stack {
    base: *mut c_void,
}

impl Stack {
    pub(crate) fn new() -> rustix::io::Result<Self> {
        // SAFETY: no address is asked for, so no mapping that exists can be hit.
        let base = unsafe {
            rustix::mm::mmap_anonymous(
                ptr::null_mut(),
                GUARD_BYTES + USABLE_BYTES,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )?
        };
        let stack = Self { base };
        // SAFETY: the range is the lower part of the mapping made above, which
        // nothing refers to yet.
        unsafe { rustix::mm::mprotect(stack.base, GUARD_BYTES, MprotectFlags::empty())? };
        Ok(stack)
    }

    /// Lowest usable address, as clone3(2) wants it.
    pub(crate) fn lowest(&self) -> u64 {
        self.base as u64 + GUARD_BYTES as u64
    }

    /// Usable bytes; the top is aligned for every calling convention.
    pub(crate) fn size(&self) -> u64 {
        USABLE_BYTES as u64
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and whoever ran on it is dead: `init`
        // drops stacks only after it waited for the process.
        let _ = unsafe { rustix::mm::munmap(self.base, GUARD_BYTES + USABLE_BYTES) };
    }
}
