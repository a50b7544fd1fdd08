//! `cargo xtask dist`: a release for this machine's processor, in `target/dist`.
//!
//! The daemon's executable with the runtime image inside, a Debian package of it, and what is made
//! from its flags. Two runs on one commit give the same bytes: nothing of the present day goes in.

use std::{path::PathBuf, process::Command};

use anyhow::Result;

use crate::{binaries, process, runtimes, workspace};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Where the release goes [default: target/dist].
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Fail when the release would lack this runtime.
    #[arg(long, value_name = "NAME")]
    require: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let output = arguments.output.clone().unwrap_or_else(|| workspace::target().join("dist"));
    let architecture = std::env::consts::ARCH;
    let image = runtimes::provide(architecture, &arguments.require)?;
    let executable = stripped()?;
    let documents = output.join("documents");
    let documents_program = ["run", "--locked", "--quiet", "--package", "actiond"];
    process::run(
        process::cargo()
            .args(documents_program)
            .args(["--example", "documents", "--"])
            .arg(&documents),
    )?;
    let program = binaries::build("packaging", "dist")?;
    process::run(
        Command::new(program)
            .arg("--executable")
            .arg(&executable)
            .arg("--runtimes")
            .arg(&image)
            .arg("--documents")
            .arg(&documents)
            .args(["--version", env!("CARGO_PKG_VERSION"), "--arch", architecture])
            .args(["--time", &time()?])
            .arg("--output")
            .arg(&output),
    )?;
    println!("dist: {}", output.display());
    Ok(())
}

/// The daemon's release without symbols, which would be most of it.
fn stripped() -> Result<PathBuf> {
    let built = binaries::build("actiond", "linux-actiond")?;
    let stripped = workspace::target().join("release/linux-actiond.stripped");
    process::run(Command::new("strip").arg("--strip-all").arg("-o").arg(&stripped).arg(&built))?;
    Ok(stripped)
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
