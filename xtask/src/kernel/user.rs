//! Tests of a server without root that need a cgroup with controllers, of which this machine may have none, and
//! those of the package's units.
//!
//! The guest's kernel has the controllers, and systemd is its init. It boots from a disk with Debian's systemd, the
//! daemon and the binaries of its tests, at the paths that they have here, and the units at those of the package.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use super::{Flavour, Kernel, qemu::Machine};
use crate::{arch::Arch, binaries, process, workspace};

/// A binary of `crates/actiond/tests`, the part of their names that its tests for this VM share, and the number of these
/// tests.
const TESTS: [(&str, &str, usize); 2] = [("rootless", "a_delegated_cgroup", 2), ("systemd", "", 5)];

/// The files of the package below `crates/packaging/files`, with their folders.
const UNITS: [(&str, &str); 3] = [
    ("actiond.service", "usr/lib/systemd/system/actiond.service"),
    ("actiond.socket", "usr/lib/systemd/system/actiond.socket"),
    ("actiond-user.service", "usr/lib/systemd/user/actiond.service"),
];

/// The program where the package has it.
const PROGRAM: &str = "usr/bin/linux-actiond";

/// Room for the root, the programs and stores.
const DISK_BYTES: u64 = 2 << 30;

/// For a boot and the tests, emulated on a slow machine.
const LIMIT: Duration = Duration::from_secs(1800);

/// The script that runs the tests, at this path in the guest.
const SCRIPT: &str = "actiond-tests";

/// The unit that the guest boots into, which reboots it at the end: QEMU ends then.
const UNIT: &str = "\
[Unit]
Wants=dbus.service systemd-logind.service systemd-user-sessions.service
After=basic.target dbus.service systemd-logind.service systemd-user-sessions.service
SuccessAction=reboot-immediate
FailureAction=reboot-immediate

[Service]
Type=oneshot
Environment=PATH=/usr/sbin:/usr/bin:/sbin:/bin ACTIOND_TEST_SYSTEMD=1
ExecStart=/bin/sh /actiond-tests
WorkingDirectory=/tmp
StandardOutput=tty
StandardError=tty
TTYPath=/dev/console
";

/// No terminal waits for a login, the kernel and systemd write nothing beside the tests, and the kernel has no modules.
const APPEND: &str = "loglevel=2 root=/dev/vda rw systemd.unit=actiond-tests.service systemd.getty_auto=no \
     systemd.show_status=0 systemd.mask=systemd-modules-load.service systemd.mask=tmp.mount";

/// Boots the VM with a copy of `base`, runs the tests, and fails unless all passed there. QEMU must be installed.
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
        // A tick stops at times where the machine below is under load, and all that waits for a timer with it.
        fine_clock: true,
        disk: &disk,
        append: APPEND,
        limit: LIMIT,
    };
    let mut passed = 0;
    let mut console = Vec::new();
    let ended = machine.run(|line| {
        passed += passed_of(line);
        console.push(line.to_owned());
    });
    let text = console.join("\n");
    ended.with_context(|| format!("the VM wrote:\n{text}"))?;
    fs::remove_file(&disk)?;
    let count: usize = TESTS.iter().map(|(_, _, count)| count).sum();
    ensure!(passed == count, "{passed} of {count} tests passed in the VM:\n{text}");
    println!("e2e user: {passed} tests with cgroup controllers and systemd passed in a VM");
    Ok(())
}

/// The number of tests that passed, from the last line of a test binary; 0 if one of them did not, or from another line.
fn passed_of(line: &str) -> usize {
    // Colours may stand around the verdict.
    let line = line.replace('\u{1b}', "").replace("[32m", "").replace("[0m", "");
    let counts = line.strip_prefix("test result: ok. ").unwrap_or_default();
    match counts.split_once(" passed; 0 failed; 0 ignored;") {
        Some((passed, _)) => passed.parse().unwrap_or(0),
        None => 0,
    }
}

/// An ext4 with a copy of `base` and the programs.
fn make_disk(base: &Path, stage: &Path, disk: &Path) -> Result<()> {
    let Programs { daemon, tests } = Programs::build()?;
    process::run(process::as_root("rm").args(["-rf", "--one-file-system"]).arg(stage))?;
    process::run(
        process::as_root("cp").args(["--archive", "--no-target-directory"]).arg(base).arg(stage),
    )?;
    let install = |from: &Path, to: &Path, words: &[&str]| {
        let to = stage.join(to.strip_prefix("/").unwrap_or(to));
        process::run(process::as_root("install").arg("-D").args(words).arg(from).arg(to))
    };
    let (program, file) = (["--mode=755", "--strip"], ["--mode=644"]);
    install(&daemon, &daemon, &program)?;
    install(&daemon, Path::new(PROGRAM), &program)?;
    let files = workspace::root().join("crates/packaging/files");
    for (name, to) in UNITS {
        install(&files.join(name), Path::new(to), &file)?;
    }
    let mut script = String::new();
    for (test, (_, filter, _)) in tests.iter().zip(TESTS) {
        install(test, test, &program)?;
        script += &format!("{} --test-threads=1 {filter}\n", test.display());
    }
    let written = stage.with_extension("file");
    let unit = format!("etc/systemd/system/{SCRIPT}.service");
    for (text, to) in [(script.as_str(), SCRIPT), (UNIT, &unit)] {
        fs::write(&written, text)?;
        install(&written, Path::new(to), &file)?;
    }
    process::run(process::as_root("rm").arg("-f").arg(disk))?;
    fs::File::create(disk)?.set_len(DISK_BYTES)?;
    process::run(process::as_root("mkfs.ext4").args(["-q", "-F", "-d"]).arg(stage).arg(disk))?;
    process::run(process::as_root("rm").args(["-rf", "--one-file-system"]).arg(stage))
}

/// The programs that are built for the VM.
struct Programs {
    daemon: PathBuf,
    /// The binaries of [`TESTS`].
    tests: Vec<PathBuf>,
}

impl Programs {
    /// Builds the daemon and the binaries of the tests, with the features of `cargo test --workspace`.
    fn build() -> Result<Self> {
        let mut build: Command = process::cargo();
        build.args(["test", "--locked", "--workspace", "--no-run"]);
        build.args(["--message-format", "json-render-diagnostics"]);
        for (name, _, _) in TESTS {
            build.args(["--test", name]);
        }
        let messages = process::output(&mut build)?;
        let daemon = binaries::executable_named(&messages, "linux-actiond");
        let test = |(name, _, _): (&str, &str, usize)| {
            binaries::test_named(&messages, name).with_context(|| format!("cargo built no {name}"))
        };
        Ok(Self {
            daemon: daemon.context("cargo built no daemon")?,
            tests: TESTS.into_iter().map(test).collect::<Result<_>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_binary_passed_if_all_its_tests_did() {
        for (line, passed) in [
            ("test result: ok. 5 passed; 0 failed; 0 ignored; 0 measured; 3 filtered out", 5),
            ("test result: \u{1b}[32mok\u{1b}[0m. 5 passed; 0 failed; 0 ignored; 0 measured", 5),
            ("test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured", 0),
            ("test result: FAILED. 5 passed; 1 failed; 0 ignored; 0 measured", 0),
            ("test the_socket_unit_starts_the_daemon ... ok", 0),
        ] {
            assert_eq!(passed_of(line), passed, "{line}");
        }
    }
}
