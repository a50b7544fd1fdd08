//! Imported images as views that actions can choose.

use std::ffi::CString;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use inputroot::{Attachment, InputRoots, PresentError, PresentRequest, Presented};
use model::{AssembleError, Chain, Digest, Directory, InputTree, LoadError, TreeLimits};
use runtimes::Rootfs;
use store::{Cas, Pin, Store, StoreError};

use crate::record::{self, Record, RecordError};

/// Below the root directory: where images are mounted, for the daemon alone to see.
const MOUNT_POINTS: &str = "images/mounted";

/// Errors of presenting an image to actions.
#[derive(Debug, thiserror::Error)]
pub enum OpenImageError {
    /// A directory of it can't be read, or breaks the rules.
    #[error("cannot read the directories of the image: {0}")]
    Directories(String),
    /// The store has lost some of it.
    #[error("the store lost {0} blobs of the image: import it again")]
    Incomplete(usize),
    /// It can't be made to appear.
    #[error(transparent)]
    Present(#[from] PresentError),
    /// It can't be attached.
    #[error("cannot attach the image at {}", path.display())]
    Attach {
        /// The mount point.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// The image is not a root file system.
    #[error(transparent)]
    View(#[from] runtimes::OpenError),
}

/// The images that are mounted; given back when this is dropped.
#[derive(Debug, Default)]
pub struct Images {
    mounted: Vec<MountedImage>,
}

#[derive(Debug)]
struct MountedImage {
    // In this order: what is attached is made of what is presented, and that of pinned blobs.
    _attached: Attached,
    _presented: Presented,
    _pin: Pinned,
}

impl Images {
    /// Mounts every imported image, in the calling thread's mount namespace, and gives the view of
    /// each by the name of the image. One that can't be shown is left out with a warning: the
    /// others are as good without it.
    ///
    /// # Errors
    /// When the list of images can't be read.
    pub fn open(
        store: &Store,
        input_roots: &dyn InputRoots,
    ) -> Result<(Self, Vec<(String, Rootfs)>), RecordError> {
        let mut images = Self::default();
        let mut views = Vec::new();
        for record in record::list(store.path())? {
            let name = record.name.as_str().to_owned();
            match open(store, input_roots, &record, images.mounted.len()) {
                Ok((mounted, view)) => {
                    images.mounted.push(mounted);
                    views.push((name, view));
                }
                Err(error) => tracing::warn!(error = %Chain(&error), name, "an image is left out"),
            }
        }
        Ok((images, views))
    }
}

fn open(
    store: &Store,
    input_roots: &dyn InputRoots,
    record: &Record,
    number: usize,
) -> Result<(MountedImage, Rootfs), OpenImageError> {
    let tree = Arc::new(assemble(store.cas(), record.root)?);
    // Pinned first and asked second: what is found present then stays.
    let pin = Pinned(store.cas().pin(Arc::<InputTree>::clone(&tree)));
    let missing = store.cas().missing(tree.blobs()).len();
    if missing > 0 {
        return Err(OpenImageError::Incomplete(missing));
    }
    let presented = input_roots.present(&tree, &PresentRequest::default())?;
    let attached =
        Attached::at(store.path().join(MOUNT_POINTS).join(number.to_string()), &presented)?;
    let content = record.root.to_string();
    let view = runtimes::image_rootfs(&attached.path, record.name.as_str(), &content)?;
    Ok((MountedImage { _attached: attached, _presented: presented, _pin: pin }, view))
}

fn assemble(cas: &Cas, root: Digest) -> Result<InputTree, OpenImageError> {
    let mut load = |digest: &Digest| {
        let bytes = cas.read(digest).map_err(LoadError::<StoreError>::Failed)?;
        let parse = |bytes| Directory::parse(bytes, digest.function()).map(Arc::new);
        Ok(bytes.map(parse).transpose()?)
    };
    InputTree::assemble(root, TreeLimits::default(), &mut load).map_err(|error| match error {
        AssembleError::Missing(digests) => OpenImageError::Incomplete(digests.len()),
        other => OpenImageError::Directories(Chain(&other).to_string()),
    })
}

struct Pinned(#[expect(dead_code, reason = "held for its end")] Pin);

impl std::fmt::Debug for Pinned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pinned")
    }
}

/// A mount that is attached until this is dropped.
#[derive(Debug)]
struct Attached {
    path: PathBuf,
}

impl Attached {
    fn at(path: PathBuf, presented: &Presented) -> Result<Self, OpenImageError> {
        let failed = |source| OpenImageError::Attach { path: path.clone(), source };
        std::fs::create_dir_all(&path).map_err(failed)?;
        let Attachment::Mount(mount) = presented.attachment();
        sys::mount::attach(mount.as_fd(), rustix::fs::CWD, &c_path(&path))
            .map_err(|error| failed(io::Error::other(error)))?;
        Ok(Self { path })
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        if let Err(error) = sys::mount::detach(&c_path(&self.path)) {
            tracing::warn!(error = %Chain(&error), "an image could not be unmounted");
        }
    }
}

/// A path that the system has used already, so there is no NUL in it.
fn c_path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap_or_default()
}
