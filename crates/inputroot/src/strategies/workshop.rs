//! The part that all strategies share: staging directories before an action, the janitor after it.
//!
//! A [`Strategy`] only makes a mount of a tree and a staging directory. The workshop takes the staging
//! directory, has the mount made, and hands both to the janitor in the end.

use std::fmt;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::{DigestFunction, DigestFunctions, InputTree};

use super::input_roots::{InputRoots, PresentRequest, Presented};
use crate::access::{Access, HostUser, has_own_user};
use crate::directory::open_path;
use crate::error::PresentError;
use crate::interrupt::Interrupt;
use crate::mounts::{LowerLayer, Mounter};
use crate::staging::{
    Janitor, Leftovers, MappedLayers, OutputView, Retired, Source, Staging, StagingPool,
    make_directories,
};

/// The number of staging directories made at the start: enough for the first actions of a build, so
/// that none of them waits for the file system's journal.
const PREPARED_STAGING: usize = 8;

/// The directories that a strategy works in.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    /// An empty directory that the strategy has for itself, on a real file system.
    pub(crate) work: PathBuf,
    /// The store's blobs.
    pub(crate) blobs: PathBuf,
}

/// One way to make a tree appear.
pub(crate) trait Strategy: fmt::Debug + Send + Sync {
    /// The digest functions whose trees can be presented.
    fn functions(&self) -> DigestFunctions {
        DigestFunctions::of(DigestFunction::ALL)
    }

    /// Fails if the tree cannot be presented, before anything is made for it.
    fn check(&self, _tree: &InputTree, _request: &PresentRequest<'_>) -> Result<(), PresentError> {
        Ok(())
    }

    /// Whether [`Job::user`] can be set.
    fn maps_users(&self) -> bool {
        false
    }

    /// Makes the mount of an input root.
    fn mount(&self, job: &mut Job<'_>) -> Result<OwnedFd, PresentError>;

    /// The place where an [`OutputView`] finds the outputs of the action.
    fn source(&self, job: &Job<'_>, mount: &Arc<OwnedFd>) -> Source {
        let (merged, upper) = (Arc::clone(mount), Arc::clone(&job.staging.upper));
        match job.access {
            // Without a user of the action's own, nothing tells its files from inputs.
            Access::Strict if !has_own_user() => Source::Mutable { merged, upper },
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
    /// The user of the host that the action has for itself, if any.
    pub(crate) user: Option<HostUser<'a>>,
    /// The layers in `staging` as that user sees them.
    pub(crate) mapped: Option<&'a MappedLayers>,
    /// Images that have to live as long as the mount.
    pub(crate) images: &'a mut Vec<Arc<LowerLayer>>,
    /// Takes images that nothing needs any more.
    pub(crate) janitor: &'a Janitor,
    /// For strategies that make an entry on disk for each of the tree's.
    pub(crate) interrupt: Interrupt<'a>,
}

impl Job<'_> {
    /// Makes an overlay of `layer`, which `mounter` has made for the job's user, and the staging directory.
    pub(crate) fn overlay(
        &mut self,
        mounter: &Mounter,
        layer: Arc<LowerLayer>,
    ) -> Result<OwnedFd, PresentError> {
        let mount = mounter.overlay(&layer, self.staging.as_upper(self.mapped), self.access);
        self.images.push(layer);
        mount
    }
}

/// A strategy with all that it needs to run.
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

    fn functions(&self) -> DigestFunctions {
        self.strategy.functions()
    }

    fn maps_users(&self) -> bool {
        self.strategy.maps_users()
    }

    fn present(
        &self,
        tree: &Arc<InputTree>,
        request: &PresentRequest<'_>,
    ) -> Result<Presented, PresentError> {
        let (access, user) = (Access::new(request.mutable), request.user);
        if user.is_some() && !self.strategy.maps_users() {
            return Err(PresentError::UnmappedUser);
        }
        self.strategy.check(tree, request)?;
        let mut leftovers = Leftovers::new(&self.janitor);
        let Retired { staging, images, .. } = &mut leftovers.retired;
        // From here on the janitor gets the staging directory back, also after an error.
        let staging = staging.insert(self.staging.take()?);
        make_directories(&staging.upper, tree, request.make_directories, request.interrupt)?;
        let janitor = &self.janitor;
        let interrupt = request.interrupt;
        let mapped = user.map(|user| self.staging.map(staging, user)).transpose()?;
        let mapped = mapped.as_ref();
        let mut job = Job { tree, access, staging, user, mapped, images, janitor, interrupt };
        let mount = Arc::new(self.strategy.mount(&mut job)?);
        let outputs = OutputView::new(self.strategy.source(&job, &mount));
        Ok(Presented::new(mount, outputs, leftovers))
    }
}
