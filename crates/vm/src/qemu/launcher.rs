//! The process between ours and QEMU: opens what QEMU needs, gives up the rest, becomes QEMU.
//!
//! It has one thread and no secrets, so that it can change its user and its namespaces. If it cannot
//! enter a namespace (the host may forbid it), it warns on standard error and continues: the guest is
//! the wall around the actions, so a less confined VMM is better than no VM.

use std::ffi::OsString;
use std::os::fd::{IntoRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

use chain::Chain;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::process::{Resource, Rlimit, Signal};
use rustix::thread::UnshareFlags;

use super::VHOST_VSOCK;
use super::accelerator::kvm_group;
use super::command_line::{Descriptors, Disk, Launch, Transport, arguments};

/// The user `nobody`, and its group.
const NOBODY: u32 = 65_534;

/// The launcher's error, printed to standard error.
#[derive(Debug, thiserror::Error)]
enum LaunchError {
    #[error("the launcher is started by the host process only: {0}")]
    Arguments(&'static str),
    #[error("the machine's description is malformed")]
    Description(#[from] serde_json::Error),
    #[error("cannot open {path}")]
    Open { path: String, source: rustix::io::Errno },
    #[error("{step}")]
    Step { step: &'static str, source: rustix::io::Errno },
    #[error("cannot start {program}")]
    Exec { program: String, source: std::io::Error },
}

/// The body of the launcher. `arguments` are those after the command's word: the parent's process
/// id, and the machine.
pub fn launcher_main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let Err(error) = run(arguments) else { return ExitCode::SUCCESS };
    eprintln!("{}", Chain(&error));
    ExitCode::FAILURE
}

/// Returns only to tell why there is no QEMU.
fn run(mut words: impl Iterator<Item = OsString>) -> Result<(), LaunchError> {
    let mut next = || words.next().and_then(|word| word.into_string().ok());
    let parent = next().and_then(|word| word.parse::<i32>().ok());
    let parent = parent.ok_or(LaunchError::Arguments("no parent"))?;
    let launch = next().ok_or(LaunchError::Arguments("no machine"))?;
    let launch: Launch = serde_json::from_str(&launch)?;
    let open = open_files(&launch)?;
    confine()?;
    die_with(parent)?;
    let program = &launch.program;
    let source = Command::new(program).args(arguments(&launch, &open)).env_clear().exec();
    Err(LaunchError::Exec { program: program.display().to_string(), source })
}

/// Opens the machine's files with the rights that we still have. The descriptors stay open over the
/// exec.
fn open_files(launch: &Launch) -> Result<Descriptors, LaunchError> {
    let vhost_vsock = matches!(launch.transport, Transport::Vsock { .. });
    let runtimes = launch.runtime_image.as_deref();
    Ok(Descriptors {
        kernel: open(&launch.kernel, OFlags::RDONLY)?,
        initramfs: open(&launch.initramfs, OFlags::RDONLY)?,
        cas_image: Disk {
            read: open(&launch.cas_image, OFlags::RDONLY)?,
            write: Some(open(&launch.cas_image, OFlags::RDWR)?),
        },
        runtime_image: runtimes.map(open_read_only_disk).transpose()?,
        vhost_vsock: vhost_vsock.then(|| open(Path::new(VHOST_VSOCK), OFlags::RDWR)).transpose()?,
    })
}

fn open_read_only_disk(path: &Path) -> Result<Disk, LaunchError> {
    Ok(Disk { read: open(path, OFlags::RDONLY)?, write: None })
}

/// Opens without close-on-exec: the number is QEMU's from here on.
fn open(path: &Path, access: OFlags) -> Result<i32, LaunchError> {
    let opened: Result<OwnedFd, _> = rustix::fs::openat(CWD, path, access, Mode::empty());
    let failed = |source| LaunchError::Open { path: path.display().to_string(), source };
    opened.map(IntoRawFd::into_raw_fd).map_err(failed)
}

/// Gives up what a VMM does not need.
fn confine() -> Result<(), LaunchError> {
    let step = |step| move |source| LaunchError::Step { step, source };
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    rustix::process::setrlimit(Resource::Core, none).map_err(step("limiting core dumps"))?;
    leave_namespaces();
    if rustix::process::geteuid().is_root() {
        become_nobody()?;
    }
    rustix::thread::set_no_new_privs(true).map_err(step("giving up new privileges"))
}

/// No network, no IPC with others. Without root that needs a user namespace, which not every system
/// allows.
fn leave_namespaces() {
    let mut namespaces = UnshareFlags::NEWNET | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS;
    if !rustix::process::geteuid().is_root() {
        namespaces |= UnshareFlags::NEWUSER;
    }
    if let Err(errno) = sys::process::unshare_namespaces(namespaces) {
        eprintln!("the VMM shares the host's namespaces: {errno}");
    }
}

/// Becomes nobody, in no group but the one that may use KVM. That drops all capabilities.
fn become_nobody() -> Result<(), LaunchError> {
    let step = |step| move |source| LaunchError::Step { step, source };
    let (user, group) = (rustix::fs::Uid::from_raw(NOBODY), rustix::fs::Gid::from_raw(NOBODY));
    let groups: Vec<_> = kvm_group().into_iter().collect();
    rustix::thread::set_thread_groups(&groups).map_err(step("leaving all groups"))?;
    rustix::thread::set_thread_res_gid(group, group, group).map_err(step("changing the group"))?;
    rustix::thread::set_thread_res_uid(user, user, user).map_err(step("changing the user"))
}

/// Dies when the thread that started us does. After changing the user, which would undo it.
fn die_with(parent: i32) -> Result<(), LaunchError> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|source| LaunchError::Step { step: "tying life to the parent's", source })?;
    // It may have gone before we asked.
    match rustix::process::getppid() {
        Some(present) if present.as_raw_nonzero().get() == parent => Ok(()),
        _ => Err(LaunchError::Arguments("the parent is gone")),
    }
}
