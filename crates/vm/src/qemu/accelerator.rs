//! KVM where it works, emulation where it does not.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Architecture;

/// The kernel's interface to virtualization.
const KVM: &str = "/dev/kvm";

/// What is to be used.
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

/// What is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Accelerator {
    /// The processor runs the guest.
    Kvm,
    /// QEMU translates it.
    Tcg,
}

impl Accelerator {
    /// For the log.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }
}

/// Whether KVM can run such a guest, as far as can be told without one; the reason if not.
pub(super) fn kvm_usable(architecture: Architecture) -> Result<(), String> {
    if !architecture.is_native() {
        return Err("the kernel is for another processor".to_owned());
    }
    let usable = rustix::fs::Access::READ_OK | rustix::fs::Access::WRITE_OK;
    rustix::fs::access(KVM, usable).map_err(|errno| format!("{KVM}: {errno}"))
}
