//! `cargo xtask test`: every test of the workspace as root, then the attacks and the end-to-end tests, then
//! a part of all that against a VM, and actiondfs in its kernel; and the program for macOS.
//!
//! Cargo builds as the user. Each test binary is then started by cargo through [`run_one`], which
//! gives it root and a state volume: that is what the daemon needs, and what a user's own file
//! system should not be used for.
//!
//! What steps need and what nobody waits for is made beside them ([`Part`], [`steps`]): fetching and the ends
//! of builds leave processors idle.

mod steps;

use std::{ffi::OsString, path::PathBuf, process::Command};

use anyhow::Result;

use crate::{
    attack,
    binaries::Binaries,
    darwin, dist, e2e,
    kernel::{Arch, Flavour},
    process, setup, state_volume,
    vm::{self, Artifacts},
    workspace,
};
use steps::Steps;

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
    let mut steps = Steps::begin();
    let result = run_all(arguments, &mut steps);
    print!("{steps}");
    result
}

/// What can be made beside a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Part {
    /// The kernel, the guest and the runtimes, then the programs that run in release.
    Programs,
    /// The roots that clients live in, and that packages are installed in.
    Roots,
    /// The program for macOS, with its proofs.
    Macos,
    /// A release for Linux.
    Release,
}

#[derive(clap::Args)]
pub(crate) struct PartArguments {
    part: Part,
}

impl Part {
    /// For people.
    fn name(self) -> &'static str {
        match self {
            Self::Programs => "kernel, runtimes, programs",
            Self::Roots => "clients' roots",
            Self::Macos => "program for macOS",
            Self::Release => "release for Linux",
        }
    }
}

/// Makes one part, for [`run_all`], which finds it made.
pub(crate) fn run_part(arguments: &PartArguments) -> Result<()> {
    match arguments.part {
        Part::Programs => {
            artifacts()?;
            attack::build()?;
            Binaries::build().map(drop)
        }
        Part::Roots => e2e::provide_roots(),
        Part::Macos => darwin::run_if_possible(),
        Part::Release => dist::linux_release(&vm::RUNTIMES.map(str::to_owned)).map(drop),
    }
}

fn artifacts() -> Result<Artifacts> {
    Artifacts::provide(Arch::host(), Flavour::Release)
}

fn run_all(arguments: &Arguments, steps: &mut Steps) -> Result<()> {
    let all = || ["--workspace", "--no-fail-fast"].map(OsString::from);
    let with_clients = arguments.e2e.has_clients();
    let (mut first, mut second) = (vec![Part::Programs], vec![Part::Macos]);
    if with_clients {
        first.push(Part::Roots);
        second.push(Part::Release);
    }
    steps.take_beside(&first, "building the tests", || {
        cargo_test(&[&all()[..], &["--no-run".into()]].concat(), |_| ())
    })?;
    let vm = artifacts()?;
    steps.take_beside(&second, "tests of the workspace", || {
        cargo_test(&all(), |cargo| {
            vm.tell(cargo);
        })
    })?;
    steps.take("attacks", || attack::run(&attack::Arguments::all()))?;
    steps.take("clients", || e2e::run(&arguments.e2e))?;
    steps.take("VMs", || e2e::in_vm::run_part(&vm, &arguments.e2e))
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
