//! The mount API by file descriptors (Linux 5.2), with errors that say what the kernel meant.
//!
//! The reason against `mount(2)`: a mount made here is *detached*. It is in no mount table, no process can
//! walk into it, and it goes away with its last descriptor, also when the process is killed.
//!
//! The kernel explains a refused parameter in words that can be read from the file system context;
//! [`MountError`] carries them.

use std::ffi::CStr;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, UnmountFlags,
};

pub use rustix::mount::MountAttrFlags as MountAttributes;

/// A refused step of making a mount.
#[derive(Debug, thiserror::Error)]
pub struct MountError {
    /// The system call, with the parameter that it was about.
    pub call: String,
    /// The kernel's error.
    pub errno: Errno,
    /// The file system's output; often empty.
    pub explanation: String,
}

impl fmt::Display for MountError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.call, self.errno)?;
        if !self.explanation.is_empty() {
            write!(f, " ({})", self.explanation)?;
        }
        Ok(())
    }
}

impl MountError {
    fn new(call: impl Into<String>, errno: Errno) -> Self {
        Self { call: call.into(), errno, explanation: String::new() }
    }
}

/// A file system that is being configured: `fsopen(2)`, `fsconfig(2)`, `fsmount(2)`.
///
/// ```no_run
/// use sys::mount::{FsContext, MountAttributes};
/// let tmpfs = FsContext::open("tmpfs")?;
/// tmpfs.string("size", "1m")?;
/// let mount = tmpfs.mount(MountAttributes::MOUNT_ATTR_NOSUID)?;
/// # Ok::<(), sys::mount::MountError>(())
/// ```
#[derive(Debug)]
pub struct FsContext {
    fd: OwnedFd,
    file_system: &'static str,
}

impl FsContext {
    /// Starts to configure a file system of that type. `ENODEV`: the kernel has no such type.
    pub fn open(file_system: &'static str) -> Result<Self, MountError> {
        let fd = rustix::mount::fsopen(file_system, FsOpenFlags::FSOPEN_CLOEXEC)
            .map_err(|errno| MountError::new(format!("fsopen({file_system})"), errno))?;
        Ok(Self { fd, file_system })
    }

    /// Sets a parameter that takes no value.
    pub fn flag(&self, key: &str) -> Result<(), MountError> {
        rustix::mount::fsconfig_set_flag(&self.fd, key).map_err(|errno| self.refused(key, errno))
    }

    /// Sets a parameter to a string.
    pub fn string(&self, key: &str, value: &str) -> Result<(), MountError> {
        rustix::mount::fsconfig_set_string(&self.fd, key, value)
            .map_err(|errno| self.refused(&format!("{key}={value}"), errno))
    }

    /// Sets a parameter to an open file or directory.
    pub fn descriptor(&self, key: &str, value: BorrowedFd<'_>) -> Result<(), MountError> {
        rustix::mount::fsconfig_set_fd(&self.fd, key, value)
            .map_err(|errno| self.refused(&format!("{key}=<descriptor>"), errno))
    }

    /// Creates the file system and a detached mount of it. The descriptor is of the `O_PATH` kind:
    /// good for `*at` calls, for attaching, and for keeping the mount alive.
    pub fn mount(&self, attributes: MountAttributes) -> Result<OwnedFd, MountError> {
        rustix::mount::fsconfig_create(&self.fd).map_err(|errno| self.refused("create", errno))?;
        rustix::mount::fsmount(&self.fd, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
            .map_err(|errno| self.failed(format!("fsmount({})", self.file_system), errno))
    }

    fn refused(&self, what: &str, errno: Errno) -> MountError {
        self.failed(format!("fsconfig({}, {what})", self.file_system), errno)
    }

    fn failed(&self, call: String, errno: Errno) -> MountError {
        MountError { call, errno, explanation: self.explanation() }
    }

    /// The messages in the context's log: one a read, each with a letter for its level before it.
    fn explanation(&self) -> String {
        /// The kernel keeps the last eight messages.
        const MAX_MESSAGES: usize = 8;
        let mut messages = Vec::new();
        let mut buffer = [0; 512];
        while let Ok(length @ 1..) = rustix::io::read(&self.fd, &mut buffer) {
            let message = String::from_utf8_lossy(&buffer[..length]);
            messages.push(message.trim_end().trim_start_matches("e ").to_owned());
            if messages.len() == MAX_MESSAGES {
                break;
            }
        }
        messages.join("; ")
    }
}

/// Attaches a detached mount at `path` below `directory` (`move_mount(2)`).
///
/// An empty `path` means `directory` itself.
pub fn attach(
    mount: BorrowedFd<'_>,
    directory: BorrowedFd<'_>,
    path: &CStr,
) -> Result<(), MountError> {
    let mut flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    if path.is_empty() {
        flags |= MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    }
    rustix::mount::move_mount(mount, c"", directory, path, flags)
        .map_err(|errno| MountError::new(format!("move_mount({path:?})"), errno))
}

/// A detached mount of what `directory` shows, without the mounts below it
/// (`open_tree(2)` with `OPEN_TREE_CLONE`).
pub fn clone_mount(directory: BorrowedFd<'_>) -> Result<OwnedFd, MountError> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    rustix::mount::open_tree(directory, c"", flags)
        .map_err(|errno| MountError::new("open_tree(OPEN_TREE_CLONE)", errno))
}

/// A detached copy of the mount that `directory` is in, from there on down, with all mounts below
/// (`open_tree(2)` with `AT_RECURSIVE`).
pub fn clone_mounts(directory: BorrowedFd<'_>) -> Result<OwnedFd, MountError> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH
        | OpenTreeFlags::AT_RECURSIVE;
    rustix::mount::open_tree(directory, c"", flags)
        .map_err(|errno| MountError::new("open_tree(OPEN_TREE_CLONE | AT_RECURSIVE)", errno))
}

/// Shows the file at `source` at `target`, which must be a file too, with the attributes of the
/// mount that `source` is on (`mount(2)` with `MS_BIND`).
pub fn bind(source: &CStr, target: &CStr) -> Result<(), MountError> {
    rustix::mount::mount_bind(source, target)
        .map_err(|errno| MountError::new(format!("mount({source:?}, {target:?}, MS_BIND)"), errno))
}

/// The tries to set attributes of a mount that has a writer, and the pause between two.
const TRIES: u32 = 5000;
const PAUSE: Duration = Duration::from_millis(1);

/// Sets attributes of the one mount that `mount` is the root of (`mount_setattr(2)`, Linux 5.12).
///
/// While a file of the mount is open for writing, the kernel refuses to make it read-only. A process that another thread has
/// just started has all of this one's files, until its execve(2) closes them. So this tries for some seconds.
pub fn set_attributes(
    mount: BorrowedFd<'_>,
    attributes: MountAttributes,
) -> Result<(), MountError> {
    for _ in 1..TRIES {
        match try_set_attributes(mount, attributes) {
            Err(error) if error.errno == Errno::BUSY => std::thread::sleep(PAUSE),
            set => return set,
        }
    }
    try_set_attributes(mount, attributes)
}

/// Has the one mount that `mount` is the root of show the owners of its files by the maps of a user namespace: an
/// id of the file system is an id inside, and shows as the one outside (`MOUNT_ATTR_IDMAP`, Linux 5.12).
///
/// `mount` must be detached, of a file system that can do that (`EINVAL`), and have no such map yet (`EPERM`).
pub fn map_owners(mount: BorrowedFd<'_>, user_namespace: BorrowedFd<'_>) -> Result<(), MountError> {
    let descriptor = std::os::fd::AsRawFd::as_raw_fd(&user_namespace);
    set_attr(
        mount,
        &libc::mount_attr {
            attr_set: u64::from(MountAttrFlags::MOUNT_ATTR_IDMAP.bits()),
            attr_clr: 0,
            propagation: 0,
            // Descriptors are not negative.
            userns_fd: descriptor.unsigned_abs().into(),
        },
    )
}

fn try_set_attributes(
    mount: BorrowedFd<'_>,
    attributes: MountAttributes,
) -> Result<(), MountError> {
    let clears_times = attributes.intersects(MountAttrFlags::MOUNT_ATTR__ATIME);
    let times = u64::from(MountAttrFlags::MOUNT_ATTR__ATIME.bits());
    set_attr(
        mount,
        &libc::mount_attr {
            attr_set: u64::from(attributes.bits()),
            attr_clr: if clears_times { times } else { 0 },
            propagation: 0,
            userns_fd: 0,
        },
    )
}

fn set_attr(mount: BorrowedFd<'_>, attr: &libc::mount_attr) -> Result<(), MountError> {
    // SAFETY: the path is a NUL-terminated string, `attr` is a `struct mount_attr` that outlives
    // the call, and the size passed is its size.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            std::os::fd::AsRawFd::as_raw_fd(&mount),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            std::ptr::from_ref(attr),
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 {
        return Ok(());
    }
    Err(MountError::new("mount_setattr", last_errno()))
}

/// Gives the calling thread a mount namespace of its own, a copy of the one it was in.
///
/// Nothing mounted there shows outside; what is mounted outside later does show inside. The thread
/// also gets a working directory and umask of its own.
pub fn enter_private_namespace() -> Result<(), MountError> {
    // SAFETY: CLONE_NEWNS (which implies CLONE_FS) changes neither the descriptor table nor
    // memory; the conditions of `unshare_unsafe` are about CLONE_FILES only.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) }
        .map_err(|errno| MountError::new("unshare(CLONE_NEWNS)", errno))?;
    let propagation = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    rustix::mount::mount_change(c"/", propagation)
        .map_err(|errno| MountError::new("mount(/, MS_SLAVE | MS_REC)", errno))
}

/// Takes the mount at `path` out of the caller's namespace, now for names and for good once its
/// last user is gone (`umount2(2)` with `MNT_DETACH`).
pub fn detach(path: &CStr) -> Result<(), MountError> {
    rustix::mount::unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)
        .map_err(|errno| MountError::new(format!("umount2({path:?})"), errno))
}

/// The path under which the kernel resolves a descriptor of this process, for interfaces that take
/// only paths.
pub fn descriptor_path(fd: impl AsFd) -> String {
    format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&fd.as_fd()))
}

fn last_errno() -> Errno {
    let code = std::io::Error::last_os_error().raw_os_error();
    Errno::from_raw_os_error(code.unwrap_or(libc::EIO))
}

#[cfg(test)]
mod tests {
    use rustix::fs::{Mode, OFlags, openat};

    use super::*;

    /// Needs root, as all mounts do.
    #[test]
    fn a_file_that_is_written_for_a_moment_delays_a_read_only_mount() {
        let context = FsContext::open("tmpfs").expect("a tmpfs");
        let mount = context.mount(MountAttributes::empty()).expect("a mount");
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC;
        let file = openat(&mount, c"file", flags, Mode::from_raw_mode(0o600)).expect("a file");
        let read_only = MountAttributes::MOUNT_ATTR_RDONLY;
        let refused = try_set_attributes(mount.as_fd(), read_only).expect_err("it has a writer");
        assert_eq!(refused.errno, Errno::BUSY);
        let closed = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(200));
            drop(file);
        });
        set_attributes(mount.as_fd(), read_only).expect("it has no writer any more");
        closed.join().expect("closed");
        let again = openat(&mount, c"other", flags, Mode::from_raw_mode(0o600));
        assert_eq!(again.map(drop), Err(Errno::ROFS));
    }
}
