//! The disk space that the store takes, on the disk as of the last second.
//!
//! A start takes the account from the index file, which is up to ten minutes old when a server was killed.
//! Until the directories that changed since then are listed, uploads of these minutes would be missing from
//! the account, and the store could grow beyond its limit. One line that is overwritten in place tells how much
//! there was; see `docs/storage-format.md`, "used".

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{Mode, OFlags};
use rustix::io::pread;

use crate::beside::Total;
use crate::disk::{openat, pwrite};
use crate::space::Space;

const NAME: &str = "used";
/// More than the file has.
const BYTES_MAX: usize = 64;
const PRIVATE_FILE: Mode = Mode::RUSR.union(Mode::WUSR);

/// See the module.
pub(crate) struct AccountFile {
    /// `None` if the file can't be opened; the store works without it.
    file: Option<OwnedFd>,
    space: Arc<Space>,
    /// Not noted: they tell again what they take when they are opened.
    pub(crate) beside: Total,
    written: AtomicU64,
}

impl AccountFile {
    /// Opens the file, which is made when it is not there.
    pub(crate) fn open(root: &OwnedFd, space: Arc<Space>) -> Self {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = openat(root, NAME, flags | OFlags::CLOEXEC, PRIVATE_FILE);
        let beside = Total::default();
        Self { file: file.ok(), space, beside, written: AtomicU64::new(u64::MAX) }
    }

    /// The last server's note; `None` if that can't be read.
    pub(crate) fn read(&self) -> Option<u64> {
        let mut content = [0; BYTES_MAX];
        let length = pread(self.file.as_ref()?, &mut content, 0).ok()?;
        parse(str::from_utf8(&content[..length]).ok()?)
    }

    /// Notes the present account, if it is another one than the last time. Without the file the next start
    /// is less exact, so a failure is ignored.
    pub(crate) fn write(&self) {
        let used = self.space.used().saturating_sub(self.beside.bytes());
        if let Some(file) = &self.file
            && self.written.swap(used, Ordering::Relaxed) != used
        {
            let _ = pwrite(file, format(used).as_bytes(), 0);
        }
    }
}

/// Always as long, because it is overwritten in place.
fn format(bytes: u64) -> String {
    format!("actiond used 1\nbytes {bytes:020}\n")
}

fn parse(text: &str) -> Option<u64> {
    let digits = text.strip_prefix("actiond used 1\nbytes ")?.strip_suffix('\n')?;
    digits.parse().ok().filter(|bytes| format(*bytes) == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_round_trips_and_a_torn_one_tells_nothing() {
        for bytes in [0, 4096, u64::MAX] {
            let text = format(bytes);
            assert_eq!(parse(&text), Some(bytes));
            assert!(text.len() < BYTES_MAX);
            for end in 0..text.len() {
                assert_eq!(parse(&text[..end]), None, "cut at {end}");
            }
        }
        for text in ["actiond used 2\nbytes 00000000000000000001\n", "actiond used 1\nbytes 1\n"] {
            assert_eq!(parse(text), None);
        }
    }
}
