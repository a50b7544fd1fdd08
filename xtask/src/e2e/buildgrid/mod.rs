//! `cargo xtask e2e buildgrid`: workers of a real BuildGrid, with recc and trexe as its clients.
//!
//! The scheduler is BuildGrid's from PyPI with a PostgreSQL of Debian's ([`server`]), which is the storage and the action
//! cache as well. The workers are processes of their own ([`worker`]). A server that overflows is a client of it too
//! ([`overflow`]). Everything listens on the loopback device only.

mod cluster;
mod overflow;
mod server;
mod steps;
mod worker;

use std::path::PathBuf;

use anyhow::{Context, Result};

use self::cluster::Cluster;
use super::{Arguments, BUILDGRID, debian_root};
use crate::{binaries::Unoptimized, process, setup, state_volume};

#[derive(clap::Args)]
pub(crate) struct InsideArguments {
    #[arg(long)]
    server_root: PathBuf,
    #[arg(long)]
    packages: PathBuf,
    #[arg(long)]
    client_root: PathBuf,
    #[arg(long)]
    worker: PathBuf,
}

/// The verb.
pub(super) fn run() -> Result<()> {
    run_with_clients(true)
}

fn run_with_clients(is_named: bool) -> Result<()> {
    setup::run()?;
    let (server_root, packages) = provide()?;
    let Some(client_root) = super::provide_root_of(&super::light::BUILDBOX, is_named)? else {
        println!("e2e {BUILDGRID}: SKIPPED, for it needs that client");
        return Ok(());
    };
    let worker = Unoptimized::Daemon.build()?;
    let mut inside = state_volume::command(process::this_program()?)?;
    inside.arg("e2e-buildgrid-inside").arg("--server-root").arg(server_root);
    inside.arg("--packages").arg(packages).arg("--client-root").arg(client_root);
    process::run(inside.arg("--worker").arg(worker))
}

/// The same among all tests, unless it was left out by name.
pub(crate) fn run_part(arguments: &Arguments) -> Result<()> {
    if arguments.skips(BUILDGRID) {
        println!("e2e {BUILDGRID}: SKIPPED, as asked");
        return Ok(());
    }
    run_with_clients(false)
}

/// The root of the server and its packages.
fn provide() -> Result<(PathBuf, PathBuf)> {
    let provided = server::packages()
        .and_then(|packages| Ok((debian_root::provide(&server::ROOT)?, packages)));
    provided.with_context(|| format!("no BuildGrid; `--skip {BUILDGRID}` leaves it out"))
}

/// The part that runs as root on a state volume.
pub(crate) fn run_inside(arguments: &InsideArguments) -> Result<()> {
    let state = std::env::var_os(state_volume::STATE_VARIABLE)
        .context("this part of e2e runs on a state volume")?;
    println!("e2e {BUILDGRID}:");
    let mut here = Cluster::start(arguments, PathBuf::from(state))?;
    let outcome = here.workers_that_come_and_go().and_then(|()| here.a_server_that_overflows());
    outcome.with_context(|| here.server.log_tail())?;
    println!("e2e {BUILDGRID}: passed");
    Ok(())
}
