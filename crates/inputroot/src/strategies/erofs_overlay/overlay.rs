//! Input roots made of an EROFS image for the names, the store for the contents, and an upper
//! directory for what the action writes.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use super::super::workshop::{Job, Places, Strategy, Workshop};
use super::image::{Backing, ImageWriter};
use super::image_cache::ImageCache;
use crate::directory::{make_path, open_path};
use crate::error::PresentError;
use crate::mounts::{Dialect, Layers, LowerLayer, Namespace, mount_overlay};
use crate::staging::Retired;

/// Input roots made of an EROFS image and an overlay.
#[derive(Debug)]
pub(crate) struct ErofsOverlay {
    writer: ImageWriter,
    mounter: Mounter,
    images: ImageCache,
}

/// The thread that makes the mounts, as [`Dialect`] demands.
#[derive(Debug)]
enum Mounter {
    Caller { blobs: OwnedFd },
    Namespace(Arc<Namespace>),
}

impl ErofsOverlay {
    pub(crate) fn open(
        name: &'static str,
        backing: Backing,
        dialect: Dialect,
        places: &Places,
    ) -> Result<Workshop<Self>, PresentError> {
        let staging_path = make_path(&places.work, "staging")?;
        let images_path = make_path(&places.work, "images")?;
        let writer = ImageWriter::new(backing, open_path(&images_path)?);
        let mounter = match dialect {
            Dialect::Descriptors => Mounter::Caller { blobs: open_path(&places.blobs)? },
            Dialect::Paths => {
                let blobs = Some(places.blobs.clone());
                let staging_path = staging_path.clone();
                Mounter::Namespace(Arc::new(Namespace::start(staging_path, images_path, blobs)?))
            }
        };
        let strategy = Self { writer, mounter, images: ImageCache::default() };
        Workshop::open(name, &staging_path, strategy)
    }

    fn image(&self, job: &Job<'_>) -> Result<Arc<LowerLayer>, PresentError> {
        let key = (job.tree.root_digest(), job.access);
        if let Some(image) = self.images.get(&key) {
            return Ok(image);
        }
        let (stored, bytes) = self.writer.store(job.tree, job.access)?;
        let (mount, attached) = match &self.mounter {
            Mounter::Caller { .. } => (stored.mount()?, None),
            Mounter::Namespace(namespace) => {
                let (mount, attached) = namespace.attach(move || stored.mount())?;
                (mount, Some(attached))
            }
        };
        let image = Arc::new(LowerLayer { mount, bytes, _attached: attached });
        let images = self.images.insert(key, &image);
        if !images.is_empty() {
            job.janitor.retire(Retired { images, ..Retired::default() });
        }
        Ok(image)
    }
}

impl Strategy for ErofsOverlay {
    fn mount(&self, job: &mut Job<'_>) -> Result<OwnedFd, PresentError> {
        let image = self.image(job)?;
        job.images.push(Arc::clone(&image));
        match &self.mounter {
            Mounter::Namespace(namespace) => {
                namespace.overlay(&image, job.staging.name(), job.access)
            }
            Mounter::Caller { blobs } => {
                let layers = Layers {
                    upper: job.staging.upper.as_fd(),
                    work: job.staging.work.as_fd(),
                    image: image.mount.as_fd(),
                    blobs: Some(blobs.as_fd()),
                };
                Ok(mount_overlay(layers, job.access, Dialect::Descriptors)?)
            }
        }
    }
}
