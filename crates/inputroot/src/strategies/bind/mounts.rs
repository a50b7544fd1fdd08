//! Input roots made of bind mounts.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use model::InputTree;
use sys::mount::MountAttributes;

use super::super::input_roots::PresentRequest;
use super::super::on_disk::{Content, Executables, Materializer};
use super::super::workshop::{Job, Places, Strategy, Workshop};
use super::binder::Binder;
use super::mount_count;
use crate::access::{Access, has_own_user};
use crate::directory::{make_path, open_path};
use crate::error::PresentError;
use crate::mounts::clone_directory;
use crate::staging::Source;

/// The number of threads that mount. Each makes one input root at a time.
const BINDERS: usize = 2;
/// Mounts that a sandbox has beside its inputs, of the `fs.mount-max` in a mount namespace.
const RESERVED_MOUNTS: u64 = 1000;
/// The kernel's default, for systems that do not show `fs.mount-max`.
const DEFAULT_MOUNT_MAX: u64 = 100_000;

/// Input roots made of bind mounts.
#[derive(Debug)]
pub(crate) struct BindMounts {
    blobs: OwnedFd,
    executables: Executables,
    binders: Vec<Binder>,
    next_binder: AtomicUsize,
    max_mounts: u64,
}

impl BindMounts {
    pub(crate) fn open(
        name: &'static str,
        places: &Places,
    ) -> Result<Workshop<Self>, PresentError> {
        // Placeholders are told from an action's files by their owner.
        if !has_own_user() {
            return Err(PresentError::NoOwnUser);
        }
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
            max_mounts: mount_max().saturating_sub(RESERVED_MOUNTS),
        };
        Workshop::open(name, &staging_path, strategy)
    }
}

impl Strategy for BindMounts {
    fn check(&self, tree: &InputTree, request: &PresentRequest<'_>) -> Result<(), PresentError> {
        let mounts = match Access::new(request.mutable) {
            // Every file is a copy.
            Access::Mutable => 0,
            Access::Strict => mount_count::in_sandbox(tree, request.write_changes),
        };
        let max_mounts = self.max_mounts;
        if mounts > max_mounts {
            let files = tree.file_count();
            return Err(PresentError::TooManyMounts { files, mounts, max_mounts });
        }
        Ok(())
    }

    fn mount(&self, job: &mut Job<'_>) -> Result<OwnedFd, PresentError> {
        let Job { tree, access, staging, interrupt, .. } = *job;
        let (blobs, executables) = (&self.blobs, &self.executables);
        let content = Content::Mounted;
        let materializer = Materializer { tree, access, blobs, executables, content, interrupt };
        materializer.fill(&staging.upper)?;
        match access {
            Access::Mutable => Ok(clone_directory(&staging.upper, MountAttributes::empty())?),
            Access::Strict => {
                let turn = self.next_binder.fetch_add(1, Ordering::Relaxed);
                self.binders[turn % self.binders.len()].bind(tree, staging.name())
            }
        }
    }

    /// The staging directory has everything: the mounts over placeholders are gone with the sandbox.
    fn source(&self, job: &Job<'_>, _mount: &Arc<OwnedFd>) -> Source {
        let (tree, root) = (Arc::clone(job.tree), Arc::clone(&job.staging.upper));
        match job.access {
            Access::Strict => Source::Bound { tree, root },
            Access::Mutable => Source::Mutable { merged: Arc::clone(&root), upper: root },
        }
    }
}

fn mount_max() -> u64 {
    let text = std::fs::read_to_string("/proc/sys/fs/mount-max").unwrap_or_default();
    text.trim().parse().unwrap_or(DEFAULT_MOUNT_MAX)
}
