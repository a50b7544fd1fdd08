//! Makes the root file system that a client lives in, once, and keeps it in the user's cache.
//!
//! The packages come from the mirror that this machine's apt is configured with. The name of a kept
//! root holds a hash of its recipe, so that a changed recipe makes a new one; older ones go.

use std::{
    env, fs,
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{process, workspace};

/// Changes with what [`make`] does, so that roots of the old way are made again.
const FORMAT: u32 = 1;

/// Names a Debian mirror where apt knows none, as on Ubuntu.
const MIRROR_VARIABLE: &str = "ACTIOND_DEBIAN_MIRROR";

/// The mount point for what a client may write.
pub(super) const CLIENT_FOLDER: &str = "/client";

/// What a root is made of.
#[derive(Debug, Hash)]
pub(super) struct Recipe {
    pub(super) name: &'static str,
    /// A Debian suite.
    pub(super) suite: &'static str,
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
    let mirror = mirror()?;
    println!("e2e: making a Debian {} root with {}", recipe.suite, recipe.packages.join(", "));
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
    command.arg(format!("--include={}", recipe.packages.join(",")));
    command.arg(recipe.suite).arg(&unfinished).arg(mirror);
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

/// The Debian mirror that this machine's apt uses.
fn mirror() -> Result<String> {
    if let Ok(mirror) = env::var(MIRROR_VARIABLE) {
        return Ok(mirror);
    }
    if let Some(mirror) = configured_mirror()? {
        return Ok(mirror);
    }
    // A fresh machine has never fetched the indexes that say whose archive a mirror holds.
    process::run(process::as_root("apt-get").args(["update", "-qq"]))?;
    match configured_mirror()? {
        Some(mirror) => Ok(mirror),
        None => {
            bail!("apt is configured with no Debian mirror here; {MIRROR_VARIABLE} can name one")
        }
    }
}

fn configured_mirror() -> Result<Option<String>> {
    let format = "$(ORIGIN)|$(LABEL)|$(REPO_URI)";
    let targets = process::output(Command::new("apt-get").args([
        "indextargets",
        "--format",
        format,
        "Created-By: Packages",
    ]))?;
    Ok(main_archive(&targets))
}

/// The address of Debian's main archive among apt's index targets; not that of security updates,
/// which has no such suites.
fn main_archive(targets: &str) -> Option<String> {
    targets.lines().find_map(|line| line.strip_prefix("Debian|Debian|")).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_main_archive_is_found_among_others() {
        let targets = "Else|Else|https://else.invalid/\n\
                       Debian|Debian-Security|http://mirror.invalid/security/\n\
                       Debian|Debian|http://mirror.invalid/debian/\n";
        assert_eq!(main_archive(targets).as_deref(), Some("http://mirror.invalid/debian/"));
        assert_eq!(main_archive("Ubuntu|Ubuntu|http://mirror.invalid/ubuntu/\n"), None);
    }

    #[test]
    fn a_changed_recipe_has_another_name() {
        let recipe = |packages| Recipe { name: "client", suite: "sid", packages, stubs: &[] };
        assert_eq!(recipe(&["a"]).folder_name(), recipe(&["a"]).folder_name());
        assert_ne!(recipe(&["a"]).folder_name(), recipe(&["b"]).folder_name());
    }
}
