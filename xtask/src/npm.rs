//! Packages of npm: at the versions and hashes of a list in the repository, fetched once for each content of it.

use std::{
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    path::PathBuf,
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::{process, setup, workspace};

/// The oldest node that all of these programs run on, by the number before the first dot.
const NODE_MIN: u32 = 20;

/// The list of packages, and that of all that they import.
const LISTS: [&str; 2] = ["package.json", "package-lock.json"];

/// Installs node where it is missing. Where it is too old the error names the client to `skip`.
pub(crate) fn ensure_node(skip: &str) -> Result<()> {
    setup::ensure(&setup::NODE)?;
    let version = process::output(Command::new("node").arg("--version"))?;
    let number = version.trim().trim_start_matches('v').split('.').next();
    let number = number.and_then(|number| number.parse::<u32>().ok());
    ensure!(
        number.is_some_and(|number| number >= NODE_MIN),
        "node {} is too old: install version {NODE_MIN} or later, as in Debian 13; `--skip {skip}` leaves out what needs it",
        version.trim(),
    );
    Ok(())
}

/// A folder in the user's cache with the packages that `e2e/NAME` lists in the repository, and with these `files` of it.
///
/// # Errors
/// When npm can't fetch them.
pub(crate) fn provide(name: &str, files: &[&str]) -> Result<PathBuf> {
    let source = workspace::root().join("e2e").join(name);
    let mut hasher = DefaultHasher::new();
    let mut contents = Vec::new();
    for file in LISTS.iter().chain(files) {
        let path = source.join(file);
        let content = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        content.hash(&mut hasher);
        contents.push((file, content));
    }
    let folder = workspace::cache()?.join(format!("{name}-{:016x}", hasher.finish()));
    if folder.is_dir() {
        return Ok(folder);
    }
    let unfinished = folder.with_extension("unfinished");
    fs::create_dir_all(&unfinished)
        .with_context(|| format!("cannot make {}", unfinished.display()))?;
    for (file, content) in contents {
        fs::write(unfinished.join(file), content)?;
    }
    println!("npm: fetching the packages of e2e/{name}");
    // No package of them needs to run anything when it is installed.
    let npm = ["ci", "--ignore-scripts", "--no-audit", "--no-fund"];
    process::run(Command::new("npm").args(npm).current_dir(&unfinished))
        .with_context(|| format!("fetching the packages of e2e/{name}"))?;
    fs::rename(&unfinished, &folder)
        .with_context(|| format!("cannot rename {}", unfinished.display()))?;
    Ok(folder)
}
