//! The calls that a process makes on itself once, before anything else, and the few
//! namespace calls that rustix marks unsafe or lacks.

use std::os::fd::{AsRawFd, FromRawFd as _, OwnedFd, RawFd};
use std::sync::Arc;

use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions};
use rustix::thread::UnshareFlags;

use crate::call::{Call, Instruction};
use crate::syscall::syscall;

/// Gives every signal its default disposition and unblocks all: what a program
/// expects to inherit. (Rust's runtime ignores SIGPIPE and handles SIGSEGV.)
pub fn reset_signals() {
    /// The highest signal number; the C library hides two of them from its users,
    /// which a parent may have left ignored all the same.
    const LAST: usize = 64;
    let default = [0_u64; 4];
    for signal in 1..=LAST {
        let arguments = [signal, &raw const default as usize, 0, size_of::<u64>(), 0, 0];
        // SAFETY: an all-zero `struct sigaction` is SIG_DFL with no flags and an
        // empty mask; it is on this stack. SIGKILL and SIGSTOP refuse, which
        // changes nothing.
        let _ = unsafe { syscall(libc::SYS_rt_sigaction as usize, arguments) };
    }
    unblock_signals();
}

/// Gives the calling thread the idle class of I/O priorities, ioprio_set(2): it waits for everybody
/// else's reads and writes, where the scheduler of the disk knows priorities.
///
/// # Errors
/// Of ioprio_set(2).
pub fn set_idle_io_priority() -> Result<(), Errno> {
    const WHO_PROCESS: usize = 1;
    const THIS_THREAD: usize = 0;
    const CLASS_IDLE: usize = 3 << 13;
    let arguments = [WHO_PROCESS, THIS_THREAD, CLASS_IDLE, 0, 0, 0];
    // SAFETY: ioprio_set(2) takes three numbers and no pointer.
    unsafe { syscall(libc::SYS_ioprio_set as usize, arguments) }.map(drop)
}

/// Prepares the signals of a daemon: nothing is blocked, and everything has its default disposition
/// except for SIGPIPE and SIGXFSZ, which are ignored so that the write that caused them fails instead
/// (EPIPE, EFBIG), and SIGHUP, SIGSEGV and SIGBUS, which stay as they are: `nohup` ignores the first,
/// Rust's runtime handles the others.
///
/// A parent can leave SIGTERM blocked, which makes a daemon that never ends, or SIGCHLD ignored, with
/// which no child can be waited for.
pub fn settle_daemon_signals() {
    /// Above are real-time signals, two of which the C library uses.
    const LAST: libc::c_int = 31;
    const IGNORED: u64 = 1;
    for signal in 1..=LAST {
        let handler = match signal {
            libc::SIGPIPE | libc::SIGXFSZ => IGNORED,
            libc::SIGHUP | libc::SIGSEGV | libc::SIGBUS => continue,
            _ => 0,
        };
        let action = [handler, 0, 0, 0];
        let arguments = [signal as usize, &raw const action as usize, 0, size_of::<u64>(), 0, 0];
        // SAFETY: a `struct sigaction` with SIG_DFL or SIG_IGN, no flags and an empty mask; it is on
        // this stack. SIGKILL and SIGSTOP refuse, which changes nothing.
        let _ = unsafe { syscall(libc::SYS_rt_sigaction as usize, arguments) };
    }
    unblock_signals();
}

fn unblock_signals() {
    let none = 0_u64;
    let arguments =
        [libc::SIG_SETMASK as usize, &raw const none as usize, 0, size_of::<u64>(), 0, 0];
    // SAFETY: the set is on this stack and has the size that is said.
    let _ = unsafe { syscall(libc::SYS_rt_sigprocmask as usize, arguments) };
}

/// Closes every descriptor above 2 but the first `kept` of them, which are not handed on. For a
/// program's first moments: nothing that it opened itself may be in use.
///
/// # Errors
/// EINVAL if there is more than one thread, which could have opened something; else of close_range(2).
pub fn close_inherited_files(kept: u32) -> Result<(), Errno> {
    ensure_single_thread()?;
    mark_close_on_exec()?;
    // SAFETY: the descriptors were inherited and have no owner in this process.
    let done = unsafe { libc::close_range(3 + kept, u32::MAX, 0) };
    if done == 0 { Ok(()) } else { Err(last_errno()) }
}

fn ensure_single_thread() -> Result<(), Errno> {
    // unshare(2): with this flag the call has no effect but to fail when there is more than one thread.
    // SAFETY: no effect.
    if unsafe { libc::unshare(libc::CLONE_THREAD) } == 0 { Ok(()) } else { Err(last_errno()) }
}

/// Sets close-on-exec on every descriptor above 2.
///
/// # Errors
/// Of close_range(2).
pub fn mark_close_on_exec() -> Result<(), Errno> {
    // SAFETY: sets a flag; no descriptor is closed.
    let done = unsafe { libc::close_range(3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC as libc::c_int) };
    if done == 0 { Ok(()) } else { Err(last_errno()) }
}

/// Takes over a descriptor that the process was started with, as `sd_listen_fds(3)` hands them over.
/// Each number may be taken over once, by the code that the descriptor is meant for.
///
/// # Errors
/// EBADF where there is no such descriptor, and for the three standard ones.
pub fn inherited_descriptor(number: RawFd) -> Result<OwnedFd, Errno> {
    if number < 3 {
        return Err(Errno::BADF);
    }
    // SAFETY: F_GETFD only looks whether the descriptor is open.
    if unsafe { libc::fcntl(number, libc::F_GETFD) } < 0 {
        return Err(last_errno());
    }
    // SAFETY: it is open, and by this function's contract nobody else in this process owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// unshare(2) of namespaces.
///
/// # Errors
/// Of unshare(2); EINVAL also for flags that are not namespaces.
pub fn unshare_namespaces(namespaces: UnshareFlags) -> Result<(), Errno> {
    if namespaces.intersects(UnshareFlags::FILES | UnshareFlags::FS | UnshareFlags::SYSVSEM) {
        return Err(Errno::INVAL);
    }
    // SAFETY: with CLONE_FILES ruled out, no descriptor changes its meaning.
    unsafe { rustix::thread::unshare_unsafe(namespaces) }
}

/// Installs a system call filter for this process, which has one thread, and for all that it starts (seccomp(2)).
///
/// Needs `no_new_privs` (prctl(2)).
///
/// # Errors
/// Of seccomp(2): EINVAL for a filter that the kernel does not take, ENOSYS where it has none.
pub fn install_filter(instructions: Arc<[Instruction]>) -> Result<(), Errno> {
    Call::filter(instructions).make().map(drop)
}

/// Leaves the session keyring that was inherited for an empty one, so that the
/// operator's keys can't be possessed by what is started from here.
///
/// # Errors
/// Of keyctl(2); ENOSYS where the kernel has no keyrings.
pub fn leave_session_keyring() -> Result<(), Errno> {
    // SAFETY: a null name asks for an anonymous keyring; nothing is written.
    let done = unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, 0) };
    if done >= 0 { Ok(()) } else { Err(last_errno()) }
}

/// Forks; the child ends with what `child` returns as exit code, the parent gets
/// its pid.
///
/// # Errors
/// EINVAL unless the process has one thread only (a copy of a locked lock would
/// stay locked); else of fork(2).
pub fn fork(child: impl FnOnce() -> i32) -> Result<Pid, Errno> {
    ensure_single_thread()?;
    // SAFETY: there is one thread, so the child's copy of memory is consistent.
    match unsafe { libc::fork() } {
        -1 => Err(last_errno()),
        0 => {
            let code = child();
            // SAFETY: ends the process without running the parent's exit handlers.
            unsafe { libc::_exit(code) }
        }
        pid => Pid::from_raw(pid).ok_or(Errno::INVAL),
    }
}

/// Does something in a child process, and waits for its end.
///
/// # Errors
/// Runs `work` in a child and returns its result; ECHILD if the child was killed; otherwise the errors of
/// [`fork`].
pub fn in_child(work: impl FnOnce() -> Result<(), Errno>) -> Result<(), Errno> {
    // Errors are small enough for an exit code: those of Linux end at 133.
    let child = fork(|| work().err().map_or(0, |errno| errno.raw_os_error().clamp(1, 255)))?;
    let wait = || rustix::process::waitpid(Some(child), WaitOptions::empty());
    match rustix::io::retry_on_intr(wait)?.and_then(|(_, status)| status.exit_status()) {
        Some(0) => Ok(()),
        Some(errno) => Err(Errno::from_raw_os_error(errno)),
        None => Err(Errno::CHILD),
    }
}

/// Brings the loopback interface of the present network namespace up.
///
/// # Errors
/// Of socket(2) and ioctl(2) with SIOCSIFFLAGS.
pub fn bring_loopback_up() -> Result<(), Errno> {
    use rustix::net::{AddressFamily, SocketType, socket};
    let socket = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    // SAFETY: an all-zero ifreq is valid: an empty name and no flags.
    let mut request = unsafe { std::mem::zeroed::<libc::ifreq>() };
    for (slot, byte) in request.ifr_name.iter_mut().zip(b"lo") {
        *slot = *byte as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the request reads an ifreq, which is on this stack.
    let done = unsafe {
        libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as libc::Ioctl, &raw const request)
    };
    if done == 0 { Ok(()) } else { Err(last_errno()) }
}

pub(crate) fn last_errno() -> Errno {
    Errno::from_raw_os_error(std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))
}
