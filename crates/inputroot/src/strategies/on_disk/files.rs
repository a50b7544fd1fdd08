//! Copies of blobs.

use std::ffi::CStr;
use std::fs::File;
use std::os::fd::OwnedFd;

use model::Digest;
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use store::BlobPath;

/// Copies a blob, without copying where the file system can share blocks.
pub(super) fn copy(blobs: &OwnedFd, digest: &Digest, to: &OwnedFd) -> Result<(), Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let path = BlobPath::new(digest);
    let blob = rustix::fs::openat(blobs, path.as_c_str(), flags, Mode::empty())?;
    if rustix::fs::ioctl_ficlone(to, &blob).is_ok() {
        return Ok(());
    }
    let mut to = File::from(to.try_clone().map_err(errno)?);
    std::io::copy(&mut File::from(blob), &mut to).map_err(errno)?;
    Ok(())
}

fn errno(error: std::io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}

/// Makes an empty regular file that only root can read.
pub(super) fn make_file(directory: &OwnedFd, name: &CStr) -> Result<OwnedFd, Errno> {
    // A failed copy may have left a file behind.
    match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(errno) => return Err(errno),
    }
    let mode = Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(directory, name, FileType::RegularFile, mode, 0)?;
    let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(directory, name, flags, Mode::empty())
}
