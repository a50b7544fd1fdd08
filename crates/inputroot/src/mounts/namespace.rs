//! Overlays on kernels before 6.13.
//!
//! There overlayfs takes its layers only as paths, and only from mounts that are attached in the
//! caller's mount namespace. A [`MountThread`] is that caller.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use chain::Chain;
use rustix::fs::{AtFlags, Mode};

use super::layer_directory::LayerDirectory;
use super::overlay::{Dialect, Layers, Marks, mount_overlay};
use super::thread::MountThread;
use crate::access::Access;
use crate::directory::{open_directory, open_path};
use crate::error::PresentError;

/// The directories of the state, opened in the thread's namespace.
#[derive(Debug)]
struct Directories {
    staging: OwnedFd,
    images: OwnedFd,
    /// The content of lower layers that have none of their own.
    blobs: Option<OwnedFd>,
}

/// A mount namespace for lower layers and overlays.
#[derive(Debug)]
pub(crate) struct Namespace {
    thread: MountThread<Directories>,
    next_image: AtomicU64,
}

/// A mounted file system that has the names of an input root, the lower layer of an overlay.
#[derive(Debug)]
pub(crate) struct LowerLayer {
    pub(crate) mount: OwnedFd,
    /// The memory or disk that it takes.
    pub(crate) bytes: u64,
    /// The mount's attachment, on kernels that require one.
    pub(crate) _attached: Option<Attached>,
    /// The layer that it is a clone of.
    pub(crate) _origin: Option<Arc<LowerLayer>>,
    /// Its content, if that is a directory on disk. Deleted last.
    pub(crate) _directory: Option<LayerDirectory>,
}

impl LowerLayer {
    /// A layer with nothing beside its mount.
    pub(crate) fn new(mount: OwnedFd, bytes: u64) -> Self {
        Self { mount, bytes, _attached: None, _origin: None, _directory: None }
    }
}

/// A mount that is attached in the namespace until this is dropped.
#[derive(Debug)]
pub(crate) struct Attached {
    namespace: Arc<Namespace>,
    name: CString,
}

impl Namespace {
    /// Starts the thread. `images` is an empty directory for mount points; `blobs` holds the content
    /// of lower layers that have none.
    pub(crate) fn start(
        staging: PathBuf,
        images: PathBuf,
        blobs: Option<PathBuf>,
    ) -> Result<Self, PresentError> {
        let thread = MountThread::start(move || {
            Ok(Directories {
                staging: open_path(&staging)?,
                images: open_path(&images)?,
                blobs: blobs.as_deref().map(open_path).transpose()?,
            })
        })?;
        Ok(Self { thread, next_image: AtomicU64::new(0) })
    }

    /// Makes a mount in the namespace and attaches it there.
    pub(crate) fn attach(
        self: &Arc<Self>,
        make: impl FnOnce() -> Result<OwnedFd, PresentError> + Send + 'static,
    ) -> Result<(OwnedFd, Attached), PresentError> {
        let number = self.next_image.fetch_add(1, Ordering::Relaxed);
        let name = CString::new(number.to_string()).unwrap_or_default();
        let point = name.clone();
        let mount = self.thread.run(move |directories| {
            let mount = make()?;
            rustix::fs::mkdirat(&directories.images, &*point, Mode::from_raw_mode(0o700))
                .map_err(PresentError::staging("mkdir(mount point)"))?;
            sys::mount::attach(mount.as_fd(), directories.images.as_fd(), &point)?;
            Ok::<_, PresentError>(mount)
        })??;
        Ok((mount, Attached { namespace: Arc::clone(self), name }))
    }

    /// Makes an overlay of an attached image and a staging directory.
    pub(crate) fn overlay(
        &self,
        image: &Arc<LowerLayer>,
        staging: &CStr,
        access: Access,
        marks: Marks,
    ) -> Result<OwnedFd, PresentError> {
        let image = Arc::clone(image);
        let staging = staging.to_owned();
        self.thread.run(move |directories| {
            let directory = open_directory(&directories.staging, &staging)
                .map_err(PresentError::staging("open(staging)"))?;
            let open = |name| {
                open_directory(&directory, name).map_err(PresentError::staging("open(staging)"))
            };
            let (upper, work) = (open(c"upper")?, open(c"work")?);
            let layers = Layers {
                upper: upper.as_fd(),
                work: work.as_fd(),
                image: image.mount.as_fd(),
                blobs: directories.blobs.as_ref().map(AsFd::as_fd),
                marks,
            };
            Ok(mount_overlay(layers, access, Dialect::Paths)?)
        })?
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        let name = self.name.clone();
        let detached = self.namespace.thread.run(move |directories| {
            let base = sys::mount::descriptor_path(&directories.images);
            let path = format!("{base}/{}", name.to_string_lossy());
            let path = CString::new(path).unwrap_or_default();
            sys::mount::detach(&path)?;
            rustix::fs::unlinkat(&directories.images, &*name, AtFlags::REMOVEDIR)
                .map_err(PresentError::staging("rmdir(mount point)"))
        });
        if let Err(error) | Ok(Err(error)) = detached {
            let error = Chain(&error);
            tracing::warn!(%error, "the image of an input root could not be unmounted");
        }
    }
}
