//! When an upstream is given up for a while: pure, and owned by a link.
//!
//! An upstream that hangs costs each call its deadline. After a few failures without a success between them
//! the link goes down, and calls cost nothing. A task of the link then asks for the server's capabilities now
//! and then, so that no build pays for finding out. Each time that the link goes down again without having
//! been of use, the pause doubles: a server whose capabilities answer and whose blobs hang is tried rarely.

use std::time::Duration;

/// Failures without a success between them that take the link down: one is a broken connection, two may be
/// the calls that were under way on it.
const FAILURES_MAX: u32 = 3;

/// The first pause: a server that restarts is back in about this time.
const PAUSE_FIRST: Duration = Duration::from_secs(1);

/// The longest pause, which is what a build waits for an upstream that is back, at worst.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// The failures of a link.
#[derive(Debug, Default)]
pub(crate) struct Breaker {
    failures: u32,
    /// How often the link went down since it was of use.
    falls: u32,
}

impl Breaker {
    /// A call was answered.
    pub(crate) fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// A call failed. Returns whether the link goes down now.
    pub(crate) fn failed(&mut self) -> bool {
        self.failures += 1;
        let falls = self.failures == FAILURES_MAX;
        if falls {
            self.falls = self.falls.saturating_add(1);
        }
        falls
    }

    /// The server's capabilities were not answered.
    pub(crate) fn probe_failed(&mut self) {
        self.falls = self.falls.saturating_add(1);
    }

    /// The link is up again; the next call shows whether it is of use.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    /// The pause before the next look at the server. `chance` is a number from 0 to 255 that differs between
    /// daemons, so that not all of them look at once.
    pub(crate) fn pause(&self, chance: u8) -> Duration {
        let doublings = self.falls.saturating_sub(1).min(16);
        jittered(PAUSE_FIRST.saturating_mul(1 << doublings).min(PAUSE_MAX), chance)
    }
}

/// Between half of a pause and all of it.
pub(crate) fn jittered(pause: Duration, chance: u8) -> Duration {
    pause / 2 + pause.mul_f64(f64::from(chance) / 510.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_in_a_row_take_the_link_down_once() {
        let mut breaker = Breaker::default();
        assert!(!breaker.failed() && !breaker.failed());
        breaker.succeeded();
        let falls: Vec<bool> = (0..5).map(|_| breaker.failed()).collect();
        assert_eq!(falls, [false, false, true, false, false]);
    }

    #[test]
    fn the_pause_doubles_until_the_upstream_is_of_use() {
        let mut breaker = Breaker::default();
        let mut pauses = Vec::new();
        for _ in 0..8 {
            while !breaker.failed() {}
            pauses.push(breaker.pause(255).as_secs());
            breaker.reset();
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
        breaker.succeeded();
        while !breaker.failed() {}
        assert_eq!(breaker.pause(255).as_secs(), 1);
    }

    #[test]
    fn pauses_differ() {
        let pause = Duration::from_secs(10);
        assert_eq!(jittered(pause, 0), pause / 2);
        assert_eq!(jittered(pause, 255), pause);
    }

    #[test]
    fn a_server_that_never_answers_is_asked_ever_more_rarely() {
        let mut breaker = Breaker::default();
        for _ in 0..100 {
            breaker.probe_failed();
        }
        assert_eq!(breaker.pause(255), PAUSE_MAX);
    }
}
