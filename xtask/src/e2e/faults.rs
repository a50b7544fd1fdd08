//! `cargo xtask e2e faults`: the daemon under load on a disk that loses power and fails.
//!
//! The disk and the checks are the test `store_faults` of `actiond`; this runs it for longer.

use std::ffi::OsString;

use anyhow::Result;

use crate::{cargo_test, setup};

/// The parts of a run.
#[derive(clap::Args)]
#[group(skip)]
pub(crate) struct Faults {
    /// With `faults`: the number of faults of each kind of durability.
    #[arg(long, default_value_t = 100)]
    rounds: u64,
    /// With `faults`: kill the server this many times, in place of faults of all kinds.
    #[arg(long, value_name = "N")]
    kills: Option<u64>,
    /// With `faults`: cut the power this many times for each kind of durability, in place of faults of all
    /// kinds.
    #[arg(long, value_name = "N")]
    cuts: Option<u64>,
    /// With `faults`: fill the disk this many times, with data and with files in turn, in place of faults of
    /// all kinds.
    #[arg(long, value_name = "N")]
    fills: Option<u64>,
    /// With `faults`: the file system on the disk.
    #[arg(long, value_name = "NAME", default_value = "ext4")]
    #[arg(value_parser = ["ext4", "xfs", "btrfs", "ext4-without-journal"])]
    file_system: String,
    /// With `faults`: the first seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Runs the faults.
pub(super) fn run(faults: &Faults) -> Result<()> {
    setup::run()?;
    let words = ["--package", "actiond", "--test", "store_faults", "--", "--nocapture"];
    cargo_test::run(&words.map(OsString::from), |cargo| {
        cargo.env("ACTIOND_FAULT_ROUNDS", faults.rounds.to_string());
        cargo.env("ACTIOND_FAULT_SEED", faults.seed.to_string());
        cargo.env("ACTIOND_FAULT_FILE_SYSTEM", &faults.file_system);
        for (name, number) in [
            ("ACTIOND_FAULT_KILLS", faults.kills),
            ("ACTIOND_FAULT_CUTS", faults.cuts),
            ("ACTIOND_FAULT_FILLS", faults.fills),
        ] {
            if let Some(number) = number {
                cargo.env(name, number.to_string());
            }
        }
    })
}
