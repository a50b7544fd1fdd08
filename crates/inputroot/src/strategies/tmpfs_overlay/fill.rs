//! Fills a tmpfs with the names of a tree.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use model::{Digest, Entry, InputTree, Mtime, NodeProperties};
use rustix::fs::{AtFlags, Mode, OFlags, Timespec, Timestamps, XattrFlags};
use rustix::io::Errno;
use store::BlobPath;
use sys::mount::{FsContext, MountAttributes};

use super::super::on_disk::{c_string, failed, walk};
use crate::access::{Access, DIRECTORY_MODE, action_id, directory_mode_of, file_rights, modified};
use crate::directory::{give, give_to, make_for_action, open_directory};
use crate::error::PresentError;
use crate::interrupt::Interrupt;
use crate::mounts::ATTRIBUTES;

/// Kernel memory of an entry: an inode, a name and two extended attributes.
const ENTRY_BYTES: u64 = 2 << 10;

/// Makes a tmpfs with the names of `tree`; returns it with the memory that it takes.
pub(super) fn filled(
    tree: &InputTree,
    access: Access,
    interrupt: Interrupt<'_>,
) -> Result<(OwnedFd, u64), PresentError> {
    let context = FsContext::open("tmpfs")?;
    context.string("mode", &format!("{DIRECTORY_MODE:o}"))?;
    // The tree itself has a bound, and a limit here would count extended attributes too.
    context.string("nr_inodes", "0")?;
    let mount = context.mount(ATTRIBUTES)?;
    // The mount's descriptor is of the kind that names a directory and can't change its times.
    let root = open_directory(&mount, c".").map_err(failed("open", c"."))?;
    give_to(action_id(), &root, c".").map_err(failed("chown", c"."))?;
    let mut entries = 0;
    walk(tree, root.as_fd(), &mut |directory, index| {
        let content = &tree.directories()[index].content;
        for entry in content.entries() {
            interrupt.check(entries)?;
            entries += 1;
            make(directory, &entry, &content.properties_of(entry.name()), access)?;
        }
        // After the last change of the directory itself.
        finish(directory, &content.own_properties()).map_err(failed("attributes of", c"."))
    })?;
    sys::mount::set_attributes(mount.as_fd(), MountAttributes::MOUNT_ATTR_RDONLY)?;
    Ok((mount, entries as u64 * ENTRY_BYTES))
}

fn times(properties: &NodeProperties) -> Timestamps {
    let Mtime { seconds, nanos } = modified(properties);
    let time = Timespec { tv_sec: seconds, tv_nsec: nanos.into() };
    Timestamps { last_access: time, last_modification: time }
}

fn finish(directory: BorrowedFd<'_>, properties: &NodeProperties) -> Result<(), Errno> {
    if properties.unix_mode.is_some() {
        let mode = Mode::from_raw_mode(directory_mode_of(properties).into());
        rustix::fs::fchmod(directory, mode)?;
    }
    rustix::fs::futimens(directory, &times(properties))
}

fn make(
    directory: BorrowedFd<'_>,
    entry: &Entry<'_>,
    properties: &NodeProperties,
    access: Access,
) -> Result<(), PresentError> {
    let name = c_string(entry.name());
    match *entry {
        Entry::Directory { .. } => {
            make_for_action(directory, &name).map_err(failed("make the directory", &name))
        }
        Entry::Symlink { target, .. } => symlink(directory, &name, &c_string(target), properties)
            .map_err(failed("symlink", &name)),
        Entry::File { digest, executable, .. } => {
            let (mode, group) = file_rights(executable, properties, access);
            let rights = Rights { mode, owner: access.file_owner(), group };
            file(directory, &name, &digest, rights, &times(properties))
                .map_err(failed("make", &name))
        }
    }
}

fn symlink(
    directory: BorrowedFd<'_>,
    name: &CStr,
    target: &CStr,
    properties: &NodeProperties,
) -> Result<(), Errno> {
    rustix::fs::symlinkat(target, directory, name)?;
    give_to(action_id(), directory, name)?;
    rustix::fs::utimensat(directory, name, &times(properties), AtFlags::SYMLINK_NOFOLLOW)
}

#[derive(Clone, Copy)]
struct Rights {
    mode: u16,
    owner: u32,
    group: u32,
}

fn file(
    directory: BorrowedFd<'_>,
    name: &CStr,
    digest: &Digest,
    rights: Rights,
    times: &Timestamps,
) -> Result<(), Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let mode = Mode::from_raw_mode(rights.mode.into());
    let file = rustix::fs::openat(directory, name, flags, mode)?;
    // Bits that the umask of the process took away.
    if rights.mode & 0o022 != 0 {
        rustix::fs::fchmod(&file, mode)?;
    }
    if !digest.is_empty_blob() {
        rustix::fs::ftruncate(&file, digest.size_bytes())?;
        let redirect = format!("/{}", BlobPath::new(digest).as_str());
        let none = XattrFlags::empty();
        rustix::fs::fsetxattr(&file, c"user.overlay.metacopy", &[], none)?;
        rustix::fs::fsetxattr(&file, c"user.overlay.redirect", redirect.as_bytes(), none)?;
    }
    if (rights.owner, rights.group) != (0, 0) {
        give(rights.owner, rights.group, directory, name)?;
    }
    rustix::fs::futimens(&file, times)
}
