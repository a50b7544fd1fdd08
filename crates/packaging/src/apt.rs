//! Packages of a suite, through the machine's apt but beside its state.
//!
//! The owner of a machine chooses its mirror, proxy and credentials, so this module asks apt's own
//! configuration and never replaces it. It replaces only the place where apt keeps its state: the
//! suites that are added here exist in a private directory, and the machine's package lists stay as
//! they are. apt trusts an index only if the distribution's keyring signed it, and a package only if
//! it has the hash that the index names.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail, ensure};

use crate::recipe::{Architecture, Distribution};

/// The archives of the distributions.
#[derive(Debug, Clone)]
pub struct Archives {
    /// Debian's.
    pub debian: Archive,
    /// Ubuntu's.
    pub ubuntu: Archive,
}

/// A distribution's archive.
#[derive(Debug, Clone)]
pub struct Archive {
    /// `Origin` and `Label` in its Release files.
    pub origin: &'static str,
    /// The keys that sign its Release files.
    pub keyring: PathBuf,
    /// The address of a mirror; `None` for the one that apt is configured with.
    pub mirror: Option<String>,
    /// The address of the archive's snapshots, which have a folder for each time.
    pub snapshots: Option<String>,
    /// The environment variables for the mirror and the snapshots.
    variables: [&'static str; 2],
}

impl Archives {
    /// The archives as the environment describes them.
    pub fn from_environment() -> Self {
        let setting = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let archive = |origin, keyring: &str, variables: [&'static str; 2]| {
            let [mirror, snapshots] = variables.map(setting);
            let keyring = Path::new("/usr/share/keyrings").join(keyring);
            Archive { origin, keyring, mirror, snapshots, variables }
        };
        Self {
            debian: archive(
                "Debian",
                "debian-archive-keyring.gpg",
                ["ACTIOND_DEBIAN_MIRROR", "ACTIOND_DEBIAN_SNAPSHOTS"],
            ),
            ubuntu: archive(
                "Ubuntu",
                "ubuntu-archive-keyring.gpg",
                ["ACTIOND_UBUNTU_MIRROR", "ACTIOND_UBUNTU_SNAPSHOTS"],
            ),
        }
    }

    /// The archive of a distribution.
    pub fn of(&self, distribution: Distribution) -> &Archive {
        match distribution {
            Distribution::Debian => &self.debian,
            Distribution::Ubuntu => &self.ubuntu,
        }
    }
}

impl Archive {
    /// The environment variable that names the address of the snapshots.
    pub fn snapshots_variable(&self) -> &'static str {
        self.variables[1]
    }

    /// The address of the archive as it was soon after a suite's release.
    ///
    /// # Errors
    /// When no address of snapshots is set, or `released` is not what a Release file has as its date.
    pub fn snapshot(&self, released: &str) -> Result<String> {
        /// A release reaches the mirrors, and the snapshots with them, within hours of its date.
        /// Stable suites, which are the ones that are locked, stay the same for weeks.
        const PUBLISHED_AFTER: Duration = Duration::from_secs(24 * 60 * 60);
        let snapshots = self.snapshots.as_deref().context("no address of snapshots is set")?;
        // As HTTP has it but for the name of the time zone.
        let time = httpdate::parse_http_date(&released.replace(" UTC", " GMT"))
            .with_context(|| format!("{released:?} is no date of a Release file"))?;
        let time = compact(time + PUBLISHED_AFTER);
        Ok(format!("{}/{time}/", snapshots.trim_end_matches('/')))
    }
}

/// A time as snapshots are named: `20261122T091544Z`.
fn compact(time: SystemTime) -> String {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let text = httpdate::fmt_http_date(time);
    // Such as `Sun, 22 Nov 2026 09:15:44 GMT`.
    let (day, month, year, clock) = (&text[5..7], &text[8..11], &text[12..16], &text[17..25]);
    let month = MONTHS.iter().position(|name| *name == month).map_or(0, |index| index + 1);
    format!("{year}{month:02}{day}T{}Z", clock.replace(':', ""))
}

/// One suite of a distribution for one architecture, with its indexes.
#[derive(Debug)]
pub struct Suite {
    state: PathBuf,
    name: String,
    architecture: Architecture,
}

/// A package as a suite's signed index describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// The package's name.
    pub name: String,
    /// The package's version.
    pub version: String,
    /// The name under which [`Suite::download`] saves it.
    pub file: String,
    /// The SHA-256 of the `.deb`, in hexadecimal digits.
    pub sha256: String,
}

impl Suite {
    /// Fetches the suite's indexes from the archive's mirror, or from the address `at`, into `state`,
    /// where later runs only refresh them.
    ///
    /// # Errors
    /// When there is no keyring or no mirror, or the mirror does not have the suite, or the suite is
    /// not signed by the distribution.
    pub fn open(
        state: &Path,
        archive: &Archive,
        at: Option<String>,
        name: &str,
        architecture: Architecture,
    ) -> Result<Self> {
        let keyring = archive.keyring.display();
        ensure!(archive.keyring.exists(), "the archive's keys are not installed ({keyring})");
        for folder in ["lists/partial", "cache/archives/partial"] {
            let folder = state.join(folder);
            fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        }
        let address = at.map_or_else(|| mirror(archive, state), Ok)?;
        let sources = format!(
            "Types: deb\nURIs: {address}\nSuites: {name}\nComponents: main\nSigned-By: {keyring}\n"
        );
        fs::write(state.join("suite.sources"), sources)?;
        fs::write(state.join("status"), "")?;
        let suite = Self { state: state.to_owned(), name: name.to_owned(), architecture };
        run(suite.apt_get().args(["--quiet=2", "update"]))?;
        Ok(suite)
    }

    /// The date of the suite, as its signed Release file has it.
    ///
    /// # Errors
    /// When apt keeps no Release file of the suite, or it has no date.
    pub fn released(&self) -> Result<String> {
        let ends = [format!("_{}_InRelease", self.name), format!("_{}_Release", self.name)];
        let lists = self.state.join("lists");
        for entry in fs::read_dir(&lists).with_context(|| lists.display().to_string())? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if ends.iter().any(|end| name.ends_with(end)) {
                let text = fs::read_to_string(entry.path()).with_context(|| name.clone())?;
                let date = text.lines().find_map(|line| line.strip_prefix("Date: "));
                return Ok(date.with_context(|| format!("{name} has no date"))?.trim().to_owned());
            }
        }
        bail!("apt keeps no Release file of {} in {}", self.name, lists.display())
    }

    /// The versions of these packages in the suite now. A package is a name, or `name=version`.
    ///
    /// # Errors
    /// When the suite lacks one of them.
    pub fn offers(&self, packages: &[String]) -> Result<Vec<Offer>> {
        let mut command = self.apt_get();
        command.args(["--quiet=2", "--print-uris", "download"]).args(self.qualified(packages));
        let printed = run(&mut command).with_context(|| format!("looking into {}", self.name))?;
        printed.lines().map(Offer::parse).collect()
    }

    /// Downloads these packages into `folder`. A package is a name, or `name=version`.
    ///
    /// # Errors
    /// When the suite lacks one of them, or it can't be fetched, or has another hash.
    pub fn download(&self, packages: &[String], folder: &Path) -> Result<()> {
        let mut command = self.apt_get();
        command.args(["--quiet=2", "download"]).args(self.qualified(packages)).current_dir(folder);
        run(&mut command).with_context(|| format!("downloading from {}", self.name))?;
        Ok(())
    }

    /// The packages as apt wants them named: with the architecture before the version.
    fn qualified(&self, packages: &[String]) -> impl Iterator<Item = String> {
        let architecture = self.architecture.debian_name();
        packages.iter().map(move |package| match package.split_once('=') {
            Some((name, version)) => format!("{name}:{architecture}={version}"),
            None => format!("{package}:{architecture}"),
        })
    }

    /// `apt-get` with the private state and this suite as its only source.
    fn apt_get(&self) -> Command {
        let mut command = private_apt_get(&self.state);
        let architecture = self.architecture.debian_name();
        let option = |key: &str, value: String| [String::from("-o"), format!("{key}={value}")];
        command
            .args(option("Dir::State::status", path(&self.state, "status")))
            .args(option("Dir::Etc::sourcelist", path(&self.state, "suite.sources")))
            .args(option("Dir::Etc::sourceparts", "/dev/null".to_owned()))
            .args(option("Dir::Etc::preferences", "/dev/null".to_owned()))
            .args(option("Dir::Etc::preferencesparts", "/dev/null".to_owned()))
            .args(option("APT::Architecture", architecture.to_owned()))
            .args(option("APT::Architectures", architecture.to_owned()))
            // A mirror that was frozen at some day is a good source for a build.
            .args(option("Acquire::Check-Valid-Until", "false".to_owned()))
            // Without it apt goes on with the indexes of an earlier run when the present ones can't
            // be fetched or are not signed, and says so in a warning only.
            .args(option("APT::Update::Error-Mode", "any".to_owned()));
        command
    }
}

impl Offer {
    /// Parses a line of `apt-get --print-uris`: `'URI' FILE SIZE SHA256:HASH`.
    fn parse(line: &str) -> Result<Self> {
        let fields: Vec<_> = line.split_ascii_whitespace().collect();
        let offer = match fields[..] {
            [_, file, _, hash] => Self::of_file(file, hash),
            _ => None,
        };
        offer.with_context(|| format!("apt-get names a package in a way that is not known: {line}"))
    }

    fn of_file(file: &str, hash: &str) -> Option<Self> {
        let (name, rest) = file.split_once('_')?;
        let (version, _) = rest.rsplit_once('_')?;
        Some(Self {
            name: name.to_owned(),
            // Of an epoch, such as the 1 of 1:3.8-4.
            version: version.replace("%3a", ":"),
            file: file.to_owned(),
            sha256: hash.strip_prefix("SHA256:")?.to_owned(),
        })
    }

    /// As [`Suite::download`] takes it.
    pub fn named(&self) -> String {
        format!("{}={}", self.name, self.version)
    }
}

/// `apt-get` with lists and caches of its own, and the machine's sources.
fn private_apt_get(state: &Path) -> Command {
    let mut command = Command::new("apt-get");
    let option = |key: &str, value: String| [String::from("-o"), format!("{key}={value}")];
    command
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .args(option("Dir::State::Lists", path(state, "lists")))
        .args(option("Dir::Cache", path(state, "cache")))
        .args(option("Debug::NoLocking", "true".to_owned()))
        // Its own user can't reach a private directory, and nothing here is run.
        .args(option("APT::Sandbox::User", "root".to_owned()))
        .args(option("Acquire::Languages", "none".to_owned()))
        // Descriptions of applications, which graphical shops add to apt's indexes.
        .args(option("Acquire::IndexTargets::deb::DEP-11::DefaultEnabled", "false".to_owned()));
    command
}

fn path(state: &Path, name: &str) -> String {
    state.join(name).display().to_string()
}

/// The address of the archive's mirror that this machine uses.
fn mirror(archive: &Archive, state: &Path) -> Result<String> {
    if let Some(mirror) = &archive.mirror {
        return Ok(mirror.clone());
    }
    if let Some(mirror) = configured_mirror(archive, &mut Command::new("apt-get"))? {
        return Ok(mirror);
    }
    // On a fresh machine nothing has fetched the indexes yet that say whose archive a mirror holds.
    let own = state.join("machine");
    fs::create_dir_all(own.join("lists/partial"))?;
    fs::create_dir_all(own.join("cache/archives/partial"))?;
    run(private_apt_get(&own).args(["--quiet=2", "update"]))?;
    match configured_mirror(archive, &mut private_apt_get(&own))? {
        Some(mirror) => Ok(mirror),
        None => bail!(
            "apt is configured with no {} mirror here; {} can name one",
            archive.origin,
            archive.variables[0]
        ),
    }
}

fn configured_mirror(archive: &Archive, apt_get: &mut Command) -> Result<Option<String>> {
    let output = apt_get
        .args(["indextargets", "--format", "$(ORIGIN)|$(LABEL)|$(REPO_URI)"])
        .arg("Created-By: Packages")
        .stdin(Stdio::null())
        .output()
        .context("cannot start apt-get")?;
    ensure!(output.status.success(), "apt-get indextargets: {}", output.status);
    let targets = String::from_utf8_lossy(&output.stdout);
    Ok(main_archive(archive, &targets))
}

/// The main archive's address among apt's index targets; not that of security updates, which has
/// other suites.
fn main_archive(archive: &Archive, targets: &str) -> Option<String> {
    let prefix = format!("{0}|{0}|", archive.origin);
    targets.lines().find_map(|line| line.strip_prefix(&prefix)).map(str::to_owned)
}

/// Runs to the end and returns what the program printed; on failure the error has the last errors
/// that it wrote.
fn run(command: &mut Command) -> Result<String> {
    /// Lines of apt's that are worth showing: errors, without the progress before.
    const SHOWN_LINES: usize = 4;
    let output = command.output().context("cannot start apt-get")?;
    if output.status.success() {
        return String::from_utf8(output.stdout).context("apt-get printed no text");
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let errors: Vec<_> = said.lines().filter(|line| line.starts_with("E: ")).collect();
    let shown = errors.iter().rev().take(SHOWN_LINES).rev().copied().collect::<Vec<_>>();
    bail!("apt-get: {}: {}", output.status, shown.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_main_archive_is_found_among_others() {
        let targets = "Else|Else|https://else.invalid/\n\
                       Debian|Debian-Security|http://mirror.invalid/security/\n\
                       Debian|Debian|http://mirror.invalid/debian/\n";
        let archives = Archives::from_environment();
        let found = |distribution| main_archive(archives.of(distribution), targets);
        assert_eq!(found(Distribution::Debian).as_deref(), Some("http://mirror.invalid/debian/"));
        assert_eq!(found(Distribution::Ubuntu), None);
    }

    #[test]
    fn a_snapshot_is_of_the_day_after_the_release() {
        let mut archive = Archives::from_environment().debian;
        archive.snapshots = Some("http://snapshots.invalid/debian/".to_owned());
        let address = |date| archive.snapshot(date);
        assert_eq!(
            address("Thu, 31 Dec 2026 09:15:44 UTC").unwrap(),
            "http://snapshots.invalid/debian/20270101T091544Z/"
        );
        assert!(address("2026-12-31").is_err());
        archive.snapshots = None;
        assert!(archive.snapshot("Thu, 31 Dec 2026 09:15:44 UTC").is_err());
    }

    #[test]
    fn an_offer_is_read() {
        let line =
            "'http://mirror.invalid/pool/d/d/d_1.8-4_all.deb' d_1%3a1.8-4_all.deb 351 SHA256:8b";
        let offer = Offer::parse(line).unwrap();
        assert_eq!((offer.named().as_str(), offer.sha256.as_str()), ("d=1:1.8-4", "8b"));
        for line in ["", "'uri' d_1_all.deb 351", "'uri' d_1_all.deb 351 MD5Sum:8b"] {
            assert!(Offer::parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn a_failure_carries_what_was_said() {
        let script = "echo 'E: no such suite' >&2; exit 100";
        let error = run(Command::new("sh").args(["-c", script])).unwrap_err();
        assert!(error.to_string().contains("no such suite"), "{error}");
    }
}
