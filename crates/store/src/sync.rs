//! Brings a file system to the disk, on file systems where `syncfs` alone does not.
//!
//! ext4 without a journal writes the blocks of directories and inodes at the end of `syncfs`, after it has
//! told the disk to empty its volatile cache. A power cut then loses names that `syncfs` had reported as
//! written. An `fsync` of any file empties the cache once more. On a journaled ext4, xfs and btrfs the
//! metadata goes through a log, which `syncfs` flushes itself, so the `fsync` is left out.
//!
//! A file system that the kernel made read-only after an error has lost what was not written, but
//! before Linux 6.15 `syncfs` succeeds on it without writing anything. So its flags are looked at as well.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{StatVfsMountFlags, fstat, fstatfs, fstatvfs, major, minor};
use rustix::io::Errno;

use crate::disk::{fsync, syncfs};

/// Brings a file system to the disk.
pub(crate) type SyncFileSystem = fn(&OwnedFd) -> rustix::io::Result<()>;

/// The types of file systems as statfs(2) tells them.
const EXT4: u64 = 0xef53;
const XFS: u64 = 0x5846_5342;
const BTRFS: u64 = 0x9123_683e;
const TMPFS: u64 = 0x0102_1994;

/// Whether a file system keeps its metadata consistent over a loss of power.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Journal {
    /// It has a journal or writes to new places only, or it is in memory.
    Present,
    /// It is ext4 or ext2 without a journal: a power loss can damage directories that were on the disk.
    Absent,
    /// The type is another one, or the kernel does not tell.
    Unknown,
}

impl Journal {
    /// That of the file system of a file.
    pub fn of(file: impl AsFd) -> Self {
        match fstatfs(&file).map(|found| found.f_type as u64) {
            Ok(XFS | BTRFS | TMPFS) => Self::Present,
            Ok(EXT4) => of_ext4(&file),
            _ => Self::Unknown,
        }
    }
}

/// Asks sysfs, where ext4 names the thread of its journal.
fn of_ext4(file: impl AsFd) -> Journal {
    let thread = || {
        let device = fstat(file).ok()?.st_dev;
        let link = format!("/sys/dev/block/{}:{}", major(device), minor(device));
        let target = std::fs::read_link(link).ok()?;
        let path = Path::new("/sys/fs/ext4").join(target.file_name()?).join("journal_task");
        std::fs::read_to_string(path).ok()
    };
    match thread().as_deref().map(str::trim_end) {
        Some("<none>") => Journal::Absent,
        Some(_) => Journal::Present,
        None => Journal::Unknown,
    }
}

/// The way to bring the file system of `root` to the disk.
pub(crate) fn sync_for(root: &OwnedFd) -> SyncFileSystem {
    match Journal::of(root) {
        Journal::Present => sync,
        Journal::Absent | Journal::Unknown => sync_and_flush,
    }
}

fn sync(root: &OwnedFd) -> rustix::io::Result<()> {
    syncfs(root)?;
    let flags = fstatvfs(root)?.f_flag;
    if flags.contains(StatVfsMountFlags::RDONLY) { Err(Errno::ROFS) } else { Ok(()) }
}

fn sync_and_flush(root: &OwnedFd) -> rustix::io::Result<()> {
    sync(root)?;
    fsync(root)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_is_synced_in_the_way_that_it_needs() {
        let directory = std::fs::File::open("/dev/shm").expect("a tmpfs");
        assert_eq!(Journal::of(&directory), Journal::Present);
        let root = OwnedFd::from(directory);
        assert!(std::ptr::fn_addr_eq(sync_for(&root), sync as SyncFileSystem));
        sync(&root).expect("synced");
        sync_and_flush(&root).expect("synced");

        let directory = OwnedFd::from(std::fs::File::open("/proc").expect("procfs"));
        assert_eq!(Journal::of(&directory), Journal::Unknown);
        assert!(std::ptr::fn_addr_eq(sync_for(&directory), sync_and_flush as SyncFileSystem));
    }

    #[test]
    fn a_read_only_file_system_is_not_called_synced() {
        let is_read_only = |path: &&str| {
            let flags = rustix::fs::statvfs(*path).map(|found| found.f_flag);
            flags.is_ok_and(|flags| flags.contains(StatVfsMountFlags::RDONLY))
        };
        // Any mount of a container or of snapd will do.
        let mounts = std::fs::read_to_string("/proc/self/mounts").expect("procfs");
        let mut paths = mounts.lines().filter_map(|line| line.split(' ').nth(1));
        let Some(path) = paths.find(is_read_only) else {
            eprintln!("skipped: nothing is mounted read-only here");
            return;
        };
        let root = OwnedFd::from(std::fs::File::open(path).expect("a mount point"));
        assert_eq!(sync(&root), Err(Errno::ROFS), "{path}");
    }
}
