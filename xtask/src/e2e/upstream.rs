//! `cargo xtask e2e upstream`: the daemon with a cache of others below its store.
//!
//! The servers are built at one version each into the user's cache: bazel-remote from its Go module, and `s3s-fs`,
//! which speaks S3, with cargo. The checks are tests of the daemon, which are ignored where no server is named.

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

/// The crate of the server that speaks S3, and its version.
const S3_SERVER: (&str, &str) = ("s3s-fs", "0.14.1");

/// The variable by which the tests find it.
const S3_SERVER_VARIABLE: &str = "ACTIOND_TEST_S3_SERVER";

/// The verb.
pub(super) fn run() -> Result<()> {
    setup::run()?;
    let (bazel_remote, s3_server) = (bazel_remote()?, s3_server()?);
    let tests = ["upstream_servers", "upstream_objects", "cluster"];
    let words =
        ["--package", "actiond"].into_iter().chain(tests.iter().flat_map(|test| ["--test", *test]));
    let words: Vec<_> = words.map(OsString::from).collect();
    cargo_test::run(&words, |cargo| {
        cargo.env(BAZEL_REMOTE_VARIABLE, &bazel_remote).env(S3_SERVER_VARIABLE, &s3_server);
    })
}

/// The server that speaks S3, built once for each version.
fn s3_server() -> Result<PathBuf> {
    let (package, version) = S3_SERVER;
    let home = workspace::cache()?.join("servers").join(format!("{package}-{version}"));
    let program = home.join("bin").join(package);
    if !program.is_file() {
        println!("e2e upstream: building {package} {version}");
        let install = ["install", "--locked", "--version", version, "--features", "binary"];
        let mut cargo = process::cargo();
        process::run(cargo.args(install).arg("--root").arg(&home).arg(package))?;
    }
    Ok(program)
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
    // In the module's own folder, whose `go.sum` has the hashes of all that it imports.
    let mut download = Command::new("go");
    download.args(["mod", "download", "-json", &format!("{module}@{version}")]);
    let answer = process::output(download.current_dir(&folder)).context("fetching bazel-remote")?;
    let answer: serde_json::Value = serde_json::from_str(&answer).context("what go says")?;
    let source = answer["Dir"].as_str().context("go names no folder of bazel-remote")?;
    let unfinished = folder.join("unfinished");
    let mut go = Command::new("go");
    go.current_dir(source).args(["build", "-mod=readonly", "-o"]).arg(&unfinished).arg(".");
    process::run(&mut go).context("building bazel-remote")?;
    fs::rename(&unfinished, &program)
        .with_context(|| format!("cannot rename {}", unfinished.display()))?;
    Ok(program)
}
