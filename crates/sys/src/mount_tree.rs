//! Whole mount trees that are not attached anywhere (open_tree(2),
//! mount_setattr(2)).

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, OpenTreeFlags};

/// A detached mount of `source`, without what is mounted below it: read-only,
/// without set-user-id and devices, and private, so that what is mounted on the
/// host later does not appear in it.
///
/// # Errors
/// Of openat2(2) (ELOOP if there is a symlink in `source`), open_tree(2) and
/// mount_setattr(2).
pub fn clone_read_only(source: &Path) -> Result<OwnedFd, Errno> {
    let path_only = OFlags::PATH | OFlags::CLOEXEC;
    let source =
        rustix::fs::openat2(CWD, source, path_only, Mode::empty(), ResolveFlags::NO_SYMLINKS)?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    let mount = rustix::mount::open_tree(&source, c"", flags)?;
    set_attributes(mount.as_fd(), MountAttrFlags::MOUNT_ATTR_RDONLY | HARMLESS, libc::MS_PRIVATE)?;
    Ok(mount)
}

/// Takes set-user-id and devices from a mount and from all that are mounted below
/// it.
///
/// # Errors
/// Of mount_setattr(2).
pub fn make_harmless(mount: BorrowedFd<'_>) -> Result<(), Errno> {
    set_attributes(mount, HARMLESS, 0)
}

const HARMLESS: MountAttrFlags =
    MountAttrFlags::MOUNT_ATTR_NOSUID.union(MountAttrFlags::MOUNT_ATTR_NODEV);

fn set_attributes(
    mount: BorrowedFd<'_>,
    attributes: MountAttrFlags,
    propagation: u64,
) -> Result<(), Errno> {
    let attr = libc::mount_attr {
        attr_set: u64::from(attributes.bits()),
        attr_clr: 0,
        propagation,
        userns_fd: 0,
    };
    // SAFETY: the path is a terminated string, `attr` a `struct mount_attr` that
    // outlives the call, and the size passed is its size.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | libc::AT_RECURSIVE,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    };
    if done == 0 { Ok(()) } else { Err(crate::process::last_errno()) }
}
