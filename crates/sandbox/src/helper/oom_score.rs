//! The order in which processes are killed when memory runs out.
//!
//! The kernel takes the process with the most memory, to which it adds a thousandth of all there is
//! for each point of its adjustment (`oom_score_adj`, proc_pid_oom_score_adj(5)). Helper and PID 1
//! are one memory, and a larger one than each of an action's ten thousand tiny processes: with the
//! same adjustment they would go first, and nobody could tell what became of the action.
//!
//! An action has the one that is inherited, and processes that share memory share the adjustment
//! too, until execve(2) parts them. So it is high when an action's processes are cloned, and the
//! helper lowers it for itself and PID 1 once the action has its own memory:
//!
//! ```text
//!             clone          execve                   the next clone
//!  helper     ACTION         ACTION ── pause ── spared ── ACTION
//!  PID 1      ACTION         ACTION ── pause ── spared
//!  action     ACTION         ACTION ...                   (it may lower it as far as spared)
//! ```

use std::os::fd::BorrowedFd;

use rustix::io::Errno;
use sys::proc_file;

const FILE: &str = "self/oom_score_adj";

/// Of actions: half of all memory on top of their own. What runs in a sandbox goes before what does
/// not.
const ACTION: i16 = 500;

/// The adjustment of a helper.
#[derive(Debug)]
pub(super) struct OomScore {
    /// The daemon's, but not below the usual 0.
    spared: i16,
    is_spared: bool,
}

impl OomScore {
    /// To be called while privileged: then `spared` is also the lowest that this process, and all that
    /// it clones, can ever set. Without `CAP_SYS_RESOURCE` that stays what the daemon's was, and
    /// everything else is the same.
    pub(super) fn settle(proc: BorrowedFd<'_>) -> Result<Self, Errno> {
        let spared = proc_file::parse::<i16>(proc, FILE)?.max(0);
        write(proc, spared)?;
        Ok(Self { spared, is_spared: true })
    }

    /// Before an action's processes are cloned.
    pub(super) fn raise(&mut self, proc: BorrowedFd<'_>) -> Result<(), Errno> {
        if self.is_spared {
            write(proc, ACTION.max(self.spared))?;
            self.is_spared = false;
        }
        Ok(())
    }

    /// Once the action has a memory of its own. That it can't be done is no reason to end the action.
    pub(super) fn lower(&mut self, proc: BorrowedFd<'_>) {
        self.is_spared = write(proc, self.spared).is_ok();
    }
}

fn write(proc: BorrowedFd<'_>, adjustment: i16) -> Result<(), Errno> {
    proc_file::write(proc, FILE, adjustment.to_string())
}
