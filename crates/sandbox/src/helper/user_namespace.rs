//! The user namespace that a helper moves into once it is set up, and in which it
//! makes the namespaces of its actions.
//!
//! From then on neither the helper nor PID 1 has a capability that counts outside:
//! whoever took one of them over would be root over an empty PID namespace, a few
//! mounts and a loopback. The action's processes are counted apart from those of
//! other sandboxes (RLIMIT_NPROC counts by user *and* namespace), and what needs a
//! user namespace of one's own, which is most that is done to kernels by users
//! without rights, needs one that can't be made here.
//!
//! Root is known inside so that its files are seen as its files; they could not be
//! told from the action's own otherwise. Where the server has one id only, that is
//! the action's inside.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use model::ACTION_ID;
use rustix::fs::{Mode, OFlags, Uid};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions};
use rustix::thread::{
    CapabilitySet, CapabilitySets, LinkNameSpaceType, UnshareFlags, move_into_link_name_space,
};
use sys::proc_file;

use crate::plan::Ids;

/// The number of user namespaces that can be made inside (namespaces(7)). For the other kinds
/// one needs to be privileged in a user namespace already.
const USER_NAMESPACES_INSIDE: &str = "sys/user/max_user_namespaces";

/// Things that count outside as the namespace's owner's, who is the host's root where sandboxes have no user of their own:
/// without bounds of its own one action takes all that the host's services may have.
const SHARED_WITH_ROOT: [(&str, &[u8]); 2] = [
    // A file watcher has one. The host's root has 128 by default.
    ("sys/user/max_inotify_instances", b"16"),
    ("sys/user/max_inotify_watches", b"16384"),
];

/// Capabilities in the namespace that the helper goes on with: to make namespaces
/// and mount in them, to give a process the action's identity, to bring another
/// loopback up.
const KEPT: CapabilitySet = CapabilitySet::SYS_ADMIN
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::NET_ADMIN);

/// Makes the namespace by a child that lives only for that. `proc` is a `/proc`
/// of this process's PID namespace.
pub(super) fn create(proc: BorrowedFd<'_>, ids: Ids, user: Option<u32>) -> Result<OwnedFd, Errno> {
    // Each side writes a 0 when it is the other's turn, or the errno with which it failed.
    let (child_reads, parent_writes) = rustix::pipe::pipe()?;
    let (parent_reads, child_writes) = rustix::pipe::pipe()?;
    let parent = rustix::process::getpid();
    let child = sys::process::fork(|| {
        let turns = Turns { mine: child_reads.as_fd(), theirs: child_writes.as_fd() };
        let prepared = user.map_or(Ok(()), own_namespaces_as).and_then(|()| die_with(parent));
        match prepared.and_then(|()| live_in_namespace(&turns, proc)) {
            Ok(()) => 0,
            Err(errno) => {
                let _ = turns.send(errno.raw_os_error());
                1
            }
        }
    })?;
    drop((child_reads, child_writes));
    let turns = Turns { mine: parent_reads.as_fd(), theirs: parent_writes.as_fd() };
    let namespace = map_and_open(&turns, proc, child, &map(ids, user));
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
        self.send(0)
    }

    /// Atomic: it is less than a pipe takes at once.
    fn send(&self, errno: i32) -> Result<(), Errno> {
        rustix::io::write(self.theirs, &errno.to_ne_bytes()).map(drop)
    }

    fn wait(&self) -> Result<(), Errno> {
        let mut errno = [0; 4];
        let read = rustix::io::retry_on_intr(|| rustix::io::read(self.mine, &mut errno))?;
        match (read, i32::from_ne_bytes(errno)) {
            (4, 0) => Ok(()),
            (4, errno) => Err(Errno::from_raw_os_error(errno)),
            _ => Err(Errno::PIPE),
        }
    }
}

/// Makes `user` the owner of namespaces that this process makes, without a loss of rights.
///
/// Things inside count as the owner's outside: watchers of files, queued signals, message queues, namespaces. The last
/// is compared with what this sandbox alone may have, so one owner's sandboxes have it once for all. Ownership is a right
/// of processes outside alone (user_namespaces(7)), and none there has this user.
fn own_namespaces_as(user: u32) -> Result<(), Errno> {
    let all = rustix::thread::capabilities(None)?;
    // Root stays the real user, so what is effective goes, and what is permitted stays.
    rustix::thread::set_thread_res_uid(None, Uid::from_raw(user), None)?;
    rustix::thread::set_capabilities(None, all)
}

/// The child has the parent's ends of the pipes too, and would wait for itself. To be called after a change of
/// credentials, which undoes it.
fn die_with(parent: Pid) -> Result<(), Errno> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    if rustix::process::getppid() == Some(parent) { Ok(()) } else { Err(Errno::SRCH) }
}

/// The child: owns the new namespace, and has every capability in it.
fn live_in_namespace(turns: &Turns<'_>, proc: BorrowedFd<'_>) -> Result<(), Errno> {
    sys::process::unshare_namespaces(UnshareFlags::NEWUSER)?;
    turns.pass()?;
    turns.wait()?;
    proc_file::write(proc, USER_NAMESPACES_INSIDE, b"0")?;
    for (path, most) in SHARED_WITH_ROOT {
        match proc_file::write(proc, path, most) {
            // A kernel without inotify.
            Err(Errno::NOENT) => {}
            written => written?,
        }
    }
    turns.pass()?;
    // Until killed.
    turns.wait()
}

/// The ids inside and outside.
fn map(ids: Ids, user: Option<u32>) -> String {
    if ids.has_action {
        format!("0 0 1\n{ACTION_ID} {} 1\n", user.unwrap_or(ACTION_ID))
    } else {
        format!("{ACTION_ID} 0 1\n")
    }
}

fn map_and_open(
    turns: &Turns<'_>,
    proc: BorrowedFd<'_>,
    child: Pid,
    map: &str,
) -> Result<OwnedFd, Errno> {
    let child = child.as_raw_nonzero();
    turns.wait()?;
    for file in ["uid_map", "gid_map"] {
        proc_file::write(proc, format!("{child}/{file}"), map)?;
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

/// Moves this process into `namespace`, with nothing but [`KEPT`] and no way to get
/// more. `last_capability` is the highest that the kernel knows.
pub(super) fn enter(namespace: BorrowedFd<'_>, last_capability: u32) -> Result<(), Errno> {
    move_into_link_name_space(namespace, Some(LinkNameSpaceType::User))?;
    for number in 0..=last_capability {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        rustix::thread::remove_capability_from_bounding_set(capability)?;
    }
    let kept =
        CapabilitySets { effective: KEPT, permitted: KEPT, inheritable: CapabilitySet::empty() };
    rustix::thread::set_capabilities(None, kept)
}
