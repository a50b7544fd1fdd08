//! The release for this machine's Linux: one executable, and a Debian package of it.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;

use super::{Runtimes, payloads::Payloads};
use crate::{
    arch::Arch,
    binaries::{self, Unoptimized},
    process,
    reproducible::Checkout,
};

/// The parts of a release.
pub(crate) struct Release {
    /// `linux-actiond` with its payloads.
    pub(crate) executable: PathBuf,
    /// The Debian package.
    pub(crate) package: PathBuf,
    /// The image of runtimes that the executable carries.
    pub(crate) runtimes: PathBuf,
}

/// Makes the release in `output`, with that time on everything in it.
pub(crate) fn make(output: &Path, runtimes: &Runtimes, time_s: &str) -> Result<Release> {
    let arch = Arch::host();
    let payloads = Payloads::provide(arch, runtimes)?;
    let executable = stripped(&Checkout::own()?)?;
    let documents = documents(output)?;
    let version = env!("CARGO_PKG_VERSION");
    process::run(
        Command::new(binaries::build("packaging", "dist")?)
            .arg("--executable")
            .arg(&executable)
            .arg("--runtimes")
            .arg(&payloads.runtimes)
            .arg("--kernel")
            .arg(&payloads.kernel)
            .arg("--initramfs")
            .arg(&payloads.initramfs)
            .arg("--documents")
            .arg(&documents)
            .args(["--version", version, "--arch", arch.name(), "--time", time_s])
            .arg("--output")
            .arg(output),
    )?;
    let package = format!("actiond_{version}_{}.deb", debian_name(arch));
    Ok(Release {
        executable: output.join("linux-actiond"),
        package: output.join(package),
        runtimes: payloads.runtimes,
    })
}

fn debian_name(arch: Arch) -> &'static str {
    match arch {
        Arch::X86_64 => "amd64",
        Arch::Aarch64 => "arm64",
    }
}

/// The daemon's release of a checkout without symbols, which would be most of it.
pub(super) fn stripped(checkout: &Checkout) -> Result<PathBuf> {
    let built = binaries::build_in(checkout, "actiond", "linux-actiond")?;
    let stripped = built.with_extension("stripped");
    // The linker's build ID is a hash of the symbols as well, in which paths are left.
    let options = ["--strip-all", "--remove-section=.note.gnu.build-id", "-o"];
    process::run(Command::new("strip").args(options).arg(&stripped).arg(&built))?;
    checkout.ensure_unnamed_in(&stripped)?;
    Ok(stripped)
}

/// Manual pages and completions, made from the flags.
fn documents(output: &Path) -> Result<PathBuf> {
    let folder = output.join("documents");
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    process::run(Command::new(Unoptimized::Documents.build()?).arg(&folder))?;
    Ok(folder)
}
