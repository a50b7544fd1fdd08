//! The end of an action.

use std::time::{Duration, SystemTime};

use rustix::time::{ClockId, clock_gettime};

use crate::protocol::message::Finished;

/// The main process's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    /// It exited with this code.
    Code(i32),
    /// It was killed by this signal.
    Signal(i32),
}

/// The reason why an action was killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// Its deadline passed.
    Deadline,
    /// The caller wanted it.
    Cancelled,
    /// One of its streams was not taken any further.
    SinkRefused,
    /// The [`Watchdog`](crate::Watchdog) did not let it go on.
    Forbidden,
}

/// The resource usage of the action with all processes that were waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// From before its execve(2) until it was reaped, or until its end was told if it was killed; on
    /// the monotonic clock.
    pub wall: Duration,
    /// CPU time in user mode.
    pub user: Duration,
    /// CPU time in the kernel.
    pub system: Duration,
    /// Largest resident set of any one process, bytes.
    pub max_resident_bytes: u64,
    /// Page faults without I/O.
    pub minor_faults: u64,
    /// Page faults with I/O.
    pub major_faults: u64,
    /// Bytes read from storage.
    pub read_bytes: u64,
    /// Bytes written to storage.
    pub written_bytes: u64,
    /// Times it gave up the CPU.
    pub voluntary_switches: u64,
    /// Times the CPU was taken from it.
    pub involuntary_switches: u64,
}

/// An action's end; everything that it started is dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Of the main process; SIGKILL if it was still running when stopped.
    pub status: ExitStatus,
    /// Set if it was killed from here.
    pub stopped: Option<Stopped>,
    /// Whether the kernel killed some of it for its memory limit; known only
    /// where there are cgroups.
    pub oom_killed: bool,
    /// Its resource usage; nothing but the time if it was killed.
    pub usage: Usage,
    /// Just before its execve(2).
    pub started: SystemTime,
    /// When it was reaped.
    pub ended: SystemTime,
}

/// `struct rusage` counts blocks of 512 bytes.
const BLOCK_BYTES: u64 = 512;

impl Exit {
    pub(crate) fn new(finished: &Finished, stopped: Option<Stopped>, oom_killed: bool) -> Self {
        let (now, now_ns) = (SystemTime::now(), monotonic_ns());
        let moment = |ns: u64| if ns == 0 { now_ns } else { ns.min(now_ns) };
        let time = |ns: u64| now.checked_sub(Duration::from_nanos(now_ns - ns)).unwrap_or(now);
        let (started_ns, ended_ns) = (moment(finished.started_ns), moment(finished.ended_ns));
        let (started, ended) = (time(started_ns), time(ended_ns));
        let used = &finished.usage;
        let usage = Usage {
            wall: Duration::from_nanos(ended_ns.saturating_sub(started_ns)),
            user: Duration::from_micros(used.user_us),
            system: Duration::from_micros(used.system_us),
            max_resident_bytes: used.max_resident_bytes,
            minor_faults: used.minor_faults,
            major_faults: used.major_faults,
            read_bytes: used.blocks_in.saturating_mul(BLOCK_BYTES),
            written_bytes: used.blocks_out.saturating_mul(BLOCK_BYTES),
            voluntary_switches: used.voluntary_switches,
            involuntary_switches: used.involuntary_switches,
        };
        Self { status: status(finished.wait_status), stopped, oom_killed, usage, started, ended }
    }
}

/// Nanoseconds of the clock on which timeouts and the time of actions are measured.
pub(super) fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(now.tv_nsec).unwrap_or(0))
}

fn status(wait_status: Option<i32>) -> ExitStatus {
    const SIGKILL: i32 = 9;
    // wait(2): the lower seven bits are the signal, the next byte is the code.
    match wait_status {
        None => ExitStatus::Signal(SIGKILL),
        Some(status) if status & 0x7f == 0 => ExitStatus::Code(status >> 8 & 0xff),
        Some(status) => ExitStatus::Signal(status & 0x7f),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wait_statuses() {
        assert_eq!(status(Some(0)), ExitStatus::Code(0));
        assert_eq!(status(Some(0x2a00)), ExitStatus::Code(42));
        assert_eq!(status(Some(0xff00)), ExitStatus::Code(255));
        assert_eq!(status(Some(15)), ExitStatus::Signal(15));
        assert_eq!(status(Some(0x8b)), ExitStatus::Signal(11));
        assert_eq!(status(None), ExitStatus::Signal(9));
    }

    #[test]
    fn an_action_that_never_started_took_no_time() {
        let finished =
            Finished { wait_status: None, started_ns: 0, ended_ns: 0, usage: Default::default() };
        let exit = Exit::new(&finished, Some(Stopped::Deadline), false);
        assert_eq!(exit.usage.wall, Duration::ZERO);
    }

    #[test]
    fn an_action_takes_the_time_of_the_monotonic_clock() {
        let second = 1_000_000_000;
        let now_ns = monotonic_ns();
        let check = |started_ns, ended_ns, expected: std::ops::RangeInclusive<u64>| {
            let (wait_status, usage) = (Some(0), Default::default());
            let finished = Finished { wait_status, started_ns, ended_ns, usage };
            let exit = Exit::new(&finished, None, false);
            assert!(expected.contains(&(exit.usage.wall.as_nanos() as u64)), "{exit:?}");
            let stamps = exit.ended.duration_since(exit.started).unwrap();
            assert_eq!(stamps, exit.usage.wall);
        };
        check(now_ns - 2 * second, now_ns - second, second..=second);
        // It was killed: until now.
        check(now_ns - second, 0, second..=u64::MAX);
        // A helper that lies about the future.
        check(u64::MAX - 1, u64::MAX, 0..=0);
    }
}
