//! File systems that are small enough to be filled. The tests inside of the crate share this.

use std::os::fd::OwnedFd;

use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount,
    fsopen,
};

/// A file system that no other process sees, as a detached mount: gone with its descriptor.
pub(crate) fn small_tmpfs(size: &str, inodes: &str) -> OwnedFd {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).expect("fsopen");
    fsconfig_set_string(&context, "size", size).expect("a size");
    fsconfig_set_string(&context, "nr_inodes", inodes).expect("a number of inodes");
    fsconfig_set_string(&context, "mode", "0700").expect("a mode");
    fsconfig_create(&context).expect("a tmpfs");
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).expect("a mount")
}
