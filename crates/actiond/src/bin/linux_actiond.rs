//! `linux-actiond`: the daemon for Linux hosts.

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;

use actiond::cli::{Cli, Command};
use actiond::configuration::Configuration;
use actiond::{
    bazelrc, client_verbs, cluster_worker, completions, configuration, doctor, helper, image, run,
    serve, store_verbs,
};
#[cfg(feature = "vm")]
use actiond::{serve_vm, worker_flags};
use clap::Parser as _;
#[cfg(feature = "vm")]
use vm::qemu::{LAUNCHER_COMMAND, launcher_main};

fn main() -> ExitCode {
    // Before anything else: these are small, and have one thread.
    match std::env::args_os().nth(1) {
        Some(word) if word == helper::COMMAND => return sandbox::helper_main(),
        #[cfg(feature = "vm")]
        Some(word) if word == LAUNCHER_COMMAND => {
            return launcher_main(std::env::args_os().skip(2));
        }
        _ => {}
    }
    let outcome = match Cli::parse().command {
        Command::Serve(_) => Configuration::load(words_from(2)).and_then(serve::run),
        Command::Run(arguments) => return run::run(&arguments, words_from(2)),
        Command::Config(arguments) => configuration::run(&arguments, words_from(3)),
        #[cfg(feature = "vm")]
        Command::ServeVm(arguments) => {
            worker_flags::check(&arguments.worker_flags()).and_then(|()| serve_vm::run(*arguments))
        }
        Command::Worker(arguments) => cluster_worker::run(&arguments, &words_from(0)),
        Command::Bazelrc(_) => bazelrc::run(words_from(2)),
        Command::Completions(arguments) => completions::run(&arguments),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::Image(arguments) => image::run(&arguments),
        Command::Store(arguments) => store_verbs::run(&arguments),
        Command::Client(command) => client_verbs::run(&command),
    };
    outcome.unwrap_or_else(|error| {
        // The exit status stays the same if the reader is gone, as in `2>&1 | head`.
        let _ = writeln!(std::io::stderr(), "linux-actiond: {error:#}");
        ExitCode::FAILURE
    })
}

/// The words of the command line from that index on.
fn words_from(index: usize) -> Vec<OsString> {
    std::env::args_os().skip(index).collect()
}
