//! Room for others: what the store gives up when something else fills its file system.
//!
//! Mostly that is an action that runs wild. If the store made room for as long as the action writes, the whole cache
//! would be gone at the end. So there are three rules:
//!
//! - For what it takes itself the store evicts at once, and whatever is idle for longest.
//! - For others it gives up what no client has a lease of: an eighth of its bytes at once, and an eighth an hour.
//! - When others touch the reserve of the file system, running actions are stopped. So the store waits for the space
//!   to come back. If it does not come back, no action has it, and the store evicts what is missing.

use std::time::{Duration, Instant};

/// One in so many bytes of the store is given up for others at once, and again in each [`REFILL_PERIOD`].
const SHARE: u64 = 8;
const REFILL_PERIOD: Duration = Duration::from_secs(3600);
/// The wait goes on while it gets better, up to so many times as long.
const WAITS_MAX: u32 = 15;
/// How often is asked whether the space is there again.
const LOOK_PERIOD: Duration = Duration::from_millis(50);

/// The account of what the store took and gave up.
#[derive(Debug)]
pub(crate) struct Others {
    /// The bytes of the store after the last pass, or when nothing was missing. Nothing at first: what the store has at its start is its own, and nothing
    /// runs yet that could be stopped.
    used: u64,
    /// The bytes that were given up for others, less what time has made good.
    given: u64,
    counted_at: Instant,
    /// The last wait was in vain, and the reserve has not been free since: there is no use in another one.
    pub(crate) stays: bool,
    /// For how long the store waits for space to come back.
    pub(crate) patience: Duration,
}

impl Others {
    pub(crate) fn new(now: Instant) -> Self {
        Self { used: 0, given: 0, counted_at: now, stays: false, patience: Duration::from_secs(2) }
    }

    /// The bytes that the store took since its last pass, or since nothing was missing.
    pub(crate) fn own_growth(&self, used: u64) -> u64 {
        used.saturating_sub(self.used)
    }

    /// Counts the store's growth from here.
    pub(crate) fn count_from(&mut self, used: u64) {
        self.used = used;
    }

    /// The bytes to evict now for others who lack `missing`; 0 when that much would not be worth a pass, which reads
    /// the whole index and should free `pass_min`.
    pub(crate) fn claim(&mut self, missing: u64, pass_min: u64, used: u64, now: Instant) -> u64 {
        let share = used / SHARE;
        let passed = now.saturating_duration_since(self.counted_at).min(REFILL_PERIOD);
        self.counted_at = now;
        // In seconds, the time between two looks would count for nothing.
        let refilled = u128::from(share) * passed.as_millis() / REFILL_PERIOD.as_millis();
        self.given = self.given.saturating_sub(u64::try_from(refilled).unwrap_or(u64::MAX));
        let allowed = share.saturating_sub(self.given);
        if missing == 0 || allowed < missing.min(pass_min) {
            return 0;
        }
        missing.max(pass_min).min(allowed)
    }

    /// Notes what was evicted for others, and what is used now: the store's growth is counted from the least.
    pub(crate) fn give(&mut self, bytes: u64, used: u64) {
        self.given = self.given.saturating_add(bytes);
        self.used = self.used.min(used);
    }
}

/// Waits until nothing is missing any more. False when it stays: nothing came back for that long, or others take it as
/// fast as it comes.
pub(crate) fn wait_for_space(patience: Duration, missing: impl Fn() -> u64) -> bool {
    let begun = Instant::now();
    let (mut least, mut since) = (u64::MAX, begun);
    loop {
        let now_missing = missing();
        if now_missing == 0 {
            return true;
        }
        if now_missing < least {
            (least, since) = (now_missing, Instant::now());
        }
        if since.elapsed() >= patience || begun.elapsed() >= patience * WAITS_MAX {
            return false;
        }
        std::thread::sleep(LOOK_PERIOD);
    }
}

#[cfg(test)]
mod disk_tests;

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    const USED: u64 = 800;

    #[test]
    fn what_the_store_took_is_its_own() {
        let mut others = Others::new(Instant::now());
        assert_eq!(others.own_growth(USED), USED, "all of it, at its start");
        others.count_from(USED);
        assert_eq!(others.own_growth(USED + 30), 30);
        assert_eq!(others.own_growth(USED - 30), 0);
        others.give(0, USED - 30);
        assert_eq!(others.own_growth(USED), 30);
    }

    #[test]
    fn an_eighth_is_given_up_at_once_and_an_eighth_an_hour() {
        let start = Instant::now();
        let mut others = Others::new(start);
        assert_eq!(others.claim(0, 10, USED, start), 0, "nothing is missing");
        assert_eq!(others.claim(1, 10, USED, start), 10, "a pass is worth it");
        assert_eq!(others.claim(5000, 10, USED, start), 100);
        others.give(95, USED);
        assert_eq!(others.claim(5000, 10, USED, start), 0, "the rest is not worth a pass");
        assert_eq!(others.claim(3, 10, USED, start), 5);
        others.give(5, USED);
        let half = start + REFILL_PERIOD / 2;
        assert_eq!(others.claim(5000, 10, USED, half), 50);
        assert_eq!(others.claim(5000, 10, USED, start + 5 * REFILL_PERIOD), 100, "and no more");
    }

    #[test]
    fn looks_in_short_succession_add_up() {
        let start = Instant::now();
        let mut others = Others::new(start);
        const LARGE: u64 = 100 << 30;
        others.give(LARGE / SHARE, LARGE);
        let mut now = start;
        for _ in 0..3600 {
            now += Duration::from_secs(1);
            others.claim(1 << 40, u64::MAX, LARGE, now);
        }
        let allowed = others.claim(1 << 40, 1, LARGE, now);
        assert!(allowed > LARGE / SHARE / 100 * 99, "{allowed}");
    }

    #[test]
    fn the_wait_ends_with_what_is_missing_or_when_nothing_comes_back() {
        let left = Cell::new(5);
        let less = || {
            left.set(left.get() - 1);
            left.get()
        };
        // Longer than the test has: each look finds less.
        assert!(wait_for_space(Duration::from_secs(300), less));
        assert!(!wait_for_space(Duration::from_millis(1), || 7));
    }
}
