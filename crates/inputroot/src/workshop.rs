//! What all strategies have in common: staging directories, and putting away what is left.
//!
//! A strategy only makes a mount of a tree and a staging directory ([`Strategy`]). The workshop
//! takes the staging directory, has the mount made, and hands both to the janitor in the end.

use std::fmt;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use model::InputTree;

use crate::access::Access;
use crate::directory::open_path;
use crate::error::PresentError;
use crate::image::Image;
use crate::janitor::{Janitor, Retired};
use crate::make_directories::make_directories;
use crate::outputs::{OutputView, Source};
use crate::present::{InputRoots, PresentRequest, Presented};
use crate::staging::{Staging, StagingPool};

/// How many staging directories are made at the start: enough for the first actions of a build, so
/// that none of them waits for the file system's journal.
const PREPARED_STAGING: usize = 8;

/// One way to make a tree appear.
pub(crate) trait Strategy: fmt::Debug + Send + Sync {
    /// Fails if the tree is one that cannot be presented, before anything is made for it.
    fn check(&self, _tree: &InputTree, _access: Access) -> Result<(), PresentError> {
        Ok(())
    }

    /// Makes the mount of an input root.
    fn mount(&self, job: &mut Job<'_>) -> Result<OwnedFd, PresentError>;

    /// Where the outputs of an action are found.
    fn source(&self, job: &Job<'_>, mount: &Arc<OwnedFd>) -> Source {
        let (merged, upper) = (Arc::clone(mount), Arc::clone(&job.staging.upper));
        match job.access {
            Access::Strict => Source::Overlay { tree: Arc::clone(job.tree), merged, upper },
            Access::Mutable => Source::Mutable { merged, upper },
        }
    }
}

/// An input root that is being made.
#[derive(Debug)]
pub(crate) struct Job<'a> {
    pub(crate) tree: &'a Arc<InputTree>,
    pub(crate) access: Access,
    pub(crate) staging: &'a Staging,
    /// Images that have to live as long as the mount.
    pub(crate) images: &'a mut Vec<Arc<Image>>,
    /// Takes images that nothing needs any more.
    pub(crate) janitor: &'a Janitor,
}

/// A strategy at work.
#[derive(Debug)]
pub(crate) struct Workshop<S> {
    name: &'static str,
    // Before the janitor, which waits for what the strategy has handed over.
    strategy: S,
    staging: Arc<StagingPool>,
    janitor: Arc<Janitor>,
}

impl<S> Workshop<S> {
    /// `staging` is an empty directory for staging directories.
    pub(crate) fn open(
        name: &'static str,
        staging: &Path,
        strategy: S,
    ) -> Result<Self, PresentError> {
        let staging = Arc::new(StagingPool::new(open_path(staging)?, PREPARED_STAGING)?);
        let janitor = Janitor::start(&staging).map_err(|source| PresentError::Thread { source })?;
        Ok(Self { name, strategy, staging, janitor: Arc::new(janitor) })
    }
}

impl<S: Strategy> InputRoots for Workshop<S> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn present(
        &self,
        tree: &Arc<InputTree>,
        request: &PresentRequest<'_>,
    ) -> Result<Presented, PresentError> {
        let access = Access::new(request.mutable);
        self.strategy.check(tree, access)?;
        let mut leftovers = Leftovers::new(&self.janitor);
        let Retired { staging, images, .. } = &mut leftovers.retired;
        // From here on the janitor gets it back, whatever happens.
        let staging = staging.insert(self.staging.take()?);
        make_directories(&staging.upper, tree, request.make_directories)?;
        let mut job = Job { tree, access, staging, images, janitor: &self.janitor };
        let mount = Arc::new(self.strategy.mount(&mut job)?);
        let outputs = OutputView::new(self.strategy.source(&job, &mount));
        Ok(Presented::new(mount, outputs, leftovers))
    }
}

/// What goes to the janitor when it is dropped.
#[derive(Debug)]
pub(crate) struct Leftovers {
    pub(crate) retired: Retired,
    janitor: Arc<Janitor>,
}

impl Leftovers {
    fn new(janitor: &Arc<Janitor>) -> Self {
        Self { retired: Retired::default(), janitor: Arc::clone(janitor) }
    }
}

impl Drop for Leftovers {
    fn drop(&mut self) {
        self.janitor.retire(std::mem::take(&mut self.retired));
    }
}
