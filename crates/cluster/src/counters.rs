//! The counters of the conversation with a scheduler, for metrics.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Counters of all slots since the start of the worker.
#[derive(Debug, Default)]
pub struct Counters {
    is_up: AtomicBool,
    calls: AtomicU64,
    failures: AtomicU64,
    orders: AtomicU64,
    stopped: AtomicU64,
}

/// The state of [`Counters`] at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Whether the scheduler answered the last call that ended.
    pub is_up: bool,
    /// Calls that were answered.
    pub calls: u64,
    /// Calls that were not answered, or with an error.
    pub failures: u64,
    /// Actions that the scheduler gave.
    pub orders: u64,
    /// Actions that were stopped because the scheduler did not want them any more.
    pub stopped: u64,
}

impl Counters {
    /// The state now.
    pub fn counts(&self) -> Counts {
        Counts {
            is_up: self.is_up.load(Ordering::Relaxed),
            calls: self.calls.load(Ordering::Relaxed),
            failures: self.failures.load(Ordering::Relaxed),
            orders: self.orders.load(Ordering::Relaxed),
            stopped: self.stopped.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn answered(&self) {
        self.is_up.store(true, Ordering::Relaxed);
        self.calls.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn failed(&self) {
        self.is_up.store(false, Ordering::Relaxed);
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn ordered(&self) {
        self.orders.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn stopped(&self) {
        self.stopped.fetch_add(1, Ordering::Relaxed);
    }
}
