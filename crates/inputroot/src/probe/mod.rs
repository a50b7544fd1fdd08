//! Finds out which strategies work by trying them.
//!
//! Kernel versions do not tell: distributions backport features, and the file system of the state
//! matters too.

mod choose;
mod later;
mod names;
mod selection;
mod trial;
mod variant;

pub use choose::choose;
pub use names::{StrategyName, UnknownStrategy};
pub use selection::{ChooseError, StrategyReport, probe};
#[cfg(test)]
pub(crate) use trial::Trial;
pub use trial::{TrialError, try_user};
#[cfg(test)]
pub(crate) use variant::Variant;
