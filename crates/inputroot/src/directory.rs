//! Opening and making directories of our own.

use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::error::PresentError;

/// Opens a directory, and no symlink to one.
pub(crate) fn open_directory(parent: impl AsFd, name: &CStr) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(parent, name, directory_flags(), Mode::empty())
}

/// Opens a directory by its path.
pub(crate) fn open_path(path: &Path) -> Result<OwnedFd, PresentError> {
    rustix::fs::open(path, directory_flags(), Mode::empty())
        .map_err(PresentError::staging(format!("open({})", path.display())))
}

/// Makes a directory that only root can enter.
pub(crate) fn make_path(parent: &Path, name: &str) -> Result<PathBuf, PresentError> {
    let path = parent.join(name);
    rustix::fs::mkdir(&path, Mode::from_raw_mode(0o700))
        .map_err(PresentError::staging(format!("mkdir({})", path.display())))?;
    Ok(path)
}

fn directory_flags() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC
}
