//! `dist`: what `cargo xtask dist` runs.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use embedded::Payload;
use packaging::dist::{self, Options};
use packaging::recipe::Architecture;

/// Make a release of a stripped `linux-actiond` and what it is to carry.
#[derive(Parser)]
#[command(name = "dist")]
struct Arguments {
    /// `linux-actiond`, stripped.
    #[arg(long, value_name = "FILE")]
    executable: PathBuf,
    /// The runtime image.
    #[arg(long, value_name = "FILE")]
    runtimes: PathBuf,
    /// The guest's kernel.
    #[arg(long, value_name = "FILE")]
    kernel: PathBuf,
    /// The guest's initramfs.
    #[arg(long, value_name = "FILE")]
    initramfs: PathBuf,
    /// Manual pages and completions.
    #[arg(long, value_name = "DIR")]
    documents: PathBuf,
    /// The release's version.
    #[arg(long, value_name = "VERSION")]
    version: String,
    /// The release's processor.
    #[arg(long, value_name = "ARCHITECTURE")]
    arch: Architecture,
    /// The release's time, in seconds since 1970.
    #[arg(long, value_name = "SECONDS")]
    time: u64,
    /// The folder for the release.
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let made = dist::run(&Options {
        executable: arguments.executable,
        payloads: vec![
            (Payload::Runtimes, arguments.runtimes),
            (Payload::Kernel, arguments.kernel),
            (Payload::Initramfs, arguments.initramfs),
        ],
        documents: arguments.documents,
        version: arguments.version,
        architecture: arguments.arch,
        time_s: arguments.time,
        output: arguments.output,
    });
    match made {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("dist: {error:#}");
            ExitCode::FAILURE
        }
    }
}
