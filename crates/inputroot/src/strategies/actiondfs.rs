//! The strategy for the kernel of our own guest: actiondfs, which is told the root's digest and
//! reads directories and files out of the store by itself, when somebody looks at them.
//!
//! ```text
//! upper  <staging>/upper
//! lower  actiondfs: root=, root_size=, cas=<blobs>/<function>, uid=, gid=, file_uid=, file_gid=
//! ```
//!
//! Nothing is built and nothing read before the action runs, whatever the size of the tree.
//!
//! An overlay gives the action the same rights over names that it has with the other strategies.
//! actiondfs can collect by itself what an action makes (`stage=`), and mounts faster then, but it
//! refuses every change of an input's name, that of an empty directory included.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use model::{Digest, DigestFunction, DigestFunctions, InputTree};
use sys::mount::{FsContext, MountAttributes, MountError, descriptor_path};

use super::input_roots::PresentRequest;
use super::workshop::{Job, Places, Strategy, Workshop};
use crate::access::action_id;
use crate::directory::{make_path, open_path};
use crate::error::PresentError;
use crate::mounts::{ATTRIBUTES, LowerLayer, Marks, Namespace};

/// Input roots that the kernel reads out of the store.
#[derive(Debug)]
pub(crate) struct ActiondFs {
    sha256: BlobStore,
    blake3: BlobStore,
    /// The directory in which the overlays are made.
    overlays: Arc<Namespace>,
}

/// The blobs of one digest function.
#[derive(Debug)]
struct BlobStore {
    directory: OwnedFd,
    /// An empty tree, which is never looked at. The kernel keeps what it knows of blobs as long as
    /// one mount of their directory lives: without this one, until no action runs.
    _warm: OwnedFd,
}

impl ActiondFs {
    /// The digest functions that the kernel's part knows: those with hashes of 32 bytes.
    pub(crate) const FUNCTIONS: [DigestFunction; 2] =
        [DigestFunction::Sha256, DigestFunction::Blake3];

    pub(crate) fn open(
        name: &'static str,
        places: &Places,
    ) -> Result<Workshop<Self>, PresentError> {
        let sha256 = BlobStore::open(DigestFunction::Sha256, places)?;
        let blake3 = BlobStore::open(DigestFunction::Blake3, places)?;
        let staging_path = make_path(&places.work, "staging")?;
        let lower_path = make_path(&places.work, "images")?;
        let overlays = Arc::new(Namespace::start(staging_path.clone(), lower_path, None)?);
        Workshop::open(name, &staging_path, Self { sha256, blake3, overlays })
    }

    /// The tree of `root`, to be configured further and mounted.
    fn tree(&self, root: &Digest) -> Result<FsContext, PresentError> {
        match root.function() {
            DigestFunction::Sha256 => Ok(self.sha256.tree(root)?),
            DigestFunction::Blake3 => Ok(self.blake3.tree(root)?),
            function => Err(PresentError::Function { function }),
        }
    }
}

impl Strategy for ActiondFs {
    fn functions(&self) -> DigestFunctions {
        DigestFunctions::of(Self::FUNCTIONS)
    }

    fn check(&self, tree: &InputTree, _request: &PresentRequest<'_>) -> Result<(), PresentError> {
        match tree.root_digest().function() {
            function if Self::FUNCTIONS.contains(&function) => Ok(()),
            function => Err(PresentError::Function { function }),
        }
    }

    fn mount(&self, job: &mut Job<'_>) -> Result<OwnedFd, PresentError> {
        let tree = self.tree(&job.tree.root_digest())?;
        let (action, owner) = (action_id().to_string(), job.access.file_owner().to_string());
        for (option, id) in
            [("uid", &action), ("gid", &action), ("file_uid", &owner), ("file_gid", &owner)]
        {
            tree.string(option, id)?;
        }
        let make = move || Ok(tree.mount(ATTRIBUTES | MountAttributes::MOUNT_ATTR_RDONLY)?);
        let (mount, attached) = self.overlays.attach(make)?;
        let lower = Arc::new(LowerLayer { _attached: Some(attached), ..LowerLayer::new(mount, 0) });
        job.images.push(Arc::clone(&lower));
        self.overlays.overlay(&lower, job.staging.name(), job.access, Marks::Trusted)
    }
}

impl BlobStore {
    fn open(function: DigestFunction, places: &Places) -> Result<Self, PresentError> {
        let directory = open_path(&places.blobs.join(function.name()))?;
        let empty = tree_in(&directory, &Digest::empty(function))?;
        let warm = empty.mount(ATTRIBUTES | MountAttributes::MOUNT_ATTR_RDONLY)?;
        Ok(Self { directory, _warm: warm })
    }

    fn tree(&self, root: &Digest) -> Result<FsContext, MountError> {
        tree_in(&self.directory, root)
    }
}

/// The tree of `root`, whose blobs are in `blobs`.
fn tree_in(blobs: &OwnedFd, root: &Digest) -> Result<FsContext, MountError> {
    let context = FsContext::open("actiondfs")?;
    context.string("root", &root.hex())?;
    context.string("root_size", &root.size_bytes().to_string())?;
    context.string("cas", &descriptor_path(blobs))?;
    Ok(context)
}
