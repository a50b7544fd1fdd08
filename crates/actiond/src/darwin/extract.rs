//! `extract`: what a program carries, as files.
//!
//! The way that `serve-vm` goes before it boots, and nothing after: for looking at what a release
//! holds, also of another host's.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use vm::artifact::{self, Artifact, Ready, Source};

use super::cli::ExtractArgs;
use crate::payloads;

/// Prints a line for each artifact: its name, and its path or that there is none.
///
/// # Errors
/// When the program can't be read, or a file can't be written.
pub fn run(arguments: &ExtractArgs) -> anyhow::Result<ExitCode> {
    let program = match &arguments.program {
        Some(program) => program.clone(),
        None => std::env::current_exe().context("finding this program")?,
    };
    let carried = extract(&program, &arguments.root)?;
    for (artifact, ready) in &carried {
        match ready {
            Some(Ready { path, .. }) => println!("{} {}", artifact.name(), path.display()),
            None => println!("{} none", artifact.name()),
        }
    }
    let any = carried.iter().any(|(_, ready)| ready.is_some());
    Ok(if any { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Each artifact, and its file if `program` carries it. The directories are those of `serve-vm`.
fn extract(program: &Path, root: &Path) -> anyhow::Result<Vec<(Artifact, Option<Ready>)>> {
    let carried = payloads::of(program)?;
    let all: [(Artifact, Option<Source>, PathBuf); 3] = [
        (Artifact::Kernel, carried.kernel, root.join("boot")),
        (Artifact::Initramfs, carried.initramfs, root.join("boot")),
        (Artifact::Runtimes, carried.runtimes, root.join("embedded")),
    ];
    let extracted = all.into_iter().map(|(artifact, source, directory)| {
        let ready = source.map(|source| artifact::prepare(artifact, &source, &directory));
        Ok((artifact, ready.transpose()?))
    });
    extracted.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_without_payloads_gives_none() {
        let root = tempfile::tempdir().unwrap();
        let carried = extract(&std::env::current_exe().unwrap(), root.path()).unwrap();
        assert!(carried.iter().all(|(_, ready)| ready.is_none()));
        assert_eq!(root.path().read_dir().unwrap().count(), 0);
    }

    #[test]
    fn what_is_no_program_is_named() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("file");
        std::fs::write(&file, "no program").unwrap();
        let error = extract(&file, root.path()).unwrap_err();
        assert!(error.to_string().starts_with(file.to_str().unwrap()), "{error}");
    }
}
