//! The guest's architecture, which the kernel decides.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde::{Deserialize, Serialize};

/// Bytes at the beginning of a kernel that tell what it is.
const HEAD_BYTES: usize = 0x210;

/// The architecture that QEMU emulates or runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Architecture {
    /// 64-bit x86.
    X86_64,
    /// 64-bit Arm.
    Aarch64,
}

/// The reason that a file is not accepted as a kernel.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// It can't be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is something else.
    #[error("neither an x86 bzImage, nor an x86-64 vmlinux, nor an arm64 Image")]
    Unknown,
}

impl Architecture {
    /// The architecture that the kernel at `path` is for.
    ///
    /// # Errors
    /// Rejects files that QEMU cannot boot as a kernel.
    pub fn of_kernel(path: &Path) -> Result<Self, KernelError> {
        let mut head = Vec::new();
        File::open(path)?.take(HEAD_BYTES as u64).read_to_end(&mut head)?;
        Self::of_head(&head).ok_or(KernelError::Unknown)
    }

    fn of_head(head: &[u8]) -> Option<Self> {
        let has =
            |offset: usize, magic: &[u8]| head.get(offset..offset + magic.len()) == Some(magic);
        // Documentation/arch/x86/boot.rst, Documentation/arch/arm64/booting.rst, elf(5) with
        // EM_X86_64.
        let bz_image = has(0x202, b"HdrS");
        let vmlinux = has(0, b"\x7fELF\x02\x01") && has(18, &[62, 0]);
        let arm64_image = has(56, b"ARM\x64");
        match (bz_image || vmlinux, arm64_image) {
            (true, _) => Some(Self::X86_64),
            (false, true) => Some(Self::Aarch64),
            (false, false) => None,
        }
    }

    /// QEMU's program for it.
    pub fn qemu(self) -> &'static str {
        match self {
            Self::X86_64 => "qemu-system-x86_64",
            Self::Aarch64 => "qemu-system-aarch64",
        }
    }

    /// Whether this machine's processor runs it.
    pub fn is_native(self) -> bool {
        match self {
            Self::X86_64 => cfg!(target_arch = "x86_64"),
            Self::Aarch64 => cfg!(target_arch = "aarch64"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The verdict on a head of zeros with `magic` at `offset`.
    fn check(offset: usize, magic: &[u8]) -> Option<Architecture> {
        let mut head = vec![0; HEAD_BYTES];
        head[offset..offset + magic.len()].copy_from_slice(magic);
        Architecture::of_head(&head)
    }

    #[test]
    fn kernels_are_known_by_their_magic() {
        assert_eq!(check(0x202, b"HdrS"), Some(Architecture::X86_64));
        assert_eq!(check(56, b"ARM\x64"), Some(Architecture::Aarch64));
        let elf = |machine: u8| [&b"\x7fELF\x02\x01"[..], &[0; 12], &[machine, 0]].concat();
        assert_eq!(check(0, &elf(62)), Some(Architecture::X86_64));
        assert_eq!(check(0, &elf(183)), None, "QEMU loads no ELF for arm64");
        assert_eq!(check(0, b"\x28\xb5\x2f\xfd"), None);
        assert_eq!(Architecture::of_head(b"HdrS"), None);
        assert_eq!(Architecture::of_head(b""), None);
    }
}
