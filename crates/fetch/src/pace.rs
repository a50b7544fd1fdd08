//! How slow a host may be.
//!
//! A fetch has one of few turns. A host that sends a byte now and then would keep it until the timeout, which is an hour at
//! most, so it has to send some bytes in each window of time. What the disk takes is not the host's.

use std::time::Duration;

use tokio::time::Instant;

/// The window. It outlasts the retransmissions of a network that loses packets for a while.
const WINDOW: Duration = Duration::from_secs(30);

/// The bytes of a window: 4 KiB/s, so that 8 fetches at a time need a line of 256 kbit/s.
const WINDOW_BYTES: u64 = 120 << 10;

/// The progress in the current window.
#[derive(Debug)]
pub(crate) struct Pace {
    deadline: Instant,
    bytes: u64,
}

/// A host that sent too little.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Slow {
    /// The bytes that came.
    pub(crate) bytes: u64,
    /// The time in which they came.
    pub(crate) window: Duration,
}

impl Pace {
    /// The first window begins.
    pub(crate) fn new(now: Instant) -> Self {
        Self { deadline: now + WINDOW, bytes: 0 }
    }

    /// The end of the window.
    pub(crate) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Counts bytes that came.
    pub(crate) fn count(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
    }

    /// Makes the window longer by a time in which the host was not read.
    pub(crate) fn leave_out(&mut self, time: Duration) {
        self.deadline += time;
    }

    /// Begins the next window at the end of this one, if enough came.
    pub(crate) fn go_on(&mut self, now: Instant) -> Result<(), Slow> {
        if self.bytes < WINDOW_BYTES {
            return Err(Slow { bytes: self.bytes, window: WINDOW });
        }
        *self = Self::new(now);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_window_needs_its_bytes() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        pace.count(WINDOW_BYTES as usize - 1);
        pace.count(1);
        assert_eq!(pace.deadline(), start + WINDOW);
        pace.go_on(pace.deadline()).unwrap();
        assert_eq!(pace.deadline(), start + 2 * WINDOW);
        // What came before does not count again.
        pace.count(5);
        assert_eq!(pace.go_on(pace.deadline()), Err(Slow { bytes: 5, window: WINDOW }));
    }

    #[test]
    fn the_time_of_the_disk_is_left_out() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        pace.leave_out(Duration::from_secs(7));
        assert_eq!(pace.deadline(), start + WINDOW + Duration::from_secs(7));
    }
}
