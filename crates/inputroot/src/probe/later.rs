//! A strategy that is chosen when the disk has room for a trial.
//!
//! A trial makes directories and files beside the store. On a full disk none of them works, whatever the kernel can do. A
//! server starts there nevertheless, because its cache works, and runs actions as soon as it can.

use std::sync::{Arc, OnceLock};

use model::{DigestFunction, DigestFunctions, InputTree};
use parking_lot::Mutex;

use super::names::StrategyName;
use super::selection::{Site, choose_again};
use crate::error::PresentError;
use crate::strategies::{InputRoots, PresentRequest, Presented};

/// See the module.
pub(super) struct Later {
    site: Site,
    forced: Option<StrategyName>,
    chosen: OnceLock<Box<dyn InputRoots>>,
    /// Trials use one directory.
    turn: Mutex<()>,
}

impl Later {
    pub(super) fn new(site: Site, forced: Option<StrategyName>) -> Self {
        Self { site, forced, chosen: OnceLock::new(), turn: Mutex::new(()) }
    }

    /// The strategy, chosen now if it was not yet.
    fn chosen(&self) -> Result<&dyn InputRoots, PresentError> {
        if let Some(chosen) = self.chosen.get() {
            return Ok(&**chosen);
        }
        let _turn = self.turn.lock();
        if let Some(chosen) = self.chosen.get() {
            return Ok(&**chosen);
        }
        let chosen = choose_again(&self.site, self.forced)?;
        tracing::info!(strategy = chosen.name(), "input roots");
        Ok(&**self.chosen.get_or_init(|| chosen))
    }
}

impl InputRoots for Later {
    fn name(&self) -> &'static str {
        self.chosen.get().map_or("chosen later", |chosen| chosen.name())
    }

    fn functions(&self) -> DigestFunctions {
        match self.chosen.get() {
            Some(chosen) => chosen.functions(),
            None => DigestFunctions::of(DigestFunction::ALL),
        }
    }

    fn present(
        &self,
        tree: &Arc<InputTree>,
        request: &PresentRequest<'_>,
    ) -> Result<Presented, PresentError> {
        self.chosen()?.present(tree, request)
    }
}
