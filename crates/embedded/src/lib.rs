//! Files inside of executables, so that a user downloads one file and runs it.
//!
//! A release carries its runtime image, and on macOS also the guest's kernel and initramfs, each in
//! a section of the executable that no loader maps:
//!
//! ```text
//!              ELF                  Mach-O
//! runtimes     .actiond.runtimes    __ACTIOND,__runtimes
//! kernel       .actiond.kernel      __ACTIOND,__kernel
//! initramfs    .actiond.initramfs   __ACTIOND,__initramfs
//! ```
//!
//! A section holds the file itself or zstd frames of it. [`find`] locates it in the executable;
//! [`extract`] writes it to a file of its own, once. A user's file in place of a payload takes the same
//! way ([`prepare`]). The crate does not know the purpose of the files and does not put them into
//! executables.

mod extract;
mod find;
mod inflate;
mod source;

pub use extract::{ExtractError, Extracted, extract, prepare};
pub use find::{FindError, Section, find};
pub use source::Source;

/// A payload in an executable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payload {
    /// The SquashFS image of C libraries and shells.
    Runtimes,
    /// The guest's kernel.
    Kernel,
    /// The guest's first file system.
    Initramfs,
}

impl Payload {
    /// Everything that there is.
    pub const ALL: [Self; 3] = [Self::Runtimes, Self::Kernel, Self::Initramfs];

    /// For messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Runtimes => "runtimes",
            Self::Kernel => "kernel",
            Self::Initramfs => "initramfs",
        }
    }

    /// The name of its section in ELF files.
    pub fn elf_section(self) -> &'static str {
        match self {
            Self::Runtimes => ".actiond.runtimes",
            Self::Kernel => ".actiond.kernel",
            Self::Initramfs => ".actiond.initramfs",
        }
    }

    /// The name of its section in Mach-O files, in the segment [`MACHO_SEGMENT`].
    pub fn macho_section(self) -> &'static str {
        match self {
            Self::Runtimes => "__runtimes",
            Self::Kernel => "__kernel",
            Self::Initramfs => "__initramfs",
        }
    }

    /// The parts of the extracted file's name before and after the hash of its content.
    fn file_name(self) -> (&'static str, &'static str) {
        match self {
            Self::Runtimes => ("runtimes.sqfs", ""),
            Self::Kernel => ("kernel", ".Image"),
            Self::Initramfs => ("initramfs", ".cpio"),
        }
    }

    /// The most bytes that it may have when inflated: some ten times what ours have, so that
    /// what is damaged, or was mistaken for a payload, can't fill the disk.
    fn max_bytes(self) -> u64 {
        const MIB: u64 = 1 << 20;
        match self {
            Self::Runtimes => 4096 * MIB,
            Self::Kernel => 256 * MIB,
            Self::Initramfs => 512 * MIB,
        }
    }
}

/// The segment of all sections in Mach-O files.
pub const MACHO_SEGMENT: &str = "__ACTIOND";
