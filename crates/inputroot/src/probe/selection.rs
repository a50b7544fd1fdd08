//! Tries strategies, and starts the best one that works.
//!
//! A trial has a tree and blobs of its own, beside the store.

use std::fs;
use std::path::{Path, PathBuf};

use chain::Chain;
use rustix::fs::statvfs;
use rustix::io::Errno;
use store::Store;

use super::names::StrategyName;
use super::trial::{Trial, TrialError};
use super::variant::Variant;
use crate::error::PresentError;
use crate::strategies::{InputRoots, Places};

/// The outcome of a strategy's trial.
#[derive(Debug)]
pub struct StrategyReport {
    /// The strategy.
    pub name: StrategyName,
    /// The way in which it works here, or the reason why it does not.
    pub outcome: Result<&'static str, TrialError>,
}

/// An error of choosing a strategy.
#[derive(Debug, thiserror::Error)]
pub enum ChooseError {
    /// None of those that were allowed works here.
    #[error("no input root strategy works here: {}", list(.0))]
    NoneWorks(Vec<StrategyReport>),
    /// The one that passed its trial does not come up with the store.
    #[error("starting the input root strategy {name}")]
    Start {
        /// The strategy.
        name: StrategyName,
        /// The problem.
        source: PresentError,
    },
}

impl ChooseError {
    /// Whether a strategy failed because the disk has no room for its files.
    pub(super) fn is_about_space(&self, site: &Site) -> bool {
        match self {
            Self::NoneWorks(reports) => reports.iter().any(|report| {
                let error = report.outcome.as_ref().err();
                is_about_space(error.and_then(TrialError::errno), site)
            }),
            Self::Start { source, .. } => is_about_space(source.errno(), site),
        }
    }
}

fn is_about_space(errno: Option<Errno>, site: &Site) -> bool {
    match errno {
        Some(Errno::DQUOT) => true,
        // Too many mounts or user namespaces are the same error.
        Some(Errno::NOSPC) => site.is_nearly_full(),
        _ => false,
    }
}

/// The directories of a store that strategies use.
#[derive(Debug, Clone)]
pub(super) struct Site {
    work: PathBuf,
    blobs: PathBuf,
}

/// Fewer free bytes or inodes than this are none to a trial, which takes some of both.
const FREE_BYTES_MIN: u64 = 4 << 20;
const FREE_INODES_MIN: u64 = 64;

impl Site {
    pub(super) fn of(store: &Store) -> Self {
        Self { work: store.work_dir().to_owned(), blobs: store.cas().blobs_path().to_owned() }
    }

    fn is_nearly_full(&self) -> bool {
        statvfs(&self.work).is_ok_and(|disk| {
            disk.f_bavail.saturating_mul(disk.f_frsize) < FREE_BYTES_MIN
                || (disk.f_files > 0 && disk.f_ffree < FREE_INODES_MIN)
        })
    }
}

fn list(reports: &[StrategyReport]) -> String {
    let failed = reports.iter().filter_map(|report| {
        let error = report.outcome.as_ref().err()?;
        Some(format!("{}: {}", report.name, Chain(error)))
    });
    failed.collect::<Vec<_>>().join("; ")
}

/// Tries every strategy with the state directory of `store`.
pub fn probe(store: &Store) -> Vec<StrategyReport> {
    let site = Site::of(store);
    let report = |name| StrategyReport {
        name,
        outcome: first_that_works(&site, name).map(Variant::description),
    };
    StrategyName::ALL.into_iter().map(report).collect()
}

/// Chooses again, for a strategy that could not be chosen at the start.
pub(super) fn choose_again(
    site: &Site,
    forced: Option<StrategyName>,
) -> Result<Box<dyn InputRoots>, PresentError> {
    choose_now(site, forced).map_err(|error| PresentError::NoStrategy {
        is_full: error.is_about_space(site),
        reason: Chain(&error).to_string(),
    })
}

pub(super) fn choose_now(
    site: &Site,
    forced: Option<StrategyName>,
) -> Result<Box<dyn InputRoots>, ChooseError> {
    let mut reports = Vec::new();
    for name in StrategyName::ALL {
        if forced.is_some_and(|forced| forced != name) {
            continue;
        }
        match first_that_works(site, name) {
            Ok(variant) => {
                return start(site, name, variant)
                    .map_err(|source| ChooseError::Start { name, source });
            }
            Err(error) => {
                // One that lacks space now may be the best one later.
                let is_about_space = is_about_space(error.errno(), site);
                reports.push(StrategyReport { name, outcome: Err(error) });
                if is_about_space {
                    break;
                }
            }
        }
    }
    Err(ChooseError::NoneWorks(reports))
}

/// Starts a strategy for real.
fn start(
    site: &Site,
    name: StrategyName,
    variant: Variant,
) -> Result<Box<dyn InputRoots>, PresentError> {
    let work = site.work.join("input-roots");
    fs::create_dir_all(&work).map_err(PresentError::store_image("mkdir(input-roots)"))?;
    variant.open(name, &Places { work, blobs: site.blobs.clone() })
}

/// The best variant that works; if none does, the error of the last.
fn first_that_works(site: &Site, name: StrategyName) -> Result<Variant, TrialError> {
    let mut outcome = Err(TrialError::Wrong("the strategy has no variant"));
    for &variant in Variant::of(name) {
        let directory = site.work.join("input-root-trial");
        outcome = trial(&directory, name, variant).map(|()| variant);
        if let Err(error) = fs::remove_dir_all(&directory)
            && error.kind() != std::io::ErrorKind::NotFound
        {
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
