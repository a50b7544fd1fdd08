//! Tests of a server without root that need a cgroup with controllers, of which this machine may have none.
//!
//! The guest's kernel has them. It boots from a disk with Debian's base, the daemon and the binary of its tests, at
//! the paths that they have here.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use super::{Flavour, Kernel, qemu::Machine};
use crate::{arch::Arch, binaries, process, workspace};

/// The part of their names that the tests for this VM share, and the number of these tests.
const TESTS: (&str, usize) = ("a_delegated_cgroup", 2);

/// Room for the base, the programs and a store.
const DISK_BYTES: u64 = 1 << 30;

/// For a boot and the tests, emulated on a slow machine.
const LIMIT: Duration = Duration::from_secs(1800);

/// The VM's first program, with the tests' path for `TEST`. The controllers are enabled for cgroups below the root,
/// as systemd does.
const INIT: &str = r#"#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t cgroup2 cgroup2 /sys/fs/cgroup
echo '+cpu +memory +pids' > /sys/fs/cgroup/cgroup.subtree_control
/busybox ifconfig lo up
cd /tmp
TEST
/busybox reboot -f
"#;

/// Boots the VM, runs the tests, and fails unless all passed there. QEMU and busybox must be installed.
pub(crate) fn run(base: &Path) -> Result<()> {
    let kernel = Kernel::build(Arch::host(), Flavour::Release)?;
    let folder = workspace::target().join("kernel/user");
    fs::create_dir_all(&folder)?;
    let disk = folder.join("disk");
    make_disk(base, &folder.join("root"), &disk)?;
    let machine = Machine {
        arch: Arch::host(),
        kernel: &kernel,
        initramfs: None,
        fine_clock: false,
        disk: &disk,
        append: "quiet root=/dev/vda rw init=/init",
        limit: LIMIT,
    };
    let (name, count) = TESTS;
    let mut passed = 0;
    let mut console = Vec::new();
    machine.run(|line| {
        // Colours may stand around the verdict.
        let line = line.replace(['\u{1b}'], "").replace("[32m", "").replace("[0m", "");
        passed +=
            usize::from(line.starts_with(&format!("test {name}")) && line.ends_with(" ... ok"));
        console.push(line);
    })?;
    fs::remove_file(&disk)?;
    let text = console.join("\n");
    ensure!(passed == count, "{passed} of {count} tests {name}… passed in the VM:\n{text}");
    println!("e2e user: {passed} tests {name}… passed in a VM with cgroup controllers");
    Ok(())
}

/// An ext4 with a copy of `base` and the programs.
fn make_disk(base: &Path, stage: &Path, disk: &Path) -> Result<()> {
    let (daemon, test) = programs()?;
    process::run(process::as_root("rm").args(["-rf", "--one-file-system"]).arg(stage))?;
    process::run(
        process::as_root("cp").args(["--archive", "--no-target-directory"]).arg(base).arg(stage),
    )?;
    let init = stage.with_extension("init");
    fs::write(&init, INIT.replace("TEST", &format!("{} {}", test.display(), TESTS.0)))?;
    let put = |from: &Path, to: &Path, words: &[&str]| {
        let to = stage.join(to.strip_prefix("/").unwrap_or(to));
        process::run(
            process::as_root("install").args(["-D", "--mode=755"]).args(words).arg(from).arg(to),
        )
    };
    put(&init, Path::new("init"), &[])?;
    put(Path::new("/bin/busybox"), Path::new("busybox"), &[])?;
    put(&daemon, &daemon, &["--strip"])?;
    put(&test, &test, &["--strip"])?;
    process::run(process::as_root("rm").arg("-f").arg(disk))?;
    fs::File::create(disk)?.set_len(DISK_BYTES)?;
    process::run(process::as_root("mkfs.ext4").args(["-q", "-F", "-d"]).arg(stage).arg(disk))?;
    process::run(process::as_root("rm").args(["-rf", "--one-file-system"]).arg(stage))
}

/// The daemon and the binary of the tests, with the features of `cargo test --workspace`.
fn programs() -> Result<(PathBuf, PathBuf)> {
    let mut build: Command = process::cargo();
    build.args(["test", "--locked", "--workspace", "--test", "rootless", "--no-run"]);
    build.args(["--message-format", "json-render-diagnostics"]);
    let messages = process::output(&mut build)?;
    let daemon = binaries::executable_named(&messages, "linux-actiond");
    let test = binaries::executable(&messages);
    Ok((daemon.context("cargo built no daemon")?, test.context("cargo built no test")?))
}
