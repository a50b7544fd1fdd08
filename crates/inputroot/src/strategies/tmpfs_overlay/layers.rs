//! Input roots made of a tmpfs for the names, the store for the contents, and an upper directory.

use std::os::fd::OwnedFd;

use super::super::layer_cache::LayerCache;
use super::super::workshop::{Job, Places, Strategy, Workshop};
use super::fill::filled;
use crate::directory::make_path;
use crate::error::PresentError;
use crate::mounts::{Dialect, Marks, Mounter, MounterPaths};

/// Input roots made of a tmpfs and an overlay.
#[derive(Debug)]
pub(crate) struct TmpfsOverlay {
    mounter: Mounter,
    layers: LayerCache,
}

impl TmpfsOverlay {
    pub(crate) fn open(
        name: &'static str,
        places: &Places,
    ) -> Result<Workshop<Self>, PresentError> {
        let staging = make_path(&places.work, "staging")?;
        let images = make_path(&places.work, "images")?;
        let paths = MounterPaths { staging: &staging, images: &images, blobs: Some(&places.blobs) };
        // Kernels that take such a data layer take descriptors.
        let mounter = Mounter::start(Dialect::Descriptors, Marks::User, &paths)?;
        Workshop::open(name, &staging, Self { mounter, layers: LayerCache::default() })
    }
}

impl Strategy for TmpfsOverlay {
    fn maps_users(&self) -> bool {
        self.mounter.maps_users()
    }

    fn mount(&self, job: &mut Job<'_>) -> Result<OwnedFd, PresentError> {
        let interrupt = job.interrupt;
        let layer = self.layers.get_or_make(job, &self.mounter, |tree, access| {
            let (mount, bytes) = filled(tree, access, interrupt)?;
            self.mounter.layer(bytes, || Ok(mount))
        })?;
        job.overlay(&self.mounter, layer)
    }
}
