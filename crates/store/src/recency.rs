//! When a blob was last used, and which of two should go first.
//!
//! A blob that a client was told about is *leased*: clients rely on it for some hours. So leased
//! blobs rank behind all others. Within both classes the one that has been idle for longer goes
//! first, and a blob that was never used again after its first minutes ages four times as fast: a
//! flood of blobs that are used once, such as the outputs of a large one-time build, displaces
//! itself before it displaces what every build needs.
//!
//! The state costs 7 bytes a blob, and a use of it is one store: nothing is relinked on the path of
//! FindMissingBlobs, as a list in the order of use would need.

use std::time::{SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

/// A point in time, in tenths of a second since [`EPOCH_SECONDS`]; good for 13 years.
pub(crate) type Tick = u32;

/// 2026-01-01T00:00:00Z.
const EPOCH_SECONDS: i64 = 1_767_225_600;
const TICKS_PER_SECOND: i64 = 10;
/// Uses within the first 5 to 10 minutes are the same use: a build reads its inputs many times.
const PERIOD_TICKS: Tick = 5 * 60 * 10;
/// The factor by which a blob ages faster that was used in no later period than its first.
const ONCE_AGES_BY: u32 = 4;
/// The number of ranks for each doubling of the idle time, as a power of two. Files of one rank go in no order, so these are many:
/// what a build of an hour stored first must not go before what another one stored a minute earlier.
const STEPS_LOG2: usize = 6;
const STEPS: usize = 1 << STEPS_LOG2;
/// Ranks within a class.
const RANKS_PER_CLASS: usize = 33 * STEPS;

/// The number of ranks.
pub(crate) const RANKS: usize = 2 * RANKS_PER_CLASS;

/// The number of ranks of what has a lease: those below this.
pub(crate) const RANKS_LEASED: usize = RANKS_PER_CLASS;

/// A clock that starts at the system's time and never goes back.
pub(crate) struct Clock {
    started_at: Tick,
    started: i64,
}

impl Clock {
    pub(crate) fn start() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let seconds = now.map_or(0, |since| since.as_secs() as i64);
        Self { started_at: tick_at(seconds), started: coarse_ticks() }
    }

    /// The present. A few nanoseconds: no system call, and the kernel's tick is fine enough.
    pub(crate) fn now(&self) -> Tick {
        let passed = coarse_ticks().saturating_sub(self.started).max(0);
        self.started_at.saturating_add(Tick::try_from(passed).unwrap_or(Tick::MAX))
    }
}

/// The tick of a time in seconds since 1970.
pub(crate) fn tick_at(seconds: i64) -> Tick {
    let ticks = seconds.saturating_sub(EPOCH_SECONDS).saturating_mul(TICKS_PER_SECOND);
    Tick::try_from(ticks.max(0)).unwrap_or(Tick::MAX)
}

/// The number of ticks of a duration.
pub(crate) fn ticks(duration: std::time::Duration) -> Tick {
    Tick::try_from(duration.as_millis() / 100).unwrap_or(Tick::MAX)
}

/// A number of ticks in whole seconds.
pub(crate) fn seconds(ticks: Tick) -> u64 {
    u64::from(ticks) / TICKS_PER_SECOND as u64
}

fn coarse_ticks() -> i64 {
    let now = clock_gettime(ClockId::MonotonicCoarse);
    now.tv_sec * TICKS_PER_SECOND + now.tv_nsec / 100_000_000
}

/// When something was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) last_use: Tick,
    /// The period of the first use; it wraps around after half a year.
    first_period: u16,
    /// Whether it was used in a later period than its first.
    pub(crate) is_reused: bool,
}

impl Usage {
    /// Something that was used for the first time.
    pub(crate) fn first(now: Tick) -> Self {
        Self::recorded(now, false)
    }

    /// As it was recorded by an earlier server.
    pub(crate) const fn recorded(last_use: Tick, is_reused: bool) -> Self {
        Self { last_use, first_period: period(last_use), is_reused }
    }

    /// Notes a use.
    pub(crate) fn touch(&mut self, now: Tick) {
        if now <= self.last_use {
            return;
        }
        self.last_use = now;
        self.is_reused |= period(now).wrapping_sub(self.first_period) >= 2;
    }

    /// As one word, for tables.
    pub(crate) fn to_bits(self) -> u64 {
        u64::from(self.last_use)
            | u64::from(self.first_period) << 32
            | u64::from(self.is_reused) << 48
    }

    /// From the word of [`Usage::to_bits`].
    pub(crate) fn from_bits(bits: u64) -> Self {
        Self {
            last_use: bits as Tick,
            first_period: (bits >> 32) as u16,
            is_reused: bits >> 48 & 1 != 0,
        }
    }

    /// The place in the order of eviction: the highest goes first. [`is_leased`] tells the class.
    pub(crate) fn rank(&self, now: Tick, lease: Tick) -> usize {
        let idle = now.saturating_sub(self.last_use);
        if idle < lease {
            return magnitude(idle);
        }
        let ages_by = if self.is_reused { 1 } else { ONCE_AGES_BY };
        RANKS_PER_CLASS + magnitude(idle.saturating_mul(ages_by))
    }
}

/// Whether a rank is that of something whose lease has not ended.
pub(crate) fn is_leased(rank: usize) -> bool {
    rank < RANKS_LEASED
}

/// 64 steps for each doubling: two idle times of one step differ by less than 1.6 %.
fn magnitude(idle: Tick) -> usize {
    let idle = u64::from(idle) + 1;
    let log2 = idle.ilog2() as usize;
    let fraction = (idle << STEPS_LOG2 >> log2) as usize & (STEPS - 1);
    log2 * STEPS + fraction
}

const fn period(tick: Tick) -> u16 {
    (tick / PERIOD_TICKS) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Tick = 36_000;
    const NOW: Tick = 1000 * HOUR;
    const LEASE: Tick = 3 * HOUR;

    fn rank(idle: Tick, is_reused: bool) -> usize {
        Usage::recorded(NOW - idle, is_reused).rank(NOW, LEASE)
    }

    #[test]
    fn the_order_of_eviction() {
        // Each goes before the next one.
        let order = [
            (900 * HOUR, true),
            (100 * HOUR, false),
            (100 * HOUR, true),
            (5 * HOUR, false),
            (12 * HOUR, true),
            (LEASE, true),
            (LEASE - 1000, false),
            (LEASE / 2, true),
            (10, false),
            (0, true),
        ];
        let ranks: Vec<usize> = order.map(|(idle, reused)| rank(idle, reused)).into();
        assert!(ranks.is_sorted_by(|a, b| a > b), "{ranks:?}");
        assert!(ranks.iter().all(|rank| *rank < RANKS));
        assert_eq!(ranks.iter().filter(|rank| is_leased(**rank)).count(), 4);
        assert!(Usage::first(0).rank(Tick::MAX, 0) < RANKS);
    }

    #[test]
    fn what_was_stored_a_minute_earlier_goes_first() {
        for idle in [10, 600, 6000, HOUR] {
            assert!(rank(idle + 600, true) > rank(idle, true), "{idle}");
        }
        for idle in [10, HOUR, LEASE + HOUR, 900 * HOUR] {
            assert!(rank(idle + idle / 60 + 1, false) > rank(idle, false), "{idle}");
        }
    }

    #[test]
    fn uses_of_one_build_are_one_use() {
        let mut usage = Usage::first(NOW);
        for second in 0..300 {
            usage.touch(NOW + second * 10);
        }
        assert!(!usage.is_reused);
        usage.touch(NOW + HOUR);
        assert!(usage.is_reused);
        usage.touch(NOW);
        assert_eq!(usage.last_use, NOW + HOUR, "time does not go back");
    }
}
