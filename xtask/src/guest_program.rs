//! The guest's program, `linux-actiond-guest`, for either processor: one static file, stripped.
//!
//! For this machine's processor it is built as everything is. For the other one the compiler has no
//! standard library, so that is built too ([`Toolchain`]), and Debian's cross compiler links.

use std::path::PathBuf;

use anyhow::Result;

use crate::{
    arch::Arch,
    binaries::{self, STATIC},
    process,
    reproducible::Checkout,
    setup::{self, Need},
    toolchain::Toolchain,
};

const PACKAGE: &str = "actiond";
const PROGRAM: &str = "linux-actiond-guest";

/// Builds its release, and gives its path.
pub(crate) fn build(arch: Arch) -> Result<PathBuf> {
    if arch == Arch::host() { build_native(&Checkout::own()?) } else { build_cross(arch) }
}

/// The one for this machine's processor, in some checkout.
pub(crate) fn build_native(checkout: &Checkout) -> Result<PathBuf> {
    binaries::build_static(checkout, PACKAGE, PROGRAM, &[])
}

fn build_cross(arch: Arch) -> Result<PathBuf> {
    let Cross { target, compiler, archiver, packages } = cross(arch);
    setup::ensure(&[Need {
        program: compiler,
        package: packages,
        why: "links the guest of the other processor",
    }])?;
    let toolchain = Toolchain::with_sources()?;
    let mut cargo = toolchain.cargo();
    let name = target.replace('-', "_");
    cargo
        .args(["rustc", "--locked", "--release", "--package", PACKAGE, "--bin", PROGRAM])
        .args(["-Zbuild-std=std", "--target", target])
        .args(STATIC)
        .env(format!("CARGO_TARGET_{}_LINKER", name.to_uppercase()), compiler)
        .env(format!("CC_{name}"), compiler)
        .env(format!("AR_{name}"), archiver);
    let checkout = toolchain.checkout()?;
    checkout.apply(&mut cargo, toolchain.folder(), &[])?;
    process::run(&mut cargo)?;
    Ok(checkout.target.join(target).join("release").join(PROGRAM))
}

/// The compiler for a processor that is not this machine's.
struct Cross {
    /// As rustc calls it.
    target: &'static str,
    compiler: &'static str,
    archiver: &'static str,
    packages: &'static str,
}

fn cross(arch: Arch) -> Cross {
    match arch {
        Arch::X86_64 => Cross {
            target: "x86_64-unknown-linux-gnu",
            compiler: "x86_64-linux-gnu-gcc",
            archiver: "x86_64-linux-gnu-ar",
            packages: "gcc-x86-64-linux-gnu libc6-dev-amd64-cross",
        },
        Arch::Aarch64 => Cross {
            target: "aarch64-unknown-linux-gnu",
            compiler: "aarch64-linux-gnu-gcc",
            archiver: "aarch64-linux-gnu-ar",
            packages: "gcc-aarch64-linux-gnu libc6-dev-arm64-cross",
        },
    }
}
