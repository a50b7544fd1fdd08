//! Periodic calls to the guest: its clock, its health, its counters, its spare memory.
//!
//! The clock and the health are one question: every [`CHECK_INTERVAL`], and at once after the host
//! has slept, the guest is told the time. A guest that misses [`MAX_MISSED`] in a row hangs.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use chain::Chain;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use crate::guest::{Guest, Running};

/// The interval at which the host checks whether it slept.
const TICK: Duration = Duration::from_secs(1);

/// The interval at which the host sets the guest's clock. Its clock runs by itself in between; under emulation it
/// loses some milliseconds.
const CHECK_INTERVAL: Duration = Duration::from_secs(15);

/// Unanswered questions in a row (10 s each) until a guest counts as hung: actions may take all of
/// its CPUs for a while, but not for that long.
const MAX_MISSED: u32 = 4;

/// From which difference on the host has slept, or its clock was set.
const SLEPT: Duration = Duration::from_millis(500);

/// Corrections below this are not worth a line.
const LOG_FROM: Duration = Duration::from_millis(500);

/// Linux's pressure stall information (Documentation/accounting/psi.rst).
const PRESSURE: &str = "/proc/pressure/memory";

/// The interval between readings. The value is an average over ten seconds.
const PRESSURE_INTERVAL: Duration = Duration::from_secs(10);

/// From where on the host suffers.
const PRESSURE_PERCENT: f64 = 10.0;

/// Keeps the guest's clock right; returns when the guest does not answer any more.
pub(crate) async fn keep(running: &Running) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut clocks = Clocks::now();
    let mut last_check = Instant::now();
    let mut missed = 0;
    loop {
        ticks.tick().await;
        let slept = clocks.jumped();
        if !slept && last_check.elapsed() < CHECK_INTERVAL {
            continue;
        }
        last_check = Instant::now();
        match tell_time(running).await {
            Ok(()) => missed = 0,
            Err(()) => missed += 1,
        }
        if missed == MAX_MISSED {
            return;
        }
    }
}

async fn tell_time(running: &Running) -> Result<(), ()> {
    match running.control.set_time(&*running.machine).await {
        Ok(set) => {
            if set.moved_ns.unsigned_abs() >= LOG_FROM.as_nanos() as u64 {
                tracing::info!(moved_ms = set.moved_ns / 1_000_000, "guest clock corrected");
            }
            Ok(())
        }
        Err(error) => {
            tracing::warn!(error = %Chain(&error), "the guest was not told the time");
            Err(())
        }
    }
}

/// The wall clock beside the clock that stops while the host sleeps.
struct Clocks {
    wall: SystemTime,
    awake: Instant,
}

impl Clocks {
    fn now() -> Self {
        Self { wall: SystemTime::now(), awake: Instant::now() }
    }

    /// Whether the two went apart since the last call.
    fn jumped(&mut self) -> bool {
        let before = std::mem::replace(self, Self::now());
        apart(&before, self) >= SLEPT
    }
}

/// By how much more or less the wall clock has moved than the other.
fn apart(before: &Clocks, after: &Clocks) -> Duration {
    let awake = after.awake.saturating_duration_since(before.awake);
    match after.wall.duration_since(before.wall) {
        Ok(wall) => wall.abs_diff(awake),
        Err(backwards) => backwards.duration() + awake,
    }
}

/// Writes the guest's counters to `path` once a second, for as long as the future is polled. Whoever
/// reads the file sees all of one second's counters or all of another's.
pub async fn write_stats(mut guest: watch::Receiver<Guest>, path: PathBuf) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let ready = guest.borrow_and_update().clone();
        let Guest::Ready(running) = ready else { continue };
        let stats = match running.control.actiondfs_stats(&*running.machine).await {
            Ok(stats) => stats,
            Err(error) => {
                tracing::warn!(error = %Chain(&error), "no counters from the guest");
                continue;
            }
        };
        if let Err(error) = replace(&path, &stats) {
            tracing::warn!(path = %path.display(), %error, "the counters can't be written");
        }
    }
}

/// Asks the guest for memory when the host's own is short, for as long as the future is polled. Ends
/// at once on hosts without Linux's pressure information.
pub async fn relieve(guest: watch::Receiver<Guest>, wanted_bytes: u64) {
    let mut ticks = tokio::time::interval(PRESSURE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Ok(pressure) = std::fs::read_to_string(PRESSURE) else { return };
        let stalled = stalled_percent(&pressure).unwrap_or(0.0);
        let ready = guest.borrow().clone();
        let Guest::Ready(running) = ready else { continue };
        if stalled < PRESSURE_PERCENT {
            continue;
        }
        match running.control.memory_pressure(&*running.machine, wanted_bytes).await {
            Ok(memory) => tracing::info!(
                stalled_percent = stalled,
                guest_free_mib = memory.free_bytes >> 20,
                "memory is short: the guest gave back its caches"
            ),
            Err(error) => tracing::warn!(error = %Chain(&error), "memory is short"),
        }
    }
}

/// The time of the last ten seconds in which some process waited for memory, in percent.
fn stalled_percent(pressure: &str) -> Option<f64> {
    let some = pressure.lines().find_map(|line| line.strip_prefix("some avg10="))?;
    some.split_ascii_whitespace().next()?.parse().ok()
}

/// Puts a file of that content in the place of `path`. Not synced: it is old in a second.
fn replace(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let directory = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(content)?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// The difference when the wall clock moved by `wall` seconds while one second went by.
    fn check(wall: i64) -> Duration {
        let before = Clocks::now();
        let moved = Duration::from_secs(wall.unsigned_abs());
        let wall = if wall < 0 { before.wall - moved } else { before.wall + moved };
        apart(&before, &Clocks { wall, awake: before.awake + SECOND })
    }

    #[test]
    fn a_sleep_and_a_set_clock_are_noticed() {
        assert_eq!(check(1), Duration::ZERO);
        assert_eq!(check(3601), 3600 * SECOND);
        assert_eq!(check(0), SECOND);
        assert_eq!(check(-9), 10 * SECOND);
    }

    #[test]
    fn pressure_is_read() {
        let text = "some avg10=12.50 avg60=1.00 avg300=0.00 total=5\nfull avg10=99.00 avg60=0\n";
        assert_eq!(stalled_percent(text), Some(12.5));
        assert_eq!(stalled_percent("full avg10=1.00\n"), None);
        assert_eq!(stalled_percent("some avg10=x"), None);
    }

    #[test]
    fn counters_are_replaced_as_a_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("stats");
        replace(&path, b"a 1\n").unwrap();
        replace(&path, b"a 2\n").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"a 2\n");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
