//! `cargo xtask dist`: a release, in `target/dist`.
//!
//! For Linux on this machine's processor: the daemon's executable with everything inside, a Debian
//! package of it, and what is made from its flags ([`linux`]). For macOS: the signed executable with
//! everything inside, and what installs it ([`macos`]). Two runs on one commit and one machine give the
//! same bytes, wherever the checkout lies: no time and no path goes in, and the runtimes are of the
//! packages that the lock names. The guest's kernel is of the source and the compiler that this
//! machine's distribution has, so another distribution gives another kernel (docs/fetched.md).
//! [`check`] builds elsewhere and compares; it takes as long as a build from nothing, so it has to be
//! asked for.

mod check;
mod linux;
mod macos;
mod payloads;

use std::{path::PathBuf, process::Command};

use anyhow::Result;
use clap::ValueEnum;

use crate::{process, runtimes::Versions, workspace};

pub(crate) use linux::Release;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The target of the release.
    #[arg(long, value_enum, default_value_t = Target::Linux)]
    target: Target,
    /// The folder for the release [default: target/dist, or target/dist-macos].
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Fail when the release would lack this runtime.
    #[arg(long, value_name = "NAME")]
    require: Vec<String>,
    /// Take exactly the packages that runtimes/runtimes.lock names, or fail. This is the default.
    #[arg(long, conflicts_with = "unlocked")]
    locked: bool,
    /// Take the packages that the suites have now: nobody can make the same release again later.
    #[arg(long)]
    unlocked: bool,
    /// Take locked packages from the `.deb` files in this folder, if they are there.
    #[arg(long, value_name = "DIR", conflicts_with = "unlocked")]
    packages: Option<PathBuf>,
    /// Build the programs for Linux once more in a copy of the checkout, from nothing, and compare.
    #[arg(long)]
    check_reproducible: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Target {
    /// Linux on this machine's processor.
    #[value(name = "linux")]
    Linux,
    /// macOS on Apple silicon.
    #[value(name = "aarch64-apple-darwin")]
    MacOs,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let default = match arguments.target {
        Target::Linux => "dist",
        Target::MacOs => "dist-macos",
    };
    let output = arguments.output.clone().unwrap_or_else(|| workspace::target().join(default));
    let runtimes = arguments.runtimes();
    match arguments.target {
        Target::Linux => drop(linux::make(&output, &runtimes, &time()?)?),
        Target::MacOs => macos::make(&output, &runtimes, &time()?)?,
    }
    if arguments.check_reproducible {
        check::run()?;
    }
    println!("dist: {}", output.display());
    Ok(())
}

/// The runtimes of a release.
struct Runtimes {
    /// Those without which it fails.
    require: Vec<String>,
    versions: Versions,
}

impl Arguments {
    fn runtimes(&self) -> Runtimes {
        let versions = match self.unlocked {
            true => Versions::Offered,
            false => Versions::Locked { packages: self.packages.clone() },
        };
        Runtimes { require: self.require.clone(), versions }
    }
}

/// A release for Linux, as tests install it: with the packages that the suites have today, so that
/// tests pass on every day. It has a folder of its own, because it is not for publication.
pub(crate) fn linux_release(require: &[String]) -> Result<Release> {
    let runtimes = Runtimes { require: require.to_owned(), versions: Versions::Offered };
    linux::make(&workspace::target().join("dist-tested"), &runtimes, &time()?)
}

/// The time that everything in the release has: the commit's, or what `SOURCE_DATE_EPOCH` says.
/// <https://reproducible-builds.org/specs/source-date-epoch/>
fn time() -> Result<String> {
    if let Ok(time) = std::env::var("SOURCE_DATE_EPOCH") {
        return Ok(time);
    }
    let root = workspace::root();
    let mut git = Command::new("git");
    let time = process::output(git.current_dir(root).args(["log", "-1", "--format=%ct"]))?;
    Ok(time.trim().to_owned())
}
