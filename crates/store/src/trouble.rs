//! Counts the writes that the store refused and those that the disk refused, and logs them.
//!
//! A full disk fails thousands of uploads a second. So each kind of trouble is logged at most once in
//! [`LOG_PERIOD`], with the number of times that it happened since its last line.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::io::Errno;

use crate::error::{Shortage, StoreError};

/// Lines about one kind of trouble are this far apart at least.
const LOG_PERIOD: Duration = Duration::from_secs(10);

/// Lets one event in [`LOG_PERIOD`] through, and counts the others.
#[derive(Default)]
pub(crate) struct Paced(Mutex<State>);

#[derive(Default)]
struct State {
    last: Option<Instant>,
    held_back: u64,
}

impl Paced {
    /// Adds events. Returns their number since the last line, if it is time for another line.
    pub(crate) fn add(&self, events: u64) -> Option<u64> {
        self.add_at(events, Instant::now())
    }

    fn add_at(&self, events: u64, now: Instant) -> Option<u64> {
        let mut state = self.0.lock();
        state.held_back += events;
        if state.last.is_some_and(|last| now.duration_since(last) < LOG_PERIOD) {
            return None;
        }
        state.last = Some(now);
        Some(std::mem::take(&mut state.held_back))
    }
}

/// One kind of trouble.
#[derive(Default)]
struct Kind {
    count: AtomicU64,
    lines: Paced,
}

impl Kind {
    /// Counts an event; calls `log` with the number of events since the last line, now and then.
    fn add(&self, log: impl FnOnce(u64)) {
        self.count.fetch_add(1, Ordering::Relaxed);
        if let Some(times) = self.lines.add(1) {
            log(times);
        }
    }

    fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

/// Every kind of trouble with writes.
#[derive(Default)]
pub(crate) struct Trouble {
    over_limit: Kind,
    over_reserve: Kind,
    disk_full: Kind,
    read_only: Kind,
    failed: Kind,
}

/// How many writes failed since the store was opened, by reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FailedWrites {
    /// The store would have gone over its limit, and nothing could be evicted.
    pub over_limit: u64,
    /// The file system had less than the reserve free, and nothing could be evicted.
    pub over_reserve: u64,
    /// The file system was full (`ENOSPC`, `EDQUOT`).
    pub disk_full: u64,
    /// The file system was read-only (`EROFS`).
    pub read_only: u64,
    /// The file system failed in another way, as with `EIO`.
    pub failed: u64,
}

impl FailedWrites {
    /// How many writes the store refused because there was no room.
    pub fn refused(&self) -> u64 {
        self.over_limit + self.over_reserve
    }
}

impl Trouble {
    /// The store refused a write.
    pub(crate) fn refused(&self, shortage: Shortage) {
        match shortage {
            Shortage::Limit { bytes } => self.over_limit.add(|times| {
                tracing::warn!(
                    times,
                    limit_bytes = bytes,
                    "refused writes: the store is at its limit, and what is in it is in use; raise \
                     --cas-size"
                );
            }),
            Shortage::Reserve { bytes } => self.over_reserve.add(|times| {
                tracing::warn!(
                    times,
                    reserve_bytes = bytes,
                    "refused writes: the file system of the store is nearly full of other things; \
                     free some space there"
                );
            }),
        }
    }

    /// A system call on the path of a write failed. Returns the error for the caller.
    pub(crate) fn failed(
        &self,
        step: &'static str,
        what: impl Into<String>,
        errno: Errno,
    ) -> StoreError {
        let (kind, message) = match errno {
            Errno::NOSPC | Errno::DQUOT => {
                (&self.disk_full, "writes failed: the file system of the store is full")
            }
            Errno::ROFS => {
                (&self.read_only, "writes failed: the file system of the store is read-only")
            }
            _ => (&self.failed, "writes failed"),
        };
        kind.add(|times| tracing::error!(times, step, error = %errno, "{message}"));
        StoreError::io(step, what, errno)
    }

    /// The numbers since the start.
    pub(crate) fn counts(&self) -> FailedWrites {
        FailedWrites {
            over_limit: self.over_limit.count(),
            over_reserve: self.over_reserve.count(),
            disk_full: self.disk_full.count(),
            read_only: self.read_only.count(),
            failed: self.failed.count(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_events_is_one_line_now_and_then() {
        let (paced, start) = (Paced::default(), Instant::now());
        assert_eq!(paced.add_at(1, start), Some(1));
        for _ in 0..1000 {
            assert_eq!(paced.add_at(2, start + LOG_PERIOD / 2), None);
        }
        assert_eq!(paced.add_at(1, start + LOG_PERIOD), Some(2001));
        assert_eq!(paced.add_at(1, start + LOG_PERIOD), None);
    }

    #[test]
    fn writes_that_fail_are_counted_by_reason() {
        let trouble = Trouble::default();
        trouble.refused(Shortage::Limit { bytes: 1 });
        trouble.refused(Shortage::Reserve { bytes: 1 });
        for errno in [Errno::NOSPC, Errno::DQUOT, Errno::ROFS, Errno::IO, Errno::MFILE] {
            let error = trouble.failed("write", "a blob", errno);
            assert!(matches!(error, StoreError::Io { step: "write", .. }), "{error}");
        }
        let expected =
            FailedWrites { over_limit: 1, over_reserve: 1, disk_full: 2, read_only: 1, failed: 2 };
        assert_eq!(trouble.counts(), expected);
        assert_eq!(expected.refused(), 2);
    }
}
