//! The kernel's source: Debian's package, unpacked into the user's cache.
//!
//! The version is the one that the machine's apt has today, because mirrors delete old versions and
//! fixes are wanted. The version is a part of a built kernel's name, so another version is another kernel.
//! A machine whose distribution has no such package takes that of Debian 13.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::{
    debian_mirror::{self, Suite, only_package},
    process, setup, workspace,
};

/// A kernel with long support. actiondfs is written against its interfaces: see
/// `kernel/README.md` before changing it.
const PACKAGE: &str = "linux-source-6.12";

/// The Debian release that has it for as long as it is supported.
const SUITE: &str = "trixie";

/// An unpacked source tree.
pub(super) struct Source {
    version: String,
    folder: PathBuf,
}

impl Source {
    /// Fetches the version that is offered today, unless the cache has it.
    pub(super) fn fetch() -> Result<Self> {
        if let Some(version) = offered_here()? {
            return Self::provide(version.clone(), download_here).or_else(|error| {
                // The mirror may have deleted this version since apt's last update.
                setup::update_lists()?;
                match candidate()? {
                    Some(newer) if newer != version => Self::provide(newer, download_here),
                    _ => Err(error),
                }
            });
        }
        let state = workspace::cache()?.join("kernel/apt");
        let suite = Suite::open(&state, &debian_mirror::provide()?, SUITE)?;
        let versions = suite.versions(PACKAGE)?;
        let version = versions.first().with_context(|| {
            format!("neither this machine's apt nor Debian's {SUITE} has {PACKAGE}")
        })?;
        Self::provide(version.clone(), |version, folder| {
            let downloaded = suite.download(PACKAGE, version)?;
            let package = folder.join(downloaded.file_name().context("a package has a name")?);
            fs::rename(&downloaded, &package)
                .with_context(|| format!("cannot move {}", downloaded.display()))?;
            Ok(package)
        })
    }

    /// The tree of that version in the cache; `download` puts the package into a folder.
    fn provide(version: String, download: impl Fn(&str, &Path) -> Result<PathBuf>) -> Result<Self> {
        let folder = workspace::cache()?.join("kernel/source").join(&version);
        let source = Self { version, folder: folder.join(PACKAGE) };
        if !source.folder.join("Makefile").is_file() {
            source.unpack(&folder, download)?;
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
    fn unpack(
        &self,
        folder: &Path,
        download: impl Fn(&str, &Path) -> Result<PathBuf>,
    ) -> Result<()> {
        println!("kernel: fetching {PACKAGE} {}", self.version);
        let partial = folder.with_file_name(format!("{}.partial", self.version));
        if partial.exists() {
            fs::remove_dir_all(&partial)?;
        }
        fs::create_dir_all(&partial)
            .with_context(|| format!("cannot make {}", partial.display()))?;
        let archive = download(&self.version, &partial)?;
        process::run(Command::new("dpkg-deb").arg("-x").arg(&archive).arg(&partial))?;
        let tar = partial.join("usr/src").join(format!("{PACKAGE}.tar.xz"));
        println!("kernel: unpacking {}", tar.display());
        process::run(Command::new("tar").arg("-xf").arg(&tar).arg("-C").arg(&partial))?;
        fs::remove_dir_all(partial.join("usr"))?;
        fs::remove_file(archive)?;
        fs::rename(&partial, folder).with_context(|| format!("cannot make {}", folder.display()))
    }
}

/// The version that the machine's apt has. A new machine's apt knows none before its first update.
fn offered_here() -> Result<Option<String>> {
    ensure!(process::is_installed("apt-cache"), "{PACKAGE} comes through apt, which is not here");
    match candidate()? {
        Some(version) => Ok(Some(version)),
        None => {
            setup::update_lists()?;
            candidate()
        }
    }
}

fn candidate() -> Result<Option<String>> {
    let mut policy = Command::new("apt-cache");
    let text = process::output(policy.env("LC_ALL", "C").args(["policy", PACKAGE]))?;
    Ok(candidate_in(&text))
}

fn candidate_in(policy: &str) -> Option<String> {
    let line = policy.lines().find_map(|line| line.trim().strip_prefix("Candidate: "))?;
    (line != "(none)").then(|| line.to_owned())
}

/// Downloads a version that the machine's apt has into a folder.
fn download_here(version: &str, folder: &Path) -> Result<PathBuf> {
    let mut download = Command::new("apt-get");
    download.args(["-qq", "-o", "APT::Sandbox::User=root", "download"]);
    download.arg(format!("{PACKAGE}={version}")).current_dir(folder);
    process::run(&mut download)?;
    only_package(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_candidate_is_read() {
        let policy = "linux-source-6.12:\n  Installed: (none)\n  Candidate: 6.12.117-1\n";
        assert_eq!(candidate_in(policy).as_deref(), Some("6.12.117-1"));
        let none = "linux-source-6.12:\n  Installed: (none)\n  Candidate: (none)\n";
        assert_eq!(candidate_in(none), None);
        assert_eq!(candidate_in(""), None, "apt does not know the package");
    }
}
