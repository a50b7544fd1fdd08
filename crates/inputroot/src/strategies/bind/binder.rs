//! Binds blobs over placeholders, and takes the result out of the namespace as one mount.

use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use model::{Entry, InputTree};
use store::BlobPath;
use sys::mount::{MountAttributes, descriptor_path};

use super::super::on_disk::{c_string, failed, is_bound, walk};
use crate::directory::{make_path, open_directory, open_path};
use crate::error::PresentError;
use crate::mounts::{MountThread, clone_directory};

/// The directory of a thread's own in which it attaches mounts.
const ROOT: &CStr = c"root";
const BLOBS: &CStr = c"blobs";

/// The directories, opened in the thread's namespace.
#[derive(Debug)]
struct Directories {
    staging: OwnedFd,
    /// Holds the mount points.
    points: OwnedFd,
    /// Attached read-only, so that binds from it are read-only too.
    blobs: OwnedFd,
}

/// A thread that binds.
#[derive(Debug)]
pub(super) struct Binder {
    thread: MountThread<Directories>,
}

impl Binder {
    /// `points` is an empty directory.
    pub(super) fn start(
        staging: PathBuf,
        points: PathBuf,
        blobs: PathBuf,
    ) -> Result<Self, PresentError> {
        for point in ["root", "blobs"] {
            make_path(&points, point)?;
        }
        let thread = MountThread::start(move || {
            let points = open_path(&points)?;
            let read_only = MountAttributes::MOUNT_ATTR_RDONLY;
            let all_blobs = clone_directory(&open_path(&blobs)?, read_only)?;
            sys::mount::attach(all_blobs.as_fd(), points.as_fd(), BLOBS)?;
            let blobs = open_directory(&points, BLOBS).map_err(failed("open", BLOBS))?;
            Ok(Directories { staging: open_path(&staging)?, points, blobs })
        })?;
        Ok(Self { thread })
    }

    /// A detached mount of the staging directory of that name, which the tree was put into, with
    /// the blobs in their places.
    pub(super) fn bind(
        &self,
        tree: &Arc<InputTree>,
        staging: &CStr,
    ) -> Result<OwnedFd, PresentError> {
        let (tree, staging) = (Arc::clone(tree), staging.to_owned());
        self.thread.run(move |directories| directories.bind(&tree, &staging))?
    }
}

impl Directories {
    fn bind(&self, tree: &InputTree, staging: &CStr) -> Result<OwnedFd, PresentError> {
        let directory = open_directory(&self.staging, staging).map_err(failed("open", staging))?;
        let upper = open_directory(&directory, c"upper").map_err(failed("open", staging))?;
        let mount = clone_directory(&upper, MountAttributes::empty())?;
        sys::mount::attach(mount.as_fd(), self.points.as_fd(), ROOT)?;
        let bound = self.bind_below(tree);
        // The working directory of the thread would keep the mount alive.
        rustix::process::chdir(c"/").map_err(failed("chdir", c"/"))?;
        let point = format!("{}/{}", descriptor_path(&self.points), ROOT.to_string_lossy());
        sys::mount::detach(&c_string(point.as_bytes()))?;
        bound
    }

    fn bind_below(&self, tree: &InputTree) -> Result<OwnedFd, PresentError> {
        let root = open_directory(&self.points, ROOT).map_err(failed("open", ROOT))?;
        let blobs = descriptor_path(&self.blobs);
        walk(tree, root.as_fd(), &mut |directory, index| {
            let content = &tree.directories()[index].content;
            // Names relative to the working directory are never too long for a path.
            rustix::process::fchdir(directory).map_err(failed("fchdir", c"."))?;
            for entry in content.entries() {
                if let Entry::File { name, digest, executable } = entry
                    && is_bound(&digest, executable, &content.properties_of(name))
                {
                    let source = format!("{blobs}/{}", BlobPath::new(&digest).as_str());
                    // A name as it is could be "-", but never absolute, "." or "..".
                    sys::mount::bind(&c_string(source.as_bytes()), &c_string(name))?;
                }
            }
            Ok(())
        })?;
        Ok(sys::mount::clone_mounts(root.as_fd())?)
    }
}
