//! The payloads of a release: the runtimes, and the guest's kernel and initramfs for `serve-vm`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use super::Runtimes;
use crate::{
    arch::Arch,
    guest_program, initramfs,
    kernel::{Flavour, Kernel},
    runtimes, workspace,
};

/// As the initramfs's: compressed once, read by everybody.
const COMPRESSION_LEVEL: i32 = 19;

/// Files that are ready to become sections.
pub(super) struct Payloads {
    pub(super) kernel: PathBuf,
    pub(super) initramfs: PathBuf,
    pub(super) runtimes: PathBuf,
}

impl Payloads {
    /// Builds them for one processor; what was built before and is still right is taken as it is.
    pub(super) fn provide(arch: Arch, wanted: &Runtimes) -> Result<Self> {
        let folder = workspace::target().join("payloads").join(arch.name());
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let initramfs = folder.join("initramfs.cpio.zst");
        initramfs::write(&guest_program::build(arch)?, &[], &initramfs)?;
        let kernel = Kernel::build(arch, Flavour::Release)?.image();
        Ok(Self {
            kernel: packed_kernel(arch, &kernel, &folder)?,
            initramfs,
            runtimes: runtimes::provide(arch.name(), &wanted.require, &wanted.versions)?,
        })
    }
}

/// x86's bzImage unpacks itself; arm64's Image is for the host to unpack.
fn packed_kernel(arch: Arch, image: &Path, folder: &Path) -> Result<PathBuf> {
    if arch == Arch::X86_64 {
        return Ok(image.to_owned());
    }
    let path = folder.join("kernel.zst");
    let bytes = fs::read(image).with_context(|| format!("cannot read {}", image.display()))?;
    let packed = zstd::bulk::compress(&bytes, COMPRESSION_LEVEL).context("compressing")?;
    fs::write(&path, packed).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}
