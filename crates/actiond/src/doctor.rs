//! The features of this machine, and the cost of their absence.
//!
//! Everything is found by trying it where that leaves nothing behind: versions
//! lie, for distributions move features between them. The trials use a root
//! directory of their own beside the server's, on the same file system, so that
//! they can be made while a server runs.

#[cfg(target_os = "linux")]
mod checks;
#[cfg(target_os = "linux")]
mod cures;
pub(crate) mod report;

use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// Prints the report; fails when `serve` could not run.
///
/// # Errors
/// When the report can't be made or printed.
#[cfg(target_os = "linux")]
pub fn run(arguments: &crate::cli::DoctorArgs) -> anyhow::Result<std::process::ExitCode> {
    use std::process::ExitCode;

    // As `serve` does, so that the trials see what it would see.
    crate::surroundings::take_in_hand()?;
    let is_root = rustix::process::geteuid().is_root();
    let privileges = crate::privileges::obtain();
    let findings = checks::all(&trial_parent(&arguments.root)?, is_root, &privileges)?;
    crate::output::print(&report::render(&findings, "serve"))?;
    Ok(if report::can_serve(&findings) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs one real sandbox, so that a server that can't run actions does not start.
///
/// # Errors
/// Names the step that failed, the kernel's reason and the cure.
#[cfg(target_os = "linux")]
pub(crate) fn try_sandbox(config: &sandbox::Config) -> anyhow::Result<()> {
    sandbox::Pool::new(config.clone()).try_out().map_err(no_sandbox)
}

/// Adds to the step that failed what can be done about it.
#[cfg(target_os = "linux")]
pub(crate) fn no_sandbox(error: sandbox::RunError) -> anyhow::Error {
    let cure = cures::of(&error);
    anyhow::Error::new(error).context(format!("no action can run here ({cure})"))
}

/// The root directory itself or, when it is not there yet, the nearest directory
/// above it: the file system that the root is or will be on.
pub(crate) fn trial_parent(root: &Path) -> anyhow::Result<PathBuf> {
    let root = std::path::absolute(root)
        .with_context(|| format!("{} is not a usable path", root.display()))?;
    let there = root.ancestors().find(|ancestor| ancestor.is_dir());
    Ok(there.unwrap_or(Path::new("/")).to_owned())
}
