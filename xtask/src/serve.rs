//! `cargo xtask serve -- FLAGS`: sets up, builds the daemon, and runs it with the flags given.
//!
//! The build has a profile and a feature set of its own, so that the first answer comes soon: it
//! optimizes less than a release, and leaves out `serve-vm` and the guest.

use std::{ffi::OsString, path::PathBuf};

use anyhow::Result;

use crate::{process, setup, workspace};

/// The profile in the workspace's `Cargo.toml`, and its folder below the target folder.
const PROFILE: &str = "serve";

/// Builds the daemon and becomes it, as root. Returns only if that fails.
pub fn run(flags: &[OsString]) -> Result<()> {
    setup::ensure(&[setup::COMPILER])?;
    let daemon = build()?;
    let mut command = process::as_root(daemon);
    command.args(["serve", "--print-bazelrc"]).args(flags);
    Err(process::become_program(&mut command))
}

fn build() -> Result<PathBuf> {
    println!("serve: building linux-actiond");
    process::run(
        process::cargo()
            .current_dir(workspace::root())
            .args(["build", "--locked", "--profile", PROFILE, "--package", "actiond"])
            .args(["--no-default-features", "--bin", "linux-actiond"]),
    )?;
    Ok(workspace::target().join(PROFILE).join("linux-actiond"))
}
