//! `cargo xtask bench`: what clients see of the daemon's speed, beside a peer if there is one.
//!
//! The store is on a journaled ext4 of its own, in a mount namespace of its own: a figure must not
//! depend on how full or how tired the machine's disk is. The load itself is `actiond-bench`.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::{
    binaries::{self, Binaries},
    daemon::Daemon,
    process, setup, state_volume, workspace,
};

#[derive(clap::Args)]
#[group(skip)]
pub(crate) struct Arguments {
    /// Give the daemon one more flag.
    #[arg(long = "daemon-flag", value_name = "FLAG", allow_hyphen_values = true)]
    daemon_flags: Vec<OsString>,
    /// Arguments of `actiond-bench`, such as `--vs URL` or `--samples N`.
    #[arg(last = true)]
    load: Vec<OsString>,
}

#[derive(clap::Args)]
pub(crate) struct InsideArguments {
    daemon: PathBuf,
    /// The program that makes the load.
    program: PathBuf,
    #[command(flatten)]
    arguments: Arguments,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    setup::run()?;
    let Binaries { daemon, action_tool } = Binaries::build()?;
    let program = binaries::build("bench", "actiond-bench")?;
    let report = workspace::target().join("bench.json");

    let mut inside = state_volume::command(process::this_program()?)?;
    inside.arg("bench-inside").arg(daemon).arg(program);
    for flag in &arguments.daemon_flags {
        inside.arg("--daemon-flag").arg(flag);
    }
    inside.arg("--").arg("--writer").arg(action_tool).arg("--json").arg(&report);
    process::run(inside.args(&arguments.load))?;
    println!("bench: the same as JSON is in {}", report.display());
    Ok(())
}

/// Starts the daemon and puts the load on it, as root, on a state volume.
pub(crate) fn run_inside(inside: &InsideArguments) -> Result<()> {
    let state =
        std::env::var_os(state_volume::STATE_VARIABLE).context("bench runs on a state volume")?;
    let daemon =
        Daemon::start(&inside.daemon, Path::new(&state), &inside.arguments.daemon_flags, None)?;
    load(&inside.program, &daemon, &inside.arguments.load)?;
    daemon.stop()
}

/// Puts the load of `program` on `daemon`, to its end.
pub(crate) fn load(program: &Path, daemon: &Daemon, arguments: &[OsString]) -> Result<()> {
    let server = format!("http://{}", daemon.address());
    process::run(Command::new(program).args(["--server", &server]).args(arguments))
        .with_context(|| daemon.log_tail())
}
