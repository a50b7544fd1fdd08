//! `cargo test` with a runner that gives each test binary root and a state volume.

use std::{ffi::OsString, path::PathBuf, process::Command};

use anyhow::Result;

use crate::{process, state_volume, workspace};

#[derive(clap::Args)]
pub(crate) struct RunnerArguments {
    binary: PathBuf,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

/// `cargo test` with these arguments; `prepare` can add variables.
pub(crate) fn run(arguments: &[OsString], prepare: impl FnOnce(&mut Command)) -> Result<()> {
    let triple = workspace::host_triple()?.to_uppercase().replace('-', "_");
    let runner = format!("{} run-test", process::this_program()?.display());
    let mut cargo = process::cargo();
    cargo.args(["test", "--locked"]).args(arguments);
    cargo.env(format!("CARGO_TARGET_{triple}_RUNNER"), runner);
    prepare(&mut cargo);
    process::run(&mut cargo)
}

/// Becomes one test binary, as root and with a state volume.
pub(crate) fn run_one(arguments: &RunnerArguments) -> Result<()> {
    Err(process::become_program(
        state_volume::command(&arguments.binary)?.args(&arguments.arguments),
    ))
}
