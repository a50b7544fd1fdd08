//! `ByteStream` for uncompressed blobs: reading, writing, resuming.

mod contents;
mod names;
mod progress;
mod reading;
mod requests;
mod resuming;
mod writing;

pub(super) use progress::nothing_is_committed;
pub(super) use requests::upload_name;

use crate::check::Check;

pub(super) const CHECKS: &[&[Check]] = &[
    writing::CHECKS,
    resuming::CHECKS,
    contents::CHECKS,
    names::CHECKS,
    reading::CHECKS,
    progress::CHECKS,
];
