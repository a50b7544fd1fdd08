//! The part of the disk that actions may not take.
//!
//! Files that an action writes beside `/tmp` are on the file system of the store, which
//! has no quotas that could be set for one action. So a part of it is kept for
//! the store itself: while an action runs for longer than a moment, it is asked
//! whether that part is touched, and if it is the action is stopped.
//!
//! Nobody knows cheaply who took the space, least of all when files have no name
//! any more. All that run for longer are stopped, and clients try again what was
//! not at fault: `RESOURCE_EXHAUSTED` tells them to.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{StatVfs, fstatvfs};

/// One in so many bytes, and one in so many inodes, is kept.
const SHARE: u64 = 50;

/// More is never kept: the store needs room to end what it has begun, not to live.
const MAX_BYTES: u64 = 1 << 30;

/// A part of a file system.
#[derive(Debug)]
pub(crate) struct DiskReserve {
    directory: OwnedFd,
}

impl DiskReserve {
    /// The reserve of the file system that `directory` is on.
    pub(crate) fn of(directory: OwnedFd) -> Self {
        Self { directory }
    }
}

impl sandbox::Supervisor for DiskReserve {
    fn allows(&self) -> bool {
        // A value that can't be inspected is not forbidden: an action is then ended by
        // the disk itself, as everywhere else.
        fstatvfs(self.directory.as_fd()).map_or(true, |disk| is_untouched(&disk))
    }
}

/// Whether there is more room than what is kept. A file system that makes inodes
/// as it needs them says that it has none (btrfs).
fn is_untouched(disk: &StatVfs) -> bool {
    let kept_blocks = (disk.f_blocks / SHARE).min(MAX_BYTES / disk.f_frsize.max(1));
    let has_space = disk.f_bfree >= kept_blocks;
    let has_inodes = disk.f_files == 0 || disk.f_ffree >= disk.f_files / SHARE;
    has_space && has_inodes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk of this machine with other figures.
    fn disk(blocks: (u64, u64), inodes: (u64, u64)) -> StatVfs {
        let any = rustix::fs::statvfs(".").unwrap();
        StatVfs {
            f_frsize: 4096,
            f_blocks: blocks.0,
            f_bfree: blocks.1,
            f_files: inodes.0,
            f_ffree: inodes.1,
            ..any
        }
    }

    #[test]
    fn a_share_is_kept() {
        let check = |blocks, inodes, expected| {
            assert_eq!(is_untouched(&disk(blocks, inodes)), expected, "{blocks:?} {inodes:?}");
        };
        check((1000, 1000), (1000, 1000), true);
        check((1000, 20), (1000, 20), true);
        check((1000, 19), (1000, 1000), false);
        check((1000, 1000), (1000, 19), false);
        check((1000, 0), (1000, 1000), false);
        check((1000, 1000), (0, 0), true);
    }

    #[test]
    fn of_a_large_disk_a_gigabyte_is_kept() {
        let gigabyte = (1 << 30) / 4096;
        assert!(is_untouched(&disk((1 << 32, gigabyte), (0, 0))));
        assert!(!is_untouched(&disk((1 << 32, gigabyte - 1), (0, 0))));
    }
}
