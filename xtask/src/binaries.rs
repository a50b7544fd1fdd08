//! Builds what runs in end-to-end tests and measurements, as a user would: in release.

use std::path::PathBuf;

use anyhow::Result;

use crate::{process, workspace};

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
        let daemon = build("actiond")?.join("linux-actiond");
        let triple = workspace::host_triple()?;
        process::run(
            process::cargo()
                .args(["rustc", "--locked", "--release", "--package", "action-tool"])
                .args(["--target", &triple, "--", "-C", "target-feature=+crt-static"]),
        )?;
        let action_tool = workspace::target().join(triple).join("release/action-tool");
        Ok(Self { daemon, action_tool })
    }
}

/// Builds a package's release, and gives the folder that its programs are in.
pub(crate) fn build(package: &str) -> Result<PathBuf> {
    process::run(process::cargo().args(["build", "--locked", "--release", "--package", package]))?;
    Ok(workspace::target().join("release"))
}
