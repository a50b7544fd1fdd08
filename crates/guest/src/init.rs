//! PID 1: makes a Linux of a bare kernel, starts the worker, and outlives it.
//!
//! ```text
//!  mount ──► sysctls ──► disks ──► worker ──► reap until the worker ends ──► power off
//!     └──────────┴──────────┴─────────┴── a failure: told on the console ──► power off
//! ```
//! It stays a process of its own beside the worker, so that it can take in every orphan without
//! taking the exit status of a child that the worker waits for.

use std::ffi::CStr;
use std::io;
use std::process::Command;

use chain::Chain;
use rustix::io::Errno;
use rustix::process::{Pid, Resource, Rlimit, WaitOptions, WaitStatus};

use crate::disk::{self, DiskError};
use crate::settings::Settings;
use crate::{mounts, power};

/// Descriptors that the worker may have: connections, blobs and mounts take one each.
const OPEN_FILES: u64 = 1 << 20;

/// The word that makes the guest binary the worker.
pub const WORKER_ARGUMENT: &str = "--guest-worker";

/// Errors of starting the worker.
#[derive(Debug, thiserror::Error)]
enum InitError {
    #[error("mounting {target:?}: {errno}")]
    Mount { target: &'static CStr, errno: Errno },
    #[error("the settings")]
    Settings(#[source] io::Error),
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error("starting the worker")]
    Worker(#[source] io::Error),
    #[error("waiting for the worker: {0}")]
    Wait(Errno),
}

/// The body of PID 1. The machine ends with it.
pub fn run() -> ! {
    // The first words of a guest, by which a host sees that it runs.
    eprintln!("{}", vm::FIRST_WORDS);
    let mut settings = Settings::default();
    match make_a_linux(&mut settings).and_then(|()| supervise()) {
        Ok(status) => eprintln!("init: the worker ended: {status}"),
        Err(error) => eprintln!("init: {}", Chain(&error)),
    }
    power::off(settings.power_off)
}

fn make_a_linux(settings: &mut Settings) -> Result<(), InitError> {
    mounts::leave_the_first_mount()
        .and_then(|()| mounts::mount_all())
        .map_err(|(target, errno)| InitError::Mount { target, errno })?;
    *settings = Settings::of_this_boot().map_err(InitError::Settings)?;
    mounts::set_sysctls();
    raise_limits();
    disk::mount_cas(settings)?;
    if !disk::mount_runtimes()? {
        eprintln!("init: no runtimes: actions bring all that they need");
    }
    Ok(())
}

/// The limits of PID 1 are those of everything that it starts. The kernel's own follow from the size of
/// memory, and may be below what an action's are set to.
fn raise_limits() {
    let limits = [(Resource::Nofile, Some(OPEN_FILES)), (Resource::Nproc, None)];
    for (resource, limit) in limits {
        let raised = Rlimit { current: limit, maximum: limit };
        if let Err(errno) = rustix::process::setrlimit(resource, raised) {
            eprintln!("init: raising the limit {resource:?}: {errno}");
        }
    }
}

/// Starts the worker and takes in orphans until it ends.
fn supervise() -> Result<String, InitError> {
    let worker = Command::new("/proc/self/exe")
        .arg(WORKER_ARGUMENT)
        .env_clear()
        .env("PATH", "/")
        .spawn()
        .map_err(InitError::Worker)?;
    let worker = Pid::from_child(&worker);
    spare(worker);
    loop {
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid == worker => return Ok(ended(status)),
            // An orphan, or a child of nobody any more.
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(InitError::Wait(errno)),
        }
    }
}

/// Keeps the worker when memory runs out: without it there is no machine. Its sandboxes give
/// themselves what is usual again, before they can no longer.
fn spare(worker: Pid) {
    let file = format!("/proc/{}/oom_score_adj", worker.as_raw_pid());
    if let Err(error) = std::fs::write(&file, "-1000") {
        eprintln!("init: {file}: {error}");
    }
}

fn ended(status: WaitStatus) -> String {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(0), _) => "as it was asked to".to_owned(),
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "for an unknown reason".to_owned(),
    }
}
