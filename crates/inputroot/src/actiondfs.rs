//! The strategy for the kernel of our own guest: actiondfs, which is told the root's digest and
//! reads directories and files out of the store by itself, when somebody looks at them.
//!
//! ```text
//! strict    actiondfs: root=, root_size=, cas=<blobs>/<function>, stage=<staging>/upper
//! mutable   overlay:   upper  <staging>/upper
//!                      lower  actiondfs: root=, root_size=, cas=, uid=, gid=; read-only
//! ```
//!
//! Nothing is built and nothing read before the action runs, whatever the size of the tree. What
//! the action makes lies in the stage under the path that it has in the tree, as in the upper
//! directory of an overlay: both are prepared, searched for outputs and emptied by the same code.
//!
//! The kernel leaves two things to its caller: the stage lies below a directory that only root can
//! enter, and nobody touches it while it is mounted. Both hold for the directories of
//! [`StagingPool`]. Their sticky bit, which the kernel does not ask for, changes nothing: everything
//! in a stage has one owner.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use model::{ACTION_ID, Digest, DigestFunction, InputTree};
use sys::mount::{FsContext, MountAttributes, MountError, descriptor_path};

use crate::access::Access;
use crate::directory::{make_path, open_path};
use crate::erofs_overlay::Places;
use crate::error::PresentError;
use crate::image::Image;
use crate::janitor::Janitor;
use crate::namespace::Namespace;
use crate::outputs::OutputView;
use crate::present::{Attachment, InputRoots, Leftovers, PresentRequest, Presented};
use crate::staging::{Staging, StagingPool};

/// As for the other strategies: enough for the first actions of a build.
const PREPARED_STAGING: usize = 8;

const ATTRIBUTES: MountAttributes = MountAttributes::MOUNT_ATTR_NOSUID
    .union(MountAttributes::MOUNT_ATTR_NODEV)
    .union(MountAttributes::MOUNT_ATTR_NOATIME);

/// Input roots that the kernel reads out of the store.
#[derive(Debug)]
pub(crate) struct ActiondFs {
    name: &'static str,
    sha256: BlobStore,
    blake3: BlobStore,
    /// Where the overlays of mutating actions are made.
    overlays: Arc<Namespace>,
    staging: Arc<StagingPool>,
    janitor: Arc<Janitor>,
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
    pub(crate) fn open(name: &'static str, places: &Places) -> Result<Self, PresentError> {
        let sha256 = BlobStore::open(DigestFunction::Sha256, places)?;
        let blake3 = BlobStore::open(DigestFunction::Blake3, places)?;
        let staging_path = make_path(&places.work, "staging")?;
        let lower_path = make_path(&places.work, "images")?;
        let staging = StagingPool::new(open_path(&staging_path)?, PREPARED_STAGING)?;
        let staging = Arc::new(staging);
        let overlays = Arc::new(Namespace::start(staging_path, lower_path, None)?);
        let janitor = Janitor::start(&staging).map_err(|source| PresentError::Thread { source })?;
        Ok(Self { name, sha256, blake3, overlays, staging, janitor: Arc::new(janitor) })
    }

    /// The tree of `root`, to be configured further and mounted.
    fn tree(&self, root: &Digest) -> Result<FsContext, MountError> {
        match root.function() {
            DigestFunction::Sha256 => self.sha256.tree(root),
            DigestFunction::Blake3 => self.blake3.tree(root),
        }
    }

    fn strict(&self, root: &Digest, staging: &Staging) -> Result<OwnedFd, PresentError> {
        let tree = self.tree(root)?;
        tree.string("stage", &descriptor_path(&*staging.upper))?;
        Ok(tree.mount(ATTRIBUTES)?)
    }

    /// The overlay, and what has to live as long as it.
    fn mutable(
        &self,
        root: &Digest,
        staging: &Staging,
    ) -> Result<(OwnedFd, Arc<Image>), PresentError> {
        let tree = self.tree(root)?;
        let id = ACTION_ID.to_string();
        tree.string("uid", &id)?;
        tree.string("gid", &id)?;
        let make = move || tree.mount(ATTRIBUTES | MountAttributes::MOUNT_ATTR_RDONLY);
        let (mount, attached) = self.overlays.attach(make)?;
        let lower = Arc::new(Image { mount, bytes: 0, _attached: Some(attached) });
        Ok((self.overlays.overlay(&lower, staging)?, lower))
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

impl InputRoots for ActiondFs {
    fn name(&self) -> &'static str {
        self.name
    }

    fn present(
        &self,
        tree: &Arc<InputTree>,
        request: &PresentRequest<'_>,
    ) -> Result<Presented, PresentError> {
        let access = Access::new(request.mutable);
        let mut leftovers = Leftovers::new(&self.janitor);
        let staging = leftovers.stage(&self.staging, tree, request)?;
        let upper = Arc::clone(&staging.upper);
        let mount = match access {
            Access::Strict => self.strict(&tree.root_digest(), staging)?,
            Access::Mutable => {
                let (mount, lower) = self.mutable(&tree.root_digest(), staging)?;
                leftovers.retired.images.push(lower);
                mount
            }
        };
        let outputs = OutputView::over(access, tree, &mount, upper)?;
        Ok(Presented::new(Attachment::Mount(mount), outputs, leftovers))
    }
}
