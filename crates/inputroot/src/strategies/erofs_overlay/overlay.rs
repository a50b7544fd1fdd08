//! Input roots made of an EROFS image for the names, the store for the contents, and an upper
//! directory for what the action writes.

use std::os::fd::OwnedFd;

use super::super::layer_cache::LayerCache;
use super::super::workshop::{Job, Places, Strategy, Workshop};
use super::image::{Backing, ImageWriter};
use crate::directory::{make_path, open_path};
use crate::error::PresentError;
use crate::mounts::{Dialect, Marks, Mounter, MounterPaths};

/// Input roots made of an EROFS image and an overlay.
#[derive(Debug)]
pub(crate) struct ErofsOverlay {
    writer: ImageWriter,
    mounter: Mounter,
    images: LayerCache,
}

impl ErofsOverlay {
    pub(crate) fn open(
        name: &'static str,
        backing: Backing,
        dialect: Dialect,
        places: &Places,
    ) -> Result<Workshop<Self>, PresentError> {
        let staging = make_path(&places.work, "staging")?;
        let images = make_path(&places.work, "images")?;
        let writer = ImageWriter::new(backing, open_path(&images)?);
        let paths = MounterPaths { staging: &staging, images: &images, blobs: Some(&places.blobs) };
        let mounter = Mounter::start(dialect, Marks::Trusted, &paths)?;
        let strategy = Self { writer, mounter, images: LayerCache::default() };
        Workshop::open(name, &staging, strategy)
    }
}

impl Strategy for ErofsOverlay {
    fn maps_users(&self) -> bool {
        self.mounter.maps_users()
    }

    fn mount(&self, job: &mut Job<'_>) -> Result<OwnedFd, PresentError> {
        let image = self.images.get_or_make(job, &self.mounter, |tree, access| {
            let (stored, bytes) = self.writer.store(tree, access)?;
            self.mounter.layer(bytes, move || Ok(stored.mount()?))
        })?;
        job.overlay(&self.mounter, image)
    }
}
