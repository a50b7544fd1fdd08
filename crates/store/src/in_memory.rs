//! Small files that the kernel has in memory, read without ever waiting for a disk.
//!
//! For threads that must not wait. Handing a look-up of microseconds to a thread that may, and its
//! answer back, costs more than the look-up.

use std::ffi::CStr;
use std::io::IoSliceMut;
use std::os::fd::BorrowedFd;

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::{Errno, ReadWriteFlags, preadv2};

/// A file may have this many bytes; more are hardly worth it.
pub(crate) const SMALL_BYTES: usize = 4096;

/// What was asked for is not known without waiting: ask again where that is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is not in memory")]
pub struct WouldWait;

/// The first [`SMALL_BYTES`] of a file (openat2(2) with `RESOLVE_CACHED`, preadv2(2) with
/// `RWF_NOWAIT`); `None` if there is no such file.
pub(crate) fn read(
    directory: BorrowedFd<'_>,
    path: &CStr,
    flags: OFlags,
) -> Result<Option<Vec<u8>>, WouldWait> {
    let file = match openat2(directory, path, flags, Mode::empty(), ResolveFlags::CACHED) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Ok(None),
        Err(_) => return Err(WouldWait),
    };
    let mut content = vec![0; SMALL_BYTES];
    let mut buffers = [IoSliceMut::new(&mut content)];
    let length = preadv2(&file, &mut buffers, 0, ReadWriteFlags::NOWAIT).map_err(|_| WouldWait)?;
    content.truncate(length);
    Ok(Some(content))
}
