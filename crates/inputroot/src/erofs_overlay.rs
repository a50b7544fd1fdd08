//! The strategy for kernels that have EROFS and overlayfs with data-only layers: a metadata image
//! for the names, the store for the content, an upper directory for what the action writes.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use model::InputTree;

use crate::access::Access;
use crate::directory::{make_path, open_path};
use crate::error::PresentError;
use crate::image::{Backing, Image, ImageWriter};
use crate::image_cache::ImageCache;
use crate::janitor::{Janitor, Retired};
use crate::namespace::Namespace;
use crate::outputs::OutputView;
use crate::overlay::{self, Dialect, Layers};
use crate::present::{Attachment, InputRoots, Leftovers, PresentRequest, Presented};
use crate::staging::{Staging, StagingPool};

/// How many staging directories are made at the start: enough for the first actions of a build, so
/// that none of them waits for the file system's journal.
const PREPARED_STAGING: usize = 8;

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
    name: &'static str,
    writer: ImageWriter,
    mounter: Mounter,
    images: ImageCache,
    staging: Arc<StagingPool>,
    janitor: Arc<Janitor>,
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
    ) -> Result<Self, PresentError> {
        let staging_path = make_path(&places.work, "staging")?;
        let images_path = make_path(&places.work, "images")?;
        let staging = StagingPool::new(open_path(&staging_path)?, PREPARED_STAGING)?;
        let staging = Arc::new(staging);
        let writer = ImageWriter::new(backing, open_path(&images_path)?);
        let mounter = match dialect {
            Dialect::Descriptors => Mounter::Caller { blobs: open_path(&places.blobs)? },
            Dialect::Paths => {
                let blobs = Some(places.blobs.clone());
                Mounter::Namespace(Arc::new(Namespace::start(staging_path, images_path, blobs)?))
            }
        };
        let janitor = Janitor::start(&staging).map_err(|source| PresentError::Thread { source })?;
        let (images, janitor) = (ImageCache::default(), Arc::new(janitor));
        Ok(Self { name, writer, mounter, images, staging, janitor })
    }

    fn image(&self, tree: &InputTree, access: Access) -> Result<Arc<Image>, PresentError> {
        let key = (tree.root_digest(), access);
        if let Some(image) = self.images.get(&key) {
            return Ok(image);
        }
        let (stored, bytes) = self.writer.store(tree, access)?;
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
            self.janitor.retire(Retired { images, ..Retired::default() });
        }
        Ok(image)
    }

    fn overlay(&self, image: &Arc<Image>, staging: &Staging) -> Result<OwnedFd, PresentError> {
        match &self.mounter {
            Mounter::Namespace(namespace) => namespace.overlay(image, staging),
            Mounter::Caller { blobs } => {
                let layers = Layers {
                    upper: staging.upper.as_fd(),
                    work: staging.work.as_fd(),
                    image: image.mount.as_fd(),
                    blobs: Some(blobs.as_fd()),
                };
                Ok(overlay::mount(layers, staging.access(), Dialect::Descriptors)?)
            }
        }
    }
}

impl InputRoots for ErofsOverlay {
    fn name(&self) -> &'static str {
        self.name
    }

    fn present(
        &self,
        tree: &Arc<InputTree>,
        request: &PresentRequest<'_>,
    ) -> Result<Presented, PresentError> {
        let access = Access::new(request.mutable);
        let image = self.image(tree, access)?;
        let mut leftovers = Leftovers::new(&self.janitor);
        let staging = leftovers.stage(&self.staging, tree, request)?;
        let upper = Arc::clone(&staging.upper);
        let mount = self.overlay(&image, staging)?;
        leftovers.retired.images.push(image);
        let outputs = OutputView::over(access, tree, &mount, upper)?;
        Ok(Presented::new(Attachment::Mount(mount), outputs, leftovers))
    }
}
