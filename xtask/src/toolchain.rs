//! A toolchain that can build the standard library for targets that it came without.
//!
//! Cargo builds it (`-Zbuild-std`) from sources that must be of the very same version as the
//! compiler. A toolchain that has them is used as it is. For any other, Debian's `rust-src` of that
//! version is unpacked into the user's cache, beside a copy of the toolchain, made of hard links,
//! in which the sources have their place: what somebody installed is never changed.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::FlockOperation;

use crate::{debian_mirror, process, reproducible::Checkout, workspace};

/// Where a toolchain has the sources of its standard library.
const SOURCES: &str = "lib/rustlib/src/rust";

/// Suites that are looked through, the likeliest first. Any of them may drop a version when the next
/// one comes; what is in the cache stays.
const SUITES: [&str; 3] = ["trixie-backports", "forky", "sid"];

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// What the cargo that runs us has set for its own toolchain. With its library path a compiler takes
/// that one's libraries, and with them its sources.
const OF_THE_CALLER: [&str; 7] = [
    "CARGO",
    "CARGO_ENCODED_RUSTFLAGS",
    "LD_LIBRARY_PATH",
    "RUSTC",
    "RUSTDOC",
    "RUSTFLAGS",
    "RUSTUP_TOOLCHAIN",
];

/// The folder of the compiler that runs this verb.
pub(crate) fn sysroot() -> Result<PathBuf> {
    Ok(PathBuf::from(rustc(&["--print", "sysroot"])?.trim()))
}

/// A toolchain with sources.
pub(crate) struct Toolchain {
    folder: PathBuf,
}

impl Toolchain {
    /// The one that runs this verb, or its copy with sources.
    pub(crate) fn with_sources() -> Result<Self> {
        let sysroot = sysroot()?;
        if has_sources(&sysroot) {
            return Ok(Self { folder: sysroot });
        }
        let version = release(&rustc(&["-vV"])?)?;
        let home = workspace::cache()?.join("rust-src").join(&version);
        fs::create_dir_all(&home).with_context(|| format!("cannot make {}", home.display()))?;
        let lock = fs::File::create(home.join("lock"))?;
        rustix::fs::flock(&lock, FlockOperation::LockExclusive)?;
        let folder = home.join("toolchain");
        if !has_sources(&folder) {
            let sources = unpacked(&home, &version)?;
            copy_with_sources(&sysroot, &sources, &folder)?;
        }
        Ok(Self { folder })
    }

    /// Where it is.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where everything is built that has a library of its own. Apart from the rest: build scripts
    /// look at the variable that lets a stable compiler build its library, and would be built anew
    /// at each turn.
    pub(crate) fn checkout(&self) -> Result<Checkout> {
        Ok(Checkout { target: workspace::target().join("build-std"), ..Checkout::own()? })
    }

    /// Its cargo, which finds its own compiler, and takes flags that are for nightly else.
    pub(crate) fn cargo(&self) -> Command {
        let mut path = self.folder.join("bin").into_os_string();
        path.push(":");
        path.push(env::var_os("PATH").unwrap_or_default());
        let mut command = Command::new(self.folder.join("bin/cargo"));
        command.env("PATH", path).env("RUSTC_BOOTSTRAP", "1");
        for name in OF_THE_CALLER {
            command.env_remove(name);
        }
        command
    }

    /// LLVM's linker, which comes with the compiler and links for all systems.
    pub(crate) fn linker(&self) -> Result<PathBuf> {
        let triple = workspace::host_triple()?;
        let linker = self.folder.join("lib/rustlib").join(triple).join("bin/rust-lld");
        ensure!(linker.is_file(), "this toolchain has no rust-lld: {}", linker.display());
        Ok(linker)
    }
}

fn has_sources(toolchain: &Path) -> bool {
    toolchain.join(SOURCES).join("library/Cargo.toml").is_file()
}

fn rustc(arguments: &[&str]) -> Result<String> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    process::output(Command::new(rustc).args(arguments))
}

/// The version in what `rustc -vV` prints.
fn release(text: &str) -> Result<String> {
    let version = text.lines().find_map(|line| line.strip_prefix("release: "));
    Ok(version.context("rustc -vV names no release")?.to_owned())
}

/// Hard links, as a toolchain has a gigabyte; a copy where the cache is on another file system.
fn copy_with_sources(sysroot: &Path, sources: &Path, folder: &Path) -> Result<()> {
    let partial = folder.with_extension("partial");
    for leftover in [folder, &partial] {
        if leftover.exists() {
            fs::remove_dir_all(leftover)?;
        }
    }
    let linked = Command::new("cp").arg("-al").arg(sysroot).arg(&partial).output()?;
    if !linked.status.success() {
        if partial.exists() {
            fs::remove_dir_all(&partial)?;
        }
        process::run(Command::new("cp").arg("-a").arg(sysroot).arg(&partial))?;
    }
    let place = partial.join(SOURCES);
    fs::create_dir_all(place.parent().expect("it is a path of several parts"))?;
    std::os::unix::fs::symlink(sources, place)?;
    fs::rename(&partial, folder).with_context(|| format!("cannot make {}", folder.display()))
}

/// The sources of that version in the cache, fetched if they are not there.
fn unpacked(home: &Path, version: &str) -> Result<PathBuf> {
    let sources = home.join(format!("rustc-{version}"));
    if sources.join("library/Cargo.toml").is_file() {
        return Ok(sources);
    }
    let partial = home.join("unpacking");
    if partial.exists() {
        fs::remove_dir_all(&partial)?;
    }
    fs::create_dir_all(&partial)?;
    let package = download(&partial, version)?;
    process::run(Command::new("dpkg-deb").arg("-x").arg(package).arg(&partial))?;
    let found = partial.join("usr/src").join(format!("rustc-{version}"));
    ensure!(
        found.join("library/Cargo.toml").is_file(),
        "Debian's rust-src has no usr/src/rustc-{version}"
    );
    fs::rename(found, &sources)?;
    fs::remove_dir_all(&partial)?;
    Ok(sources)
}

/// Downloads the package of that version into `folder`.
fn download(folder: &Path, version: &str) -> Result<PathBuf> {
    ensure!(process::is_installed("apt-get"), "there is no apt-get here: {NO_APT}");
    let mirror = debian_mirror::provide()?;
    for suite in SUITES {
        let apt = Apt::new(&folder.join(suite), &mirror, suite)?;
        apt.run(&["update"])?;
        let offered = process::output(apt.command("apt-cache").args(["madison", "rust-src"]))?;
        if let Some(offered) = offered_version(&offered, version) {
            println!("rust-src: fetching {offered} of {suite}");
            apt.run(&["download", &format!("rust-src={offered}")])?;
            return deb_in(&apt.state);
        }
    }
    bail!(
        "the standard library's sources of Rust {version} are neither in {} nor in this toolchain; \
         with rustup: rustup component add rust-src",
        SUITES.join(", ")
    )
}

fn deb_in(folder: &Path) -> Result<PathBuf> {
    let entries = fs::read_dir(folder)?.flatten().map(|entry| entry.path());
    let mut packages = entries.filter(|path| path.extension().is_some_and(|it| it == "deb"));
    packages.next().with_context(|| format!("apt-get left nothing in {}", folder.display()))
}

/// Debian's version of that release of Rust in a table of `apt-cache madison`.
fn offered_version(table: &str, release: &str) -> Option<String> {
    let versions = table.lines().filter_map(|line| line.split('|').nth(1)).map(str::trim);
    let wanted = format!("{release}+");
    versions.filter(|version| version.starts_with(&wanted)).map(str::to_owned).next()
}

/// apt with a state of its own, so that the machine's package lists stay as they are.
struct Apt {
    state: PathBuf,
    options: Vec<String>,
}

impl Apt {
    /// With one suite as its only source.
    fn new(state: &Path, mirror: &str, suite: &str) -> Result<Self> {
        ensure!(Path::new(KEYRING).exists(), "the archive's keys are missing: {KEYRING}");
        for folder in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(state.join(folder))?;
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
            // Its own user can't reach a private folder, and nothing of this is run.
            "APT::Sandbox::User=root".to_owned(),
            "Acquire::Languages=none".to_owned(),
        ];
        let options = settings.into_iter().flat_map(|it| ["-o".to_owned(), it]).collect();
        Ok(Self { state: state.to_owned(), options })
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("LC_ALL", "C").args(&self.options).current_dir(&self.state);
        command
    }

    fn run(&self, arguments: &[&str]) -> Result<()> {
        process::run(self.command("apt-get").arg("-qq").args(arguments))
    }
}

const NO_APT: &str = "add the sources with `rustup component add rust-src`";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_release_is_read() {
        let text = "rustc 1.95.0 (59807616e 2026-04-14)\nhost: x\nrelease: 1.95.0\n";
        assert_eq!(release(text).unwrap(), "1.95.0");
        assert!(release("").is_err());
    }

    #[test]
    fn only_the_same_release_is_offered() {
        let table = " rust-src | 1.96.1+dfsg1-2~bpo13+1 | http://mirror.invalid x/main\n \
                     rust-src | 1.95.0+dfsg1-2~bpo13+1 | http://mirror.invalid x/main\n";
        let offered = offered_version(table, "1.95.0");
        assert_eq!(offered.as_deref(), Some("1.95.0+dfsg1-2~bpo13+1"));
        assert_eq!(offered_version(table, "1.95"), None);
        assert_eq!(offered_version("", "1.95.0"), None);
    }
}
