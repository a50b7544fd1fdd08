//! Builds that don't tell where they were made.
//!
//! A compiler writes paths into what it makes: where a panic is, where a line is for a debugger. So
//! that two checkouts give the same bytes, those paths are given names that are the same everywhere.
//! Every release build of this workspace is made that way, for cargo would build all of it anew for
//! other flags, and so that what was tested is what is shipped.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::workspace;

/// Cargo's working directory.
pub(crate) struct Checkout {
    /// The top of the source tree.
    pub(crate) root: PathBuf,
    /// The folder in which it builds.
    pub(crate) target: PathBuf,
    /// Its own folder, with the sources of dependencies.
    pub(crate) cargo_home: PathBuf,
}

impl Checkout {
    /// The one that runs this verb.
    pub(crate) fn own() -> Result<Self> {
        Ok(Self {
            root: workspace::root().to_owned(),
            target: workspace::target(),
            cargo_home: cargo_home()?,
        })
    }

    /// Has cargo, in `command`, build in this checkout with the compiler whose folder is `sysroot`;
    /// `more` is what else the compiler is told. Needs `--target`: what runs while building, such as
    /// build scripts, isn't built with these flags then.
    pub(crate) fn apply(&self, command: &mut Command, sysroot: &Path, more: &[&str]) -> Result<()> {
        let mut flags = self.remappings(sysroot)?;
        flags.extend(more.iter().map(|flag| (*flag).to_owned()));
        command.current_dir(&self.root).env_remove("RUSTFLAGS");
        command.env("CARGO_TARGET_DIR", &self.target).env("CARGO_HOME", &self.cargo_home);
        // With this separator a path may have spaces in it.
        command.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
        Ok(())
    }

    /// Fails when a program tells where it was built.
    pub(crate) fn ensure_unnamed_in(&self, program: &Path) -> Result<()> {
        let mut grep = Command::new("grep");
        grep.args(["--quiet", "--text", "--fixed-strings"]);
        for place in [&self.root, &self.target, &self.cargo_home] {
            grep.arg("-e").arg(place);
        }
        let status = grep.arg(program).status().context("cannot start grep")?;
        // 0 is a match, 1 is none, and all else an error.
        ensure!(status.code() == Some(1), "{} names where it was built", program.display());
        Ok(())
    }

    /// Of several that fit, the compiler takes the last.
    fn remappings(&self, sysroot: &Path) -> Result<Vec<String>> {
        let cache = workspace::cache()?;
        let places: [(&Path, &str); 5] = [
            (&cache, "/cache"),
            (sysroot, "/rust"),
            (&self.cargo_home, "/cargo"),
            (&self.root, "/actiond"),
            (&self.target, "/target"),
        ];
        let remap =
            |(from, to): (&Path, &str)| format!("--remap-path-prefix={}={to}", from.display());
        Ok(places.map(remap).into())
    }
}

fn cargo_home() -> Result<PathBuf> {
    if let Some(folder) = env::var_os("CARGO_HOME") {
        return Ok(PathBuf::from(folder));
    }
    let home = env::var_os("HOME").context("neither CARGO_HOME nor HOME is set")?;
    Ok(Path::new(&home).join(".cargo"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_names_its_checkout_is_refused() {
        let checkout = Checkout::own().unwrap();
        let place = checkout.root.join("src/main.rs").display().to_string();
        let check = |content: &str| {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), content).unwrap();
            checkout.ensure_unnamed_in(file.path())
        };
        assert!(check("\0/actiond/src/main.rs\0").is_ok());
        let error = check(&format!("\0{place}\0")).unwrap_err().to_string();
        assert!(error.contains("names where it was built"), "{error}");
    }
}
