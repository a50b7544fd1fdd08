//! The disks: which is which, what is on them, and making a file system on a blank one.
//!
//! A VMM gives the guest at most two: one that can be written, for the store, and one that can't,
//! with the runtimes. Their names depend on the VMM, that difference does not.

mod format;
mod template;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::mount::MountFlags;

use crate::settings::Settings;
use crate::{CAS, RUNTIMES};
pub use format::FormatError;

/// How often the disks are looked for, and the wait in between: a VMM's devices are there when init
/// starts, those of a busy emulator a little later.
const ATTEMPTS: u32 = 50;
const PAUSE: Duration = Duration::from_millis(100);

/// A block of ext4, in bytes; the template is made with it.
const BLOCK_BYTES: u64 = 4096;

/// Errors of mounting the store's disk.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The VMM gave us none.
    #[error("there is no disk that can be written")]
    Missing,
    /// It can't be opened or read.
    #[error("the disk {}", path.display())]
    Io {
        /// The device.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// It has no file system, and we were not told to make one.
    #[error("the disk {} is blank, and the host did not say that it may be formatted", path.display())]
    Blank {
        /// The device.
        path: PathBuf,
    },
    /// Making a file system failed.
    #[error("formatting the disk {}", path.display())]
    Format {
        /// The device.
        path: PathBuf,
        /// The problem.
        source: FormatError,
    },
    /// It has something on it that can't be mounted.
    #[error("mounting {} on {target}: {errno}", path.display())]
    Mount {
        /// The device.
        path: PathBuf,
        /// Where.
        target: &'static str,
        /// The kernel's error.
        errno: rustix::io::Errno,
    },
    /// The file system can't follow a disk that has grown.
    #[error("growing the file system of {}: {errno}", path.display())]
    Grow {
        /// The device.
        path: PathBuf,
        /// The kernel's error.
        errno: rustix::io::Errno,
    },
}

/// Finds the CAS disk, makes a file system on it if it is blank and `settings` allow that, mounts it,
/// and lets its file system have all of the disk.
///
/// # Errors
/// See [`DiskError`]. A disk with anything on it is never written to but by mounting it.
pub fn mount_cas(settings: &Settings) -> Result<(), DiskError> {
    let path = find(false).ok_or(DiskError::Missing)?;
    let failed = |source| DiskError::Io { path: path.clone(), source };
    if Superblock::of(&path).map_err(failed)?.is_none() {
        format(&path, settings)?;
    }
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOATIME;
    // discard: what the store deletes is given back to the host's file system.
    mount(&path, CAS, c"ext4", flags, c"errors=remount-ro,discard")?;
    grow(&path)
}

/// Makes a file system. The disk is closed again at the end: the kernel mounts none that somebody
/// could still write to (CONFIG_BLK_DEV_WRITE_MOUNTED).
fn format(path: &Path, settings: &Settings) -> Result<(), DiskError> {
    if !settings.format_cas {
        return Err(DiskError::Blank { path: path.to_owned() });
    }
    eprintln!("init: making a file system on {}", path.display());
    let failed = |source| DiskError::Io { path: path.to_owned(), source };
    let mut disk = OpenOptions::new().read(true).write(true).open(path).map_err(failed)?;
    format::format(&mut disk).map_err(|source| DiskError::Format { path: path.to_owned(), source })
}

/// Finds the disk with the runtimes and mounts it. Returns `false` if the machine has none.
///
/// # Errors
/// When the disk cannot be mounted.
pub fn mount_runtimes() -> Result<bool, DiskError> {
    // All disks come at the same time, and the CAS disk is there.
    let Some(path) = disks().into_iter().find(|disk| disk.read_only) else { return Ok(false) };
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::RDONLY;
    mount(&path.device, RUNTIMES, c"squashfs", flags, c"")?;
    Ok(true)
}

fn mount(
    path: &Path,
    target: &'static str,
    kind: &std::ffi::CStr,
    flags: MountFlags,
    options: &std::ffi::CStr,
) -> Result<(), DiskError> {
    rustix::mount::mount(path, target, kind, flags, options).map_err(|errno| DiskError::Mount {
        path: path.to_owned(),
        target,
        errno,
    })
}

/// A disk as the kernel knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Disk {
    device: PathBuf,
    read_only: bool,
}

/// The first disk of that kind, by name, as soon as there is one.
fn find(read_only: bool) -> Option<PathBuf> {
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            std::thread::sleep(PAUSE);
        }
        let found = disks().into_iter().find(|disk| disk.read_only == read_only);
        if let Some(disk) = found {
            return Some(disk.device);
        }
    }
    None
}

fn disks() -> Vec<Disk> {
    disks_in(Path::new("/sys/block"), Path::new("/dev"))
}

/// Disks by name, without those that the kernel makes itself: loop devices, RAM disks, zram.
fn disks_in(sys_block: &Path, dev: &Path) -> Vec<Disk> {
    let Ok(entries) = fs::read_dir(sys_block) else { return Vec::new() };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut names: Vec<_> = names.filter(|name| is_of_a_vmm(name)).collect();
    names.sort_unstable();
    let disk = |name: String| {
        let read_only = fs::read_to_string(sys_block.join(&name).join("ro")).ok()?;
        Some(Disk { device: dev.join(name), read_only: read_only.trim() == "1" })
    };
    names.into_iter().filter_map(disk).collect()
}

/// virtio, SCSI, NVMe: what VMMs have.
fn is_of_a_vmm(name: &str) -> bool {
    ["vd", "sd", "nvme"].iter().any(|prefix| name.starts_with(prefix))
}

/// The fields of the superblock that we need (Documentation/filesystems/ext4/super.rst in the kernel's source).
#[derive(Debug, PartialEq, Eq)]
struct Superblock {
    blocks: u64,
}

impl Superblock {
    const OFFSET: u64 = 1024;
    const BYTES: usize = 1024;

    /// Reads the superblock of the disk at `path`; `None` if it holds no ext file system.
    fn of(path: &Path) -> io::Result<Option<Self>> {
        let mut bytes = [0; Self::BYTES];
        File::open(path)?.read_exact_at(&mut bytes, Self::OFFSET)?;
        let u32_at = |at: usize| {
            u64::from(u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]))
        };
        let magic = u16::from_le_bytes([bytes[0x38], bytes[0x39]]);
        let blocks = u32_at(0x150) << 32 | u32_at(0x4);
        Ok((magic == 0xef53).then_some(Self { blocks }))
    }
}

/// Lets the mounted file system have all of its disk: a new one has the template's size, and the host
/// can make an image larger.
fn grow(path: &Path) -> Result<(), DiskError> {
    let failed = |source| DiskError::Io { path: path.to_owned(), source };
    let Some(superblock) = Superblock::of(path).map_err(failed)? else { return Ok(()) };
    let bytes =
        File::open(path).and_then(|mut disk| disk.seek(SeekFrom::End(0))).map_err(failed)?;
    let blocks = bytes / BLOCK_BYTES;
    if blocks <= superblock.blocks {
        return Ok(());
    }
    let mounted = File::open(CAS).map_err(failed)?;
    sys::ext4::resize(mounted.as_fd(), blocks)
        .map_err(|errno| DiskError::Grow { path: path.to_owned(), errno })
}

#[cfg(test)]
mod tests;
