//! `darwin-actiond`: the daemon for macOS hosts.

use std::process::ExitCode;

fn main() -> ExitCode {
    actiond::darwin::main()
}
