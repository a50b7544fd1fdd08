//! The interface of all strategies: a tree goes in, a mount comes out.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use model::{DigestFunctions, InputTree, RelPath};

use crate::access::HostUser;
use crate::error::PresentError;
use crate::interrupt::Interrupt;
use crate::staging::{Leftovers, OutputView};

/// Makes input trees appear.
///
/// Every blob of the tree must be in the store and stay there until the result is discarded: a file
/// whose blob is missing can be seen and not be opened.
pub trait InputRoots: Send + Sync {
    /// The strategy's name, as in the flag that forces it.
    fn name(&self) -> &'static str;

    /// The digest functions whose trees can be presented.
    fn functions(&self) -> DigestFunctions;

    /// Whether [`PresentRequest::user`] can be set.
    fn maps_users(&self) -> bool {
        false
    }

    /// Makes `tree` ready to be attached as an action's input root.
    fn present(
        &self,
        tree: &Arc<InputTree>,
        request: &PresentRequest<'_>,
    ) -> Result<Presented, PresentError>;
}

/// The demands of an action on its input root.
#[derive(Debug, Clone, Copy, Default)]
pub struct PresentRequest<'a> {
    /// Whether the action may write to its input files, in its own view only.
    pub mutable: bool,
    /// Directories that the action finds when it starts, whether or not they are in the tree. Like
    /// all directories of an input root they belong to the action (65534, mode 0755).
    pub make_directories: &'a [RelPath],
    /// Directories of the tree from which on writes are closed (`true`) or open. The sandbox mounts them
    /// onto themselves, with all mounts of the input root that are below them.
    pub write_changes: &'a [(RelPath, bool)],
    /// The owner of what belongs to the action, as the sandbox sees it: on disk that is 65534 all the same. Only for
    /// strategies with [`InputRoots::maps_users`]; others fail. Without it the owner is 65534 of the host.
    pub user: Option<HostUser<'a>>,
    /// Asked while many entries are made, which takes seconds and disk.
    pub interrupt: Interrupt<'a>,
}

/// The way in which an input root gets into a sandbox.
#[derive(Debug)]
pub enum Attachment {
    /// A detached mount, to be attached as it is.
    Mount(Arc<OwnedFd>),
}

/// An input root for one action.
///
/// [`Presented::discard`] hands everything to the background. Dropping it does the same, but closes
/// the mount on the spot.
#[derive(Debug)]
pub struct Presented {
    // Dropped in this order: the janitor gets the leftovers when nothing uses the directories.
    attachment: Attachment,
    outputs: OutputView,
    leftovers: Leftovers,
}

impl Presented {
    pub(crate) fn new(mount: Arc<OwnedFd>, outputs: OutputView, leftovers: Leftovers) -> Self {
        Self { attachment: Attachment::Mount(mount), outputs, leftovers }
    }

    /// The mount for a sandbox; good for one sandbox only.
    pub fn attachment(&self) -> &Attachment {
        &self.attachment
    }

    /// A view on what the action left behind, once all of its processes are dead.
    pub fn outputs(&self) -> OutputView {
        self.outputs.clone()
    }

    /// Unmounts the input root and deletes what is in it, in the background; to be called when the
    /// answer is out. Waits only if very much is waiting already.
    ///
    /// No [`OutputView`] may be used any more.
    pub fn discard(self) {
        let Self { attachment, outputs, mut leftovers } = self;
        drop(outputs);
        let Attachment::Mount(mount) = attachment;
        leftovers.retired.mounts.push(mount);
    }
}
