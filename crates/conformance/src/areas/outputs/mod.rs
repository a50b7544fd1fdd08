//! The outputs of an action in its `ActionResult`.

mod files;
mod kinds;
mod properties;
mod run;
mod trees;

use crate::check::Check;

pub(super) const CHECKS: &[&[Check]] =
    &[files::CHECKS, trees::CHECKS, kinds::CHECKS, properties::CHECKS];
