//! `cargo xtask e2e user`: what `serve` passes as root, done again with a daemon that an ordinary user starts.
//!
//! The tests of `serve`, of input roots and of `run`, the attacks, and Bazel on two workspaces. The ways to
//! start it are those of [`StartAs`]: with one id, with subordinate ids, and in a bubblewrap container. A VM has the
//! cgroup controllers that this machine may lack. Each run
//! of `cargo xtask test` has a part of it, and `--all` has the rest.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;
use launch::StartAs;

use super::{Materials, Place, bazel, client_command, debian_root, provide_root};
use crate::{attack, binaries::Binaries, cargo_test, kernel, process, setup, state_volume, vm};

/// Test binaries of `crates/actiond/tests`, and how the daemon is started for them. With one id inputs have other
/// modes, so only with subordinate ids everything is as with root.
const SUITES: [(StartAs, &[&str]); 3] = [
    (StartAs::User, &["run"]),
    (StartAs::SubordinateIds, &["run", "execution", "input_roots"]),
    (StartAs::Container, &["run"]),
];

/// Those that are run each time.
const SUITES_EACH_TIME: [(StartAs, &[&str]); 3] = [
    (StartAs::User, &["run"]),
    (StartAs::SubordinateIds, &["execution"]),
    (StartAs::Container, &["run"]),
];

/// The root of the VM: Debian with systemd as its init, logins for ordinary users, and subordinate ids.
const SYSTEMD: debian_root::Recipe = debian_root::Recipe {
    name: "systemd",
    suites: &["trixie", "sid"],
    packages: &["dbus-user-session", "libpam-systemd", "systemd-sysv", "uidmap"],
    stubs: &[],
};

/// The suites of Bazel, by the verb only: a workspace with many inputs and a kill of the server, and a project in C++.
const OF_BAZEL: [&str; 2] = ["stress", "cpp"];

/// The way to start the daemon for them without `all`.
const BAZEL_WAY: StartAs = StartAs::SubordinateIds;

/// The verb. Without `all` it is what each run has, the tests in a VM, and Bazel with one way to start the daemon.
pub(super) fn run(all: bool) -> Result<()> {
    setup::run()?;
    run_suites_of(if all { SUITES } else { SUITES_EACH_TIME })?;
    vm::install_qemu()?;
    kernel::user::run(&debian_root::provide(&SYSTEMD)?)?;
    attack::run(&attack::Arguments::by_user(!all))?;
    let ways = if all { &StartAs::ALL[..] } else { &[BAZEL_WAY] };
    ways.iter().try_for_each(|way| run_bazel(*way))
}

/// The part of each run of `cargo xtask test`.
pub(crate) fn run_part(arguments: &super::Arguments) -> Result<()> {
    if arguments.skips(super::USER) {
        println!("e2e user: SKIPPED, as asked");
        return Ok(());
    }
    run_suites_of(SUITES_EACH_TIME)?;
    attack::run(&attack::Arguments::by_user(true))
}

fn run_suites_of(suites: [(StartAs, &[&str]); 3]) -> Result<()> {
    suites.into_iter().try_for_each(|(way, suites)| run_suites(way, suites))
}

fn run_suites(way: StartAs, suites: &[&str]) -> Result<()> {
    println!("e2e user: {} started as {}", suites.join(", "), way.name());
    // The whole workspace, so that the features are those that `cargo test --workspace` has built with.
    let mut arguments = vec!["--workspace".into(), "--no-fail-fast".into()];
    for suite in suites {
        arguments.extend(["--test".into(), OsString::from(suite)]);
    }
    cargo_test::run(&arguments, |cargo| {
        cargo.env(launch::start_as::VARIABLE, way.name());
    })
}

fn run_bazel(way: StartAs) -> Result<()> {
    println!("e2e user: Bazel with a server started as {}", way.name());
    let root = provide_root(&bazel::CLIENT)?;
    let (binaries, materials) = (Binaries::build()?, Materials::provide()?);
    for suite in OF_BAZEL {
        let inside = state_volume::command(process::this_program()?)?;
        let mut inside = client_command(inside, &bazel::CLIENT, &root, &binaries, materials);
        inside.args(["--suite", suite, "--start-as", way.name()]);
        process::run(&mut inside)?;
    }
    Ok(())
}

impl Place {
    /// The client's root where the daemon can reach it: the ordinary user has no way into the cache of the
    /// user who runs the tests.
    pub(super) fn host_root(&self) -> Result<PathBuf> {
        if self.start_as.is_none() {
            return Ok(self.client_root.clone());
        }
        let reachable = self.scratch.join("host-root");
        fs::create_dir_all(&reachable)?;
        bind(&self.client_root, &reachable)?;
        Ok(reachable)
    }
}

/// Gone with this mount namespace.
fn bind(from: &Path, to: &Path) -> Result<()> {
    process::run(Command::new("mount").args(["--bind", "-o", "ro"]).arg(from).arg(to))
}
