//! The overlay that an action sees as its input root.
//!
//! ```text
//! upper     <work>/staging/<n>/upper: what the action writes
//! lower     an EROFS image or a tmpfs: names, modes, sizes, and for each file a path in the data layer
//! data      <root>/cas/blobs: content, visible only through the image
//! ```
//! A lower layer with content of its own, such as actiondfs or a tree of links, has no data layer.
//!
//! There are two dialects. Since Linux 6.13 overlayfs takes its layers as descriptors, also of
//! detached mounts. Older kernels take paths, whose mounts must be attached in the mount namespace
//! of the caller: [`super::namespace`] is that caller.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, StatVfsMountFlags};
use rustix::io::Errno;
use sys::mount::{FsContext, MountError, descriptor_path};

use super::attributes::ATTRIBUTES;
use crate::access::Access;

/// The way in which overlayfs gets its layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// As descriptors.
    Descriptors,
    /// As paths.
    Paths,
}

/// The extended attributes in which overlayfs keeps its marks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Marks {
    /// `trusted.overlay.*`, for root in the initial user namespace.
    Trusted,
    /// `user.overlay.*`, for everybody. An action that sets one of that name in its view sets another
    /// one on disk, or none.
    User,
}

/// The directories that make an overlay.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layers<'a> {
    pub(crate) upper: BorrowedFd<'a>,
    pub(crate) work: BorrowedFd<'a>,
    pub(crate) image: BorrowedFd<'a>,
    pub(crate) blobs: Option<BorrowedFd<'a>>,
    pub(crate) marks: Marks,
}

/// Makes a detached overlay of `layers`.
pub(crate) fn mount_overlay(
    layers: Layers<'_>,
    access: Access,
    dialect: Dialect,
) -> Result<OwnedFd, MountError> {
    let context = FsContext::open("overlay")?;
    match dialect {
        Dialect::Descriptors => {
            context.descriptor("lowerdir+", layers.image)?;
            if let Some(blobs) = layers.blobs {
                context.descriptor("datadir+", blobs)?;
            }
            context.descriptor("upperdir", layers.upper)?;
            context.descriptor("workdir", layers.work)?;
        }
        Dialect::Paths => {
            // "lower::data": understood since data-only layers exist (6.5); `lowerdir+` is younger.
            let image = descriptor_path(layers.image.as_fd());
            let lower = match layers.blobs {
                Some(blobs) => format!("{image}::{}", descriptor_path(blobs)),
                None => image,
            };
            context.string("lowerdir", &lower)?;
            context.string("upperdir", &descriptor_path(layers.upper.as_fd()))?;
            context.string("workdir", &descriptor_path(layers.work.as_fd()))?;
        }
    }
    // Without it, unmounting syncs the whole file system. Nothing in here has to survive a crash.
    context.flag("volatile")?;
    match layers.marks {
        // Needed before 6.15 for files without content in the image. It brings `redirect_dir=on`, with
        // which an action can rename the directories of its inputs.
        Marks::Trusted => {
            context.string("metacopy", "on")?;
            context.string("redirect_dir", "on")?;
        }
        // It excludes both.
        Marks::User => context.flag("userxattr")?,
    }
    context.string("xino", xino(access))?;
    context.string("index", "off")?;
    // Otherwise each overlay writes an identifier of its own to the upper directory, for handles of files that
    // outlive a mount.
    context.string("uuid", "off")?;
    let mount = context.mount(ATTRIBUTES)?;
    ensure_writable(&mount, layers.work)?;
    Ok(mount)
}

/// Fails for an overlay that the kernel made read-only. It does so when it can't make a directory in the
/// work directory, of a full disk for example, and says it in its log alone. An action would then fail of
/// a read-only file system.
fn ensure_writable(mount: &OwnedFd, work: BorrowedFd<'_>) -> Result<(), MountError> {
    let failed = |call: &str, errno| MountError {
        call: call.to_owned(),
        errno,
        explanation: "the overlay is read-only without it".to_owned(),
    };
    let file_system =
        rustix::fs::fstatvfs(mount).map_err(|errno| failed("fstatvfs(overlay)", errno))?;
    if !file_system.f_flag.contains(StatVfsMountFlags::RDONLY) {
        return Ok(());
    }
    // The reason is that of the same call, or has passed by now.
    let made = rustix::fs::mkdirat(work, c"again", Mode::RWXU);
    Err(failed("mkdir(the overlay's work directory)", made.err().unwrap_or(Errno::AGAIN)))
}

/// Whether the inode numbers of the layers are made one sequence.
///
/// It keeps a file's number when a write copies it to the upper layer, which happens to inputs of
/// mutating actions only. The kernel logs a line for each mount that has it: at a thousand actions
/// a second that would drown the host's log.
const fn xino(access: Access) -> &'static str {
    match access {
        Access::Strict => "off",
        Access::Mutable => "on",
    }
}
