//! Input roots made of hard links and an overlay.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use model::InputTree;
use rustix::fs::Mode;
use sys::mount::MountAttributes;

use super::super::layer_cache::LayerCache;
use super::super::on_disk::{Content, Executables, Materializer, failed};
use super::super::workshop::{Job, Places, Strategy, Workshop};
use crate::access::{Access, DIRECTORY_MODE};
use crate::directory::{make_path, open_directory, open_path};
use crate::error::PresentError;
use crate::interrupt::Interrupt;
use crate::mounts::{Dialect, LayerDirectory, LowerLayer, Marks, Mounter, MounterPaths};

/// The share of the cache that an entry takes. Its memory is the kernel's to reclaim; what is bounded
/// is the number of inodes and names on disk.
const ENTRY_BYTES: u64 = 1 << 10;

/// Input roots made of hard links and an overlay.
#[derive(Debug)]
pub(crate) struct LinkOverlay {
    blobs: OwnedFd,
    executables: Executables,
    trees: Trees,
    mounter: Mounter,
    layers: LayerCache,
}

/// The directory of the trees.
#[derive(Debug)]
struct Trees {
    path: PathBuf,
    directory: OwnedFd,
    next: AtomicU64,
}

impl LinkOverlay {
    pub(crate) fn open(
        name: &'static str,
        dialect: Dialect,
        places: &Places,
    ) -> Result<Workshop<Self>, PresentError> {
        let staging = make_path(&places.work, "staging")?;
        let images = make_path(&places.work, "images")?;
        let path = make_path(&places.work, "layers")?;
        let executables = open_path(&make_path(&places.work, "executables")?)?;
        let paths = MounterPaths { staging: &staging, images: &images, blobs: None };
        let strategy = Self {
            blobs: open_path(&places.blobs)?,
            executables: Executables::new(executables),
            trees: Trees { directory: open_path(&path)?, path, next: AtomicU64::new(0) },
            mounter: Mounter::start(dialect, Marks::User, &paths)?,
            layers: LayerCache::default(),
        };
        Workshop::open(name, &staging, strategy)
    }

    fn layer(
        &self,
        tree: &InputTree,
        access: Access,
        interrupt: Interrupt<'_>,
    ) -> Result<LowerLayer, PresentError> {
        let number = self.trees.next.fetch_add(1, Ordering::Relaxed);
        let name = CString::new(number.to_string()).unwrap_or_default();
        let parent = self.trees.directory.try_clone();
        let parent = parent.map_err(PresentError::store_image("dup"))?;
        // From here on it is deleted, also after an error.
        let directory = LayerDirectory::new(parent, name.clone());
        let mode = Mode::from_raw_mode(DIRECTORY_MODE.into());
        rustix::fs::mkdirat(&self.trees.directory, &*name, mode).map_err(failed("mkdir", &name))?;
        let root = open_directory(&self.trees.directory, &name).map_err(failed("open", &name))?;
        let materializer = Materializer {
            tree,
            access,
            blobs: &self.blobs,
            executables: &self.executables,
            content: Content::Linked,
            interrupt,
        };
        materializer.fill(&root)?;
        let entries: usize =
            tree.directories().iter().map(|directory| directory.content.len()).sum();
        let path = self.trees.path.join(number.to_string());
        let layer = self.mounter.layer(entries as u64 * ENTRY_BYTES, move || {
            let directory = open_path(&path)?;
            let mount = sys::mount::clone_mount(directory.as_fd())?;
            let attributes = MountAttributes::MOUNT_ATTR_RDONLY
                | MountAttributes::MOUNT_ATTR_NOSUID
                | MountAttributes::MOUNT_ATTR_NODEV;
            sys::mount::set_attributes(mount.as_fd(), attributes)?;
            Ok(mount)
        })?;
        Ok(LowerLayer { _directory: Some(directory), ..layer })
    }
}

impl Strategy for LinkOverlay {
    fn maps_users(&self) -> bool {
        self.mounter.maps_users()
    }

    fn mount(&self, job: &mut Job<'_>) -> Result<OwnedFd, PresentError> {
        let interrupt = job.interrupt;
        let layer = self
            .layers
            .get_or_make(job, &self.mounter, |tree, access| self.layer(tree, access, interrupt))?;
        job.overlay(&self.mounter, layer)
    }
}
