//! The same cases against a VM: `serve-vm` in place of `serve`, and its runtimes in place of the
//! host's programs.
//!
//! A case asks its kit for a daemon and does not know which one it gets. A step that
//! can't be done to a VM, such as looking into the store, ends it as skipped, with the reason.

use std::path::PathBuf;

use anyhow::Context as _;

/// Set to have daemons in VMs; the variables below say what they are made of.
const IN_VM: &str = "ACTIOND_TEST_IN_VM";

/// The kernel that VMs boot.
pub const KERNEL: &str = "ACTIOND_TEST_VM_KERNEL";

/// The initramfs with the guest.
pub const INITRAMFS: &str = "ACTIOND_TEST_VM_INITRAMFS";

/// The image with the runtimes.
pub const RUNTIMES: &str = "ACTIOND_TEST_VM_RUNTIMES";

/// The C library of actions with a shell: one of those that every image has.
const LIBC: &str = "glibc2.41";

/// Flags of every VM. Emulation is said to be wanted, so that none of them tries a KVM that may not
/// work; a small disk is made sooner. An emulated boot takes minutes where the machine is busy with others.
pub const FLAGS: [&str; 5] = [
    "--accel=tcg",
    "--cas-image-size-mib=2048",
    "--memory-mib=768",
    "--start-timeout-ms=300000",
    "--connect-timeout-ms=300000",
];

/// The files of a VM.
#[derive(Debug, Clone)]
pub struct Vm {
    /// The kernel.
    pub kernel: PathBuf,
    /// The initramfs with the guest.
    pub initramfs: PathBuf,
    /// The image with the runtimes.
    pub runtimes: PathBuf,
}

impl Vm {
    /// The VM that the environment asks for, if it does.
    ///
    /// # Errors
    /// When it does not say what the VM is made of.
    pub(crate) fn wanted() -> anyhow::Result<Option<Self>> {
        if std::env::var_os(IN_VM).is_none() {
            return Ok(None);
        }
        let file = |name| {
            let path = std::env::var_os(name).map(PathBuf::from);
            path.with_context(|| format!("{IN_VM} is set, and {name} is not"))
        };
        let (kernel, initramfs) = (file(KERNEL)?, file(INITRAMFS)?);
        Ok(Some(Self { kernel, initramfs, runtimes: file(RUNTIMES)? }))
    }
}

/// The source of the shell for actions that need one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Programs {
    /// The host's root file system.
    Host,
    /// A runtime.
    Runtime,
}

impl Programs {
    /// The platform properties that ask for them.
    pub(crate) fn properties(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Host => &[("rootfs", "host")],
            Self::Runtime => &[("libc", LIBC), ("requires-bash", "")],
        }
    }
}
