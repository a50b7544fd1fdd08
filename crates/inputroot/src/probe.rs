//! Which strategies work here, found by trying: versions lie, since distributions move features
//! between them, and the file system of the state has its say too.
//!
//! A trial has a tree and blobs of its own, beside the store.

use std::fmt;
use std::fs;
use std::path::Path;
use std::str::FromStr;

use store::Store;

use crate::actiondfs::ActiondFs;
use crate::bind::BindMounts;
use crate::erofs_overlay::{ErofsOverlay, Places};
use crate::error::PresentError;
use crate::image::Backing;
use crate::overlay::Dialect;
use crate::present::InputRoots;
use crate::trial::{Trial, TrialError};

/// A way to present input roots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StrategyName {
    /// The kernel reads the tree out of the store. Our own guest's kernel.
    ActiondFs,
    /// An EROFS image in a file, and an overlay. Linux 6.12, state on ext4, xfs or the like.
    ErofsFile,
    /// An EROFS image on a loop device, and an overlay. Linux 6.5.
    ErofsLoop,
    /// A bind mount for every input. Linux 5.12.
    Bind,
}

impl StrategyName {
    /// All of them, the best first.
    pub const ALL: [Self; 4] = [Self::ActiondFs, Self::ErofsFile, Self::ErofsLoop, Self::Bind];

    /// The name in flags and reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ActiondFs => "actiondfs",
            Self::ErofsFile => "erofs-file",
            Self::ErofsLoop => "erofs-loop",
            Self::Bind => "bind",
        }
    }

    /// The ways in which it can be done, the best first.
    fn variants(self) -> &'static [Variant] {
        match self {
            Self::ActiondFs => &[Variant::ActiondFs],
            Self::ErofsFile => &[
                Variant::Erofs(Backing::File, Dialect::Descriptors),
                Variant::Erofs(Backing::File, Dialect::Paths),
            ],
            Self::ErofsLoop => &[
                Variant::Erofs(Backing::Loop, Dialect::Descriptors),
                Variant::Erofs(Backing::Loop, Dialect::Paths),
            ],
            Self::Bind => &[Variant::Bind],
        }
    }
}

impl fmt::Display for StrategyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that names no strategy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no input root strategy {0:?}")]
pub struct UnknownStrategy(String);

impl FromStr for StrategyName {
    type Err = UnknownStrategy;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let known = Self::ALL.into_iter().find(|strategy| strategy.as_str() == name);
        known.ok_or_else(|| UnknownStrategy(name.to_owned()))
    }
}

/// What the trial of a strategy gave.
#[derive(Debug)]
pub struct StrategyReport {
    /// The strategy.
    pub name: StrategyName,
    /// How it works here, or why it does not.
    pub outcome: Result<&'static str, TrialError>,
}

/// Why no strategy was chosen.
#[derive(Debug, thiserror::Error)]
pub enum ChooseError {
    /// None of those that were allowed works here.
    #[error("no input root strategy works here: {}", list(.0))]
    NoneWorks(Vec<StrategyReport>),
    /// The one that passed its trial does not come up with the store.
    #[error("starting the input root strategy {name}: {source}")]
    Start {
        /// The strategy.
        name: StrategyName,
        /// What went wrong.
        source: PresentError,
    },
}

fn list(reports: &[StrategyReport]) -> String {
    let failed = reports.iter().filter_map(|report| {
        let error = report.outcome.as_ref().err()?;
        Some(format!("{}: {error}", report.name))
    });
    failed.collect::<Vec<_>>().join("; ")
}

/// Tries every strategy with the state directory of `store`.
pub fn probe(store: &Store) -> Vec<StrategyReport> {
    let report = |name| StrategyReport {
        name,
        outcome: first_that_works(store, name).map(Variant::description),
    };
    StrategyName::ALL.into_iter().map(report).collect()
}

/// The best strategy that works with `store`, or the one that is `forced`, if that works.
pub fn choose(
    store: &Store,
    forced: Option<StrategyName>,
) -> Result<Box<dyn InputRoots>, ChooseError> {
    let mut reports = Vec::new();
    for name in StrategyName::ALL {
        if forced.is_some_and(|forced| forced != name) {
            continue;
        }
        match first_that_works(store, name) {
            Ok(variant) => {
                return start(store, name, variant)
                    .map_err(|source| ChooseError::Start { name, source });
            }
            Err(error) => reports.push(StrategyReport { name, outcome: Err(error) }),
        }
    }
    Err(ChooseError::NoneWorks(reports))
}

/// A strategy as it can be on one kernel or another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Variant {
    ActiondFs,
    Erofs(Backing, Dialect),
    Bind,
}

impl Variant {
    fn description(self) -> &'static str {
        match self {
            Self::ActiondFs => "a file system made for it",
            Self::Erofs(Backing::File, Dialect::Descriptors) => {
                "image in a file, layers by descriptor"
            }
            Self::Erofs(Backing::File, Dialect::Paths) => "image in a file, layers by path",
            Self::Erofs(Backing::Loop, Dialect::Descriptors) => {
                "image on a loop device, layers by descriptor"
            }
            Self::Erofs(Backing::Loop, Dialect::Paths) => "image on a loop device, layers by path",
            Self::Bind => "a mount for every input",
        }
    }

    pub(crate) fn open(
        self,
        name: StrategyName,
        places: &Places,
    ) -> Result<Box<dyn InputRoots>, PresentError> {
        let name = name.as_str();
        Ok(match self {
            Self::ActiondFs => Box::new(ActiondFs::open(name, places)?),
            Self::Erofs(backing, dialect) => {
                Box::new(ErofsOverlay::open(name, backing, dialect, places)?)
            }
            Self::Bind => Box::new(BindMounts::open(name, places)?),
        })
    }
}

/// Starts a strategy for real.
fn start(
    store: &Store,
    name: StrategyName,
    variant: Variant,
) -> Result<Box<dyn InputRoots>, PresentError> {
    let work = store.work_dir().join("input-roots");
    fs::create_dir_all(&work).map_err(PresentError::store_image("mkdir(input-roots)"))?;
    variant.open(name, &Places { work, blobs: store.cas().blobs_path().to_owned() })
}

/// The best variant that works; if none does, the error of the last.
fn first_that_works(store: &Store, name: StrategyName) -> Result<Variant, TrialError> {
    let mut outcome = Err(TrialError::Wrong("the strategy has no variant"));
    for &variant in name.variants() {
        let directory = store.work_dir().join("input-root-trial");
        outcome = trial(&directory, name, variant).map(|()| variant);
        if let Err(error) = fs::remove_dir_all(&directory) {
            tracing::warn!(%error, directory = %directory.display(), "a trial left files behind");
        }
        if outcome.is_ok() {
            break;
        }
    }
    outcome
}

fn trial(directory: &Path, name: StrategyName, variant: Variant) -> Result<(), TrialError> {
    let places = Places { work: directory.join("work"), blobs: directory.join("blobs") };
    for path in [&places.work, &places.blobs] {
        let io = |source| TrialError::Io { step: "making a directory for the trial", source };
        fs::create_dir_all(path).map_err(io)?;
    }
    let trial = Trial::prepare(&places.blobs)?;
    trial.run(&*variant.open(name, &places)?)
}
