//! `serve-vm` on a Linux host: QEMU behind everything that hosts have in common.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use vm::payloads::Payloads;
use vm::qemu::{Acceleration, LAUNCHER_COMMAND, LauncherCommand, QemuVmm};

use crate::logging::{self, LogArgs};
use crate::surroundings;

/// The program that runs, whatever happened to its file.
const EXECUTABLE: &str = "/proc/self/exe";

/// Flags of `serve-vm`.
#[derive(Debug, clap::Args)]
pub struct ServeVmArgs {
    #[command(flatten)]
    common: vm::serve::Arguments,

    #[command(flatten)]
    log: LogArgs,

    /// Whether the processor runs the VM: auto, kvm, or tcg for emulation, which is much slower
    #[arg(long, value_name = "HOW", default_value = "auto")]
    accel: Acceleration,
}

impl ServeVmArgs {
    /// Flags of `serve` for the worker inside.
    pub fn worker_flags(&self) -> Vec<String> {
        self.common.worker_flags.iter().map(|flag| flag.as_str().to_owned()).collect()
    }
}

/// Serves until it is told to end.
///
/// # Errors
/// When the VM can't start, or does not stay.
pub fn run(arguments: ServeVmArgs) -> anyhow::Result<ExitCode> {
    surroundings::take_in_hand()?;
    let ServeVmArgs { mut common, log, accel } = arguments;
    logging::start(&log)?;
    // First, so that a flag of the operator for the worker wins.
    common.worker_flags.splice(0..0, log.worker_flag());
    let payloads = Payloads::of_executable(Path::new(EXECUTABLE))?;
    let launcher = LauncherCommand {
        program: EXECUTABLE.into(),
        arguments: vec![LAUNCHER_COMMAND.to_owned()],
    };
    let vmm = Arc::new(QemuVmm::new(launcher, accel));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("bridge")
        .build()
        .context("starting the threads for connections")?;
    runtime.block_on(vm::serve::serve(common, payloads, vmm, "linux-actiond"))?;
    Ok(ExitCode::SUCCESS)
}
