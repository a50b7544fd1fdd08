//! `cargo xtask e2e vm`: real VMs behind the real host process.
//!
//! Builds what is booted (kernel, guest, initramfs) and the daemon, then runs the tests of
//! `crates/actiond/tests/vm.rs`, which find all that through variables. One VM at a time: without KVM
//! each of them keeps every CPU busy.

use std::path::PathBuf;

use anyhow::Result;

use crate::{
    initramfs,
    kernel::{Arch, Flavour, Kernel},
    process,
    setup::{self, Need},
    workspace,
};

const NEEDS: [Need; 2] = [
    Need {
        program: if cfg!(target_arch = "aarch64") {
            "qemu-system-aarch64"
        } else {
            "qemu-system-x86_64"
        },
        package: if cfg!(target_arch = "aarch64") { "qemu-system-arm" } else { "qemu-system-x86" },
        why: "boots the VMs",
    },
    Need {
        program: "busybox",
        package: "busybox-static",
        why: "is all that actions have in a VM without runtimes",
    },
];

/// Runs the tests.
pub(crate) fn test() -> Result<()> {
    setup::ensure(&NEEDS)?;
    let kernel = Kernel::build(Arch::host(), Flavour::Release)?;
    let initramfs = initramfs()?;
    process::run(
        process::cargo()
            .args(["test", "--locked", "--package", "actiond", "--test", "vm"])
            .args(["--", "--test-threads=1"])
            .env("ACTIOND_TEST_VM_KERNEL", kernel.image())
            .env("ACTIOND_TEST_VM_INITRAMFS", initramfs),
    )
}

/// Builds the guest, and the archive that it boots from.
pub(crate) fn initramfs() -> Result<PathBuf> {
    let archive = workspace::target().join("initramfs.cpio.zst");
    initramfs::write(&guest()?, &[], &archive)?;
    Ok(archive)
}

/// The guest's program: one file that needs no other.
fn guest() -> Result<PathBuf> {
    let triple = workspace::host_triple()?;
    process::run(
        process::cargo()
            .args(["rustc", "--locked", "--release", "--package", "actiond"])
            .args(["--bin", "linux-actiond-guest", "--target", &triple])
            .args(["--", "-C", "target-feature=+crt-static", "-C", "strip=symbols"]),
    )?;
    Ok(workspace::target().join(triple).join("release/linux-actiond-guest"))
}
