//! `cargo xtask e2e upstream`: the daemon with a cache of others below its store.
//!
//! The servers are built from their Go modules, at one version each, into the user's cache. The checks are
//! tests of the daemon, which are ignored where no server is named.

use std::{ffi::OsString, fs, path::PathBuf, process::Command};

use anyhow::{Context, Result};

use crate::{
    cargo_test, process,
    setup::{self, Need},
    workspace,
};

/// Builds the servers.
const GO: [Need; 1] = [Need {
    program: "go",
    package: "golang-go",
    why: "builds the caches of others that the daemon is tested with",
}];

/// The module of bazel-remote, and its version.
const BAZEL_REMOTE: (&str, &str) = ("github.com/buchgr/bazel-remote/v2", "v2.6.1");

/// The variable by which the tests find it.
const BAZEL_REMOTE_VARIABLE: &str = "ACTIOND_TEST_BAZEL_REMOTE";

/// The verb.
pub(super) fn run() -> Result<()> {
    setup::run()?;
    let server = bazel_remote()?;
    let words = ["--package", "actiond", "--test", "upstream_servers"].map(OsString::from);
    cargo_test::run(&words, |cargo| {
        cargo.env(BAZEL_REMOTE_VARIABLE, &server);
    })
}

/// bazel-remote, built once for each version.
fn bazel_remote() -> Result<PathBuf> {
    let (module, version) = BAZEL_REMOTE;
    let folder = workspace::cache()?.join("servers").join(format!("bazel-remote-{version}"));
    let program = folder.join("bazel-remote");
    if program.is_file() {
        return Ok(program);
    }
    setup::ensure(&GO)?;
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    println!("e2e upstream: building {module} {version}");
    // A module of our own that requires the version: `go install` asks for a list of all versions, which not every
    // module proxy serves.
    let requirement = format!("module servers\n\ngo 1.24\n\nrequire {module} {version}\n");
    let module_file = folder.join("go.mod");
    fs::write(&module_file, requirement)
        .with_context(|| format!("cannot write {}", module_file.display()))?;
    let unfinished = folder.join("unfinished");
    let mut go = Command::new("go");
    go.current_dir(&folder).args(["build", "-mod=mod", "-o"]).arg(&unfinished).arg(module);
    process::run(&mut go).context("building bazel-remote")?;
    fs::rename(&unfinished, &program)
        .with_context(|| format!("cannot rename {}", unfinished.display()))?;
    Ok(program)
}
