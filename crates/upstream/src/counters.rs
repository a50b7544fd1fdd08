//! The counters of a link, for metrics.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Counters since the start of the daemon.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) hits: Counter,
    pub(crate) misses: Counter,
    pub(crate) received_bytes: Counter,
    pub(crate) sent_bytes: Counter,
    pub(crate) calls: Counter,
    pub(crate) call_us: Counter,
    pub(crate) failures: Counter,
    pub(crate) refusals: Counter,
    pub(crate) damaged: Counter,
    pub(crate) skipped: Counter,
}

/// A number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, number: u64) {
        self.0.fetch_add(number, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The counters of the link to a server since the start of the daemon.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Whether the server answered when it was last asked.
    pub is_up: bool,
    /// Blobs or results that were fetched.
    pub hits: u64,
    /// Blobs or results that the server does not have.
    pub misses: u64,
    /// Bytes of blobs or results that were received, unpacked.
    pub received_bytes: u64,
    /// Bytes of blobs or results that were sent, unpacked.
    pub sent_bytes: u64,
    /// Calls.
    pub calls: u64,
    /// The time that they took together, in microseconds.
    pub call_us: u64,
    /// Calls that were not answered, or not in time.
    pub failures: u64,
    /// Calls that were answered with an error other than NOT_FOUND.
    pub refusals: u64,
    /// Blobs or results that were not what they were said to be.
    pub damaged: u64,
    /// Blobs or results that were not asked for, because the server was down.
    pub skipped: u64,
}

impl Counters {
    pub(crate) fn call_took(&self, time: Duration) {
        self.calls.add(1);
        self.call_us.add(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }

    pub(crate) fn counts(&self, is_up: bool) -> Counts {
        Counts {
            is_up,
            hits: self.hits.get(),
            misses: self.misses.get(),
            received_bytes: self.received_bytes.get(),
            sent_bytes: self.sent_bytes.get(),
            calls: self.calls.get(),
            call_us: self.call_us.get(),
            failures: self.failures.get(),
            refusals: self.refusals.get(),
            damaged: self.damaged.get(),
            skipped: self.skipped.get(),
        }
    }
}
