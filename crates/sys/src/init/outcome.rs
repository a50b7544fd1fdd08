//! The outcome of a run in shared memory: PID 1 and the action's process write it, and their parent reads it
//! when both are dead.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use rustix::io::Errno;

use super::obstacle::Obstacle;
use crate::syscall::syscall;

/// A call that failed, and with it the whole sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// As pushed to the [`Program`](crate::call::Program), or that of the
    /// [`Execution`](super::Execution).
    pub label: u16,
    /// The kernel's error.
    pub errno: Errno,
}

/// The kernel's counters for the action and all of its descendants that were
/// waited for (getrusage(2)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Usage {
    /// CPU time in user mode, microseconds.
    pub user_us: u64,
    /// CPU time in the kernel, microseconds.
    pub system_us: u64,
    /// Largest resident set of one process, bytes. Not below that of the caller,
    /// whose memory the action shared before its execve(2).
    pub max_resident_bytes: u64,
    /// Page faults without I/O.
    pub minor_faults: u64,
    /// Page faults with I/O.
    pub major_faults: u64,
    /// 512-byte blocks read.
    pub blocks_in: u64,
    /// 512-byte blocks written.
    pub blocks_out: u64,
    /// Times it gave up the CPU.
    pub voluntary_switches: u64,
    /// Times the CPU was taken from it.
    pub involuntary_switches: u64,
}

/// The facts that are known when every process inside is dead.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The first call that failed.
    pub failure: Option<Failure>,
    /// The file to blame, where that call was the execve(2) and there is one.
    pub obstacle: Option<Obstacle>,
    /// The action's wait status as wait4(2) gives it; `None` if PID 1 was killed
    /// first.
    pub wait_status: Option<i32>,
    /// Just before the execve(2), nanoseconds of `CLOCK_MONOTONIC`; 0 if never reached.
    pub started_ns: i64,
    /// When the action was reaped, nanoseconds of `CLOCK_MONOTONIC`; 0 if never.
    pub ended_ns: i64,
    /// Zero if PID 1 was killed first.
    pub usage: Usage,
}

/// The report while it is being made.
#[derive(Debug)]
pub(super) struct Outcome {
    /// 0, or bit 63, the label from bit 32, the errno below.
    failure: AtomicU64,
    /// [`NOT_REAPED`], or what wait4(2) gave.
    wait_status: AtomicI64,
    started_ns: AtomicI64,
    ended_ns: AtomicI64,
    usage: [AtomicI64; 9],
}

const NOT_REAPED: i64 = i64::MIN;

impl Default for Outcome {
    fn default() -> Self {
        Self {
            failure: AtomicU64::new(0),
            wait_status: AtomicI64::new(NOT_REAPED),
            started_ns: AtomicI64::new(0),
            ended_ns: AtomicI64::new(0),
            usage: Default::default(),
        }
    }
}

impl Outcome {
    /// Only the first failure is kept: the later ones follow from it.
    pub(super) fn fail(&self, label: u16, errno: Errno) {
        let failure = 1 << 63 | u64::from(label) << 32 | u64::from(errno.raw_os_error() as u32);
        let _ = self.failure.compare_exchange(0, failure, Ordering::AcqRel, Ordering::Relaxed);
    }

    /// The action executes its program now.
    pub(super) fn start(&self) {
        self.started_ns.store(now_ns(), Ordering::Relaxed);
    }

    /// See [`Report::started_ns`].
    pub(super) fn started_ns(&self) -> i64 {
        self.started_ns.load(Ordering::Relaxed)
    }

    /// The action was reaped with this status.
    pub(super) fn end(&self, wait_status: i32) {
        self.ended_ns.store(now_ns(), Ordering::Relaxed);
        self.count();
        self.wait_status.store(i64::from(wait_status), Ordering::Release);
    }

    fn count(&self) {
        let mut usage = [0_i64; 18];
        let arguments = [libc::RUSAGE_CHILDREN as usize, &raw mut usage as usize, 0, 0, 0, 0];
        // SAFETY: `struct rusage` is 18 words, on this stack.
        let _ = unsafe { syscall(libc::SYS_getrusage as usize, arguments) };
        // getrusage(2): two timevals, then maxrss, ixrss, idrss, isrss, minflt,
        // majflt, nswap, inblock, oublock, msgsnd, msgrcv, nsignals, nvcsw, nivcsw.
        let [us, uu, ss, su, rss, _, _, _, minor, major, _, inb, oub, _, _, _, vol, invol] = usage;
        let micros =
            |seconds: i64, micros: i64| seconds.wrapping_mul(1_000_000).wrapping_add(micros);
        let kept = [
            micros(us, uu),
            micros(ss, su),
            rss.wrapping_mul(1024),
            minor,
            major,
            inb,
            oub,
            vol,
            invol,
        ];
        for (slot, value) in self.usage.iter().zip(kept) {
            slot.store(value, Ordering::Relaxed);
        }
    }

    pub(super) fn report(&self) -> Report {
        let failure = self.failure.load(Ordering::Acquire);
        let wait_status = self.wait_status.load(Ordering::Acquire);
        let [
            user_us,
            system_us,
            max_resident_bytes,
            minor_faults,
            major_faults,
            blocks_in,
            blocks_out,
            voluntary_switches,
            involuntary_switches,
        ] = self.usage.each_ref().map(|value| value.load(Ordering::Relaxed).max(0) as u64);
        Report {
            failure: (failure != 0).then(|| Failure {
                label: (failure >> 32) as u16,
                errno: Errno::from_raw_os_error(failure as u32 as i32),
            }),
            obstacle: None,
            wait_status: (wait_status != NOT_REAPED).then_some(wait_status as i32),
            started_ns: self.started_ns(),
            ended_ns: self.ended_ns.load(Ordering::Relaxed),
            usage: Usage {
                user_us,
                system_us,
                max_resident_bytes,
                minor_faults,
                major_faults,
                blocks_in,
                blocks_out,
                voluntary_switches,
                involuntary_switches,
            },
        }
    }
}

fn now_ns() -> i64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let arguments = [libc::CLOCK_MONOTONIC as usize, &raw mut now as usize, 0, 0, 0, 0];
    // SAFETY: the time is on this stack.
    let _ = unsafe { syscall(libc::SYS_clock_gettime as usize, arguments) };
    now.tv_sec.wrapping_mul(1_000_000_000).wrapping_add(now.tv_nsec)
}
