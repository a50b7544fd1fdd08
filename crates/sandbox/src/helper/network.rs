//! A network with nothing but a loopback, used by one action after the other.
//!
//! Making one costs more than all the rest of a sandbox, so it is kept, unless an
//! action left something in it: a socket that a descriptor in flight keeps alive,
//! a connection in TIME_WAIT. Names of abstract sockets live and die with their
//! sockets.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::thread::UnshareFlags;
use sys::mount::{FsContext, MountAttributes};
use sys::{proc_file, process};

/// Looks until a network counts as dirty. The kernel frees what was in flight in
/// the background, mostly within a millisecond.
const LOOKS: u32 = 3;

/// The time between two looks. Only the next action of this helper waits meanwhile.
const PAUSE: Duration = Duration::from_millis(2);

/// Leaves the present network namespace for a new one. `proc` is a `/proc` in
/// which the kernel's settings can be written.
pub(super) fn create(proc: BorrowedFd<'_>) -> Result<(), Errno> {
    enter_new()?;
    forget_closed_connections(proc)
}

/// The same for a helper that has no such `/proc` any more: PID 1 of a PID namespace
/// that lives only for that mounts one.
pub(super) fn renew() -> Result<(), Errno> {
    enter_new()?;
    process::in_child(|| {
        process::unshare_namespaces(UnshareFlags::NEWPID | UnshareFlags::NEWNS)?;
        process::in_child(|| {
            let proc = FsContext::open("proc")
                .and_then(|context| context.mount(MountAttributes::MOUNT_ATTR_NOSUID))
                .map_err(|error| error.errno)?;
            forget_closed_connections(proc.as_fd())
        })
    })
}

fn enter_new() -> Result<(), Errno> {
    process::unshare_namespaces(UnshareFlags::NEWNET)?;
    process::bring_loopback_up()
}

/// Without a bucket no closed connection lingers to be met by the next action.
fn forget_closed_connections(proc: BorrowedFd<'_>) -> Result<(), Errno> {
    proc_file::write(proc, "sys/net/ipv4/tcp_max_tw_buckets", b"0")
}

/// Whether an action left nothing behind; asked when all its processes are dead.
pub(super) fn is_clean(proc: BorrowedFd<'_>) -> bool {
    for look in 0..LOOKS {
        if look > 0 {
            std::thread::sleep(PAUSE);
        }
        if sockets_left(proc) == Ok(0) {
            return true;
        }
    }
    false
}

/// Sockets of any family, and connections in TIME_WAIT.
fn sockets_left(proc: BorrowedFd<'_>) -> Result<u64, Errno> {
    let text = proc_file::read(proc, "self/net/sockstat")?;
    count_sockets(&text).ok_or(Errno::BADMSG)
}

/// Sums the figures of `sockets: used U` and of `TCP: … tw T …`; the other lines'
/// sockets are among the used ones.
fn count_sockets(sockstat: &str) -> Option<u64> {
    let figure = |line: &str, name: &str| -> Option<u64> {
        let line = sockstat.lines().find_map(|candidate| candidate.strip_prefix(line))?;
        let mut words = line.split_whitespace();
        words.find(|word| *word == name)?;
        words.next()?.parse().ok()
    };
    figure("sockets:", "used")?.checked_add(figure("TCP:", "tw")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_and_lingering_connections_count() {
        let check = |used: u64, waiting: u64, expected| {
            let text = format!(
                "sockets: used {used}\nTCP: inuse 0 orphan 7 tw {waiting} alloc 9 mem 1\nUDP: inuse 0 mem 0\nRAW: inuse 0\n"
            );
            assert_eq!(count_sockets(&text), Some(expected));
        };
        check(0, 0, 0);
        check(2, 0, 2);
        check(1, 3, 4);
        assert_eq!(count_sockets("sockets: used 1\n"), None);
        assert_eq!(count_sockets(""), None);
    }
}
