//! `ActionCache`: results of clients, and those of them that are served.

mod completeness;
mod inline;
mod refusals;
mod requests;
mod results;

use crate::check::Check;

pub(super) const CHECKS: &[&[Check]] =
    &[results::CHECKS, completeness::CHECKS, refusals::CHECKS, inline::CHECKS];
