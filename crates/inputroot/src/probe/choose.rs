//! Chooses a strategy for a store: now, or once the disk has space.

use chain::Chain;
use store::Store;

use super::later::Later;
use super::names::StrategyName;
use super::selection::{ChooseError, Site, choose_now};
use crate::strategies::InputRoots;

/// The best strategy that works with `store`, or the one that is `forced`, if that works. On a full disk, where no
/// trial works, it is chosen when an input tree is presented and the disk has space.
pub fn choose(
    store: &Store,
    forced: Option<StrategyName>,
) -> Result<Box<dyn InputRoots>, ChooseError> {
    let site = Site::of(store);
    match choose_now(&site, forced) {
        Ok(chosen) => Ok(chosen),
        Err(error) if error.is_about_space(&site) => {
            tracing::warn!(
                error = %Chain(&error),
                "the disk has no room for a trial of input roots: actions are refused until it has"
            );
            Ok(Box::new(Later::new(site, forced)))
        }
        Err(error) => Err(error),
    }
}
