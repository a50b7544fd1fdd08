//! Cargo for macOS: checks with clippy, and links with what comes with the compiler.

use std::{path::PathBuf, process::Command};

use anyhow::Result;

use super::payloads::Payloads;
use super::stubs;
use crate::{process, reproducible::Checkout, toolchain::Toolchain, workspace};

const TARGET: &str = "aarch64-apple-darwin";

/// The oldest macOS that the program says it runs on. The framework's calls are there from 12 on;
/// 13 is the oldest that got fixes when this was written.
const DEPLOYMENT_TARGET: &str = "13.0";

/// The optimization of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Profile {
    /// Quickly built.
    Dev,
    /// As for users.
    Release,
}

/// The folder for everything that is made for macOS, but for cargo's own files.
pub(super) fn folder() -> PathBuf {
    workspace::target().join("darwin")
}

/// The needs of a build.
pub(super) struct Build {
    toolchain: Toolchain,
    checkout: Checkout,
    sdk: PathBuf,
}

impl Build {
    /// Gets it.
    pub(super) fn new() -> Result<Self> {
        let sdk = folder().join("sdk");
        stubs::write(&sdk)?;
        let toolchain = Toolchain::with_sources()?;
        Ok(Self { checkout: toolchain.checkout()?, toolchain, sdk })
    }

    /// Type-checks and lints what is macOS's alone, of which the workspace's own checks see nothing.
    pub(super) fn lint(&self) -> Result<()> {
        let mut command = self.cargo()?;
        command.arg("clippy").args(Self::target_arguments());
        command.args(["--package", "vz", "--package", "actiond", "--lib"]);
        command.args(["--bin", "darwin-actiond", "--", "-D", "warnings"]);
        process::run(&mut command)
    }

    /// Links the program with the payloads in its sections, and gives its path.
    pub(super) fn link(&self, payloads: &Payloads, profile: Profile) -> Result<PathBuf> {
        let mut command = self.cargo()?;
        command.arg("rustc").args(Self::target_arguments());
        command.args(["--package", "actiond", "--bin", "darwin-actiond"]);
        let name = match profile {
            Profile::Dev => "debug",
            Profile::Release => {
                command.arg("--release");
                "release"
            }
        };
        command.arg("--");
        // No table of where the objects lay on the machine that linked them.
        let mut arguments = vec!["-S".to_owned()];
        arguments.extend(payloads.linker_arguments());
        for argument in arguments {
            command.arg(format!("-Clink-arg={argument}"));
        }
        process::run(&mut command)?;
        Ok(self.checkout.target.join(TARGET).join(name).join("darwin-actiond"))
    }

    fn target_arguments() -> [&'static str; 4] {
        ["--locked", "-Zbuild-std=std,panic_abort", "--target", TARGET]
    }

    fn cargo(&self) -> Result<Command> {
        let mut command = self.toolchain.cargo();
        command
            .env("SDKROOT", &self.sdk)
            .env("MACOSX_DEPLOYMENT_TARGET", DEPLOYMENT_TARGET)
            .env("CARGO_TARGET_AARCH64_APPLE_DARWIN_LINKER", self.toolchain.linker()?);
        // rustc talks to it as to LLVM's linker for Mach-O, and not as to a C compiler.
        let flags = ["-Clinker-flavor=ld64.lld"];
        self.checkout.apply(&mut command, self.toolchain.folder(), &flags)?;
        Ok(command)
    }
}
