//! How much of clients' messages the worker reads and parses at a time.
//!
//! A Directory or a Tree may take 64 MiB, and as much again once it is parsed. Many threads may want
//! to read one. They wait here for each other, where a request that was refused would be sent again.
//! A thread that has its permit waits for a disk at most, and asks for no second one: so each wait
//! ends.

use parking_lot::{Condvar, Mutex};

/// Held by all threads together, in bytes: one message of the largest kind, or a thousand usual
/// ones. A larger message is read when nobody else reads.
const MAX_BYTES: u64 = 128 << 20;

/// Messages that take less need no permit: all threads together cannot hold much of them.
const SMALL_BYTES: u64 = 256 << 10;

/// The permits of all threads.
#[derive(Debug)]
pub(crate) struct Reading {
    free_bytes: Mutex<u64>,
    given_back: Condvar,
}

/// Leave to hold that many bytes, until it is dropped.
#[derive(Debug)]
pub(crate) struct Permit<'a> {
    reading: &'a Reading,
    bytes: u64,
}

impl Default for Reading {
    fn default() -> Self {
        Self { free_bytes: Mutex::new(MAX_BYTES), given_back: Condvar::new() }
    }
}

impl Reading {
    /// Leave to read and parse a message, which takes `bytes` at most; waits for it.
    pub(crate) fn permit(&self, bytes: u64) -> Option<Permit<'_>> {
        if bytes <= SMALL_BYTES {
            return None;
        }
        let bytes = bytes.min(MAX_BYTES);
        let mut free_bytes = self.free_bytes.lock();
        self.given_back.wait_while(&mut free_bytes, |free_bytes| *free_bytes < bytes);
        *free_bytes -= bytes;
        Some(Permit { reading: self, bytes })
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        *self.reading.free_bytes.lock() += self.bytes;
        // Those that wait want different amounts.
        self.reading.given_back.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[test]
    fn threads_hold_no_more_than_the_bound_together() {
        let reading = Reading::default();
        let (held, most) = (AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for number in 1..=20 {
                let (reading, held, most) = (&reading, &held, &most);
                scope.spawn(move || {
                    let bytes = MAX_BYTES / 10 * number;
                    for _ in 0..50 {
                        let _permit = reading.permit(bytes);
                        let bytes = bytes.min(MAX_BYTES);
                        let now = held.fetch_add(bytes, Ordering::SeqCst) + bytes;
                        most.fetch_max(now, Ordering::SeqCst);
                        held.fetch_sub(bytes, Ordering::SeqCst);
                    }
                });
            }
        });
        assert!((1..=MAX_BYTES).contains(&most.into_inner()));
        assert_eq!(*reading.free_bytes.lock(), MAX_BYTES);
        assert!(reading.permit(SMALL_BYTES).is_none());
    }
}
