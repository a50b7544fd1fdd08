//! `cargo xtask conformance`: the daemon, or another server, against the clauses of the Remote Execution
//! API.
//!
//! The checks are `actiond-conformance`'s. Ours must pass every one that applies, the recommendations
//! included; other servers are judged by what they must do.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::{
    binaries::{self, Unoptimized},
    daemon::Daemon,
    process, setup, state_volume, workspace,
};

/// Actions have the host's shell, and the recommendation to refuse unknown properties is followed.
const DAEMON_FLAGS: [&str; 2] = ["--allow-host-rootfs", "--unknown-properties=refuse"];

#[derive(Default, clap::Args)]
#[group(skip)]
pub(crate) struct Arguments {
    /// Check this server, in place of a daemon that is started for it.
    #[arg(long, value_name = "URL", conflicts_with = "daemon_flags")]
    server: Option<String>,
    /// Give the daemon one more flag.
    #[arg(long = "daemon-flag", value_name = "FLAG", allow_hyphen_values = true)]
    daemon_flags: Vec<OsString>,
    /// Arguments of `actiond-conformance`, such as `--only execution/` or `--platform NAME=VALUE`.
    #[arg(last = true)]
    checks: Vec<OsString>,
}

#[derive(clap::Args)]
pub(crate) struct InsideArguments {
    daemon: PathBuf,
    /// The program with the checks.
    program: PathBuf,
    #[command(flatten)]
    arguments: Arguments,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    setup::run()?;
    let program = binaries::build("conformance", "actiond-conformance")?;
    if let Some(server) = &arguments.server {
        let mut checks = Command::new(program);
        return process::run(checks.args(["--server", server]).args(&arguments.checks));
    }
    check(&binaries::build("actiond", "linux-actiond")?, &program, arguments)
}

/// The same with the unoptimized programs, which the tests need as well.
pub(crate) fn run_unoptimized() -> Result<()> {
    let program = Unoptimized::Conformance.build()?;
    check(&Unoptimized::Daemon.build()?, &program, &Arguments::default())
}

fn check(daemon: &Path, program: &Path, arguments: &Arguments) -> Result<()> {
    let reports = workspace::target();
    let (json, junit) = (reports.join("conformance.json"), reports.join("conformance.xml"));
    let mut inside = state_volume::command(process::this_program()?)?;
    inside.arg("conformance-inside").arg(daemon).arg(program);
    for flag in &arguments.daemon_flags {
        inside.arg("--daemon-flag").arg(flag);
    }
    inside.arg("--").arg("--json").arg(&json).arg("--junit").arg(&junit);
    process::run(inside.args(&arguments.checks))?;
    println!("conformance: reports are in {} and {}", json.display(), junit.display());
    Ok(())
}

/// Starts the daemon and checks it, as root, on a state volume.
pub(crate) fn run_inside(inside: &InsideArguments) -> Result<()> {
    let state = std::env::var_os(state_volume::STATE_VARIABLE)
        .context("conformance runs on a state volume")?;
    let own = DAEMON_FLAGS.iter().map(OsString::from);
    let flags: Vec<_> = own.chain(inside.arguments.daemon_flags.iter().cloned()).collect();
    let daemon = Daemon::start(&inside.daemon, Path::new(&state), &flags, None)?;
    let mut checks = Command::new(&inside.program);
    checks.args(["--server", &daemon.address().to_string(), "--strict"]);
    checks.args(["--platform", "rootfs=host"]).args(&inside.arguments.checks);
    process::run(&mut checks).with_context(|| daemon.log_tail())?;
    daemon.stop()
}
