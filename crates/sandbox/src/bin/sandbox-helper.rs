//! The helper alone, for this crate's tests and measurements; the daemon has it as
//! a hidden sub-command.

use std::process::ExitCode;

fn main() -> ExitCode {
    sandbox::helper_main()
}
