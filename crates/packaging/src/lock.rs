//! `runtimes.lock`: which bytes the packages of every runtime are.
//!
//! A suite changes with every point release, and its mirrors then delete the old packages. With the
//! lock a release can be built again from the same packages, wherever they are kept; other builds take
//! what the suites have and say what differs ([`Lock::changes_since`]).

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::recipe::Architecture;

/// The version of the file's format.
const VERSION: u32 = 1;

const HEADER: &str = "# Made by `cargo xtask runtimes --update`.\n\n";

/// The whole file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    version: u32,
    #[serde(default, rename = "suite")]
    suites: BTreeSet<LockedSuite>,
    #[serde(default, rename = "package")]
    packages: BTreeSet<LockedPackage>,
}

/// A suite that packages are locked of, as it was then.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LockedSuite {
    /// Its name, such as `debian bookworm`.
    source: String,
    /// The architecture of the images.
    architecture: String,
    /// The date of its Release file, which tells when the archive had these packages.
    released: String,
}

/// A package of one runtime for one architecture.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedPackage {
    /// The runtime that it is for.
    pub runtime: String,
    /// The architecture of the image.
    pub architecture: String,
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its source, such as `debian bookworm`.
    pub source: String,
    /// The size of the `.deb`, in bytes.
    pub size_bytes: u64,
    /// The hash of the `.deb`, in hexadecimal digits.
    pub sha256: String,
}

impl Default for Lock {
    fn default() -> Self {
        Self { version: VERSION, suites: BTreeSet::new(), packages: BTreeSet::new() }
    }
}

impl Lock {
    /// Reads the lock at `path`; where there is none, nothing is locked.
    ///
    /// # Errors
    /// When it can't be read, or is of another version.
    pub fn load(path: &Path) -> Result<Self> {
        let text = match std::fs::read_to_string(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self::default());
            }
            text => text.with_context(|| format!("reading {}", path.display()))?,
        };
        let lock: Self = toml::from_str(&text).with_context(|| path.display().to_string())?;
        ensure!(lock.version == VERSION, "{} is of version {}", path.display(), lock.version);
        Ok(lock)
    }

    /// Writes the lock to `path`, sorted.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let text = format!("{HEADER}{}", toml::to_string(self)?);
        std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))
    }

    /// The lock's entry for a runtime on an architecture.
    pub fn packages<'a>(
        &'a self,
        runtime: &'a str,
        architecture: Architecture,
    ) -> impl Iterator<Item = &'a LockedPackage> {
        self.packages.iter().filter(move |package| package.is_for(runtime, architecture))
    }

    /// Puts these in the place of what was locked for the runtime on the architecture.
    pub fn replace(
        &mut self,
        runtime: &str,
        architecture: Architecture,
        packages: impl IntoIterator<Item = LockedPackage>,
    ) {
        self.packages.retain(|package| !package.is_for(runtime, architecture));
        self.packages.extend(packages);
    }

    /// When the suite was released that the packages of `source` are locked of.
    pub fn released(&self, source: &str, architecture: Architecture) -> Option<&str> {
        let found = self.suites.iter().find(|suite| suite.is(source, architecture));
        found.map(|suite| suite.released.as_str())
    }

    /// Notes when the suite `source` was released, and forgets suites without packages.
    pub fn set_released(&mut self, source: &str, architecture: Architecture, released: String) {
        let Self { suites, packages, .. } = self;
        suites.retain(|suite| !suite.is(source, architecture));
        let (source, architecture) = (source.to_owned(), architecture.name().to_owned());
        suites.insert(LockedSuite { source, architecture, released });
        suites.retain(|suite| packages.iter().any(|package| suite.has(package)));
    }

    /// Says of each package that is not in `before` as it is here what it was there.
    pub fn changes_since(&self, before: &Self) -> Vec<String> {
        let new = self.packages.difference(&before.packages);
        new.map(|package| {
            let LockedPackage { runtime, name, version, .. } = package;
            let locked = before.packages.iter().find(|other| package.is_in_place_of(other));
            match locked {
                Some(old) if old.version == *version => {
                    format!(
                        "{name} {version} of {runtime} (has another SHA-256 than the locked one)"
                    )
                }
                Some(old) => format!("{name} {version} of {runtime} (locked: {})", old.version),
                None => format!("{name} {version} of {runtime} (not locked)"),
            }
        })
        .collect()
    }
}

impl LockedSuite {
    fn is(&self, source: &str, architecture: Architecture) -> bool {
        self.source == source && self.architecture == architecture.name()
    }

    fn has(&self, package: &LockedPackage) -> bool {
        self.source == package.source && self.architecture == package.architecture
    }
}

impl LockedPackage {
    fn is_for(&self, runtime: &str, architecture: Architecture) -> bool {
        self.runtime == runtime && self.architecture == architecture.name()
    }

    /// Whether both are the same package of the same runtime and architecture.
    fn is_in_place_of(&self, other: &Self) -> bool {
        let key = |it: &Self| [it.runtime.clone(), it.architecture.clone(), it.name.clone()];
        key(self) == key(other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(runtime: &str, version: &str) -> LockedPackage {
        LockedPackage {
            runtime: runtime.into(),
            architecture: "x86_64".into(),
            name: "libc6".into(),
            version: version.into(),
            source: "debian bookworm".into(),
            size_bytes: 1,
            sha256: "00".into(),
        }
    }

    #[test]
    fn what_is_saved_is_loaded() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("runtimes.lock");
        assert_eq!(Lock::load(&path).unwrap(), Lock::default());
        let mut lock = Lock::default();
        lock.replace("b", Architecture::X86_64, [package("b", "1")]);
        lock.replace("a", Architecture::X86_64, [package("a", "1")]);
        lock.replace("b", Architecture::X86_64, [package("b", "2")]);
        lock.set_released("debian bookworm", Architecture::X86_64, "a date".into());
        lock.set_released("debian jessie", Architecture::X86_64, "another".into());
        lock.save(&path).unwrap();
        let loaded = Lock::load(&path).unwrap();
        assert_eq!(loaded, lock);
        let released = |source| loaded.released(source, Architecture::X86_64);
        assert_eq!(released("debian bookworm"), Some("a date"));
        assert_eq!(released("debian jessie"), None, "no package is of it");
        let versions = |runtime| -> Vec<_> {
            let packages = loaded.packages(runtime, Architecture::X86_64);
            packages.map(|package| package.version.clone()).collect()
        };
        assert_eq!((versions("a"), versions("b")), (vec!["1".into()], vec!["2".into()]));
        assert_eq!(loaded.packages("a", Architecture::Aarch64).count(), 0);
    }

    #[test]
    fn another_version_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("runtimes.lock");
        std::fs::write(&path, "version = 2\n").unwrap();
        assert!(Lock::load(&path).is_err());
    }
}
