//! `linux-actiond`: the daemon for Linux hosts.

use std::process::ExitCode;

use actiond::cli::{Cli, Command};
use actiond::{doctor, serve};
use clap::Parser as _;

fn main() -> ExitCode {
    // Before anything else: a sandbox helper is small, and has one thread.
    if std::env::args_os().nth(1).is_some_and(|word| word == serve::HELPER_COMMAND) {
        return sandbox::helper_main();
    }
    let outcome = match Cli::parse().command {
        Command::Serve(arguments) => serve::run(&arguments),
        Command::Doctor(arguments) => doctor::run(&arguments),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("linux-actiond: {error:#}");
        ExitCode::FAILURE
    })
}
