//! The part of the disk that actions may not take.
//!
//! Files that an action writes beside `/tmp` are on the file system of the store, which
//! has no quotas that could be set for one action. So a part of it is kept for
//! the store itself: while an action runs for longer than a moment, it is asked
//! whether that part is touched, and if it is the action is stopped.
//!
//! An action could touch it and give the space back between two questions. So the less is free, the
//! sooner the next question comes: before an action that writes as fast as memory could use it up.
//! A single `fallocate` is faster than any question.
//!
//! It is expensive to find the action that took the space, above all when files have no name any more. The
//! worker stops all that have run for longer. `RESOURCE_EXHAUSTED` tells clients to try again those that
//! were not at fault.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::fs::{StatVfs, fstatvfs};
use sandbox::{SUPERVISION, Watchdog};

/// One in so many bytes, and one in so many inodes, is kept.
const SHARE: u64 = 50;

/// More is never kept: the store needs room to end what it has begun, not to live.
const MAX_BYTES: u64 = 1 << 30;

/// More than actions write in a second, to the page cache of any machine of today.
const BYTES_PER_SECOND: u64 = 16 << 30;

/// More files than actions make in a second.
const INODES_PER_SECOND: u64 = 4_000_000;

/// The shortest time between two questions: more often would take a part of a CPU.
const ALLOWANCE_MIN: Duration = Duration::from_millis(1);

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

impl Watchdog for DiskReserve {
    fn allows(&self) -> bool {
        self.allowance().is_some()
    }

    fn allowance(&self) -> Option<Duration> {
        // A value that can't be inspected is not forbidden: an action is then ended by
        // the disk itself, as everywhere else.
        fstatvfs(self.directory.as_fd()).map_or(Some(SUPERVISION), |disk| allowance(&disk))
    }
}

/// The time that it takes to use up what is free beside what is kept; `None` when less is free. A
/// file system that makes inodes as it needs them says that it has none (btrfs).
fn allowance(disk: &StatVfs) -> Option<Duration> {
    let kept_blocks = (disk.f_blocks / SHARE).min(MAX_BYTES / disk.f_frsize.max(1));
    // There, what is kept for its metadata counts as free too.
    let free_blocks = if disk.f_files == 0 { disk.f_bavail } else { disk.f_bfree };
    let blocks = free_blocks.checked_sub(kept_blocks)?;
    let of_bytes = micros(blocks.saturating_mul(disk.f_frsize), BYTES_PER_SECOND);
    let of_inodes = match disk.f_files {
        0 => SUPERVISION,
        all => micros(disk.f_ffree.checked_sub(all / SHARE)?, INODES_PER_SECOND),
    };
    Some(of_bytes.min(of_inodes).clamp(ALLOWANCE_MIN, SUPERVISION))
}

/// The time for `amount` at that rate.
fn micros(amount: u64, per_second: u64) -> Duration {
    Duration::from_micros(amount / (per_second / 1_000_000))
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
            f_bavail: blocks.1,
            f_files: inodes.0,
            f_ffree: inodes.1,
            ..any
        }
    }

    #[test]
    fn a_share_is_kept() {
        let check = |blocks, inodes, expected| {
            let is_allowed = allowance(&disk(blocks, inodes)).is_some();
            assert_eq!(is_allowed, expected, "{blocks:?} {inodes:?}");
        };
        check((1000, 1000), (1000, 1000), true);
        check((1000, 20), (1000, 20), true);
        check((1000, 19), (1000, 1000), false);
        check((1000, 1000), (1000, 19), false);
        check((1000, 0), (1000, 1000), false);
        check((1000, 1000), (0, 0), true);
    }

    #[test]
    fn what_is_kept_for_metadata_is_not_free() {
        let btrfs = |available| StatVfs { f_bavail: available, ..disk((1000, 900), (0, 0)) };
        assert!(allowance(&btrfs(20)).is_some());
        assert!(allowance(&btrfs(0)).is_none());
        // Root's own share of ext4 is free to root.
        assert!(allowance(&StatVfs { f_bavail: 0, ..disk((1000, 50), (100, 100)) }).is_some());
    }

    #[test]
    fn of_a_large_disk_a_gigabyte_is_kept() {
        let gigabyte = (1 << 30) / 4096;
        assert!(allowance(&disk((1 << 32, gigabyte), (0, 0))).is_some());
        assert!(allowance(&disk((1 << 32, gigabyte - 1), (0, 0))).is_none());
    }

    #[test]
    fn the_less_is_free_the_sooner_it_is_asked() {
        let kept: u64 = 1 << 18;
        let check = |free: u64, inodes, expected| {
            let disk = disk((1 << 32, kept + free), inodes);
            assert_eq!(allowance(&disk).map(|time| time.as_millis()), Some(expected), "{free}");
        };
        check(1 << 20, (0, 0), 100);
        // 1 GiB, 64 MiB, 4 KiB.
        check(1 << 18, (0, 0), 62);
        check(1 << 14, (0, 0), 3);
        check(1, (0, 0), 1);
        check(1 << 20, (1_000_000, 100_000), 20);
        check(1 << 20, (1_000_000, 1_000_000), 100);
    }
}
