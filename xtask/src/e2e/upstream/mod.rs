//! `cargo xtask e2e upstream`: the daemon with a cache of others below its store.
//!
//! The servers are of one version each, in the user's cache ([`servers`]): bazel-remote and Buildbarn's bb_storage from
//! their Go modules, `s3s-fs`, which speaks S3, built with cargo, and an emulator of Azure's object store from npm. The
//! checks are tests of the daemon, which are skipped where no server is named. Then Bazel builds through a network that is
//! slow and loses packets ([`network`]).
//!
//! `cargo xtask test` names the servers to the tests of the workspace, and has Bazel build through the worst network.

mod network;
mod servers;
mod slow_link;

use std::{ffi::OsString, path::Path};

use anyhow::Result;

use super::{Arguments, UPSTREAM};
use crate::{binaries, cargo_test, process, setup, state_volume};

pub(crate) use network::{InsideArguments, run_inside};
pub(crate) use servers::Servers;

/// The suite of the tests, and that of the network.
const SUITES: [&str; 2] = ["servers", "network"];

/// The tests of the daemon that have servers of others.
const TESTS: [&str; 4] = ["upstream_servers", "upstream_objects", "upstream_clouds", "cluster"];

/// The verb, with all suites unless one is named.
pub(super) fn run(suite: Option<&str>) -> Result<()> {
    if let Some(suite) = suite {
        anyhow::ensure!(SUITES.contains(&suite), "the suites of upstream are {SUITES:?}");
    }
    setup::run()?;
    let servers = Servers::provide()?;
    if suite.is_none_or(|suite| suite == SUITES[0]) {
        let words = ["--package", "actiond"].into_iter();
        let words = words.chain(TESTS.iter().flat_map(|test| ["--test", *test]));
        cargo_test::run(&words.map(OsString::from).collect::<Vec<_>>(), |cargo| {
            servers.tell(cargo);
        })?;
    }
    if suite.is_none_or(|suite| suite == SUITES[1]) {
        let client_root = super::provide_root(&super::bazel::CLIENT)?;
        through_a_network(&servers, &client_root, true)?;
    }
    Ok(())
}

/// The network among all tests, unless it was left out by name, or the client that builds through it.
pub(crate) fn run_part(arguments: &Arguments) -> Result<()> {
    let bazel = &super::bazel::CLIENT;
    if arguments.skips(UPSTREAM) || arguments.skips(bazel.name) {
        println!("e2e {UPSTREAM}: SKIPPED, as asked");
        return Ok(());
    }
    through_a_network(&Servers::provide()?, &super::provide_root(bazel)?, false)
}

/// In a network namespace of its own, so that nobody else is slowed down and no port is in use.
fn through_a_network(servers: &Servers, client_root: &Path, all: bool) -> Result<()> {
    setup::ensure(&slow_link::NEEDS)?;
    let daemon = binaries::build("actiond", "linux-actiond")?;
    let mut inside = state_volume::command(Path::new("unshare"))?;
    inside.args(["--net", "--"]).arg(process::this_program()?).arg("e2e-upstream-inside");
    inside.arg("--client-root").arg(client_root).arg("--daemon").arg(daemon);
    inside.arg("--bazel-remote").arg(&servers.bazel_remote);
    inside.arg("--bb-storage").arg(&servers.bb_storage);
    if all {
        inside.arg("--all");
    }
    process::run(&mut inside)
}
