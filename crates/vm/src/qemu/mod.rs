//! QEMU as the VMM: the smallest machine that there is for a guest, nothing but virtio devices.
//!
//! QEMU is started through a launcher, this same executable under [`LAUNCHER_COMMAND`], which opens
//! what QEMU needs, gives up everything else, and becomes it:
//!
//! ```text
//!  host process ── thread "vmm" ── launcher ══ exec ══► qemu-system-*
//!     │                             opens the files,       user nobody, no capabilities,
//!     │                             own namespaces,        no network, seccomp, dies with
//!     │                             drops root             its parent
//!     ├── fd 0: the mux (virtio-serial), a socket pair
//!     ├── fd 1: the serial console, a socket pair
//!     └── fd 2: messages, to the log
//! ```
//! - [`architecture`]: the guest's, read from the kernel. - [`accelerator`]: KVM or emulation.
//! - [`command_line`]: QEMU's arguments, pure. - [`launcher`]: the process before the exec.
//! - [`machine`]: a running QEMU. - [`version`]: how old it is.

mod accelerator;
mod architecture;
mod command_line;
mod launcher;
mod machine;
mod version;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

pub use accelerator::{Acceleration, Accelerator};
pub use architecture::Architecture;
pub use launcher::launcher_main;

use crate::FIRST_WORDS;
use crate::vmm::{Boot, BoxFuture, Machine, StartError, Vmm};
use command_line::{Launch, Transport};
use machine::Qemu as Process;
use version::Version;

/// The word that makes a binary the launcher; see [`launcher_main`].
pub const LAUNCHER_COMMAND: &str = "vmm-launcher";

/// The time that a guest has under KVM until its init runs; after it, the guest counts as stuck: ten times what
/// it takes where KVM works. (Nested virtualization is known to offer a KVM in which no guest gets
/// anywhere.)
const KVM_PROBE: Duration = Duration::from_secs(5);

/// The wait between looks whether the guest has spoken. (It says little, so its first words are still
/// among the last.)
const PROBE_PAUSE: Duration = Duration::from_millis(10);

/// The kernel's interface to vsock for VMMs.
const VHOST_VSOCK: &str = "/dev/vhost-vsock";

/// The command line of the launcher.
#[derive(Debug, Clone)]
pub struct LauncherCommand {
    /// The program, e.g. `/proc/self/exe`.
    pub program: PathBuf,
    /// Its arguments; a description of the machine follows them.
    pub arguments: Vec<String>,
}

/// Boots machines with QEMU.
pub struct QemuVmm {
    launcher: LauncherCommand,
    acceleration: Acceleration,
    /// Once KVM has failed, it is not tried again: it would cost every restart the same time.
    kvm_failed: Mutex<bool>,
}

/// Why QEMU did not start.
#[derive(Debug, thiserror::Error)]
pub enum QemuError {
    /// The file is not a kernel that we can boot.
    #[error("the kernel {}", path.display())]
    Kernel {
        /// The file.
        path: PathBuf,
        /// The problem with it.
        source: architecture::KernelError,
    },
    /// No QEMU for the guest's architecture.
    #[error("{0} is not installed (looked in PATH)")]
    NotInstalled(&'static str),
    /// KVM was asked for and can't be had.
    #[error("no KVM: {0}")]
    NoKvm(String),
    /// Starting the launcher failed.
    #[error("starting the VMM")]
    Spawn(#[source] std::io::Error),
    /// QEMU ended at once.
    #[error("the VMM ended: {0}")]
    Ended(String),
}

impl QemuVmm {
    /// A VMM that starts QEMU through `launcher`.
    pub fn new(launcher: LauncherCommand, acceleration: Acceleration) -> Self {
        Self { launcher, acceleration, kvm_failed: Mutex::new(false) }
    }

    async fn start(&self, boot: &Boot) -> Result<Arc<dyn Machine>, QemuError> {
        let architecture = Architecture::of_kernel(&boot.kernel)
            .map_err(|source| QemuError::Kernel { path: boot.kernel.clone(), source })?;
        let program = find_in_path(architecture.qemu())
            .ok_or(QemuError::NotInstalled(architecture.qemu()))?;
        let kvm = match (self.acceleration, *self.kvm_failed.lock()) {
            (Acceleration::Tcg, _) => Err("emulation was asked for".to_owned()),
            (Acceleration::Auto, true) => Err("it did not work before".to_owned()),
            _ => accelerator::kvm_usable(architecture),
        };
        match kvm {
            Ok(()) => {
                let machine = self.launch(boot, &program, architecture, Accelerator::Kvm).await?;
                match (spoke(&machine).await, self.acceleration) {
                    (Ok(()), _) => return Ok(Arc::new(machine)),
                    (Err(reason), Acceleration::Kvm) => return Err(QemuError::NoKvm(reason)),
                    (Err(reason), _) => {
                        *self.kvm_failed.lock() = true;
                        tracing::warn!(reason, "KVM is there but does not work: emulating");
                    }
                }
            }
            Err(reason) if self.acceleration == Acceleration::Kvm => {
                return Err(QemuError::NoKvm(reason));
            }
            Err(reason) => tracing::info!(reason, "no KVM: emulating, which is much slower"),
        }
        let accelerator = Accelerator::Tcg { parallel: emulates_in_parallel(&program).await };
        Ok(Arc::new(self.launch(boot, &program, architecture, accelerator).await?))
    }

    async fn launch(
        &self,
        boot: &Boot,
        program: &Path,
        architecture: Architecture,
        accelerator: Accelerator,
    ) -> Result<Process, QemuError> {
        let transport = transport();
        tracing::info!(
            program = %program.display(),
            accelerator = accelerator.name(),
            transport = transport.name(),
            "starting the VMM"
        );
        let launch = Launch {
            program: program.to_owned(),
            architecture,
            accelerator,
            transport,
            memory_mib: boot.memory_mib,
            cpus: boot.cpus,
            kernel: boot.kernel.clone(),
            initramfs: boot.initramfs.clone(),
            cas_image: boot.cas_image.clone(),
            runtime_image: boot.runtime_image.clone(),
            guest_words: boot.guest_words(),
        };
        Process::start(&self.launcher, &launch).await.map_err(QemuError::Spawn)
    }
}

impl Vmm for QemuVmm {
    fn name(&self) -> &'static str {
        "qemu"
    }

    fn start<'a>(&'a self, boot: &'a Boot) -> BoxFuture<'a, Result<Arc<dyn Machine>, StartError>> {
        Box::pin(async move { self.start(boot).await.map_err(|error| StartError(Box::new(error))) })
    }
}

/// Whether that QEMU emulates the CPUs of a guest side by side, without mistakes.
async fn emulates_in_parallel(program: &Path) -> bool {
    let path = program.to_owned();
    match tokio::task::spawn_blocking(move || Version::of(&path)).await {
        Ok(Ok(version)) if version.emulates_in_parallel() => true,
        Ok(Ok(version)) => {
            tracing::info!(?version, "an old QEMU: it emulates one CPU at a time");
            false
        }
        Ok(Err(error)) => {
            tracing::warn!(%error, "the version of QEMU is not known: it emulates one CPU at a time");
            false
        }
        Err(_) => false,
    }
}

/// Waits for the first words of the guest's init.
async fn spoke(machine: &Process) -> Result<(), String> {
    let words = async {
        while !machine.last_words().include(FIRST_WORDS) {
            tokio::time::sleep(PROBE_PAUSE).await;
        }
    };
    tokio::select! {
        spoke = tokio::time::timeout(KVM_PROBE, words) => {
            spoke.map_err(|_| format!("a guest does not boot within {KVM_PROBE:?}"))
        }
        ended = machine.ended() => Err(ended.description),
    }
}

/// vsock where the kernel has it, for speed and because it is what other VMMs have; else the mux.
fn transport() -> Transport {
    let readable = rustix::fs::Access::READ_OK | rustix::fs::Access::WRITE_OK;
    match rustix::fs::access(VHOST_VSOCK, readable) {
        Ok(()) => Transport::Vsock { cid: random_cid() },
        Err(_) => Transport::Mux,
    }
}

/// A context id that no other VM on this host is likely to have. Those below 3 have meanings.
fn random_cid() -> u32 {
    let mut bytes = [0; 4];
    // The early boot is the only time when there is no randomness; any number does.
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    u32::from_le_bytes(bytes).clamp(3, u32::MAX - 1)
}

fn find_in_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(program)).find(|path| {
        path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
    })
}
