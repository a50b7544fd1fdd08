//! `cargo xtask e2e`: real clients build real workspaces through the real daemon.
//!
//! A client is a program of others, so it lives in a root file system of its own that is made once
//! from the distribution's archive and kept in the user's cache ([`debian_root`]). Its suites run
//! as root on a state volume, against a daemon that they start, kill and restart ([`daemon`]), with
//! the client in a session of its own ([`session`]). A new client is a module with a recipe and a
//! list of suites, and a line in [`CLIENTS`].
//!
//! `vm` is named like a client and is none: its tests speak to `serve-vm` themselves ([`vm`]).
//!
//! Nothing is skipped by itself: where a root can't be made, the run fails, unless that client was
//! left out by name.

mod bazel;
mod debian_root;
mod session;
mod steps;

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{binaries::Binaries, daemon::Daemon, process, runtimes, setup, state_volume, vm};

/// A build tool that speaks remote execution.
struct Client {
    name: &'static str,
    recipe: debian_root::Recipe,
    suites: &'static [Suite],
}

/// Steps that share a daemon and a workspace, each building on the one before.
struct Suite {
    name: &'static str,
    run: fn(&Place) -> Result<()>,
}

/// Every client there is.
const CLIENTS: [&Client; 1] = [&bazel::CLIENT];

#[derive(clap::Args)]
#[group(skip)] // `test` has these too, and groups are named after their struct
pub(crate) struct Arguments {
    /// Clients to run; all when none is named. Or `vm`, by itself.
    clients: Vec<String>,
    /// Leave out this client.
    #[arg(long = "skip", value_name = "CLIENT")]
    skipped: Vec<String>,
    /// Run only this suite.
    #[arg(long)]
    suite: Option<String>,
    /// Give the daemon one more flag, such as `--daemon-flag=--input-root-strategy=bind`.
    #[arg(long = "daemon-flag", value_name = "FLAG", allow_hyphen_values = true)]
    daemon_flags: Vec<OsString>,
}

#[derive(clap::Args)]
pub(crate) struct InsideArguments {
    client: String,
    #[arg(long)]
    suite: Option<String>,
    #[arg(long)]
    client_root: PathBuf,
    #[arg(long)]
    daemon: PathBuf,
    #[arg(long)]
    action_tool: PathBuf,
    #[arg(long)]
    runtime_image: PathBuf,
    #[arg(long)]
    debian_12_root: PathBuf,
    #[arg(long = "daemon-flag", allow_hyphen_values = true)]
    daemon_flags: Vec<OsString>,
}

impl Place {
    /// A daemon on an empty root of its own, with the flags that the suite and the caller ask for.
    fn start_daemon(&self, flags: &[OsString]) -> Result<Daemon> {
        let flags = [flags, &self.daemon_flags].concat();
        Daemon::start(&self.daemon, &self.scratch, &flags)
    }
}

/// Where a suite runs: everything it may use and write.
struct Place {
    /// The client's root file system, never written to.
    client_root: PathBuf,
    daemon: PathBuf,
    daemon_flags: Vec<OsString>,
    /// The static program that the workspaces' actions run.
    action_tool: PathBuf,
    /// C libraries and shells for `--runtime-image`.
    runtime_image: PathBuf,
    /// Debian 12 with a C++ compiler, never written to.
    debian_12_root: PathBuf,
    /// An empty folder on the state volume.
    scratch: PathBuf,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    if arguments.clients == ["vm"] {
        return vm::test();
    }
    let clients = chosen(arguments)?;
    if clients.is_empty() {
        return Ok(());
    }
    setup::run()?;
    let roots = clients.iter().map(|client| provide_root(client)).collect::<Result<Vec<_>>>()?;
    let binaries = Binaries::build()?;
    let materials = Materials::provide()?;
    for (client, root) in clients.into_iter().zip(roots) {
        run_client(client, &root, &binaries, &materials, arguments)?;
    }
    Ok(())
}

/// What suites run actions with, beside the client.
struct Materials {
    runtime_image: PathBuf,
    debian_12_root: PathBuf,
}

impl Materials {
    fn provide() -> Result<Self> {
        let names = ["glibc2.31", "glibc2.36", "glibc2.41"].map(str::to_owned);
        Ok(Self {
            runtime_image: runtimes::provide(std::env::consts::ARCH, &names)?,
            debian_12_root: debian_root::provide(&DEBIAN_12)?,
        })
    }
}

/// Where programs are compiled that need the C library of Debian 12.
const DEBIAN_12: debian_root::Recipe =
    debian_root::Recipe { name: "debian-12", suite: "bookworm", packages: &["g++"], stubs: &[] };

fn provide_root(client: &Client) -> Result<PathBuf> {
    debian_root::provide(&client.recipe)
        .with_context(|| format!("no root for {0}; `--skip {0}` leaves it out", client.name))
}

/// Goes on as root on a state volume, in [`run_inside`].
fn run_client(
    client: &Client,
    root: &Path,
    binaries: &Binaries,
    materials: &Materials,
    arguments: &Arguments,
) -> Result<()> {
    let mut inside = state_volume::command(process::this_program()?)?;
    inside.arg("e2e-inside").arg(client.name);
    inside.arg("--client-root").arg(root);
    inside.arg("--daemon").arg(&binaries.daemon);
    inside.arg("--action-tool").arg(&binaries.action_tool);
    inside.arg("--runtime-image").arg(&materials.runtime_image);
    inside.arg("--debian-12-root").arg(&materials.debian_12_root);
    if let Some(suite) = &arguments.suite {
        inside.arg("--suite").arg(suite);
    }
    for flag in &arguments.daemon_flags {
        inside.arg("--daemon-flag").arg(flag);
    }
    process::run(&mut inside)
}

/// The clients asked for, without those skipped; a name that nobody has is an error.
fn chosen(arguments: &Arguments) -> Result<Vec<&'static Client>> {
    for name in arguments.clients.iter().chain(&arguments.skipped) {
        client_named(name)?;
    }
    let asked = |client: &Client| {
        arguments.clients.is_empty() || arguments.clients.iter().any(|name| name == client.name)
    };
    let (left_out, chosen): (Vec<_>, Vec<_>) = CLIENTS
        .into_iter()
        .filter(|client| asked(client))
        .partition(|client| arguments.skipped.iter().any(|name| name == client.name));
    for client in left_out {
        println!("e2e {}: SKIPPED, as asked", client.name);
    }
    Ok(chosen)
}

fn client_named(name: &str) -> Result<&'static Client> {
    let known = || CLIENTS.map(|client| client.name).join(", ");
    CLIENTS
        .into_iter()
        .find(|client| client.name == name)
        .with_context(|| format!("no client {name:?}; there are: {}", known()))
}

/// Runs one client's suites, as root, on a state volume.
pub(crate) fn run_inside(arguments: &InsideArguments) -> Result<()> {
    let state = std::env::var_os(state_volume::STATE_VARIABLE)
        .context("this part of e2e runs on a state volume")?;
    let client = client_named(&arguments.client)?;
    let asked = |suite: &&Suite| arguments.suite.as_deref().is_none_or(|name| name == suite.name);
    let suites: Vec<_> = client.suites.iter().filter(asked).collect();
    if suites.is_empty() {
        bail!("{} has no suite {:?}", client.name, arguments.suite);
    }
    for suite in &suites {
        let scratch = PathBuf::from(&state).join(suite.name);
        std::fs::create_dir(&scratch)?;
        println!("e2e {} {}:", client.name, suite.name);
        (suite.run)(&Place {
            client_root: arguments.client_root.clone(),
            daemon: arguments.daemon.clone(),
            daemon_flags: arguments.daemon_flags.clone(),
            action_tool: arguments.action_tool.clone(),
            runtime_image: arguments.runtime_image.clone(),
            debian_12_root: arguments.debian_12_root.clone(),
            scratch,
        })
        .with_context(|| format!("e2e {} {}", client.name, suite.name))?;
    }
    println!("e2e {}: {} suites passed", client.name, suites.len());
    Ok(())
}

/// Copies a folder with all that is in it.
fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    process::run(
        Command::new("cp").args(["--recursive", "--no-target-directory"]).arg(from).arg(to),
    )
}
