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
        let daemon = build("actiond", "linux-actiond")?;
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

/// Builds one program's release, and gives its path.
pub(crate) fn build(package: &str, program: &str) -> Result<PathBuf> {
    let arguments = ["build", "--locked", "--release", "--package", package, "--bin", program];
    process::run(process::cargo().args(arguments))?;
    Ok(workspace::target().join("release").join(program))
}
