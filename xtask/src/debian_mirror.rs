//! Debian's packages for verbs that need those of other suites than the machine's own.
//!
//! The mirror is the one that the machine's apt is configured with. A [`Suite`] has a state of its own,
//! so that the machine's package lists stay as they are, and apt trusts it only if Debian's keyring
//! signed it.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::{process, setup};

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Names a Debian mirror where apt knows none, as on Ubuntu.
const VARIABLE: &str = "ACTIOND_DEBIAN_MIRROR";

/// The address of Debian's main archive on the mirror that this machine uses.
pub(crate) fn provide() -> Result<String> {
    if let Ok(mirror) = env::var(VARIABLE) {
        return Ok(mirror);
    }
    if let Some(mirror) = configured()? {
        return Ok(mirror);
    }
    // A fresh machine has never fetched the indexes that say whose archive a mirror holds.
    setup::update_lists()?;
    configured()?.with_context(|| {
        format!("apt is configured with no Debian mirror here; {VARIABLE} can name one")
    })
}

fn configured() -> Result<Option<String>> {
    let format = "$(ORIGIN)|$(LABEL)|$(REPO_URI)";
    let targets = process::output(Command::new("apt-get").args([
        "indextargets",
        "--format",
        format,
        "Created-By: Packages",
    ]))?;
    Ok(main_archive(&targets))
}

/// A suite of Debian.
pub(crate) struct Suite {
    state: PathBuf,
    options: Vec<String>,
}

impl Suite {
    /// Fetches the suite's index, with all of apt's state in the folder `state`.
    pub(crate) fn open(state: &Path, mirror: &str, suite: &str) -> Result<Self> {
        ensure!(process::is_installed("apt-get"), "there is no apt-get on this machine");
        ensure!(Path::new(KEYRING).exists(), "the keys of Debian's archive are missing: {KEYRING}");
        for folder in ["lists/partial", "cache/archives/partial"] {
            let folder = state.join(folder);
            fs::create_dir_all(&folder)
                .with_context(|| format!("cannot make {}", folder.display()))?;
        }
        let source = format!("deb [signed-by={KEYRING}] {mirror} {suite} main\n");
        fs::write(state.join("sources.list"), source)?;
        fs::write(state.join("status"), "")?;
        let place = |name: &str| state.join(name).display().to_string();
        let settings = [
            format!("Dir::State::Lists={}", place("lists")),
            format!("Dir::State::status={}", place("status")),
            format!("Dir::Etc::sourcelist={}", place("sources.list")),
            "Dir::Etc::sourceparts=/dev/null".to_owned(),
            format!("Dir::Cache={}", place("cache")),
            "Debug::NoLocking=true".to_owned(),
            // Its own user can't reach a private folder, and no package is run.
            "APT::Sandbox::User=root".to_owned(),
            "Acquire::Languages=none".to_owned(),
            // A mirror that was frozen at some day is a good source for a build.
            "Acquire::Check-Valid-Until=false".to_owned(),
            // Without it an index that can't be fetched, or is not signed, is a warning only.
            "APT::Update::Error-Mode=any".to_owned(),
        ];
        let options = settings.into_iter().flat_map(|it| ["-o".to_owned(), it]).collect();
        let suite = Self { state: state.to_owned(), options };
        // apt-get itself prints the reason.
        let updated = process::run(suite.command("apt-get").args(["-qq", "update"]));
        ensure!(updated.is_ok(), "its index can't be fetched");
        Ok(suite)
    }

    /// The versions of a package that the suite has.
    pub(crate) fn versions(&self, package: &str) -> Result<Vec<String>> {
        let table = process::output(self.command("apt-cache").args(["madison", package]))?;
        Ok(versions(&table))
    }

    /// Downloads one version of a package, and gives the path of the `.deb` file.
    pub(crate) fn download(&self, package: &str, version: &str) -> Result<PathBuf> {
        let named = format!("{package}={version}");
        process::run(self.command("apt-get").args(["-qq", "download", &named]))?;
        only_package(&self.state)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("LC_ALL", "C").args(&self.options).current_dir(&self.state);
        command
    }
}

/// The `.deb` file in a folder.
pub(crate) fn only_package(folder: &Path) -> Result<PathBuf> {
    let entries = fs::read_dir(folder)?.flatten().map(|entry| entry.path());
    let mut packages = entries.filter(|path| path.extension().is_some_and(|it| it == "deb"));
    packages.next().with_context(|| format!("apt-get left no package in {}", folder.display()))
}

/// The versions in a table of `apt-cache madison`.
fn versions(table: &str) -> Vec<String> {
    let versions = table.lines().filter_map(|line| line.split('|').nth(1));
    versions.map(|version| version.trim().to_owned()).collect()
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
    fn versions_are_read_from_a_table() {
        let table = " rust-src | 1.96.1+dfsg1-2 | http://mirror.invalid x/main\n \
                     rust-src | 1.95.0+dfsg1-2 | http://mirror.invalid x/main\n";
        assert_eq!(versions(table), ["1.96.1+dfsg1-2", "1.95.0+dfsg1-2"]);
        assert!(versions("").is_empty());
    }

    #[test]
    fn the_main_archive_is_found_among_others() {
        let targets = "Else|Else|https://else.invalid/\n\
                       Debian|Debian-Security|http://mirror.invalid/security/\n\
                       Debian|Debian|http://mirror.invalid/debian/\n";
        assert_eq!(main_archive(targets).as_deref(), Some("http://mirror.invalid/debian/"));
        assert_eq!(main_archive("Ubuntu|Ubuntu|http://mirror.invalid/ubuntu/\n"), None);
    }
}
