//! `cargo xtask lint`: formatting, clippy without warnings, also for the daemon
//! without its default features and for macOS, `deny.toml`, and sparse for the kernel's part.
//!
//! The fuzz targets are a workspace of their own: they are formatted, clippy has nothing to say, their lock file is
//! current, and their dependencies are checked.

use anyhow::{Context, Result};

use crate::{darwin, fuzz, kernel, process, setup, workspace};

/// The one tool that is neither Rust's nor the distribution's.
const CARGO_DENY_VERSION: &str = "0.20.2";

pub(crate) fn run() -> Result<()> {
    process::run(process::cargo().args(["fmt", "--all", "--check"]))?;
    process::run(process::cargo().args([
        "clippy",
        "--locked",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ]))?;
    // The build of `cargo xtask serve`, which has fewer than the default features.
    process::run(process::cargo().args([
        "clippy",
        "--locked",
        "--package",
        "actiond",
        "--no-default-features",
        "--",
        "-D",
        "warnings",
    ]))?;
    // The code that only macOS compiles.
    darwin::lint_if_possible()?;
    install_cargo_deny()?;
    check_dependencies(ROOT)?;
    lint_fuzz_targets()?;
    kernel::lint()
}

const ROOT: &str = "Cargo.toml";
const FUZZ: &str = "fuzz/Cargo.toml";

fn check_dependencies(manifest: &str) -> Result<()> {
    let manifest = workspace::root().join(manifest);
    let mut deny = process::cargo();
    deny.arg("deny").arg("--manifest-path").arg(manifest).arg("--config");
    deny.arg(workspace::root().join("deny.toml")).args(["--locked", "check"]);
    process::run(deny.args(["--hide-inclusion-graph", "licenses", "bans", "sources"]))
}

fn lint_fuzz_targets() -> Result<()> {
    let manifest = workspace::root().join(FUZZ);
    process::run(
        process::cargo().args(["fmt", "--all", "--check", "--manifest-path"]).arg(&manifest),
    )?;
    // Fails where the crates have other dependencies than when the lock file was written.
    let mut metadata = process::cargo();
    metadata.args(["metadata", "--locked", "--format-version=1", "--filter-platform"]);
    metadata.arg(workspace::host_triple()?).arg("--manifest-path").arg(&manifest);
    process::output(&mut metadata)
        .context("fuzz/Cargo.lock is old: run `cargo metadata --manifest-path fuzz/Cargo.toml`")?;
    // In the same target folder, where what both workspaces use is compiled already.
    setup::ensure(&[fuzz::CXX])?;
    let mut clippy = process::cargo();
    clippy.args(["clippy", "--locked", "--all-targets", "--target-dir"]).arg(workspace::target());
    clippy.arg("--manifest-path").arg(&manifest).args(["--", "-D", "warnings"]);
    process::run(&mut clippy)?;
    check_dependencies(FUZZ)
}

/// Builds it once into cargo's own folder, where later runs find it: three minutes of CPU.
fn install_cargo_deny() -> Result<()> {
    if process::is_installed("cargo-deny")
        || process::cargo().args(["deny", "--version"]).output()?.status.success()
    {
        return Ok(());
    }
    println!("lint: building cargo-deny {CARGO_DENY_VERSION}");
    process::run(process::cargo().args([
        "install",
        "--locked",
        "--version",
        CARGO_DENY_VERSION,
        "cargo-deny",
    ]))
}
