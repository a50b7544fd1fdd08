//! Reads small files that the kernel has in memory, without ever waiting for a disk.

use std::ffi::CStr;
use std::io::IoSliceMut;
use std::os::fd::BorrowedFd;

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::{Errno, ReadWriteFlags, preadv2};

use crate::error::StoreError;

/// A file may have this many bytes; more are hardly worth it.
pub(crate) const SMALL_BYTES: usize = 4096;

/// The first [`SMALL_BYTES`] of a file (openat2(2) with `RESOLVE_CACHED`, preadv2(2) with
/// `RWF_NOWAIT`); `None` if there is no such file.
pub(crate) fn read(
    directory: BorrowedFd<'_>,
    path: &CStr,
    flags: OFlags,
) -> Result<Option<Vec<u8>>, StoreError> {
    let file = match openat2(directory, path, flags, Mode::empty(), ResolveFlags::CACHED) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Ok(None),
        Err(_) => return Err(StoreError::WouldWait),
    };
    let mut content = vec![0; SMALL_BYTES];
    let mut buffers = [IoSliceMut::new(&mut content)];
    let length = preadv2(&file, &mut buffers, 0, ReadWriteFlags::NOWAIT)
        .map_err(|_| StoreError::WouldWait)?;
    content.truncate(length);
    Ok(Some(content))
}
