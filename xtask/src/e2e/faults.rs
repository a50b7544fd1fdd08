//! `cargo xtask e2e faults`: the daemon under load on a disk that loses power and fails.
//!
//! The disk and the checks are the test `store_faults` of `actiond`; this runs it for longer.

use std::ffi::OsString;

use anyhow::Result;

use crate::{cargo_test, setup};

/// Runs that many faults for each kind of durability.
pub(super) fn run(rounds: u64, seed: u64) -> Result<()> {
    setup::run()?;
    let words = ["--package", "actiond", "--test", "store_faults", "--", "--nocapture"];
    cargo_test::run(&words.map(OsString::from), |cargo| {
        cargo.env("ACTIOND_FAULT_ROUNDS", rounds.to_string());
        cargo.env("ACTIOND_FAULT_SEED", seed.to_string());
    })
}
