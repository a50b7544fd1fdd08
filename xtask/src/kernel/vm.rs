//! `cargo xtask kernel test` and `measure`: actiondfs inside of a kernel.
//!
//! The program of `kernel/actiondfs/test/vm` is the whole user space of the VM. It prints a line a
//! case, and `DONE` with the number of failures; a VM that ends without that has crashed. Before all
//! that it prints [`UP`].

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Result, bail, ensure};

use super::{
    Arch, Flavour, Kernel,
    qemu::{self, Machine},
};
use crate::{
    initramfs, process,
    setup::{self, Need},
    workspace,
};

/// Room for a CAS, a stage and a reference tree.
const DISK_BYTES: u64 = 1 << 30;

/// With every checker on, on a slow machine under TCG.
const LIMIT: Duration = Duration::from_secs(3600);

/// The first word of the VM's user space. Something without a newline may stand before it.
const UP: &str = "UP";

/// The number of boots of a VM until it says a word, be it [`UP`] or a panic. QEMU before 8.1, emulating
/// several CPUs side by side, can run code that Linux has just rewritten during its boot: one boot in some
/// dozens dies of that, without a word.
const BOOTS: usize = 3;

#[derive(clap::Args)]
pub(super) struct TestArguments {
    /// The machine to test on.
    #[arg(long, value_enum, default_value_t = Arch::host())]
    arch: Arch,
    /// The kernel to boot: `debug` looks for mistakes that do not show.
    #[arg(long, value_enum, default_value_t = Flavour::Stats)]
    flavour: Flavour,
    /// Print the whole console.
    #[arg(long)]
    verbose: bool,
}

impl TestArguments {
    /// On the kernel that is shipped for this machine.
    pub(super) fn of_release() -> Self {
        Self { arch: Arch::host(), flavour: Flavour::Release, verbose: false }
    }
}

#[derive(clap::Args)]
pub(super) struct MeasureArguments {
    /// The machine to measure on.
    #[arg(long, value_enum, default_value_t = Arch::host())]
    arch: Arch,
}

/// The sum of the guest's lines.
#[derive(Default, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    passed: usize,
    failed: Vec<String>,
    done: bool,
}

impl Verdict {
    fn take(&mut self, line: &str) {
        if line.starts_with("PASS ") {
            self.passed += 1;
        } else if line.starts_with("FAIL ") {
            self.failed.push(line.to_owned());
        } else if line.starts_with("DONE ") {
            self.done = true;
        }
    }

    fn ensure_done(&self) -> Result<()> {
        ensure!(self.done, "the VM ended before the tests did: run again with --verbose");
        Ok(())
    }

    /// An error, unless all of it was run and none of it failed.
    pub(super) fn ensure_good(&self, what: &str) -> Result<()> {
        self.ensure_done()?;
        ensure!(self.failed.is_empty() && self.passed > 0, "{what} fails in the VM");
        Ok(())
    }
}

pub(super) fn test(arguments: &TestArguments) -> Result<()> {
    let boot = Boot {
        arch: arguments.arch,
        flavour: arguments.flavour,
        append: "quiet",
        fine_clock: false,
        files: &[],
    };
    let verdict = judge(&boot, arguments.verbose, |_| ())?;
    println!("kernel: {} passed, {} failed", verdict.passed, verdict.failed.len());
    verdict.ensure_good("actiondfs")
}

pub(super) fn measure(arguments: &MeasureArguments) -> Result<()> {
    setup::ensure(&[IMAGE_MAKER])?;
    let folder = workspace::target().join("kernel/vm").join(arguments.arch.name());
    fs::create_dir_all(&folder)?;
    let image = erofs_image(&folder)?;
    let boot = Boot {
        arch: arguments.arch,
        flavour: Flavour::Release,
        append: "quiet actiondfs.measure",
        fine_clock: true,
        files: &[("tree.erofs", &image)],
    };
    let mut verdict = Verdict::default();
    boot.run(|line| {
        verdict.take(line);
        if line.starts_with("MEASURE ") || line.starts_with("FAIL ") {
            println!("{line}");
        }
    })?;
    verdict.ensure_done()?;
    ensure!(verdict.failed.is_empty(), "not all of it could be measured");
    Ok(())
}

/// Boots, prints what is worth it, and says what came of it.
pub(super) fn judge(boot: &Boot<'_>, verbose: bool, mut also: impl FnMut(&str)) -> Result<Verdict> {
    let mut verdict = Verdict::default();
    boot.run(|line| {
        verdict.take(line);
        also(line);
        let telling = ["FAIL ", "LOG ", "DONE "].iter().any(|word| line.starts_with(word));
        let bad = line.contains("Kernel panic") || line.ends_with(" ... FAILED");
        if verbose || telling || bad {
            println!("{line}");
        }
    })?;
    Ok(verdict)
}

/// The machine to boot, and its purpose.
pub(super) struct Boot<'a> {
    pub(super) arch: Arch,
    pub(super) flavour: Flavour,
    /// Added to the kernel's command line; `actiondfs.` words are for the test program.
    pub(super) append: &'a str,
    /// Whether the guest needs a clock that is finer than a tick.
    pub(super) fine_clock: bool,
    /// Put into the VM's root beside the test program, by name.
    pub(super) files: &'a [(&'a str, &'a Path)],
}

impl Boot<'_> {
    fn run(&self, mut line: impl FnMut(&str)) -> Result<()> {
        setup::ensure(&[emulator(self.arch)])?;
        let kernel = Kernel::build(self.arch, self.flavour)?;
        let folder = workspace::target().join("kernel/vm").join(self.arch.name());
        fs::create_dir_all(&folder)?;
        let program = compile(self.arch, &folder)?;
        let (initramfs, disk) = (folder.join("initramfs"), folder.join("disk"));
        initramfs::write(&program, self.files, &initramfs)?;
        let machine = Machine {
            arch: self.arch,
            kernel: &kernel,
            initramfs: Some(&initramfs),
            fine_clock: self.fine_clock,
            disk: &disk,
            append: self.append,
            limit: LIMIT,
        };
        for _ in 0..BOOTS {
            qemu::make_disk(&disk, DISK_BYTES)?;
            let mut silent = true;
            let outcome = machine.run(|text| {
                silent &= !text.ends_with(UP) && is_firmware(text);
                line(text);
            });
            fs::remove_file(&disk)?;
            if !silent || outcome.is_err() {
                return outcome;
            }
            println!("kernel: the VM ended before its kernel said a word: booting again");
        }
        bail!("the kernel does not boot: run again with --verbose")
    }
}

/// Whether a line of the console is nothing, or only what is said before there is a kernel: the
/// firmware's name, that it boots, and how to clear a screen.
fn is_firmware(line: &str) -> bool {
    let rest = line.split_once("Booting from ROM..").map_or(line, |(_, rest)| rest);
    line.contains("SeaBIOS") || !rest.contains(' ')
}

const IMAGE_MAKER: Need = Need {
    program: "mkfs.erofs",
    package: "erofs-utils",
    why: "makes the image that actiondfs is measured beside",
};

/// An EROFS image of the tree that `measure` looks at. Making it needs root: its xattrs are
/// overlayfs' own.
fn erofs_image(folder: &Path) -> Result<PathBuf> {
    let (tree, image) = (folder.join("tree"), folder.join("tree.erofs"));
    let program = compile(Arch::host(), folder)?;
    process::run(process::as_root("rm").arg("-rf").arg(&tree).arg(&image))?;
    fs::create_dir(&tree)?;
    process::run(process::as_root(program).arg("--lay-out").arg(&tree))?;
    process::run(
        process::as_root("mkfs.erofs")
            .args(["--quiet", "-T", "946684800", "--all-root"])
            .arg(&image)
            .arg(&tree)
            .stdout(std::process::Stdio::null()),
    )?;
    Ok(image)
}

fn emulator(arch: Arch) -> Need {
    let why = "runs the VM";
    match arch {
        Arch::X86_64 => Need { program: "qemu-system-x86_64", package: "qemu-system-x86", why },
        Arch::Aarch64 => Need { program: "qemu-system-aarch64", package: "qemu-system-arm", why },
    }
}

/// The test program, linked statically: there is nothing else in its VM.
fn compile(arch: Arch, folder: &Path) -> Result<PathBuf> {
    let sources = workspace::root().join("kernel/actiondfs/test/vm");
    let program = folder.join(format!("init-{}", arch.name()));
    let mut files = Vec::new();
    for entry in fs::read_dir(&sources)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "c") {
            files.push(path);
        }
    }
    files.sort();
    process::run(
        Command::new(format!("{}gcc", arch.tool_prefix()))
            .args(["-std=gnu11", "-static", "-O2", "-Wall", "-Wextra", "-Werror", "-o"])
            .arg(&program)
            .args(files),
    )?;
    Ok(program)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_that_speaks_is_no_firmware() {
        for line in ["", "\x1bc\x1b[2JSeaBIOS (version 1.16)", "Booting from ROM..\x1bc\x1b[?7l"] {
            assert!(is_firmware(line), "{line:?}");
        }
        for line in ["Booting from ROM..Kernel panic - not syncing", "BUG: unable to handle"] {
            assert!(!is_firmware(line), "{line:?}");
        }
    }

    #[test]
    fn lines_add_up_to_a_verdict() {
        let mut verdict = Verdict::default();
        let lines = ["[0.1] booting", "PASS a: b", "FAIL a: c: why", "PASS d: e", "DONE 1"];
        lines.iter().for_each(|line| verdict.take(line));
        let failed = vec!["FAIL a: c: why".to_owned()];
        assert_eq!(verdict, Verdict { passed: 2, failed, done: true });
    }
}
