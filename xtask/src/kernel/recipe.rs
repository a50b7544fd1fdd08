//! The inputs of a kernel, and the name that follows from them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use clap::ValueEnum;
use sha2::{Digest, Sha256};

use super::source::Source;
use crate::{arch::Arch, process, workspace};

/// Raise when [`build`](super::build) makes something else of the same inputs.
const RECIPE_VERSION: &str = "1";

/// The purpose of a kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Flavour {
    /// The shipped flavour.
    Release,
    /// The same with `/proc/actiondfs_stats`.
    Stats,
    /// With every checker of the kernel: slow, for tests.
    Debug,
}

impl Flavour {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Release => "release",
            Self::Stats => "stats",
            Self::Debug => "debug",
        }
    }

    fn fragment(self) -> Option<&'static str> {
        match self {
            Self::Release => None,
            Self::Stats => Some("stats.config"),
            Self::Debug => Some("debug.config"),
        }
    }
}

/// One kernel: its machine, its purpose, and the files it is made from.
pub(super) struct Recipe {
    pub(super) arch: Arch,
    pub(super) flavour: Flavour,
    pub(super) source: Source,
    /// In the order in which they are laid over each other.
    pub(super) fragments: Vec<PathBuf>,
    /// The files of `kernel/actiondfs` that become `fs/actiondfs`, sorted by name.
    pub(super) actiondfs: Vec<PathBuf>,
}

impl Recipe {
    pub(super) fn new(arch: Arch, flavour: Flavour) -> Result<Self> {
        let machine = format!("{}.config", arch.name());
        let names = ["common.config", &machine].into_iter().chain(flavour.fragment());
        let folder = workspace::root().join("kernel/config");
        Ok(Self {
            arch,
            flavour,
            source: Source::fetch()?,
            fragments: names.map(|name| folder.join(name)).collect(),
            actiondfs: actiondfs_files()?,
        })
    }

    /// `<machine>-<flavour>-<hash of all inputs>`.
    pub(super) fn name(&self) -> Result<String> {
        let mut hash = Sha256::new();
        hash.update(RECIPE_VERSION);
        hash.update(self.source.version());
        hash.update(self.compiler_version()?);
        for path in self.fragments.iter().chain(&self.actiondfs) {
            let content =
                fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
            hash.update(path.file_name().expect("a file has a name").as_encoded_bytes());
            hash.update([0]);
            hash.update(u64::try_from(content.len()).expect("files fit into u64").to_le_bytes());
            hash.update(&content);
        }
        let hash: String =
            hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        Ok(format!("{}-{}-{hash}", self.arch.name(), self.flavour.name()))
    }

    fn compiler_version(&self) -> Result<String> {
        let compiler = format!("{}gcc", self.arch.tool_prefix());
        process::output(Command::new(compiler).arg("-dumpfullversion"))
    }
}

/// The files of actiondfs that the kernel's build sees: not its tests, not its documentation.
fn actiondfs_files() -> Result<Vec<PathBuf>> {
    let folder = workspace::root().join("kernel/actiondfs");
    let mut files = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("no {}", folder.display()))? {
        let path = entry?.path();
        if is_kernel_source(&path) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn is_kernel_source(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    matches!(name, "Kconfig" | "Makefile") || name.ends_with(".c") || name.ends_with(".h")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_and_documents_are_no_part_of_a_kernel() {
        let files = actiondfs_files().unwrap();
        let names: Vec<_> =
            files.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
        assert!(names.contains(&"parse.c") && names.contains(&"Kconfig"));
        assert!(!names.contains(&"README.md") && !names.contains(&"test"));
    }

    #[test]
    fn every_fragment_is_there() {
        let folder = workspace::root().join("kernel/config");
        let fragments = [Flavour::Stats, Flavour::Debug].into_iter().filter_map(Flavour::fragment);
        for name in fragments.chain(["common.config", "x86_64.config", "aarch64.config"]) {
            assert!(folder.join(name).is_file(), "{name} is missing");
        }
    }
}
