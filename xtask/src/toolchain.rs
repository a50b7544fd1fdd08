//! A toolchain that can build the standard library for targets that it came without.
//!
//! Cargo builds the library (`-Zbuild-std`) from sources that must be of the same version as the
//! compiler. A toolchain that has the sources is used as it is. For any other this module makes a copy of
//! the toolchain in the user's cache, from hard links, and gives that copy the sources: the toolchain that
//! the user installed is never changed. The sources come from the first of these that has them:
//!
//! 1. the user's cache,
//! 2. the folder that `ACTIOND_RUST_SRC` names, with the unpacked sources of that release,
//! 3. Debian's package `rust-src`, if one of the [`SUITES`] has it in that version.
//!
//! Debian has a version for some months only. After that [`NoSources`] says how to go on, and
//! `cargo xtask test` skips what needs them. The daemon and the guest of this machine's processor never do.

use std::{
    env, fmt, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use rustix::fs::FlockOperation;

use crate::{
    debian_mirror::{self, Suite},
    process,
    reproducible::Checkout,
    workspace,
};

/// The path of the standard library's sources in a toolchain.
const SOURCES: &str = "lib/rustlib/src/rust";

/// Suites that are searched, the likeliest first. Any of them may drop a version when the next one
/// comes. The stable ones have what their own compiler needs.
const SUITES: [&str; 5] = ["trixie-backports", "forky", "sid", "trixie", "bookworm"];

/// Names a folder with the unpacked sources of the compiler's release.
const VARIABLE: &str = "ACTIOND_RUST_SRC";

/// The standard library's sources are unavailable on this machine.
#[derive(Debug)]
pub(crate) struct NoSources {
    version: String,
    reasons: Vec<String>,
}

impl fmt::Display for NoSources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { version, reasons } = self;
        write!(
            f,
            "the standard library's sources of Rust {version} are unavailable ({}); add them with `rustup \
             component add rust-src`, or unpack the sources of that release and name their folder with \
             {VARIABLE}, or use a Rust whose sources Debian has",
            reasons.join("; ")
        )
    }
}

impl std::error::Error for NoSources {}

/// The variables that the calling cargo has set for its own toolchain. With its library path a compiler takes
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

    /// Its path.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The target folder of packages with a library of their own. Apart from the rest: build scripts
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

/// The folder with the sources of that version. Fails with [`NoSources`] if there is none.
fn unpacked(home: &Path, version: &str) -> Result<PathBuf> {
    let sources = home.join(format!("rustc-{version}"));
    if sources.join("library/Cargo.toml").is_file() {
        return Ok(sources);
    }
    if let Some(folder) = env::var_os(VARIABLE) {
        return given(&PathBuf::from(folder), version);
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

/// The folder that the user names, if it has the sources of that version.
fn given(folder: &Path, version: &str) -> Result<PathBuf> {
    let place = folder.display();
    ensure!(
        folder.join("library/Cargo.toml").is_file(),
        "{VARIABLE}: {place} has no library/Cargo.toml"
    );
    let file = folder.join("src/version");
    let found = fs::read_to_string(&file)
        .with_context(|| format!("{VARIABLE}: cannot read {}", file.display()))?;
    let found = found.trim();
    ensure!(found == version, "{VARIABLE}: {place} is of Rust {found}, the compiler of {version}");
    fs::canonicalize(folder).with_context(|| format!("{VARIABLE}: {place}"))
}

/// Downloads the package of that version into a folder below `folder`. A suite that can't be fetched
/// counts as one without it: suites come and go.
fn download(folder: &Path, version: &str) -> Result<PathBuf> {
    let mut reasons = Vec::new();
    let mut search = |suite: &str| -> Result<Option<PathBuf>> {
        let mirror = debian_mirror::provide()?;
        let apt = Suite::open(&folder.join(suite), &mirror, suite)?;
        let offered = apt.versions("rust-src")?;
        let Some(of_release) = of_release(&offered, version) else {
            reasons.push(format!("{suite} has {}", offered.first().map_or("none", String::as_str)));
            return Ok(None);
        };
        println!("rust-src: fetching {of_release} of {suite}");
        apt.download("rust-src", of_release).map(Some)
    };
    let mut failures = Vec::new();
    for suite in SUITES {
        match search(suite) {
            Ok(Some(package)) => return Ok(package),
            Ok(None) => {}
            Err(error) => failures.push(format!("{suite}: {error:#}")),
        }
    }
    reasons.extend(failures);
    Err(NoSources { version: version.to_owned(), reasons }.into())
}

/// Debian's version of that release of Rust among those of a package.
fn of_release<'a>(versions: &'a [String], release: &str) -> Option<&'a str> {
    let wanted = format!("{release}+");
    versions.iter().map(String::as_str).find(|version| version.starts_with(&wanted))
}

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
    fn only_the_same_release_is_taken() {
        let offered = ["1.96.1+dfsg1-2~bpo13+1", "1.95.0+dfsg1-2~bpo13+1"].map(str::to_owned);
        assert_eq!(of_release(&offered, "1.95.0"), Some("1.95.0+dfsg1-2~bpo13+1"));
        assert_eq!(of_release(&offered, "1.95"), None);
        assert_eq!(of_release(&[], "1.95.0"), None);
    }

    #[test]
    fn a_folder_with_sources_of_another_release_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let error = || given(folder.path(), "1.95.0").unwrap_err().to_string();
        assert!(error().contains("no library/Cargo.toml"), "{}", error());
        write("library/Cargo.toml", "");
        assert!(error().contains("src/version"), "{}", error());
        write("src/version", "1.94.1\n");
        assert!(error().contains("is of Rust 1.94.1"), "{}", error());
        write("src/version", "1.95.0\n");
        assert!(given(folder.path(), "1.95.0").is_ok());
    }

    #[test]
    fn what_is_unavailable_is_told_apart_with_its_cure() {
        let error = NoSources { version: "1.95.0".into(), reasons: vec!["sid has 1.97".into()] };
        let error = anyhow::Error::from(error).context("building the guest");
        assert!(error.is::<NoSources>());
        let said = format!("{error:#}");
        assert!(said.contains("sid has 1.97") && said.contains("rustup component add"), "{said}");
    }
}
