//! The parts of VMs: a kernel, an initramfs with the guest, an image with the runtimes.
//!
//! The tests find all that through variables, which also come along to the parts of verbs that run as
//! root; see `crates/testkit/src/vm.rs`.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::{
    arch::Arch,
    guest_program, initramfs,
    kernel::{Flavour, Kernel},
    runtimes,
    setup::{self, Need},
    state_volume, workspace,
};

/// The runtimes that the images of tests must have. They are of Debian's supported releases: glibc2.31 is
/// left out on the day that Debian 11 leaves the mirrors, and the steps that need it are skipped.
pub(crate) const RUNTIMES: [&str; 2] = ["glibc2.36", "glibc2.41"];

/// The variables, in the order of the fields.
const VARIABLES: [&str; 3] =
    ["ACTIOND_TEST_VM_KERNEL", "ACTIOND_TEST_VM_INITRAMFS", "ACTIOND_TEST_VM_RUNTIMES"];

/// Set where daemons are to be in VMs.
const IN_VM: &str = "ACTIOND_TEST_IN_VM";

/// Flags of a VM that does a build. A KVM that may not work is not tried, and a boot may take its time, as in
/// the tests.
pub(crate) const FLAGS: [&str; 5] = [
    "--accel=tcg",
    "--memory-mib=1024",
    "--cas-image-size-mib=8192",
    "--start-timeout-ms=300000",
    "--connect-timeout-ms=300000",
];

/// The files that a VM boots.
#[derive(Clone)]
pub(crate) struct Artifacts {
    kernel: PathBuf,
    initramfs: PathBuf,
    runtimes: PathBuf,
}

impl Artifacts {
    /// Builds them as the sources are, or takes those that are still that.
    pub(crate) fn provide(arch: Arch, flavour: Flavour) -> Result<Self> {
        install_emulator(arch)?;
        let initramfs = workspace::target().join(format!("initramfs-{}.cpio.zst", arch.name()));
        initramfs::write(&guest_program::build(arch)?, &[], &initramfs)?;
        Ok(Self {
            kernel: Kernel::build(arch, flavour)?.image(),
            initramfs,
            runtimes: runtimes::provide(
                arch.name(),
                &RUNTIMES.map(str::to_owned),
                &runtimes::Versions::Offered,
            )?,
        })
    }

    /// Those that a caller has told of, where daemons are to be in VMs.
    pub(crate) fn from_environment() -> Result<Option<Self>> {
        if env::var_os(IN_VM).is_none() {
            return Ok(None);
        }
        let file =
            |name| env::var_os(name).map(PathBuf::from).with_context(|| format!("no {name}"));
        let [kernel, initramfs, runtimes] = VARIABLES.map(file);
        Ok(Some(Self { kernel: kernel?, initramfs: initramfs?, runtimes: runtimes? }))
    }

    /// Tells `command` of them; its daemons are on this machine but for tests of VMs.
    pub(crate) fn tell<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        let files = [&self.kernel, &self.initramfs, &self.runtimes];
        command.envs(VARIABLES.into_iter().zip(files))
    }

    /// Has `command`, and what it starts, put every daemon into a VM.
    pub(crate) fn put_into<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        self.tell(command).env(IN_VM, "1")
    }

    /// The same for a program that runs as root on a state volume.
    pub(crate) fn state_volume_command(&self, program: &Path) -> Result<Command> {
        // Words, as sudo would not let variables through.
        let mut command = state_volume::command(Path::new("env"))?;
        command.arg(format!("{IN_VM}=1"));
        let files = [&self.kernel, &self.initramfs, &self.runtimes];
        for (name, file) in VARIABLES.into_iter().zip(files) {
            let mut assignment = OsString::from(name);
            assignment.push("=");
            assignment.push(file);
            command.arg(assignment);
        }
        command.arg(program);
        Ok(command)
    }

    /// The command that serves from a VM with these flags for its worker; where to listen is added
    /// by the caller.
    pub(crate) fn serve_command(
        &self,
        program: &Path,
        root: &Path,
        worker_flags: &[OsString],
    ) -> Vec<OsString> {
        let given = [
            (program, "serve-vm".as_ref()),
            ("--root".as_ref(), root),
            ("--kernel".as_ref(), &self.kernel),
            ("--initramfs".as_ref(), &self.initramfs),
            ("--runtime-image".as_ref(), &self.runtimes),
        ];
        let words = given.into_iter().flat_map(|(name, value): (&Path, &Path)| [name, value]);
        let mut command: Vec<OsString> = words.map(Into::into).collect();
        command.extend(FLAGS.map(OsString::from));
        for flag in worker_flags {
            command.extend(["--worker-flag".into(), flag.clone()]);
        }
        command
    }
}

/// Installs what VMs of this machine's kind are booted with.
pub(crate) fn install_qemu() -> Result<()> {
    install_emulator(Arch::host())
}

fn install_emulator(arch: Arch) -> Result<()> {
    let why = "boots the VMs";
    let qemu = match arch {
        Arch::X86_64 => Need { program: "qemu-system-x86_64", package: "qemu-system-x86", why },
        Arch::Aarch64 => Need { program: "qemu-system-aarch64", package: "qemu-system-arm", why },
    };
    let busybox = Need {
        program: "busybox",
        package: "busybox-static",
        why: "is all that actions have in a VM without runtimes",
    };
    setup::ensure(&[qemu, busybox])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_for_the_worker_are_told_one_by_one() {
        let file = |name: &str| PathBuf::from(name);
        let (kernel, initramfs, runtimes) = (file("/k"), file("/i"), file("/r"));
        let artifacts = Artifacts { kernel, initramfs, runtimes };
        let flags = ["--jobs=2", "--queue-limit=5"].map(OsString::from);
        let command = artifacts.serve_command(Path::new("/p"), Path::new("/root"), &flags);
        let expected = "/p serve-vm --root /root --kernel /k --initramfs /i --runtime-image /r \
                        --accel=tcg --memory-mib=1024 --cas-image-size-mib=8192 \
                        --start-timeout-ms=300000 --connect-timeout-ms=300000 \
                        --worker-flag --jobs=2 --worker-flag --queue-limit=5";
        assert_eq!(command.join(" ".as_ref()).to_string_lossy(), expected);
    }
}
