//! KVM where it works, emulation where it does not.

use std::str::FromStr;

use rustix::fs::{Gid, Mode};
use serde::{Deserialize, Serialize};

use super::Architecture;

/// The kernel's interface to virtualization.
const KVM: &str = "/dev/kvm";

/// The accelerator to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Acceleration {
    /// KVM if a guest gets anywhere under it, else emulation.
    #[default]
    Auto,
    /// KVM or nothing.
    Kvm,
    /// Emulation.
    Tcg,
}

impl FromStr for Acceleration {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "auto" => Ok(Self::Auto),
            "kvm" => Ok(Self::Kvm),
            "tcg" => Ok(Self::Tcg),
            _ => Err("use auto, kvm or tcg".to_owned()),
        }
    }
}

/// The accelerator in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Accelerator {
    /// The processor runs the guest.
    Kvm,
    /// QEMU translates it.
    Tcg {
        /// Whether each CPU has a thread of its own.
        parallel: bool,
    },
}

impl Accelerator {
    /// For the log.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg { .. } => "tcg",
        }
    }
}

/// Whether KVM can run such a guest, as far as can be told without one; the reason if not.
pub(super) fn kvm_usable(architecture: Architecture) -> Result<(), String> {
    if !architecture.is_native() {
        return Err("the kernel is for another processor".to_owned());
    }
    let usable = rustix::fs::Access::READ_OK | rustix::fs::Access::WRITE_OK;
    rustix::fs::access(KVM, usable).map_err(|errno| format!("{KVM}: {errno}"))?;
    if rustix::process::geteuid().is_root() && !nobody_may_use_kvm() {
        return Err(format!("{KVM} is for root alone, and the VMM does not stay root"));
    }
    Ok(())
}

/// The group that owns KVM, if it may use it: what a VMM that was root keeps of its rights.
pub(super) fn kvm_group() -> Option<Gid> {
    let kvm = rustix::fs::stat(KVM).ok()?;
    let of_group = Mode::from_raw_mode(kvm.st_mode).contains(Mode::RGRP | Mode::WGRP);
    (of_group && kvm.st_gid != 0).then(|| Gid::from_raw(kvm.st_gid))
}

/// Whether a user without rights of its own may use it, in its group.
fn nobody_may_use_kvm() -> bool {
    let for_all = |mode: Mode| mode.contains(Mode::ROTH | Mode::WOTH);
    let kvm = rustix::fs::stat(KVM);
    kvm.is_ok_and(|kvm| for_all(Mode::from_raw_mode(kvm.st_mode))) || kvm_group().is_some()
}
