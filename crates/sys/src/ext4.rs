//! The one request to ext4 that no other interface has.

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;

use crate::process::last_errno;

/// `EXT4_IOC_RESIZE_FS`, `_IOW('f', 16, __u64)`: the same number on all architectures that have the
/// generic encoding, which x86-64 and arm64 do.
const RESIZE: libc::Ioctl = 0x4008_6610_u32 as libc::Ioctl;

/// Grows the mounted file system that `directory` is on to `blocks` of its blocks.
///
/// # Errors
/// Of ioctl(2): EPERM without CAP_SYS_RESOURCE, EINVAL beyond the end of the device, ENOTTY on other
/// file systems.
pub fn resize(directory: BorrowedFd<'_>, blocks: u64) -> Result<(), Errno> {
    // SAFETY: the request reads a u64 from the address, which lives during the call.
    let done = unsafe { libc::ioctl(directory.as_raw_fd(), RESIZE, &raw const blocks) };
    if done == 0 { Ok(()) } else { Err(last_errno()) }
}
