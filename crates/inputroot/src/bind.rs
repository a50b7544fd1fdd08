//! The strategy for kernels without data-only layers: a real directory for every directory, an
//! empty file for every file, and the store's blob mounted over it.
//!
//! ```text
//! the caller's thread                          a mount thread
//! directories, symlinks, executables,          the staging directory is attached,
//! placeholders in a staging directory  ─────>  a blob bound over every placeholder, and
//!                                              the whole copied as one detached mount
//! ```
//!
//! It costs several system calls an input, and is there for kernels that have nothing better. An
//! input with content that is no executable shows the mode of its blob (0444, elsewhere 0644), and
//! its name stays where it is, because a mount point cannot be moved or removed. A
//! blob is not executable and a mount cannot make it so: executables are hard links to copies, see
//! [`executables`]. For a mutating action every file is a copy, and nothing is bound.

mod binder;
mod executables;
mod materialize;

use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use model::InputTree;
use sys::mount::MountAttributes;

use crate::access::Access;
use crate::directory::{make_path, open_path};
use crate::erofs_overlay::Places;
use crate::error::PresentError;
use crate::outputs::Source;
use crate::workshop::{Job, Strategy, Workshop};
use binder::Binder;
use executables::Executables;
use materialize::Materializer;

/// Mounting happens on threads of its own, one input root at a time each.
const BINDERS: usize = 2;
/// A mount namespace holds `fs.mount-max` mounts; a sandbox has some beside its inputs.
const RESERVED_MOUNTS: usize = 1000;
/// What the kernel has if nobody changed it, for systems that do not tell.
const DEFAULT_MOUNT_MAX: usize = 100_000;

/// Input roots made of bind mounts.
#[derive(Debug)]
pub(crate) struct BindMounts {
    blobs: OwnedFd,
    executables: Executables,
    binders: Vec<Binder>,
    next_binder: AtomicUsize,
    max_binds: usize,
}

impl BindMounts {
    pub(crate) fn open(
        name: &'static str,
        places: &Places,
    ) -> Result<Workshop<Self>, PresentError> {
        let staging_path = make_path(&places.work, "staging")?;
        let executables = open_path(&make_path(&places.work, "executables")?)?;
        let points = make_path(&places.work, "images")?;
        let start = |number: usize| {
            let point = make_path(&points, &number.to_string())?;
            Binder::start(staging_path.clone(), point, places.blobs.clone())
        };
        let strategy = Self {
            blobs: open_path(&places.blobs)?,
            executables: Executables::new(executables),
            binders: (0..BINDERS).map(start).collect::<Result<_, _>>()?,
            next_binder: AtomicUsize::new(0),
            max_binds: mount_max().saturating_sub(RESERVED_MOUNTS),
        };
        Workshop::open(name, &staging_path, strategy)
    }
}

impl Strategy for BindMounts {
    fn check(&self, tree: &InputTree, access: Access) -> Result<(), PresentError> {
        let files = tree.file_count();
        if access == Access::Strict && files > self.max_binds {
            return Err(PresentError::TooManyMounts { files, max_mounts: self.max_binds });
        }
        Ok(())
    }

    fn mount(&self, job: &mut Job<'_>) -> Result<OwnedFd, PresentError> {
        let Job { tree, access, staging, .. } = *job;
        let materializer =
            Materializer { tree, access, blobs: &self.blobs, executables: &self.executables };
        materializer.fill(&staging.upper)?;
        match access {
            Access::Mutable => mount_of(&staging.upper),
            Access::Strict => {
                let turn = self.next_binder.fetch_add(1, Ordering::Relaxed);
                self.binders[turn % self.binders.len()].bind(tree, staging.name())
            }
        }
    }

    /// The staging directory has everything: what is mounted over placeholders goes with the
    /// sandbox.
    fn source(&self, job: &Job<'_>, _mount: &Arc<OwnedFd>) -> Source {
        let (tree, root) = (Arc::clone(job.tree), Arc::clone(&job.staging.upper));
        match job.access {
            Access::Strict => Source::Bound { tree, root },
            Access::Mutable => Source::Mutable { merged: Arc::clone(&root), upper: root },
        }
    }
}

/// A detached mount of a staging directory.
fn mount_of(upper: &OwnedFd) -> Result<OwnedFd, PresentError> {
    let mount = sys::mount::clone_mount(upper.as_fd())?;
    let attributes = MountAttributes::MOUNT_ATTR_NOSUID
        | MountAttributes::MOUNT_ATTR_NODEV
        | MountAttributes::MOUNT_ATTR_NOATIME;
    sys::mount::set_attributes(mount.as_fd(), attributes)?;
    Ok(mount)
}

fn mount_max() -> usize {
    let text = std::fs::read_to_string("/proc/sys/fs/mount-max").unwrap_or_default();
    text.trim().parse().unwrap_or(DEFAULT_MOUNT_MAX)
}

/// For `map_err`: a failed step on an entry of the tree.
fn failed(step: &str, name: &CStr) -> impl FnOnce(rustix::io::Errno) -> PresentError {
    PresentError::staging(format!("{step}({})", name.to_string_lossy()))
}
