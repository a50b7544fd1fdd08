//! `darwin-actiond`: the daemon for macOS hosts, which is a VM and a bridge to it.
//!
//! Flags and extraction compile and are tested everywhere. The parts that touch
//! Virtualization.framework exist on macOS alone.
//!
//! - [`cli`]: flags, as plain data.
//! - [`extract`]: what a program carries, as files.
//! - `serve_vm`: the daemon. - `doctor`: what this Mac offers.

pub mod cli;
pub mod extract;

#[cfg(target_os = "macos")]
mod doctor;
#[cfg(target_os = "macos")]
mod serve_vm;

use std::process::ExitCode;

use clap::Parser as _;
use cli::{Cli, Command};

/// The name of the program.
pub const PROGRAM: &str = "darwin-actiond";

/// Parses the command line and does what it says.
pub fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Extract(arguments) => extract::run(&arguments),
        command => run_on_macos(command),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("{PROGRAM}: {error:#}");
        ExitCode::FAILURE
    })
}

#[cfg(target_os = "macos")]
fn run_on_macos(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::ServeVm(arguments) => serve_vm::run(*arguments),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::Extract(arguments) => extract::run(&arguments),
    }
}

#[cfg(not(target_os = "macos"))]
fn run_on_macos(_: Command) -> anyhow::Result<ExitCode> {
    anyhow::bail!("this host is not macOS: use linux-actiond")
}
