//! The program that the end-to-end workspaces run as their actions.
//!
//! It reads all that it was given, writes what it was told to, and checks what an action must be
//! able to rely on. It has no dependencies and is linked statically, so that an action with nothing
//! but its inputs can run it. It knows nothing of Bazel or of the server: it only reports what it
//! saw, by its exit code, its standard error and its summary file.

mod arguments;
mod checks;
mod inputs;
mod trees;

use std::{env, fs, io, process::ExitCode};

use arguments::Arguments;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("action-tool: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let arguments = Arguments::parse(env::args().skip(1))?;
    let seen =
        inputs::scan(&arguments.seed, &arguments.inputs).map_err(|error| error.to_string())?;
    if let Some(expected) = arguments.expected_inputs
        && seen.files != expected
    {
        return Err(format!("{} input files are there, {expected} were expected", seen.files));
    }
    for check in &arguments.checks {
        checks::run(check, &arguments.inputs)?;
    }
    write_outputs(&arguments, &seen).map_err(|error| error.to_string())
}

fn write_outputs(arguments: &Arguments, seen: &inputs::Seen) -> io::Result<()> {
    if let Some(tree) = &arguments.tree {
        trees::fill(tree, arguments.tree_files, seen.hash)?;
        trees::shape(tree, &arguments.shapes)?;
    }
    if let Some(summary) = &arguments.summary {
        fs::write(
            summary,
            format!("files={} bytes={} hash={:016x}\n", seen.files, seen.bytes, seen.hash),
        )?;
    }
    Ok(())
}
