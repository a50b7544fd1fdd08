//! `cargo test` with a runner that gives each test program root and a state volume.
//!
//! Cargo starts test programs one after the other, and most of them wait more than they compute. So for
//! all tests of the workspace the runner only notes how cargo starts each program ([`note`]), and then
//! several run side by side ([`programs`]).

mod note;
mod programs;

use std::{ffi::OsString, fs, path::PathBuf, process::Command};

use anyhow::{Context, Result};

use crate::{process, state_volume, workspace};
use note::Note;

#[derive(clap::Args)]
pub(crate) struct RunnerArguments {
    /// Write down in this folder how the program is started, and do not start it.
    #[arg(long, value_name = "FOLDER")]
    note: Option<PathBuf>,
    binary: PathBuf,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

/// `cargo test` with these arguments; `prepare` can add variables.
pub(crate) fn run(arguments: &[OsString], prepare: impl FnOnce(&mut Command)) -> Result<()> {
    let mut cargo = cargo_test("run-test")?;
    cargo.args(arguments);
    prepare(&mut cargo);
    process::run(&mut cargo)
}

/// Builds all tests of the workspace.
pub(crate) fn build_all() -> Result<()> {
    run(&["--workspace", "--no-run"].map(OsString::from), |_| ())
}

/// Runs all tests of the workspace, several programs at a time; `prepare` can add variables.
///
/// # Errors
/// If a test fails: after all of them ran.
pub(crate) fn run_all(prepare: impl Fn(&mut Command)) -> Result<()> {
    let folder = workspace::target().join("test-programs");
    let notes = folder.join("notes");
    if notes.exists() {
        fs::remove_dir_all(&notes).with_context(|| format!("cannot empty {}", notes.display()))?;
    }
    fs::create_dir_all(&notes).with_context(|| format!("cannot make {}", notes.display()))?;

    let mut cargo = cargo_test(&format!("run-test --note {}", notes.display()))?;
    cargo.args(["--workspace", "--lib", "--bins", "--tests", "--examples"]);
    prepare(&mut cargo);
    process::run(&mut cargo)?;
    let programs = programs::run(Note::read_all(&notes)?, &folder);
    // rustdoc builds these and runs them.
    let examples = run(&["--workspace", "--no-fail-fast", "--doc"].map(OsString::from), &prepare);
    programs.and(examples)
}

fn cargo_test(runner: &str) -> Result<Command> {
    let triple = workspace::host_triple()?.to_uppercase().replace('-', "_");
    let mut cargo = process::cargo();
    cargo.args(["test", "--locked"]);
    let runner = format!("{} {runner}", process::this_program()?.display());
    cargo.env(format!("CARGO_TARGET_{triple}_RUNNER"), runner);
    Ok(cargo)
}

/// Becomes one test program, as root and with a state volume, or writes down how it is started.
pub(crate) fn run_one(arguments: &RunnerArguments) -> Result<()> {
    let RunnerArguments { note, binary, arguments } = arguments;
    if let Some(folder) = note {
        return Note::of_this_process(binary, arguments)?.write(folder);
    }
    Err(process::become_program(state_volume::command(binary)?.args(arguments)))
}
