//! A wall that a process builds around itself and all that it starts (landlock(7)).

use std::ffi::c_long;
use std::mem::size_of;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use rustix::io::Errno;

/// `struct landlock_ruleset_attr` of linux/landlock.h, as of the sixth version (Linux 6.12).
#[repr(C)]
struct RulesetAttributes {
    handled_access_fs: u64,
    handled_access_net: u64,
    scoped: u64,
}

/// `LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET` and `LANDLOCK_SCOPE_SIGNAL`.
const SCOPES: u64 = 1 | 2;

/// `LANDLOCK_CREATE_RULESET_VERSION`.
const ASK_VERSION: u32 = 1;

/// The first version with scopes.
pub const SCOPES_SINCE: i64 = 6;

/// The version of the kernel's Landlock; `None` if it has none, or it is switched off.
pub fn version() -> Option<i64> {
    // SAFETY: with this flag the kernel takes neither a structure nor a size.
    let version = unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0, ASK_VERSION)
    };
    (version > 0).then_some(version)
}

/// From here on this thread, and all that it starts, can send signals and connect to abstract
/// sockets only among themselves. There is no way back, and access to files stays as it is.
///
/// Needs `no_new_privs` (prctl(2)).
///
/// # Errors
/// ENOSYS or EOPNOTSUPP where the kernel has no Landlock, E2BIG where it has one that is too old
/// for this; else of landlock_create_ruleset(2) and landlock_restrict_self(2).
pub fn scope_signals_and_sockets() -> Result<(), Errno> {
    let attributes =
        RulesetAttributes { handled_access_fs: 0, handled_access_net: 0, scoped: SCOPES };
    // SAFETY: the kernel reads the structure, of which the size is told, and returns a descriptor.
    let ruleset = checked(unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            &raw const attributes,
            size_of::<RulesetAttributes>(),
            0,
        )
    })?;
    // SAFETY: the descriptor was made a moment ago and nobody else has it.
    let ruleset = unsafe { OwnedFd::from_raw_fd(ruleset as i32) };
    // SAFETY: no pointers.
    checked(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0) })?;
    Ok(())
}

fn checked(result: c_long) -> Result<c_long, Errno> {
    if result >= 0 {
        return Ok(result);
    }
    let errno = std::io::Error::last_os_error().raw_os_error();
    Err(errno.map_or(Errno::IO, Errno::from_raw_os_error))
}

#[cfg(test)]
mod tests {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

    use rustix::process::{Pid, Signal, getpid, getppid, kill_process};

    use super::*;

    fn address(name: &str) -> SocketAddr {
        SocketAddr::from_abstract_name(format!("{name}-{}", getpid().as_raw_nonzero())).unwrap()
    }

    /// The result of a system call as it can leave a thread.
    fn errno(result: std::io::Result<impl Sized>) -> Option<i32> {
        result.err().and_then(|error| error.raw_os_error())
    }

    #[test]
    fn nothing_outside_is_reached_and_what_is_inside_is() {
        let outside = address("outside");
        let _listener = UnixListener::bind_addr(&outside).unwrap();
        let parent: Pid = getppid().expect("a parent");
        // Landlock is a matter of each thread, so this is the only one that is confined.
        let inside = std::thread::spawn(move || {
            assert_eq!(errno(UnixStream::connect_addr(&outside)), None, "before");
            rustix::thread::set_no_new_privs(true).unwrap();
            scope_signals_and_sockets().expect("Landlock of Linux 6.12 or later");
            assert_eq!(
                errno(UnixStream::connect_addr(&outside)),
                Some(Errno::PERM.raw_os_error()),
                "a socket that was there before"
            );
            assert_eq!(kill_process(parent, Signal::CONT), Err(Errno::PERM), "its parent");
            let own = address("inside");
            let _listener = UnixListener::bind_addr(&own).unwrap();
            assert_eq!(errno(UnixStream::connect_addr(&own)), None, "a socket of its own");
            assert_eq!(kill_process(getpid(), Signal::CONT), Ok(()), "its own process");
        });
        inside.join().unwrap();
    }
}
