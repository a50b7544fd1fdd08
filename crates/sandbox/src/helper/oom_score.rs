//! The order in which processes are killed when memory runs out.
//!
//! The kernel takes the process with the most memory, to which it adds a thousandth of all there is
//! for each point of its adjustment (`oom_score_adj`, proc_pid_oom_score_adj(5)). Helper and PID 1
//! share one memory, which is larger than each of an action's ten thousand tiny processes: with the
//! same adjustment they would go first, and nobody could tell what became of the action.
//!
//! An action inherits its adjustment, and processes that share memory share the adjustment too, until
//! execve(2) parts them. So it is high when an action's processes are cloned, and that of helper and
//! PID 1 is lowered once the action has its own memory:
//!
//! ```text
//!             clone          execve                   the next clone
//!  helper     ACTION         ACTION ── pause ── spared ── ACTION
//!  PID 1      ACTION         ACTION ── pause ── spared
//!  action     ACTION         ACTION ...
//! ```
//!
//! An action must not lower its own. The last value that a process with `CAP_SYS_RESOURCE` has written is the
//! lowest that others can set, and children inherit that too. So the helper writes `ACTION` while it is
//! privileged, and the daemon does everything later: lowers when the helper says that the action runs
//! ([`Response::Runs`](crate::protocol::message::Response::Runs)), raises before the next clone. Where the
//! daemon lacks that capability, the helper can do both by itself, and an action can lower its own
//! adjustment as far as the daemon's.

use std::os::fd::BorrowedFd;

use rustix::io::Errno;
use sys::proc_file;

use crate::protocol::message::ACTION_OOM_SCORE;

const FILE: &str = "self/oom_score_adj";

/// The adjustment of a helper.
#[derive(Debug)]
pub(super) struct OomScore {
    /// The daemon's, but not below the usual 0.
    spared: i16,
    /// The adjustment while actions are cloned.
    action: i16,
    /// The helper has lowered its own.
    is_spared: bool,
}

impl OomScore {
    /// To be called while privileged: the adjustment that this sets is then the lowest that actions can
    /// have.
    pub(super) fn settle(proc: BorrowedFd<'_>) -> Result<Self, Errno> {
        let spared = proc_file::parse::<i16>(proc, FILE)?.max(0);
        let action = ACTION_OOM_SCORE.max(spared);
        write(proc, action)?;
        Ok(Self { spared, action, is_spared: false })
    }

    /// Before an action's processes are cloned.
    pub(super) fn raise(&mut self, proc: BorrowedFd<'_>) -> Result<(), Errno> {
        if self.is_spared {
            write(proc, self.action)?;
            self.is_spared = false;
        }
        Ok(())
    }

    /// Once the action has a memory of its own. Returns whether the daemon has to do it. Any other
    /// failure is no reason to end the action.
    pub(super) fn lower(&mut self, proc: BorrowedFd<'_>) -> bool {
        let written = write(proc, self.spared);
        self.is_spared = written.is_ok();
        written == Err(Errno::ACCESS)
    }
}

fn write(proc: BorrowedFd<'_>, adjustment: i16) -> Result<(), Errno> {
    proc_file::write(proc, FILE, adjustment.to_string())
}
