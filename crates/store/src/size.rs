//! The bound on the store: the operator's setting, and its value in bytes.

use std::os::fd::OwnedFd;
use std::str::FromStr;

use model::ByteSize;
use rustix::fs::{Mode, OFlags, StatVfs, fstatvfs};

use crate::disk::openat;
use crate::root::write_synced;

const NAME: &str = "size";
const FIRST_LINE: &str = "actiond size 1";
/// More than the file has.
const BYTES_MAX: usize = 128;
/// Less than this has hardly room for the directories, which alone take 4 MiB.
const LIMIT_BYTES_MIN: u64 = 16 << 20;
/// The largest store on a disk if no size is set.
const DEFAULT_BYTES_MAX: u64 = 100 << 30;

/// The bound on the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StoreSize {
    /// Nothing is bounded and nothing evicted: for tools that open a store for a moment.
    #[default]
    Unbounded,
    /// Half of what was free when the store was first opened so, and at most 100 GiB.
    Automatic,
    /// That many bytes.
    Bytes(u64),
    /// That share of the file system.
    Percent(u8),
}

/// An error of a text that is not a size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// It is neither a number of bytes nor a share.
    #[error("use a size in bytes such as 500g or 2Ti, or a share of the file system such as 40%")]
    Syntax,
    /// It is too small.
    #[error("the store needs {} MiB at least", LIMIT_BYTES_MIN >> 20)]
    TooSmall,
}

impl FromStr for StoreSize {
    type Err = SizeError;

    /// Reads `40%`, or a [`ByteSize`].
    fn from_str(text: &str) -> Result<Self, SizeError> {
        if let Some(percent) = text.strip_suffix('%') {
            let percent = percent.parse::<u8>().ok().filter(|percent| (1..=100).contains(percent));
            return percent.map(Self::Percent).ok_or(SizeError::Syntax);
        }
        let bytes = text.parse::<ByteSize>().map_err(|_| SizeError::Syntax)?.0;
        if bytes < LIMIT_BYTES_MIN {
            return Err(SizeError::TooSmall);
        }
        Ok(Self::Bytes(bytes))
    }
}

impl StoreSize {
    /// The limit in bytes for a store that takes `used` now; `None` when there is none.
    pub(crate) fn limit(
        self,
        root: &OwnedFd,
        temporary: &OwnedFd,
        used: u64,
    ) -> rustix::io::Result<Option<u64>> {
        let disk = fstatvfs(root)?;
        Ok(match self {
            Self::Unbounded => None,
            Self::Bytes(bytes) => Some(bytes.max(LIMIT_BYTES_MIN)),
            Self::Percent(percent) => Some(share_of(&disk, percent)),
            Self::Automatic => Some(recorded(root).unwrap_or_else(|| {
                let limit = automatic(&disk, used);
                let text = format!("{FIRST_LINE}\nbytes {limit}\n");
                if let Err(error) = write_synced(temporary, NAME, root, text.as_bytes()) {
                    // The next start decides anew.
                    tracing::warn!(%error, "the automatic size could not be recorded");
                }
                limit
            })),
        })
    }
}

fn share_of(disk: &StatVfs, percent: u8) -> u64 {
    let size = disk.f_blocks.saturating_mul(disk.f_frsize);
    ((u128::from(size) * u128::from(percent) / 100) as u64).max(LIMIT_BYTES_MIN)
}

/// The store's own space counts as free, so an upgrade finds the same as a first start.
fn automatic(disk: &StatVfs, used: u64) -> u64 {
    let free = disk.f_bavail.saturating_mul(disk.f_frsize).saturating_add(used);
    (free / 2).clamp(LIMIT_BYTES_MIN, DEFAULT_BYTES_MAX)
}

fn recorded(root: &OwnedFd) -> Option<u64> {
    let mut content = Vec::with_capacity(BYTES_MAX);
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = openat(root, NAME, flags, Mode::empty()).ok()?;
    rustix::io::read(&file, rustix::buffer::spare_capacity(&mut content)).ok()?;
    let text = str::from_utf8(&content).ok()?.strip_prefix(FIRST_LINE)?;
    let bytes: u64 = text.strip_prefix("\nbytes ")?.strip_suffix('\n')?.parse().ok()?;
    (LIMIT_BYTES_MIN..=DEFAULT_BYTES_MAX).contains(&bytes).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let check = |text: &str, expected| assert_eq!(text.parse(), expected, "{text}");
        check("40%", Ok(StoreSize::Percent(40)));
        for (text, bytes) in [
            ("1t", 1 << 40),
            ("2Gi", 2 << 30),
            ("500G", 500 << 30),
            ("16777216", 16 << 20),
            ("64Mi", 64 << 20),
        ] {
            check(text, Ok(StoreSize::Bytes(bytes)));
        }
        check("0", Err(SizeError::TooSmall));
        check("15m", Err(SizeError::TooSmall));
        for text in ["", "%", "0%", "101%", "-1g", "+1g", "1.5g", "1e9", "99999999999t", "1x", "g"]
        {
            check(text, Err(SizeError::Syntax));
        }
    }

    #[test]
    fn the_automatic_size_is_decided_once() {
        let directory = tempfile::tempdir().expect("a directory");
        let root: OwnedFd = std::fs::File::open(directory.path()).expect("a directory").into();
        let limit = |used| StoreSize::Automatic.limit(&root, &root, used).expect("a limit");
        let first = limit(0).expect("bounded");
        assert!((LIMIT_BYTES_MIN..=DEFAULT_BYTES_MAX).contains(&first));
        assert_eq!(recorded(&root), Some(first));
        std::fs::write(directory.path().join(NAME), "actiond size 1\nbytes 33554432\n")
            .expect("written");
        assert_eq!(limit(1 << 40), Some(32 << 20));
        let any = fstatvfs(&root).expect("a file system");
        let disk = StatVfs { f_frsize: 4096, f_bavail: 100 << 8, ..any };
        assert_eq!(automatic(&disk, 0), 50 << 20);
        assert_eq!(automatic(&disk, 300 << 20), 200 << 20);
        assert_eq!(automatic(&disk, 1 << 50), DEFAULT_BYTES_MAX);
    }
}
