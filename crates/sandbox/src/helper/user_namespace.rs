//! The user namespace that a helper's actions join last.
//!
//! Nobody exists in it but the action's user: so its processes are counted apart
//! from those of other sandboxes (RLIMIT_NPROC counts by user *and* namespace), it
//! has no rights over any other namespace of the sandbox, and set-user-id programs
//! of other users are just programs. No namespace of any kind can be made inside.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions};
use rustix::thread::UnshareFlags;

use crate::ACTION_ID;
use crate::helper::network::write;

/// Limits of what can be made inside (namespaces(7)).
const FORBIDDEN_INSIDE: [&str; 8] = [
    "sys/user/max_cgroup_namespaces",
    "sys/user/max_ipc_namespaces",
    "sys/user/max_mnt_namespaces",
    "sys/user/max_net_namespaces",
    "sys/user/max_pid_namespaces",
    "sys/user/max_time_namespaces",
    "sys/user/max_user_namespaces",
    "sys/user/max_uts_namespaces",
];

/// Makes the namespace by a child that lives only for that. `proc` is a `/proc`
/// of this process's PID namespace.
pub(super) fn create(proc: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    // Each side writes a byte when it is the other's turn; the end of a pipe says
    // that the other side failed.
    let (child_reads, parent_writes) = rustix::pipe::pipe()?;
    let (parent_reads, child_writes) = rustix::pipe::pipe()?;
    let parent = rustix::process::getpid();
    let child = sys::process::fork(|| {
        let turns = Turns { mine: child_reads.as_fd(), theirs: child_writes.as_fd() };
        match die_with(parent).and_then(|()| live_in_namespace(&turns, proc)) {
            Ok(()) => 0,
            Err(errno) => errno.raw_os_error(),
        }
    })?;
    drop((child_reads, child_writes));
    let turns = Turns { mine: parent_reads.as_fd(), theirs: parent_writes.as_fd() };
    let namespace = map_and_open(&turns, proc, child);
    let _ = rustix::process::kill_process(child, Signal::KILL);
    let _ =
        rustix::io::retry_on_intr(|| rustix::process::waitpid(Some(child), WaitOptions::empty()));
    namespace
}

struct Turns<'a> {
    mine: BorrowedFd<'a>,
    theirs: BorrowedFd<'a>,
}

impl Turns<'_> {
    fn pass(&self) -> Result<(), Errno> {
        rustix::io::write(self.theirs, &[0]).map(drop)
    }

    fn wait(&self) -> Result<(), Errno> {
        match rustix::io::retry_on_intr(|| rustix::io::read(self.mine, &mut [0; 1]))? {
            0 => Err(Errno::PIPE),
            _ => Ok(()),
        }
    }
}

/// The child has the parent's ends of the pipes too, and would wait for itself.
fn die_with(parent: Pid) -> Result<(), Errno> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    if rustix::process::getppid() == Some(parent) { Ok(()) } else { Err(Errno::SRCH) }
}

/// The child: owns the new namespace, and has every capability in it.
fn live_in_namespace(turns: &Turns<'_>, proc: BorrowedFd<'_>) -> Result<(), Errno> {
    sys::process::unshare_namespaces(UnshareFlags::NEWUSER)?;
    turns.pass()?;
    turns.wait()?;
    for path in FORBIDDEN_INSIDE {
        match write(proc, path, b"0") {
            // A kernel without that kind of namespace.
            Err(Errno::NOENT) => {}
            written => written?,
        }
    }
    turns.pass()?;
    // Until killed.
    turns.wait()
}

fn map_and_open(turns: &Turns<'_>, proc: BorrowedFd<'_>, child: Pid) -> Result<OwnedFd, Errno> {
    let child = child.as_raw_nonzero();
    let map = format!("{ACTION_ID} {ACTION_ID} 1");
    turns.wait()?;
    for file in ["uid_map", "gid_map"] {
        write(proc, &format!("{child}/{file}"), map.as_bytes())?;
    }
    turns.pass()?;
    turns.wait()?;
    rustix::fs::openat(
        proc,
        format!("{child}/ns/user"),
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )
}
