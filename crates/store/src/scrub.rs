//! Reads every blob again once in some weeks, and moves damaged ones into quarantine.
//!
//! Disks lose bits without a word. A blob that is read often is found out by its readers; one that
//! nobody has read for long is found out here, while clients still have it to upload it again.
//!
//! A round takes the parts of the index one after the other, evenly spread over the period. The next
//! part and the begin of the round are in the file `scrub`, so that a restart goes on where the last
//! server stopped. The thread has the lowest priorities, and reads at a bounded rate past the page cache.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rustix::fs::{Mode, OFlags};

use crate::cas::Cas;
use crate::disk::openat;
use crate::index::PARTS;
use crate::root::write_synced;
use crate::state::seconds_now;
use crate::trouble::Paced;
use crate::verify::{Verdict, Verifier};

const NAME: &str = "scrub";
const FIRST_LINE: &str = "actiond scrub 1";
/// More than the file has.
const BYTES_MAX: usize = 128;
/// The average number of bytes that a part is read with in a second: a fraction of what any disk can do.
const BYTES_PER_SECOND: u64 = 32 << 20;
/// The lowest priority for the processor, setpriority(2).
const NICE: i32 = 19;

/// How far the scrub got.
#[derive(Default)]
pub(crate) struct Scrubbed {
    pub(crate) blobs: AtomicU64,
    pub(crate) bytes: AtomicU64,
    /// The parts of this round that are done, of [`PARTS`].
    pub(crate) parts: AtomicU64,
}

/// The scrub of a store.
pub(crate) struct Scrub {
    cas: Cas,
    root: OwnedFd,
    temporary: OwnedFd,
    period: Duration,
    pub(crate) scrubbed: Scrubbed,
    stop: Mutex<bool>,
    wake: Condvar,
}

/// The content of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Position {
    /// The begin of the round, in seconds since the epoch.
    began: i64,
    /// The next part.
    part: usize,
}

impl Position {
    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.strip_suffix('\n')?.split('\n');
        if lines.next()? != FIRST_LINE {
            return None;
        }
        let began = lines.next()?.strip_prefix("began ")?.parse().ok()?;
        let part = lines.next()?.strip_prefix("part ")?.parse().ok()?;
        (lines.next().is_none() && part < PARTS).then_some(Self { began, part })
    }

    fn format(self) -> String {
        format!("{FIRST_LINE}\nbegan {}\npart {}\n", self.began, self.part)
    }

    /// The time until the next part is due, at `now` in seconds since the epoch.
    fn wait(self, period: Duration, now: i64) -> Duration {
        let offset = period.as_secs() * (self.part as u64 + 1) / PARTS as u64;
        let due = self.began.saturating_add_unsigned(offset);
        // A clock that was set back does not stop the scrub for longer than a part's share.
        let wait = u64::try_from(due.saturating_sub(now)).unwrap_or(0);
        Duration::from_secs(wait).min(period / PARTS as u32)
    }

    fn next(self, now: i64) -> Self {
        match self.part + 1 {
            PARTS => Self { began: now, part: 0 },
            part => Self { part, ..self },
        }
    }
}

impl Scrub {
    /// A scrub whose rounds take that long.
    pub(crate) fn new(cas: Cas, root: OwnedFd, temporary: OwnedFd, period: Duration) -> Self {
        Self {
            cas,
            root,
            temporary,
            period,
            scrubbed: Scrubbed::default(),
            stop: Mutex::new(false),
            wake: Condvar::new(),
        }
    }

    /// Scrubs in a thread, until [`Scrub::close`].
    pub(crate) fn spawn(self: &Arc<Self>) -> std::io::Result<JoinHandle<()>> {
        let scrub = Arc::clone(self);
        std::thread::Builder::new().name("scrub".into()).spawn(move || scrub.run())
    }

    /// Ends the thread, within the time that a blob takes.
    pub(crate) fn close(&self, thread: JoinHandle<()>) {
        *self.stop.lock() = true;
        self.wake.notify_all();
        if thread.join().is_err() {
            tracing::error!("the thread that scrubs panicked");
        }
    }

    fn run(&self) {
        // Without them the scrub disturbs more, and does its work all the same.
        let _ = rustix::process::setpriority_process(None, NICE);
        if let Err(error) = sys::process::set_idle_io_priority() {
            tracing::debug!(%error, "the scrub has no idle I/O priority");
        }
        let mut position = self.read().unwrap_or(Position { began: seconds_now(), part: 0 });
        let mut verifier = self.cas.verifier();
        let lines = Paced::default();
        while !self.pause(position.wait(self.period, seconds_now())) {
            self.scrubbed.parts.store(position.part as u64, Ordering::Relaxed);
            if self.scrub(&mut verifier, position.part, &lines) {
                return;
            }
            position = position.next(seconds_now());
            let text = position.format();
            if let Err(error) = write_synced(&self.temporary, NAME, &self.root, text.as_bytes()) {
                // The next start does the parts again that were done since it was written.
                tracing::debug!(%error, "the position of the scrub was not recorded");
            }
        }
    }

    /// Scrubs a part. True if it is to stop.
    fn scrub(&self, verifier: &mut Verifier, part: usize, lines: &Paced) -> bool {
        let (mut read, started) = (0, Instant::now());
        for digest in self.cas.index().files_of(part) {
            match verifier.verify(&digest) {
                Ok(Verdict::Good | Verdict::Absent | Verdict::Damaged) => {}
                Err(error) => {
                    if let Some(times) = lines.add(1) {
                        let error = &error as &dyn std::error::Error;
                        tracing::warn!(times, error, "the scrub could not read blobs");
                    }
                }
            }
            read += digest.size_bytes();
            self.scrubbed.blobs.fetch_add(1, Ordering::Relaxed);
            self.scrubbed.bytes.fetch_add(digest.size_bytes(), Ordering::Relaxed);
            let due = Duration::from_millis(read * 1000 / BYTES_PER_SECOND);
            if self.pause(due.saturating_sub(started.elapsed())) {
                return true;
            }
        }
        false
    }

    /// Waits. True if it is to stop.
    fn pause(&self, time: Duration) -> bool {
        let mut stop = self.stop.lock();
        if !*stop && !time.is_zero() {
            self.wake.wait_for(&mut stop, time);
        }
        *stop
    }

    fn read(&self) -> Option<Position> {
        let mut content = Vec::with_capacity(BYTES_MAX);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = openat(&self.root, NAME, flags, Mode::empty()).ok()?;
        rustix::io::read(&file, rustix::buffer::spare_capacity(&mut content)).ok()?;
        Position::parse(str::from_utf8(&content).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400;

    #[test]
    fn the_position_round_trips() {
        let position = Position { began: 1_800_000_000, part: PARTS - 1 };
        let text = position.format();
        assert_eq!(Position::parse(&text), Some(position));
        for end in 0..text.len() {
            assert_eq!(Position::parse(&text[..end]), None, "cut at {end}");
        }
        assert_eq!(Position::parse(&text.replace("1535", "1536")), None);
        assert_eq!(position.next(5), Position { began: 5, part: 0 });
        assert_eq!(Position { began: 1, part: 3 }.next(5), Position { began: 1, part: 4 });
    }

    #[test]
    fn parts_are_spread_over_the_period() {
        let period = Duration::from_secs(30 * DAY);
        let share = period / PARTS as u32;
        let wait = |part, now| Position { began: 1000, part }.wait(period, now);
        assert_eq!(wait(0, 1000), Duration::from_secs(30 * DAY / PARTS as u64));
        assert_eq!(wait(1, 1000), share, "not longer than a share");
        assert_eq!(wait(0, 1000 + DAY as i64), Duration::ZERO, "overdue");
        assert_eq!(wait(PARTS - 1, i64::MIN), share);
        let end = 1000 + 30 * DAY as i64;
        assert_eq!(wait(PARTS - 1, end - 60), Duration::from_secs(60));
    }
}
