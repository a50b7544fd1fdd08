//! Makes the root file system that a client lives in, once, and keeps it in the user's cache.
//!
//! The packages come from the mirror that this machine's apt is configured with, in the versions that the
//! signed suite has when the root is made: no version is pinned, so none can be gone. A suite may lose a
//! package, as testing does when a package has a grave bug; then the next suite of the recipe is tried.
//! The name of a kept root holds a hash of its recipe, so a changed recipe makes a new root, and older
//! ones are deleted.

use std::{
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{debian_mirror, process, workspace};

/// Changes with what [`make_of`] does, so that roots of the old way are made again.
const FORMAT: u32 = 1;

/// The mount point for what a client may write.
pub(super) const CLIENT_FOLDER: &str = "/client";

/// The content of a root.
#[derive(Debug, Hash)]
pub(super) struct Recipe {
    pub(super) name: &'static str,
    /// Debian suites; the first that has all packages is taken.
    pub(super) suites: &'static [&'static str],
    pub(super) packages: &'static [&'static str],
    /// Packages that others depend on and nobody here uses: installed as empty ones.
    pub(super) stubs: &'static [&'static str],
}

impl Recipe {
    fn folder_name(&self) -> String {
        let mut hasher = DefaultHasher::new();
        (FORMAT, self).hash(&mut hasher);
        format!("{}-{:016x}", self.name, hasher.finish())
    }
}

/// The folder with the root, made now when it is not kept already.
pub(super) fn provide(recipe: &Recipe) -> Result<PathBuf> {
    let folder = workspace::cache()?.join("roots");
    fs::create_dir_all(&folder)?;
    let lock = fs::File::create(folder.join("lock"))?;
    lock.lock().context("cannot lock the cache of client roots")?;
    let root = folder.join(recipe.folder_name());
    if !root.exists() {
        remove_all_of(recipe, &folder)?;
        make(recipe, &folder, &root)?;
    }
    Ok(root)
}

/// Older roots, and what an interrupted run left.
fn remove_all_of(recipe: &Recipe, folder: &Path) -> Result<()> {
    let prefix = format!("{}-", recipe.name);
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            process::run(
                process::as_root("rm")
                    .args(["--recursive", "--force", "--one-file-system", "--"])
                    .arg(entry.path()),
            )?;
        }
    }
    Ok(())
}

fn make(recipe: &Recipe, folder: &Path, root: &Path) -> Result<()> {
    let mut failures = Vec::new();
    for suite in recipe.suites {
        match make_of(suite, recipe, folder, root) {
            Ok(()) => return Ok(()),
            Err(error) => {
                eprintln!("e2e: no {} root of Debian {suite}: {error:#}", recipe.name);
                failures.push(format!("{suite}: {error:#}"));
                remove_all_of(recipe, folder)?;
            }
        }
    }
    bail!("no suite of Debian gives the root {}: {}", recipe.name, failures.join("; "))
}

fn make_of(suite: &str, recipe: &Recipe, folder: &Path, root: &Path) -> Result<()> {
    let mirror = debian_mirror::provide()?;
    let packages = ["its base", &recipe.packages.join(", ")].join(" ");
    println!("e2e: making a Debian {suite} root of {}", packages.trim());
    let unfinished = root.with_extension("unfinished");
    let stubs = recipe
        .stubs
        .iter()
        .map(|name| build_stub(folder, recipe.name, name))
        .collect::<Result<Vec<_>>>()?;

    let mut command = process::as_root("mmdebstrap");
    command.args([
        "--variant=minbase",
        "--mode=root",
        "--format=directory",
        "--quiet",
        "--components=main",
    ]);
    // Suites of a frozen mirror are out of date, and recommended packages are half a desktop.
    command.args([
        r#"--aptopt=Acquire::Check-Valid-Until "false""#,
        r#"--aptopt=APT::Install-Recommends "false""#,
    ]);
    for stub in &stubs {
        command.arg(format!("--essential-hook=copy-in {} /", stub.display()));
        let name = stub.file_name().context("a stub has a name")?.to_string_lossy();
        command.arg(format!(
            r#"--essential-hook=chroot "$1" dpkg --install /{name} && rm "$1"/{name}"#
        ));
    }
    command.arg(format!(r#"--customize-hook=mkdir "$1"{CLIENT_FOLDER}"#));
    if !recipe.packages.is_empty() {
        command.arg(format!("--include={}", recipe.packages.join(",")));
    }
    command.arg(suite).arg(&unfinished).arg(mirror);
    process::run(&mut command)?;
    fs::rename(&unfinished, root).with_context(|| format!("cannot keep {}", root.display()))
}

/// An empty package that satisfies any dependency on `name` by its very high version.
fn build_stub(folder: &Path, recipe: &str, name: &str) -> Result<PathBuf> {
    let tree = folder.join(format!("{recipe}-stub-{name}"));
    fs::create_dir_all(tree.join("DEBIAN"))?;
    let control = format!(
        "Package: {name}\nVersion: 99:0\nArchitecture: all\nMaintainer: nobody <nobody@localhost>\n\
         Description: stands in for {name}, which is not used here\n"
    );
    fs::write(tree.join("DEBIAN/control"), control)?;
    let package = tree.with_extension("deb");
    process::output(
        Command::new("dpkg-deb").args(["--build", "--root-owner-group"]).arg(&tree).arg(&package),
    )?;
    Ok(package)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_recipe_has_another_name() {
        let recipe = |packages| Recipe { name: "client", suites: &["sid"], packages, stubs: &[] };
        assert_eq!(recipe(&["a"]).folder_name(), recipe(&["a"]).folder_name());
        assert_ne!(recipe(&["a"]).folder_name(), recipe(&["b"]).folder_name());
    }
}
