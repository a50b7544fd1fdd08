//! The architectures that an action can use. The numbers of their system calls come from a crate that
//! is generated from the kernel's tables.

use std::str::FromStr;

/// An ABI of system calls.
#[cfg_attr(not(test), allow(dead_code, reason = "each build runs on one machine, tests know all"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Architecture {
    X86_64,
    /// 32-bit programs on x86_64.
    I386,
    Aarch64,
}

impl Architecture {
    /// The one that this code is compiled for.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn native() -> Self {
        Self::X86_64
    }

    /// The one that this code is compiled for.
    #[cfg(target_arch = "aarch64")]
    pub(super) fn native() -> Self {
        Self::Aarch64
    }

    /// The other one whose programs the kernel may run beside it.
    pub(super) fn compatible(self) -> Option<Self> {
        (self == Self::X86_64).then_some(Self::I386)
    }

    /// `AUDIT_ARCH_*` of linux/audit.h.
    pub(super) fn audit_number(self) -> u32 {
        match self {
            Self::X86_64 => 0xc000_003e,
            Self::I386 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
        }
    }

    /// The number of a call, if the architecture has it.
    pub(super) fn number(self, name: &str) -> Option<u32> {
        let number = match self {
            Self::X86_64 => syscalls::x86_64::Sysno::from_str(name).ok()?.id(),
            Self::I386 => syscalls::x86::Sysno::from_str(name).ok()?.id(),
            Self::Aarch64 => syscalls::aarch64::Sysno::from_str(name).ok()?.id(),
        };
        u32::try_from(number).ok()
    }
}
