//! `serve-vm` on a macOS host: Virtualization.framework behind everything that hosts have in common.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use vm::payloads::Payloads;
use vz::VzVmm;

use super::PROGRAM;
use super::cli::ServeVmArgs;
use crate::logging;

/// Descriptors that are asked for: two for each of the bridge's connections, and some. It is also
/// the most that macOS gives to a process without being told otherwise (OPEN_MAX).
const OPEN_FILES: u64 = 10_240;

/// Serves until it is told to end.
///
/// # Errors
/// When the VM can't start, or does not stay.
pub(super) fn run(arguments: ServeVmArgs) -> anyhow::Result<ExitCode> {
    let ServeVmArgs { mut common, log } = arguments;
    logging::start(&log)?;
    // First, so that a flag of the operator for the worker wins.
    common.worker_flags.splice(0..0, log.worker_flag());
    allow_open_files();
    let program = std::env::current_exe().context("finding this program")?;
    let payloads = Payloads::of_executable(&program)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("bridge")
        .build()
        .context("starting the threads for connections")?;
    runtime.block_on(vm::serve::serve(common, payloads, Arc::new(VzVmm), PROGRAM))?;
    Ok(ExitCode::SUCCESS)
}

/// A process begins with 256 descriptors on macOS, which is a hundred clients.
fn allow_open_files() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = maximum.map_or(OPEN_FILES, |maximum| maximum.min(OPEN_FILES));
    if current.is_none_or(|current| current >= wanted) {
        return;
    }
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum }) {
        tracing::warn!(%error, "few clients can connect: the limit of open files stays low");
    }
}
