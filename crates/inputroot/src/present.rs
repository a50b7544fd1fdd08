//! The one interface of all strategies: a tree goes in, something to attach comes out.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use model::{InputTree, RelPath};

use crate::access::Access;
use crate::error::PresentError;
use crate::janitor::{Janitor, Retired};
use crate::make_directories::make_directories;
use crate::outputs::OutputView;
use crate::staging::{Staging, StagingPool};

/// Makes input trees appear.
///
/// Every blob of the tree must be in the store and stay there until the result is discarded: a file
/// whose blob is missing can be seen and not be opened.
pub trait InputRoots: Send + Sync {
    /// The strategy's name, as in the flag that forces it.
    fn name(&self) -> &'static str;

    /// Makes `tree` ready to be attached as an action's input root.
    fn present(
        &self,
        tree: &Arc<InputTree>,
        request: &PresentRequest<'_>,
    ) -> Result<Presented, PresentError>;
}

/// What an action needs of its input root.
#[derive(Debug, Clone, Copy, Default)]
pub struct PresentRequest<'a> {
    /// Whether the action may change its inputs, in its own view only.
    pub mutable: bool,
    /// Directories that the action finds when it starts, whether or not they are in the tree. Those
    /// that are not belong to the action (65534, mode 0755).
    pub make_directories: &'a [RelPath],
}

/// How an input root gets into a sandbox.
#[derive(Debug)]
pub enum Attachment {
    /// A detached mount, to be attached as it is.
    Mount(OwnedFd),
}

/// An input root for one action.
///
/// [`Presented::discard`] hands everything to the background. Dropping it does the same, but closes
/// the mount on the spot.
#[derive(Debug)]
pub struct Presented {
    // In this order: nothing may use the directories any more when the leftovers are put away.
    attachment: Attachment,
    outputs: OutputView,
    leftovers: Leftovers,
}

impl Presented {
    pub(crate) fn new(attachment: Attachment, outputs: OutputView, leftovers: Leftovers) -> Self {
        Self { attachment, outputs, leftovers }
    }

    /// How it gets into a sandbox; good for one sandbox only.
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
        leftovers.retired.mounts.extend(attachment.into_descriptors());
    }
}

impl Attachment {
    fn into_descriptors(self) -> Vec<OwnedFd> {
        match self {
            Self::Mount(mount) => vec![mount],
        }
    }
}

/// What goes to the janitor when it is dropped.
#[derive(Debug)]
pub(crate) struct Leftovers {
    pub(crate) retired: Retired,
    janitor: Arc<Janitor>,
}

impl Leftovers {
    /// Nothing yet.
    pub(crate) fn new(janitor: &Arc<Janitor>) -> Self {
        Self { retired: Retired::default(), janitor: Arc::clone(janitor) }
    }

    /// The staging directory of the input root, with the directories that the action is to find.
    /// From here on the janitor gets it back, whatever happens.
    pub(crate) fn stage(
        &mut self,
        pool: &StagingPool,
        tree: &InputTree,
        request: &PresentRequest<'_>,
    ) -> Result<&Staging, PresentError> {
        let access = Access::new(request.mutable);
        let staging = self.retired.staging.insert(pool.take(access)?);
        make_directories(&staging.upper, tree, access, request.make_directories)?;
        Ok(staging)
    }
}

impl Drop for Leftovers {
    fn drop(&mut self) {
        self.janitor.retire(std::mem::take(&mut self.retired));
    }
}
