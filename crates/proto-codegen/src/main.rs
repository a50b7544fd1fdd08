//! The part of `cargo xtask proto` that needs the compiler.

use std::process::ExitCode;

fn main() -> ExitCode {
    match proto_codegen::generate(&proto_codegen::checked_in()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("proto-codegen: {error:#}");
            ExitCode::FAILURE
        }
    }
}
