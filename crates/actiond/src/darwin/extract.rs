//! `extract`: what a program carries, as files.
//!
//! The way that `serve-vm` goes before it boots, and nothing after: for looking at what a release
//! holds, also of another host's.

use std::process::ExitCode;

use anyhow::Context as _;
use embedded::Payload;
use vm::payloads::Payloads;

use super::cli::ExtractArgs;

/// Prints a line for each payload: its name, and its path or that there is none.
///
/// # Errors
/// When the program can't be read, or a file can't be written.
pub fn run(arguments: &ExtractArgs) -> anyhow::Result<ExitCode> {
    let program = match &arguments.program {
        Some(program) => program.clone(),
        None => std::env::current_exe().context("finding this program")?,
    };
    let carried = Payloads::of_executable(&program)?.extract(&arguments.root)?;
    let none = Payloads::default();
    let lines = [
        (Payload::Kernel, &carried.kernel),
        (Payload::Initramfs, &carried.initramfs),
        (Payload::Runtimes, &carried.runtimes),
    ];
    for (payload, path) in lines {
        match path {
            Some(path) => println!("{} {}", payload.name(), path.display()),
            None => println!("{} none", payload.name()),
        }
    }
    Ok(if carried == none { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_without_payloads_gives_none() {
        let root = tempfile::tempdir().unwrap();
        let carried = Payloads::of_executable(&std::env::current_exe().unwrap()).unwrap();
        assert_eq!(carried.extract(root.path()).unwrap(), Payloads::default());
        assert_eq!(root.path().read_dir().unwrap().count(), 0);
    }

    #[test]
    fn what_is_no_program_is_named() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("file");
        std::fs::write(&file, "no program").unwrap();
        let error = Payloads::of_executable(&file).unwrap_err();
        assert!(error.to_string().starts_with(file.to_str().unwrap()), "{error}");
    }
}
