//! An imported image as a view that actions can choose.

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

use crate::record::Record;

/// Below the root directory: where images are mounted, for the daemon alone to see.
pub(crate) const MOUNT_POINTS: &str = "images/mounted";

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

#[derive(Debug)]
struct MountedImage {
    // In this order: what is attached is made of what is presented, and that of pinned blobs.
    _attached: Attached,
    _presented: Presented,
    _pin: Pinned,
}

/// Mounts an image, in the calling thread's mount namespace, and gives the view of it, which holds the mount. `mount`
/// is the number of its mount point.
pub(crate) fn open(
    store: &Store,
    input_roots: &dyn InputRoots,
    record: &Record,
    mount: u64,
) -> Result<Rootfs, OpenImageError> {
    let tree = Arc::new(assemble(store.cas(), record.root)?);
    // Pinned first and asked second: what is found present then stays.
    let pin = Pinned(store.cas().pin(Arc::<InputTree>::clone(&tree)));
    let missing = store.cas().missing(tree.blobs()).len();
    if missing > 0 {
        return Err(OpenImageError::Incomplete(missing));
    }
    let presented = input_roots.present(&tree, &PresentRequest::default())?;
    let path = store.path().join(MOUNT_POINTS).join(mount.to_string());
    let attached = Attached::at(path, &presented)?;
    let content = record.root.to_string();
    let view = runtimes::image_rootfs(&attached.path, record.name.as_str(), &content)?;
    Ok(view.holding(MountedImage { _attached: attached, _presented: presented, _pin: pin }))
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

/// A mount that is attached, at a directory of its own, until this is dropped.
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
        // What is left is removed at the next start.
        let _ = std::fs::remove_dir(&self.path);
    }
}

/// A path that the system has used already, so there is no NUL in it.
fn c_path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap_or_default()
}
