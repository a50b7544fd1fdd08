//! `doctor` on a Mac: what `serve-vm` needs, and what would be lost.

use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::Context as _;
use embedded::Payload;
use vz::plan::HostLimits;

use super::cli::DoctorArgs;
use crate::doctor::report::{Finding, Weight, can_serve, render};
use crate::doctor::trial_parent;

const GIB: u64 = 1 << 30;

/// Less room than this on the disk of the root directory is worth a word: a guest's file system and
/// the first toolchain take about as much.
const WANTED_FREE_BYTES: u64 = 10 * GIB;

/// The entitlement that a program needs to make a VM.
const ENTITLEMENT: &str = "com.apple.security.virtualization";

/// Prints the report; fails when `serve-vm` could not run.
///
/// # Errors
/// When the report can't be made.
pub(super) fn run(arguments: &DoctorArgs) -> anyhow::Result<ExitCode> {
    let program = std::env::current_exe().context("finding this program")?;
    let mut findings = vec![virtualization(), entitlement(&program)];
    findings.extend(Payload::ALL.map(|payload| carried(&program, payload)));
    findings.push(free_space(&trial_parent(&arguments.root)?));
    print!("{}", render(&findings, "serve-vm"));
    Ok(if can_serve(&findings) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn virtualization() -> Finding {
    let state = if vz::is_supported() {
        let HostLimits { cpus, memory_bytes } = vz::host_limits();
        Ok(format!("up to {} CPUs and {} GiB", cpus.end(), memory_bytes.end() / GIB))
    } else {
        Err("not offered".to_owned())
    };
    Finding {
        feature: "virtualization".to_owned(),
        state,
        weight: Weight::Needed,
        cost: "no VM can be made",
        remedy: "use a Mac with Apple silicon, and not inside of another VM".into(),
    }
}

/// Asks the tool that every Mac has, for the signature on disk is what counts.
fn entitlement(program: &Path) -> Finding {
    let asked = Command::new("/usr/bin/codesign")
        .args(["--display", "--entitlements", "-", "--xml"])
        .arg(program)
        .output();
    let state = match asked {
        Ok(output) if String::from_utf8_lossy(&output.stdout).contains(ENTITLEMENT) => {
            Ok(String::new())
        }
        Ok(_) => Err("this program is not signed with it".to_owned()),
        Err(error) => Err(format!("codesign: {error}")),
    };
    Finding {
        feature: format!("the entitlement {ENTITLEMENT}"),
        state,
        weight: Weight::Needed,
        cost: "the system refuses every VM of this program",
        remedy: "use a release as it is, or sign this program again: see docs/macos.md".into(),
    }
}

fn carried(program: &Path, payload: Payload) -> Finding {
    let state = match embedded::find(program, payload) {
        Ok(Some(section)) => Ok(format!("{} MiB", section.size_bytes.div_ceil(1 << 20))),
        Ok(None) => Err("this program carries none".to_owned()),
        Err(error) => Err(error.to_string()),
    };
    let (name, cost) = match payload {
        Payload::Kernel => ("kernel", "serve-vm needs --kernel"),
        Payload::Initramfs => ("initramfs", "serve-vm needs --initramfs"),
        Payload::Runtimes => ("runtimes", "actions that ask for a libc need --runtime-image"),
    };
    Finding {
        feature: name.to_owned(),
        state,
        weight: Weight::Wanted,
        cost,
        remedy: "use a release, or build one with cargo xtask darwin".into(),
    }
}

fn free_space(directory: &Path) -> Finding {
    let state = match rustix::fs::statvfs(directory) {
        Ok(disk) => {
            let free = disk.f_bavail.saturating_mul(disk.f_frsize);
            let text = format!("{} GiB at {}", free / GIB, directory.display());
            if free >= WANTED_FREE_BYTES { Ok(text) } else { Err(text) }
        }
        Err(error) => Err(format!("{}: {error}", directory.display())),
    };
    Finding {
        feature: "free space".to_owned(),
        state,
        weight: Weight::Wanted,
        cost: "the guest's disk is sparse: when the Mac's is full, the guest's writes fail",
        remedy: "make room, or name another directory with --root".into(),
    }
}
