//! `cargo xtask test`: every test of the workspace as root, then the attacks and the end-to-end
//! tests.
//!
//! Cargo builds as the user. Each test binary is then started by cargo through [`run_one`], which
//! gives it root and a state volume: that is what the daemon needs, and what a user's own file
//! system should not be used for.

use std::{ffi::OsString, path::PathBuf};

use anyhow::Result;

use crate::{attack, e2e, process, setup, state_volume, workspace};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    e2e: e2e::Arguments,
    /// Arguments for `cargo test`, in place of all tests of the workspace; nothing after them then.
    #[arg(last = true)]
    only: Vec<OsString>,
}

#[derive(clap::Args)]
pub(crate) struct RunnerArguments {
    binary: PathBuf,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    setup::run()?;
    if !arguments.only.is_empty() {
        return cargo_test(&arguments.only);
    }
    cargo_test(&["--workspace".into(), "--no-fail-fast".into()])?;
    attack::run(&attack::Arguments::all())?;
    e2e::run(&arguments.e2e)
}

fn cargo_test(arguments: &[OsString]) -> Result<()> {
    let triple = workspace::host_triple()?.to_uppercase().replace('-', "_");
    let runner = format!("{} run-test", process::this_program()?.display());
    process::run(
        process::cargo()
            .args(["test", "--locked"])
            .args(arguments)
            .env(format!("CARGO_TARGET_{triple}_RUNNER"), runner),
    )
}

/// Becomes one test binary, as root and with a state volume.
pub(crate) fn run_one(arguments: &RunnerArguments) -> Result<()> {
    Err(process::become_program(
        state_volume::command(&arguments.binary)?.args(&arguments.arguments),
    ))
}
