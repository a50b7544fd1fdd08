//! The machines that guests and releases are built for.

use clap::ValueEnum;

/// Machines that a guest can run on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Arch {
    #[value(name = "x86_64")]
    X86_64,
    #[value(name = "aarch64")]
    Aarch64,
}

impl Arch {
    pub(crate) fn host() -> Self {
        if cfg!(target_arch = "aarch64") { Self::Aarch64 } else { Self::X86_64 }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }

    /// As the kernel's makefiles call it.
    pub(crate) fn kernel_name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86",
            Self::Aarch64 => "arm64",
        }
    }

    /// The prefix of the cross tools' names; empty where no cross tools are needed.
    pub(crate) fn tool_prefix(self) -> &'static str {
        match (self, Self::host()) {
            (Self::Aarch64, Self::X86_64) => "aarch64-linux-gnu-",
            (Self::X86_64, Self::Aarch64) => "x86_64-linux-gnu-",
            _ => "",
        }
    }

    /// The make target, and the file it makes: what a VMM of this machine boots.
    pub(crate) fn image(self) -> (&'static str, &'static str) {
        match self {
            Self::X86_64 => ("bzImage", "arch/x86/boot/bzImage"),
            Self::Aarch64 => ("Image", "arch/arm64/boot/Image"),
        }
    }
}
