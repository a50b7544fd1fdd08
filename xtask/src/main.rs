//! `cargo xtask VERB`: serves, or has the program with all other verbs built and run.

use std::{
    ffi::OsString,
    path::PathBuf,
    process::{Command, ExitCode},
};

use anyhow::{Result, bail};
use xtask::{process, serve, workspace};

/// The program of the verbs but `serve`.
const VERBS: &str = "xtask-verbs";

const SERVE_USAGE: &str = "Set up, build the daemon, and run `linux-actiond serve` as root\n\n\
                           Usage: cargo xtask serve [-- FLAGS OF linux-actiond serve]";

fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().skip(1).collect();
    match run(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(words: &[OsString]) -> Result<()> {
    match words.split_first() {
        Some((verb, rest)) if verb == "serve" => match served(rest) {
            Served::Flags(flags) => serve::run(flags),
            Served::Help => {
                println!("{SERVE_USAGE}");
                Ok(())
            }
            Served::Wrong(word) => bail!(
                "serve: unexpected {}; flags of the daemon follow `--`\n\n{SERVE_USAGE}",
                word.display()
            ),
        },
        _ => Err(process::become_program(Command::new(build_verbs()?).args(words))),
    }
}

/// Builds the program of all other verbs. All packages are chosen, as for the tests of the workspace: for
/// another choice cargo would resolve other features, and build what both share once more.
fn build_verbs() -> Result<PathBuf> {
    process::run(
        process::cargo()
            .current_dir(workspace::root())
            .args(["build", "--locked", "--workspace", "--bin", VERBS])
            .env_remove("CARGO_BUILD_TARGET"),
    )?;
    Ok(workspace::target().join("debug").join(VERBS))
}

/// The settings that the words after `serve` ask for.
#[derive(Debug, PartialEq, Eq)]
enum Served<'a> {
    /// To serve with these flags.
    Flags(&'a [OsString]),
    Help,
    /// This word means nothing.
    Wrong(&'a OsString),
}

fn served(words: &[OsString]) -> Served<'_> {
    match words {
        [] => Served::Flags(&[]),
        [first, flags @ ..] if first == "--" => Served::Flags(flags),
        [help, ..] if help == "--help" || help == "-h" => Served::Help,
        [other, ..] => Served::Wrong(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_of_the_daemon_follow_two_dashes() {
        let words = |text: &str| text.split_whitespace().map(OsString::from).collect::<Vec<_>>();
        assert_eq!(served(&[]), Served::Flags(&[]));
        let given = words("-- --jobs=2 -- --help");
        assert_eq!(served(&given), Served::Flags(&given[1..]));
        assert_eq!(served(&words("--help")), Served::Help);
        let given = words("--jobs=2");
        assert_eq!(served(&given), Served::Wrong(&given[0]));
    }
}
