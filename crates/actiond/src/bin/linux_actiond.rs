//! `linux-actiond`: the daemon for Linux hosts.

use std::process::ExitCode;

use actiond::cli::{Cli, Command};
use actiond::{doctor, image, serve, serve_vm};
use clap::Parser as _;
use vm::qemu::{LAUNCHER_COMMAND, launcher_main};

fn main() -> ExitCode {
    // Before anything else: these are small, and have one thread.
    match std::env::args_os().nth(1) {
        Some(word) if word == serve::HELPER_COMMAND => return sandbox::helper_main(),
        Some(word) if word == LAUNCHER_COMMAND => {
            return launcher_main(std::env::args_os().skip(2));
        }
        _ => {}
    }
    let outcome = match Cli::parse().command {
        Command::Serve(arguments) => serve::run(&arguments),
        Command::ServeVm(arguments) => serve_vm::run(*arguments),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::Image(arguments) => image::run(&arguments),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("linux-actiond: {error:#}");
        ExitCode::FAILURE
    })
}
