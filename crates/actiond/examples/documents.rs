//! Writes what is made from the flags of `linux-actiond`: manual pages and shell completions.
//!
//! `cargo xtask dist` runs it. It is an example so that the daemon carries no manual pages. It has the
//! completions, for those who have no package (`linux-actiond completions`).

use std::path::Path;

use actiond::cli::Cli;
use anyhow::Context as _;
use clap::CommandFactory as _;
use clap_complete::{Shell, generate_to};

fn main() -> anyhow::Result<()> {
    let folder = std::env::args_os().nth(1).context("the folder to write to")?;
    std::fs::create_dir_all(&folder)?;
    let mut command = Cli::command().disable_help_subcommand(true);
    for shell in [Shell::Bash, Shell::Fish, Shell::Zsh] {
        generate_to(shell, &mut command, "linux-actiond", &folder)?;
    }
    clap_mangen::generate_to(command, Path::new(&folder))?;
    Ok(())
}
