//! The verb `completions`: a script that has a shell complete words of this program.
//!
//! The Debian package brings the same scripts; this is for a program that was only copied somewhere.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::CommandFactory as _;

use crate::cli::{Cli, CompletionsArgs};

/// Prints the script.
///
/// # Errors
/// When standard output is closed.
pub fn run(arguments: &CompletionsArgs) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), "linux-actiond", &mut script);
    std::io::stdout().write_all(&script).context("printing the script")?;
    Ok(ExitCode::SUCCESS)
}
