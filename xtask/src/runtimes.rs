//! `cargo xtask runtimes`: the image of C libraries and shells that `--runtime-image` takes.
//!
//! What it does is in the `packaging` crate. That is a program of its own so that the other verbs
//! need not be built with compressors, and so that those run in release.

use std::{ffi::OsString, path::PathBuf};

use anyhow::Result;

use crate::{binaries, process, setup, workspace};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The processor that the image is for: x86_64 or aarch64 [default: this machine's].
    #[arg(long, value_name = "ARCHITECTURE", default_value = std::env::consts::ARCH)]
    arch: String,
    /// Take what the archives have now, and write runtimes/runtimes.lock anew.
    #[arg(long)]
    update: bool,
    /// Fail when this runtime can't be had, which is otherwise left out with a warning.
    #[arg(long, value_name = "NAME")]
    require: Vec<String>,
    /// Where the image goes [default: target/runtimes/runtimes-ARCHITECTURE.sqfs].
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let output = arguments.output.clone().unwrap_or_else(|| image_path(&arguments.arch));
    let mut options: Vec<OsString> = vec!["--arch".into(), (&arguments.arch).into()];
    if arguments.update {
        options.push("--update".into());
    }
    for name in &arguments.require {
        options.extend(["--require".into(), name.into()]);
    }
    build(&output, &options)
}

/// The image as the lock says, built now; the runtimes in `require` must be in it.
pub(crate) fn provide(architecture: &str, require: &[String]) -> Result<PathBuf> {
    run(&Arguments {
        arch: architecture.to_owned(),
        update: false,
        require: require.to_owned(),
        output: None,
    })?;
    Ok(image_path(architecture))
}

/// Where the image for an architecture is kept.
fn image_path(architecture: &str) -> PathBuf {
    workspace::target().join(format!("runtimes/runtimes-{architecture}.sqfs"))
}

fn build(output: &PathBuf, options: &[OsString]) -> Result<()> {
    setup::run()?;
    let program = binaries::build("packaging", "runtime-image")?;
    let mut command = std::process::Command::new(program);
    command.arg("--recipe").arg(workspace::root().join("runtimes/runtimes.toml"));
    command.arg("--output").arg(output).args(options);
    process::run(&mut command)
}
