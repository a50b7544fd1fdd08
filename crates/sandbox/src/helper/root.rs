//! The root that a helper and all its actions live in: a read-only tmpfs with
//! devices, mount points, and the files and mounts of a root file system.
//!
//! It is put together as a detached mount and entered last, so that no path of the
//! host is resolved below it and nothing of the host is left to reach.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, UnmountFlags};
use sys::mount::{FsContext, MountAttributes};

use crate::helper::At;
use crate::plan::step::StepName;
use crate::protocol::message::{Failed, Setup};

/// Bytes that devices, directories and the files of a view can take; `/etc` is
/// some KiB.
const SIZE: &str = "16m";

/// Inodes, likewise; a view has a few dozen files and symlinks.
const INODES: &str = "16k";

/// Everything belongs to root and is read by everybody.
const DIRECTORY: Mode = Mode::from_raw_mode(0o755);
const FILE: Mode = Mode::from_raw_mode(0o444);

/// Mount points, parents first. `/var/tmp` is `/tmp`: one file system bounds both.
const DIRECTORIES: [&str; 8] =
    ["dev", "dev/pts", "dev/shm", "etc", "proc", "tmp", "var", "execroot"];

const SYMLINKS: [(&str, &str); 6] = [
    ("dev/fd", "/proc/self/fd"),
    ("dev/stdin", "/proc/self/fd/0"),
    ("dev/stdout", "/proc/self/fd/1"),
    ("dev/stderr", "/proc/self/fd/2"),
    ("dev/ptmx", "pts/ptmx"),
    ("var/tmp", "/tmp"),
];

/// Major and minor numbers (the kernel's Documentation/admin-guide/devices.txt).
const DEVICES: [(&str, u32, u32); 6] = [
    ("dev/null", 1, 3),
    ("dev/zero", 1, 5),
    ("dev/full", 1, 7),
    ("dev/random", 1, 8),
    ("dev/urandom", 1, 9),
    ("dev/tty", 5, 0),
];

/// Builds the root and makes it that of this process, in a mount namespace that is
/// already its own. `mounts` are those of `setup.mounts`, in order.
pub(super) fn enter(setup: &Setup, mounts: Vec<OwnedFd>) -> Result<(), Failed> {
    // The modes given here are meant literally.
    rustix::process::umask(Mode::empty());
    let root = create().at(StepName::TemplateRoot, String::new)?;
    let root = root.as_fd();
    // Attached before it is filled: up to Linux 6.14 nothing can be mounted on a
    // detached mount. `/proc` is there for sure, and not needed any more.
    make_all_private().at(StepName::TemplateRoot, String::new)?;
    sys::mount::attach(root, rustix::fs::CWD, c"/proc").at(StepName::TemplateRoot, String::new)?;

    for path in DIRECTORIES {
        rustix::fs::mkdirat(root, path, DIRECTORY)
            .at(StepName::TemplateRoot, || path.to_owned())?;
    }
    for (path, target) in SYMLINKS {
        rustix::fs::symlinkat(target, root, path).at(StepName::TemplateRoot, || path.to_owned())?;
    }
    create_devices(root)?;
    create_files(root, setup)?;
    attach_blind_proc(root).at(StepName::TemplateRoot, || "proc".to_owned())?;
    for (path, mount) in setup.mounts.iter().zip(mounts) {
        attach(root, path, mount.as_fd()).at(StepName::ViewMounts, || lossy(path))?;
    }
    rustix::process::umask(Mode::from_raw_mode(0o022));
    let attributes = MountAttributes::MOUNT_ATTR_RDONLY | MountAttributes::MOUNT_ATTR_NOSUID;
    sys::mount::set_attributes(root, attributes).at(StepName::TemplateRoot, String::new)?;
    pivot(root).at(StepName::PivotRoot, String::new)
}

fn create() -> Result<OwnedFd, sys::mount::MountError> {
    let context = FsContext::open("tmpfs")?;
    for (key, value) in
        [("source", "sandbox"), ("mode", "0755"), ("size", SIZE), ("nr_inodes", INODES)]
    {
        context.string(key, value)?;
    }
    context.mount(MountAttributes::MOUNT_ATTR_NOSUID)
}

/// Mounts made here must not appear on the host.
fn make_all_private() -> Result<(), Errno> {
    rustix::mount::mount_change(c"/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
}

fn create_devices(root: BorrowedFd<'_>) -> Result<(), Failed> {
    for (path, major, minor) in DEVICES {
        let device = rustix::fs::makedev(major, minor);
        create_device(root, path, device).at(StepName::Devices, || path.to_owned())?;
    }
    // A terminal lives as long as a process has it open, so that the next action
    // finds nothing of the last one's here.
    let terminals = || {
        let context = FsContext::open("devpts")?;
        context.string("ptmxmode", "0666")?;
        context.string("mode", "0620")?;
        // Terminals are counted for the whole machine (kernel.pty.max).
        context.string("max", "64")?;
        let mount = context
            .mount(MountAttributes::MOUNT_ATTR_NOSUID | MountAttributes::MOUNT_ATTR_NOEXEC)?;
        sys::mount::attach(mount.as_fd(), root, c"dev/pts")
    };
    terminals().at(StepName::Devices, || "dev/pts".to_owned())
}

/// Makes a device node. In a user namespace the kernel lets nobody make one, and the host's is shown.
fn create_device(root: BorrowedFd<'_>, path: &str, device: u64) -> Result<(), Errno> {
    let mode = Mode::from_raw_mode(0o666);
    match rustix::fs::mknodat(root, path, FileType::CharacterDevice, mode, device) {
        Err(Errno::PERM) => {}
        made => return made,
    }
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let node = rustix::fs::open(format!("/{path}"), flags, Mode::empty())?;
    let stat = rustix::fs::fstat(&node)?;
    let is_device = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice;
    if !is_device || stat.st_rdev != device {
        return Err(Errno::NXIO);
    }
    let mount = sys::mount::clone_mount(node.as_fd()).map_err(|error| error.errno)?;
    // Data can be written to a device on a read-only mount; what is ruled out is a change of its times.
    let attributes = MountAttributes::MOUNT_ATTR_RDONLY
        | MountAttributes::MOUNT_ATTR_NOSUID
        | MountAttributes::MOUNT_ATTR_NOEXEC;
    sys::mount::set_attributes(mount.as_fd(), attributes).map_err(|error| error.errno)?;
    attach(root, path.as_bytes(), mount.as_fd())
}

/// A `/proc` that every sandbox's own is mounted over. The kernel lets a user
/// namespace mount another only where one is in sight (mount_namespaces(7)). This
/// one shows nothing: no settings, and of the host's processes those alone that
/// the looker could trace.
fn attach_blind_proc(root: BorrowedFd<'_>) -> Result<(), sys::mount::MountError> {
    let context = FsContext::open("proc")?;
    context.string("subset", "pid")?;
    context.string("hidepid", "ptraceable")?;
    let attributes = MountAttributes::MOUNT_ATTR_NOSUID
        | MountAttributes::MOUNT_ATTR_NODEV
        | MountAttributes::MOUNT_ATTR_NOEXEC;
    let mount = context.mount(attributes)?;
    sys::mount::attach(mount.as_fd(), root, c"proc")
}

fn create_files(root: BorrowedFd<'_>, setup: &Setup) -> Result<(), Failed> {
    for (path, content) in &setup.files {
        create_file(root, path, content).at(StepName::Files, || lossy(path))?;
    }
    for (path, target) in &setup.symlinks {
        create_parents(root, path)
            .and_then(|()| rustix::fs::symlinkat(target.as_slice(), root, path.as_slice()))
            .at(StepName::Files, || lossy(path))?;
    }
    Ok(())
}

fn create_file(root: BorrowedFd<'_>, path: &[u8], content: &[u8]) -> Result<(), Errno> {
    create_parents(root, path)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = rustix::fs::openat(root, path, flags, FILE)?;
    let mut rest = content;
    while !rest.is_empty() {
        let written = rustix::io::retry_on_intr(|| rustix::io::write(&file, rest))?;
        rest = rest.get(written..).unwrap_or_default();
    }
    Ok(())
}

/// Every directory above `path` that is not there yet.
fn create_parents(root: BorrowedFd<'_>, path: &[u8]) -> Result<(), Errno> {
    for (index, _) in path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
        create_directory(root, path.get(..index).unwrap_or_default())?;
    }
    Ok(())
}

fn create_directory(root: BorrowedFd<'_>, path: &[u8]) -> Result<(), Errno> {
    match rustix::fs::mkdirat(root, path, DIRECTORY) {
        Err(Errno::EXIST) => Ok(()),
        made => made,
    }
}

/// Attaches `mount` at `path`, after making a file or a directory to mount on.
fn attach(root: BorrowedFd<'_>, path: &[u8], mount: BorrowedFd<'_>) -> Result<(), Errno> {
    create_parents(root, path)?;
    let kind = rustix::fs::statat(mount, c"", AtFlags::EMPTY_PATH)?.st_mode;
    if FileType::from_raw_mode(kind) == FileType::Directory {
        create_directory(root, path)?;
    } else {
        match create_file(root, path, &[]) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
    }
    let path = CString::new(path).map_err(|_| Errno::INVAL)?;
    sys::mount::attach(mount, root, &path).map_err(|error| error.errno)
}

/// Makes `root` the root, and lets go of the old one with everything below it.
fn pivot(root: BorrowedFd<'_>) -> Result<(), Errno> {
    rustix::process::fchdir(root)?;
    // pivot_root(2): with "." for both, the old root ends up on top of the new.
    rustix::process::pivot_root(c".", c".")?;
    rustix::mount::unmount(c".", UnmountFlags::DETACH)?;
    rustix::process::chdir(c"/")
}

fn lossy(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}
