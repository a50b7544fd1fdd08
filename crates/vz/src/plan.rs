//! The machine as plain data, with the checks that come before the framework's.
//!
//! The framework validates a configuration as a whole and reports a problem in a sentence that names
//! none of our flags. This module checks everything that can be known beforehand and names the flag.
//! Its tests run on any machine.

use std::ops::RangeInclusive;
use std::path::PathBuf;

use vm::Boot;

const MIB: u64 = 1 << 20;

/// The guest's console is the first virtio console; init is the guest binary; a panic resets at
/// once. The guest's own settings have this host's values as their defaults.
const COMMAND_LINE: &str = "console=hvc0 init=/init panic=-1 quiet";

/// A machine that can be configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The kernel, an arm64 `Image`.
    pub kernel: PathBuf,
    /// The initramfs, a cpio archive.
    pub initramfs: PathBuf,
    /// The kernel's command line.
    pub command_line: String,
    /// Virtual CPUs.
    pub cpus: usize,
    /// Memory, in bytes; a multiple of 1 MiB.
    pub memory_bytes: u64,
    /// The disks, in the order in which the guest sees them.
    pub disks: Vec<Disk>,
}

/// A virtio-blk disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// A raw image.
    pub path: PathBuf,
    /// Its content.
    pub content: Content,
}

/// The content of a disk, which decides how it is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// The guest's ext4 with its store.
    Store,
    /// The runtimes' SquashFS, which is only read.
    Runtimes,
}

impl Content {
    /// For messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Store => "CAS image",
            Self::Runtimes => "runtime image",
        }
    }

    /// Whether the guest may only read.
    pub fn is_read_only(self) -> bool {
        self == Self::Runtimes
    }

    /// The effect of the guest's flush on the host.
    pub fn flush(self) -> Flush {
        match self {
            Self::Store => Flush::ToStorage,
            Self::Runtimes => Flush::Never,
        }
    }
}

/// The effect of the guest's flush on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flush {
    /// Flushes the drive's cache too, so that a power cut leaves the guest's journal as the guest left
    /// it. The framework's cheaper mode leaves data in that cache and would save little here: the
    /// store does not sync each blob, so flushes come only with ext4's journal, every few seconds,
    /// and with the stop.
    ToStorage,
    /// Never flushes, for disks that are never written to.
    Never,
}

/// The framework's limits on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostLimits {
    /// Virtual CPUs.
    pub cpus: RangeInclusive<usize>,
    /// Memory, in bytes.
    pub memory_bytes: RangeInclusive<u64>,
}

/// Errors of making a plan.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// More or fewer CPUs than the host gives to a VM.
    #[error("--cpus={asked}: this host allows {} to {}", allowed.start(), allowed.end())]
    Cpus {
        /// As the flag has it.
        asked: u32,
        /// The allowed range.
        allowed: RangeInclusive<usize>,
    },
    /// More or less memory than the host gives to a VM.
    #[error(
        "--memory-mib={asked_mib}: this host allows {} to {}",
        allowed.start().div_ceil(MIB),
        allowed.end() / MIB
    )]
    Memory {
        /// As the flag has it.
        asked_mib: u32,
        /// The allowed range in bytes.
        allowed: RangeInclusive<u64>,
    },
}

/// Plans a machine that boots `boot` on a host with those limits.
///
/// # Errors
/// See [`PlanError`].
pub fn plan(boot: &Boot, limits: &HostLimits) -> Result<Plan, PlanError> {
    let cpus = usize::try_from(boot.cpus).unwrap_or(usize::MAX);
    if !limits.cpus.contains(&cpus) {
        return Err(PlanError::Cpus { asked: boot.cpus, allowed: limits.cpus.clone() });
    }
    let memory_bytes = u64::from(boot.memory_mib) * MIB;
    if !limits.memory_bytes.contains(&memory_bytes) {
        let allowed = limits.memory_bytes.clone();
        return Err(PlanError::Memory { asked_mib: boot.memory_mib, allowed });
    }
    Ok(Plan {
        kernel: boot.kernel.clone(),
        initramfs: boot.initramfs.clone(),
        command_line: format!("{COMMAND_LINE}{}", boot.guest_words()),
        cpus,
        memory_bytes,
        disks: disks(boot),
    })
}

fn disks(boot: &Boot) -> Vec<Disk> {
    let store = Disk { path: boot.cas_image.clone(), content: Content::Store };
    let runtimes = boot.runtime_image.clone();
    let runtimes = runtimes.map(|path| Disk { path, content: Content::Runtimes });
    std::iter::once(store).chain(runtimes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boot() -> Boot {
        Boot {
            kernel: "/boot/kernel.Image".into(),
            initramfs: "/boot/initramfs.cpio".into(),
            cas_image: "/cas.ext4".into(),
            format_cas: false,
            runtime_image: Some("/runtimes.sqfs".into()),
            memory_mib: 512,
            cpus: 2,
            worker_flags: Vec::new(),
        }
    }

    fn limits() -> HostLimits {
        HostLimits { cpus: 1..=8, memory_bytes: 4 * MIB..=16 * 1024 * MIB }
    }

    fn check(change: impl FnOnce(&mut Boot)) -> Result<Plan, String> {
        let mut boot = boot();
        change(&mut boot);
        plan(&boot, &limits()).map_err(|error| error.to_string())
    }

    #[test]
    fn the_defaults_of_serve_vm_make_a_machine() {
        let plan = check(|_| ()).unwrap();
        assert_eq!(plan.command_line, "console=hvc0 init=/init panic=-1 quiet");
        assert_eq!((plan.cpus, plan.memory_bytes), (2, 512 * MIB));
        let disks: Vec<_> = plan.disks.iter().map(|disk| disk.content).collect();
        assert_eq!(disks, [Content::Store, Content::Runtimes]);
    }

    #[test]
    fn only_the_runtimes_are_read_only() {
        assert!(!Content::Store.is_read_only());
        assert!(Content::Runtimes.is_read_only());
        assert_eq!(Content::Store.flush(), Flush::ToStorage);
    }

    #[test]
    fn runtimes_may_be_missing() {
        let plan = check(|boot| boot.runtime_image = None).unwrap();
        assert_eq!(plan.disks.len(), 1);
    }

    #[test]
    fn a_disk_is_formatted_only_when_it_is_asked_for() {
        let line = check(|boot| boot.format_cas = true).unwrap().command_line;
        assert_eq!(line, "console=hvc0 init=/init panic=-1 quiet actiond.format_cas=1");
    }

    #[test]
    fn what_the_host_does_not_allow_names_the_flag() {
        let refused = |change: fn(&mut Boot)| check(change).unwrap_err();
        assert_eq!(refused(|boot| boot.cpus = 9), "--cpus=9: this host allows 1 to 8");
        assert_eq!(refused(|boot| boot.cpus = 0), "--cpus=0: this host allows 1 to 8");
        let memory = refused(|boot| boot.memory_mib = 16_385);
        assert_eq!(memory, "--memory-mib=16385: this host allows 4 to 16384");
        assert!(refused(|boot| boot.memory_mib = u32::MAX).starts_with("--memory-mib"));
    }
}
