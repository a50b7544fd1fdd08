//! The verb `completions`: a script that has a shell complete words of this program.
//!
//! The Debian package brings the same scripts; this is for a program that was only copied somewhere.

use std::process::ExitCode;

use clap::CommandFactory as _;

use crate::cli::{Cli, CompletionsArgs};
use crate::output::print_bytes;

/// Prints the script.
///
/// # Errors
/// When standard output takes no more, such as a full disk.
pub fn run(arguments: &CompletionsArgs) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), "linux-actiond", &mut script);
    print_bytes(&script)?;
    Ok(ExitCode::SUCCESS)
}
