//! `cargo xtask test`: every test of the workspace as root, then the program for macOS, the attacks and
//! the end-to-end tests, then a part of all that against a VM, and actiondfs in its kernel.
//!
//! Cargo builds as the user. Each test binary is then started by cargo through [`run_one`], which
//! gives it root and a state volume: that is what the daemon needs, and what a user's own file
//! system should not be used for.

use std::{
    ffi::OsString,
    fmt,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

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
    let mut steps = Steps::default();
    let result = run_all(arguments, &mut steps);
    print!("{steps}");
    result
}

fn run_all(arguments: &Arguments, steps: &mut Steps) -> Result<()> {
    let all = || ["--workspace", "--no-fail-fast"].map(OsString::from);
    let vm = steps.take("kernel, guest and runtimes", || {
        Artifacts::provide(Arch::host(), Flavour::Release)
    })?;
    steps.take("building the tests", || {
        cargo_test(&[&all()[..], &["--no-run".into()]].concat(), |_| ())
    })?;
    steps.take("tests of the workspace", || {
        cargo_test(&all(), |cargo| {
            vm.tell(cargo);
        })
    })?;
    steps.take("program for macOS", darwin::run_if_possible)?;
    steps.take("attacks", || attack::run(&attack::Arguments::all()))?;
    steps.take("clients", || e2e::run(&arguments.e2e))?;
    steps.take("VMs", || e2e::in_vm::run_part(&vm, &arguments.e2e))
}

/// How long each step took, failed ones included.
#[derive(Default)]
struct Steps(Vec<(&'static str, Duration)>);

impl Steps {
    fn take<T>(&mut self, name: &'static str, act: impl FnOnce() -> Result<T>) -> Result<T> {
        let begun = Instant::now();
        let result = act();
        self.0.push((name, begun.elapsed()));
        result
    }
}

impl fmt::Display for Steps {
    /// A table with a row per step.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = ("all", self.0.iter().map(|(_, time)| *time).sum());
        for (name, time) in self.0.iter().chain([&total]) {
            let seconds = time.as_secs();
            writeln!(formatter, "test: {name:<28} {:>3}:{:02} min", seconds / 60, seconds % 60)?;
        }
        Ok(())
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_that_fails_is_in_the_table_too() {
        let mut steps = Steps(vec![("building", Duration::from_secs(61))]);
        assert!(steps.take("attacks", || -> Result<()> { anyhow::bail!("breach") }).is_err());
        let table = steps.to_string();
        let rows: Vec<Vec<&str>> =
            table.lines().map(|it| it.split_whitespace().collect()).collect();
        let row = |name: &'static str, time: &'static str| vec!["test:", name, time, "min"];
        assert_eq!(rows, [row("building", "1:01"), row("attacks", "0:00"), row("all", "1:01")]);
    }
}
