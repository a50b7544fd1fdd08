//! The end of an action.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

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
    /// The [`Supervisor`](crate::Supervisor) did not let it go on.
    Forbidden,
}

/// The resource usage of the action with all processes that were waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// From before its execve(2) until it was reaped.
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
        let now = SystemTime::now();
        let time = |ns: u64| {
            UNIX_EPOCH.checked_add(Duration::from_nanos(ns)).filter(|_| ns != 0).unwrap_or(now)
        };
        let (started, ended) = (time(finished.started_ns), time(finished.ended_ns));
        let used = &finished.usage;
        let usage = Usage {
            wall: ended.duration_since(started).unwrap_or_default(),
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
}
