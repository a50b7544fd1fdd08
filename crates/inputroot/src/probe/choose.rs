//! Tries strategies, and starts the best one that works.
//!
//! A trial has a tree and blobs of its own, beside the store.

use std::fs;
use std::path::Path;

use chain::Chain;
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

fn list(reports: &[StrategyReport]) -> String {
    let failed = reports.iter().filter_map(|report| {
        let error = report.outcome.as_ref().err()?;
        Some(format!("{}: {}", report.name, Chain(error)))
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
    for &variant in Variant::of(name) {
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
