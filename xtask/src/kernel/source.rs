//! The kernel's source: Debian's package, fetched by name and unpacked into the user's cache.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::{process, workspace};

/// A kernel with long support. actiondfs is written against its interfaces: see
/// `kernel/README.md` before changing it.
const PACKAGE: &str = "linux-source-6.12";

/// An unpacked source tree.
pub(super) struct Source {
    version: String,
    folder: PathBuf,
}

impl Source {
    /// Fetches the version that the distribution offers, unless it is there already.
    pub(super) fn fetch() -> Result<Self> {
        let version = offered_version()?;
        let folder = workspace::cache()?.join("kernel/source").join(&version);
        let source = Self { version, folder: folder.join(PACKAGE) };
        if !source.folder.join("Makefile").is_file() {
            source.unpack(&folder)?;
        }
        Ok(source)
    }

    /// Of the package, such as `6.12.117-1~deb12u1`.
    pub(super) fn version(&self) -> &str {
        &self.version
    }

    /// The tree's top.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Unpacks beside its place and renames: what is in place is whole.
    fn unpack(&self, folder: &Path) -> Result<()> {
        println!("kernel: fetching {PACKAGE} {}", self.version);
        let partial = folder.with_file_name(format!("{}.partial", self.version));
        if partial.exists() {
            fs::remove_dir_all(&partial)?;
        }
        fs::create_dir_all(&partial)
            .with_context(|| format!("cannot make {}", partial.display()))?;
        let package = format!("{PACKAGE}={}", self.version);
        process::run(
            Command::new("apt-get")
                .args(["-qq", "-o", "APT::Sandbox::User=root", "download"])
                .arg(package)
                .current_dir(&partial),
        )?;
        let archive = only_package(&partial)?;
        process::run(Command::new("dpkg-deb").arg("-x").arg(&archive).arg(&partial))?;
        let tar = partial.join("usr/src").join(format!("{PACKAGE}.tar.xz"));
        println!("kernel: unpacking {}", tar.display());
        process::run(Command::new("tar").arg("-xf").arg(&tar).arg("-C").arg(&partial))?;
        fs::remove_dir_all(partial.join("usr"))?;
        fs::remove_file(archive)?;
        fs::rename(&partial, folder).with_context(|| format!("cannot make {}", folder.display()))
    }
}

fn offered_version() -> Result<String> {
    ensure!(process::is_installed("apt-cache"), "{PACKAGE} comes through apt, which is not here");
    let text =
        process::output(Command::new("apt-cache").args(["show", "--no-all-versions", PACKAGE]))?;
    let version = text.lines().find_map(|line| line.strip_prefix("Version: "));
    Ok(version.with_context(|| format!("apt knows no {PACKAGE}"))?.to_owned())
}

fn only_package(folder: &Path) -> Result<PathBuf> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            return Ok(path);
        }
    }
    anyhow::bail!("apt-get has downloaded nothing into {}", folder.display())
}
