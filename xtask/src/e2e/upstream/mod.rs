//! `cargo xtask e2e upstream`: the daemon with a cache of others below its store.
//!
//! The servers are built at one version each into the user's cache ([`servers`]): bazel-remote and Buildbarn's bb_storage
//! from their Go modules, and `s3s-fs`, which speaks S3, with cargo. The checks are tests of the daemon, which are ignored
//! where no server is named. Then Bazel builds through a network that is slow and loses packets ([`network`]).

mod network;
mod servers;
mod slow_link;

use std::{ffi::OsString, path::Path};

use anyhow::Result;

use crate::{binaries, cargo_test, process, setup, state_volume};

pub(crate) use network::{InsideArguments, run_inside};

/// The variable by which the tests find bazel-remote.
const BAZEL_REMOTE: &str = "ACTIOND_TEST_BAZEL_REMOTE";

/// The variable by which they find bb_storage.
const BB_STORAGE: &str = "ACTIOND_TEST_BB_STORAGE";

/// The variable by which they find the server that speaks S3.
const S3_SERVER: &str = "ACTIOND_TEST_S3_SERVER";

/// The suite of the tests, and that of the network.
const SUITES: [&str; 2] = ["servers", "network"];

/// The verb, with all suites unless one is named.
pub(super) fn run(suite: Option<&str>) -> Result<()> {
    if let Some(suite) = suite {
        anyhow::ensure!(SUITES.contains(&suite), "the suites of upstream are {SUITES:?}");
    }
    setup::run()?;
    let (bazel_remote, bb_storage) = (servers::bazel_remote()?, servers::bb_storage()?);
    if suite.is_none_or(|suite| suite == SUITES[0]) {
        tests(&bazel_remote, &bb_storage)?;
    }
    if suite.is_none_or(|suite| suite == SUITES[1]) {
        through_a_network(&bazel_remote, &bb_storage)?;
    }
    Ok(())
}

fn tests(bazel_remote: &Path, bb_storage: &Path) -> Result<()> {
    let s3_server = servers::s3_server()?;
    let tests = ["upstream_servers", "upstream_objects", "cluster"];
    let words =
        ["--package", "actiond"].into_iter().chain(tests.iter().flat_map(|test| ["--test", *test]));
    let words: Vec<_> = words.map(OsString::from).collect();
    cargo_test::run(&words, |cargo| {
        cargo.env(BAZEL_REMOTE, bazel_remote).env(BB_STORAGE, bb_storage);
        cargo.env(S3_SERVER, &s3_server);
    })
}

/// In a network namespace of its own, so that nobody else is slowed down and no port is in use.
fn through_a_network(bazel_remote: &Path, bb_storage: &Path) -> Result<()> {
    setup::ensure(&slow_link::NEEDS)?;
    let client_root = super::provide_root(&super::bazel::CLIENT)?;
    let daemon = binaries::build("actiond", "linux-actiond")?;
    let mut inside = state_volume::command(Path::new("unshare"))?;
    inside.args(["--net", "--"]).arg(process::this_program()?).arg("e2e-upstream-inside");
    inside.arg("--client-root").arg(client_root).arg("--daemon").arg(daemon);
    process::run(inside.arg("--bazel-remote").arg(bazel_remote).arg("--bb-storage").arg(bb_storage))
}
