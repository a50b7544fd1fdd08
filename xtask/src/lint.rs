//! `cargo xtask lint`: formatting, clippy without warnings, also for the daemon
//! without its default features, `deny.toml`, and sparse for the kernel's part.

use anyhow::Result;

use crate::{kernel, process};

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
    // What `cargo xtask serve` builds: with less than the default features.
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
    install_cargo_deny()?;
    process::run(process::cargo().args([
        "deny",
        "--locked",
        "check",
        "--hide-inclusion-graph",
        "licenses",
        "bans",
        "sources",
    ]))?;
    kernel::lint()
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
