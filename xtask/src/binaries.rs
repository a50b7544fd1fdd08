//! Builds what runs in end-to-end tests and measurements as it is shipped: in release.

use std::path::PathBuf;

use anyhow::Result;

use crate::{process, reproducible::Checkout, toolchain, workspace};

/// Paths of programs that were just built.
pub(crate) struct Binaries {
    /// `linux-actiond`.
    pub(crate) daemon: PathBuf,
    /// What the actions of the tests run. It is linked statically, for it runs in sandboxes that
    /// hold nothing but an action's inputs.
    pub(crate) action_tool: PathBuf,
}

impl Binaries {
    pub(crate) fn build() -> Result<Self> {
        let daemon = build("actiond", "linux-actiond")?;
        let action_tool = build_static(&Checkout::own()?, "action-tool", "action-tool")?;
        Ok(Self { daemon, action_tool })
    }
}

/// After all other arguments of `cargo rustc`: one file without symbols, which needs no other.
pub(crate) const STATIC: [&str; 5] =
    ["--", "-C", "target-feature=+crt-static", "-C", "strip=symbols"];

/// Builds one program's release, and gives its path.
pub(crate) fn build(package: &str, program: &str) -> Result<PathBuf> {
    build_in(&Checkout::own()?, package, program)
}

/// The same in another checkout.
pub(crate) fn build_in(checkout: &Checkout, package: &str, program: &str) -> Result<PathBuf> {
    compile(checkout, "build", package, program, &[])
}

/// The same for a program that needs no other file to run.
pub(crate) fn build_static(checkout: &Checkout, package: &str, program: &str) -> Result<PathBuf> {
    compile(checkout, "rustc", package, program, &STATIC)
}

fn compile(
    checkout: &Checkout,
    verb: &str,
    package: &str,
    program: &str,
    more: &[&str],
) -> Result<PathBuf> {
    let triple = workspace::host_triple()?;
    let mut command = process::cargo();
    command.args([verb, "--locked", "--release", "--package", package, "--bin", program]);
    command.args(["--target", &triple]).args(more);
    checkout.apply(&mut command, &toolchain::sysroot()?, &[])?;
    process::run(&mut command)?;
    Ok(checkout.target.join(triple).join("release").join(program))
}
