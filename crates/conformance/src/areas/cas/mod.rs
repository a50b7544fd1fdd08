//! `ContentAddressableStorage`: asking for blobs, and moving small ones in batches.

mod batches;
mod compressed;
mod digests;
mod limits;
mod missing;
mod requests;

use crate::check::Check;

pub(super) const CHECKS: &[&[Check]] =
    &[missing::CHECKS, digests::CHECKS, batches::CHECKS, limits::CHECKS, compressed::CHECKS];
