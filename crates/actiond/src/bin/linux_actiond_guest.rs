//! `linux-actiond-guest`: everything inside the VM, one static program.

use std::process::ExitCode;

fn main() -> ExitCode {
    actiond::guest::main(std::env::args_os().skip(1))
}
