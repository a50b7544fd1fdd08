//! Makes overlays where the kernel wants them made: in the calling thread, or in a mount namespace.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use super::attributes::clone_for;
use super::namespace::{LowerLayer, Namespace};
use super::overlay::{Dialect, Layers, Marks, mount_overlay};
use crate::access::{Access, HostUser};
use crate::directory::open_path;
use crate::error::PresentError;

/// Makes lower layers and overlays, as a [`Dialect`] demands.
#[derive(Debug)]
pub(crate) struct Mounter {
    place: Place,
    marks: Marks,
}

#[derive(Debug)]
enum Place {
    /// The thread that calls. `blobs` holds the content of lower layers that have none. It is a detached mount, of
    /// which an action reads no path but `/`.
    Caller {
        blobs: Option<OwnedFd>,
    },
    Namespace(Arc<Namespace>),
}

/// The directories of a mounter.
#[derive(Debug)]
pub(crate) struct MounterPaths<'a> {
    /// Holds staging directories.
    pub(crate) staging: &'a Path,
    /// An empty directory for mount points.
    pub(crate) images: &'a Path,
    /// The content of lower layers that have none of their own.
    pub(crate) blobs: Option<&'a Path>,
}

/// The directories that collect what an action writes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Upper<'a> {
    /// The name of the staging directory that has both.
    pub(crate) name: &'a CStr,
    pub(crate) upper: BorrowedFd<'a>,
    pub(crate) work: BorrowedFd<'a>,
}

impl Mounter {
    pub(crate) fn start(
        dialect: Dialect,
        marks: Marks,
        paths: &MounterPaths<'_>,
    ) -> Result<Self, PresentError> {
        let place = match dialect {
            Dialect::Descriptors => {
                Place::Caller { blobs: paths.blobs.map(open_detached).transpose()? }
            }
            Dialect::Paths => {
                let (staging, images) = (paths.staging.to_owned(), paths.images.to_owned());
                let blobs = paths.blobs.map(Path::to_owned);
                Place::Namespace(Arc::new(Namespace::start(staging, images, blobs)?))
            }
        };
        Ok(Self { place, marks })
    }

    /// Makes a lower layer of the mount that `make` makes.
    pub(crate) fn layer(
        &self,
        bytes: u64,
        make: impl FnOnce() -> Result<OwnedFd, PresentError> + Send + 'static,
    ) -> Result<LowerLayer, PresentError> {
        match &self.place {
            Place::Caller { .. } => Ok(LowerLayer::new(make()?, bytes)),
            Place::Namespace(namespace) => {
                let (mount, attached) = namespace.attach(make)?;
                Ok(LowerLayer { _attached: Some(attached), ..LowerLayer::new(mount, bytes) })
            }
        }
    }

    /// Whether layers can be shown to a user of the host as that user's: a mount that is attached can't be.
    pub(crate) fn maps_users(&self) -> bool {
        matches!(self.place, Place::Caller { .. })
    }

    /// A clone of the layer, as `user` sees it. To be closed in the background, for that waits until no processor uses it.
    pub(crate) fn layer_for(
        &self,
        user: HostUser<'_>,
        layer: Arc<LowerLayer>,
    ) -> Result<LowerLayer, PresentError> {
        if !self.maps_users() {
            return Err(PresentError::UnmappedUser);
        }
        let mount = clone_for(user, &layer.mount)?;
        Ok(LowerLayer { _origin: Some(layer), ..LowerLayer::new(mount, 0) })
    }

    /// Makes an overlay of a layer of this mounter.
    pub(crate) fn overlay(
        &self,
        layer: &Arc<LowerLayer>,
        upper: Upper<'_>,
        access: Access,
    ) -> Result<OwnedFd, PresentError> {
        match &self.place {
            Place::Namespace(namespace) => namespace.overlay(layer, upper.name, access, self.marks),
            Place::Caller { blobs } => {
                let layers = Layers {
                    upper: upper.upper,
                    work: upper.work,
                    image: layer.mount.as_fd(),
                    blobs: blobs.as_ref().map(AsFd::as_fd),
                    marks: self.marks,
                };
                Ok(mount_overlay(layers, access, Dialect::Descriptors)?)
            }
        }
    }
}

/// A detached mount of the directory at `path`.
fn open_detached(path: &Path) -> Result<OwnedFd, PresentError> {
    Ok(sys::mount::clone_mount(open_path(path)?.as_fd())?)
}
