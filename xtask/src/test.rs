//! `cargo xtask test`: every test of the workspace as root, then the program for macOS, the attacks and
//! the end-to-end tests, then a part of all that against a VM, and actiondfs in its kernel.
//!
//! Cargo builds as the user. Each test binary is then started by cargo through [`run_one`], which
//! gives it root and a state volume: that is what the daemon needs, and what a user's own file
//! system should not be used for.

use std::{ffi::OsString, path::PathBuf, process::Command};

use anyhow::Result;

use crate::{
    attack, darwin, e2e,
    kernel::{Arch, Flavour},
    process, setup, state_volume,
    vm::Artifacts,
    workspace,
};

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
        return cargo_test(&arguments.only, |_| ());
    }
    let vm = Artifacts::provide(Arch::host(), Flavour::Release)?;
    cargo_test(&["--workspace".into(), "--no-fail-fast".into()], |cargo| {
        vm.tell(cargo);
    })?;
    darwin::run_if_possible()?;
    attack::run(&attack::Arguments::all())?;
    e2e::run(&arguments.e2e)?;
    e2e::in_vm::run_part(&vm, &arguments.e2e)
}

/// `cargo test` with these arguments; `prepare` can add variables.
pub(crate) fn cargo_test(arguments: &[OsString], prepare: impl FnOnce(&mut Command)) -> Result<()> {
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
