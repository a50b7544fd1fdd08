//! `Execution`: an action from the request to the answer, and what is cached of it.

mod caching;
mod messages;
mod refusals;
mod running;
mod waiting;

pub(super) use caching::{is_cached, random};
pub(super) use refusals::code_of;

use crate::check::Check;

pub(super) const CHECKS: &[&[Check]] =
    &[running::CHECKS, messages::CHECKS, refusals::CHECKS, caching::CHECKS, waiting::CHECKS];
