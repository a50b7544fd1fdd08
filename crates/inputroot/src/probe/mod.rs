//! Finds out which strategies work by trying them.
//!
//! Kernel versions do not tell: distributions backport features, and the file system of the state
//! matters too.

mod choose;
mod later;
mod names;
mod trial;
mod variant;

pub use choose::{ChooseError, StrategyReport, choose, probe};
pub use names::{StrategyName, UnknownStrategy};
#[cfg(test)]
pub(crate) use trial::Trial;
pub use trial::TrialError;
#[cfg(test)]
pub(crate) use variant::Variant;
