//! Opens and makes directories, and gives them to the action.

use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use model::{Mtime, NodeProperties};
use rustix::fs::{AtFlags, Gid, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, Uid};
use rustix::io::Errno;

use crate::access::{DIRECTORY_MODE, action_id, directory_mode_of};
use crate::error::PresentError;

/// Opens a directory; fails if it is a symlink.
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

/// Makes a directory that belongs to the action, as all directories of an input root do.
pub(crate) fn make_for_action(parent: impl AsFd, name: &CStr) -> Result<(), Errno> {
    let mode = Mode::from_raw_mode(DIRECTORY_MODE.into());
    match rustix::fs::mkdirat(&parent, name, mode) {
        // Made before, as a parent of a directory that the action asked for.
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno),
    }
    // The umask of the process may have taken bits away.
    rustix::fs::chmodat(&parent, name, mode, AtFlags::empty())?;
    give_to(action_id(), parent, name)
}

/// Makes `owner` the user and the group of a file, or of a symlink itself.
pub(crate) fn give_to(owner: u32, directory: impl AsFd, name: &CStr) -> Result<(), Errno> {
    give(owner, owner, directory, name)
}

/// Makes `owner` the user and `group` the group of a file, or of a symlink itself.
pub(crate) fn give(owner: u32, group: u32, directory: impl AsFd, name: &CStr) -> Result<(), Errno> {
    let (user, group) = (Some(Uid::from_raw(owner)), Some(Gid::from_raw(group)));
    rustix::fs::chownat(directory, name, user, group, AtFlags::SYMLINK_NOFOLLOW)
}

/// Gives a file, or a symlink itself, the time of modification that its client asked for, if it did.
pub(crate) fn set_modified(
    directory: impl AsFd,
    name: &CStr,
    properties: &NodeProperties,
) -> Result<(), Errno> {
    let Some(mtime) = properties.mtime else { return Ok(()) };
    rustix::fs::utimensat(directory, name, &timestamps(mtime), AtFlags::SYMLINK_NOFOLLOW)
}

/// Gives an open directory the mode and the time of modification that its client asked for, if it did.
pub(crate) fn set_directory_properties(
    directory: impl AsFd,
    properties: &NodeProperties,
) -> Result<(), Errno> {
    if properties.unix_mode.is_some() {
        let mode = Mode::from_raw_mode(directory_mode_of(properties).into());
        rustix::fs::fchmod(&directory, mode)?;
    }
    match properties.mtime {
        Some(mtime) => rustix::fs::futimens(directory, &timestamps(mtime)),
        None => Ok(()),
    }
}

fn timestamps(mtime: Mtime) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: mtime.seconds, tv_nsec: mtime.nanos.into() },
    }
}

fn directory_flags() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC
}
