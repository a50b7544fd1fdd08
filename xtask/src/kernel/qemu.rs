//! Boots a kernel under QEMU for a test: no network, one disk, the console on our standard output.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::Kernel;
use crate::arch::Arch;

/// A VM to boot.
pub(super) struct Machine<'a> {
    pub(super) arch: Arch,
    pub(super) kernel: &'a Kernel,
    /// None where the kernel's command line names a root.
    pub(super) initramfs: Option<&'a Path>,
    /// Whether the guest needs a clock that is finer than a tick.
    pub(super) fine_clock: bool,
    /// A raw image, `/dev/vda` in the guest.
    pub(super) disk: &'a Path,
    /// Added to the kernel's command line.
    pub(super) append: &'a str,
    /// After this the VM is killed.
    pub(super) limit: Duration,
}

impl Machine<'_> {
    /// Boots, hands every line of the console to `line`, and comes back when the VM has ended.
    pub(super) fn run(&self, mut line: impl FnMut(&str)) -> Result<()> {
        let mut guest = Guest(
            self.command()
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .spawn()
                .context("cannot start QEMU")?,
        );
        let console = guest.0.stdout.take().context("QEMU has no standard output")?;
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            let mut console = BufReader::new(console);
            let mut bytes = Vec::new();
            while matches!(console.read_until(b'\n', &mut bytes), Ok(length) if length > 0) {
                let text = String::from_utf8_lossy(&bytes).trim_end().to_owned();
                bytes.clear();
                if sender.send(text).is_err() {
                    return;
                }
            }
        });

        let deadline = Instant::now() + self.limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match receiver.recv_timeout(left) {
                Ok(text) => line(&text),
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    bail!("the VM did not end within {} s", self.limit.as_secs())
                }
            }
        }
        let status = guest.0.wait()?;
        anyhow::ensure!(status.success(), "QEMU failed: {status}");
        Ok(())
    }

    fn command(&self) -> Command {
        let mut command = Command::new(format!("qemu-system-{}", self.arch.name()));
        let (machine, disk, console) = match (self.arch, self.fine_clock) {
            // With ACPI, which is its default, a microvm waits for a clock that TCG does not have.
            (Arch::X86_64, false) => ("microvm,acpi=off,rtc=on", "virtio-blk-device", "ttyS0"),
            (Arch::X86_64, true) => ("q35", "virtio-blk-pci", "ttyS0"),
            (Arch::Aarch64, _) => ("virt,gic-version=3", "virtio-blk-device", "ttyAMA0"),
        };
        let cpu = match self.arch {
            Arch::X86_64 => "max",
            // QEMU computes the architecture's own cipher for every signed pointer, slowly.
            Arch::Aarch64 => "max,pauth-impdef=on",
        };
        command
            .args(["-nodefaults", "-no-user-config", "-nographic", "-no-reboot"])
            .args(["-machine", machine, "-cpu", cpu, "-smp", "2", "-m", "1024"])
            .args(["-accel", "tcg,thread=multi", "-serial", "stdio"])
            .arg("-kernel")
            .arg(self.kernel.fastest_image())
            .arg("-device")
            .arg(format!("{disk},drive=disk"))
            .arg("-drive")
            .arg(format!("id=disk,if=none,format=raw,cache=unsafe,file={}", self.disk.display()))
            .arg("-append")
            .arg(format!("console={console} reboot=t panic=-1 log_buf_len=8M {}", self.append));
        if let Some(initramfs) = self.initramfs {
            command.arg("-initrd").arg(initramfs);
        }
        command
    }
}

/// Killed when nobody waits for it any more.
struct Guest(Child);

impl Drop for Guest {
    fn drop(&mut self) {
        // It may have ended by itself; there is nothing to do about another failure.
        if self.0.kill().is_ok() {
            let _ = self.0.wait();
        }
    }
}

/// A fresh ext4 in a sparse file.
pub(super) fn make_disk(path: &Path, bytes: u64) -> Result<()> {
    let _ = fs::remove_file(path);
    fs::File::create(path)?.set_len(bytes)?;
    crate::process::run(
        Command::new("mkfs.ext4")
            .args(["-q", "-F", "-b", "4096", "-E", "lazy_itable_init=1,lazy_journal_init=1"])
            .arg(path),
    )
}
