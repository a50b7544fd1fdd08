//! The attributes of all mounts of input roots.

use std::os::fd::{AsFd, OwnedFd};

use sys::mount::{MountAttributes, MountError};

use crate::access::HostUser;

/// No set-id programs, no devices, and no writes for times of access.
pub(crate) const ATTRIBUTES: MountAttributes = MountAttributes::MOUNT_ATTR_NOSUID
    .union(MountAttributes::MOUNT_ATTR_NODEV)
    .union(MountAttributes::MOUNT_ATTR_NOATIME);

/// A detached mount of a directory, with [`ATTRIBUTES`] and `more`.
pub(crate) fn clone_directory(
    directory: &OwnedFd,
    more: MountAttributes,
) -> Result<OwnedFd, MountError> {
    let mount = sys::mount::clone_mount(directory.as_fd())?;
    sys::mount::set_attributes(mount.as_fd(), ATTRIBUTES | more)?;
    Ok(mount)
}

/// A detached mount of a directory, in which what is the action's belongs to `user`.
pub(crate) fn clone_for(user: HostUser<'_>, directory: &OwnedFd) -> Result<OwnedFd, MountError> {
    let mount = sys::mount::clone_mount(directory.as_fd())?;
    sys::mount::map_owners(mount.as_fd(), user.namespace)?;
    Ok(mount)
}
