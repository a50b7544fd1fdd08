//! The strategy for kernels that have EROFS and overlayfs with data-only layers: a metadata image
//! for the names, the store for the content, an upper directory for what the action writes.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use crate::directory::{make_path, open_path};
use crate::error::PresentError;
use crate::image::{Backing, Image, ImageWriter};
use crate::image_cache::ImageCache;
use crate::janitor::Retired;
use crate::namespace::Namespace;
use crate::overlay::{self, Dialect, Layers};
use crate::workshop::{Job, Strategy, Workshop};

/// Where a strategy finds what it needs.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    /// An empty directory that the strategy has for itself, on a real file system.
    pub(crate) work: PathBuf,
    /// The store's blobs.
    pub(crate) blobs: PathBuf,
}

/// Input roots made of an EROFS image and an overlay.
#[derive(Debug)]
pub(crate) struct ErofsOverlay {
    writer: ImageWriter,
    mounter: Mounter,
    images: ImageCache,
}

/// Who calls the kernel, as [`Dialect`] demands.
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

    fn image(&self, job: &Job<'_>) -> Result<Arc<Image>, PresentError> {
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
        let image = Arc::new(Image { mount, bytes, _attached: attached });
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
            Mounter::Namespace(namespace) => namespace.overlay(&image, job.staging, job.access),
            Mounter::Caller { blobs } => {
                let layers = Layers {
                    upper: job.staging.upper.as_fd(),
                    work: job.staging.work.as_fd(),
                    image: image.mount.as_fd(),
                    blobs: Some(blobs.as_fd()),
                };
                Ok(overlay::mount(layers, job.access, Dialect::Descriptors)?)
            }
        }
    }
}
