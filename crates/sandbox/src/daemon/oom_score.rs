//! The daemon's part in the order in which processes are killed when memory runs out; `helper::oom_score`
//! has all of it.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use sys::proc_file;

use crate::protocol::message::ACTION_OOM_SCORE;

/// The `oom_score_adj` of a helper and of the PID 1 that shares its memory.
#[derive(Debug)]
pub(crate) struct OomScore {
    /// The helper's file; nothing where the daemon has no right to it, and the helper none to less.
    file: Option<OwnedFd>,
    /// The daemon's own, but not below the usual 0.
    spared: i16,
    is_spared: AtomicBool,
}

impl OomScore {
    /// That of a helper with this process id, which must not have been waited for.
    pub(crate) fn of(helper: u32) -> Self {
        let path = format!("/proc/{helper}/oom_score_adj");
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let file = rustix::fs::open(path, flags, Mode::empty()).ok();
        // Where this can't be read, nothing can be written either.
        let own = proc_file::parse::<i16>(CWD, "/proc/self/oom_score_adj").unwrap_or_default();
        Self { file, spared: own.max(0), is_spared: AtomicBool::new(false) }
    }

    /// Has the helper killed later than its action, which must have its own memory. That it can't be
    /// done is no reason to end the action.
    pub(crate) fn lower(&self) {
        if self.write(self.spared).is_ok() {
            self.is_spared.store(true, Ordering::Relaxed);
        }
    }

    /// Has what the helper clones from now on killed first, without a way back for it.
    pub(crate) fn raise(&self) -> Result<(), Errno> {
        if self.is_spared.swap(false, Ordering::Relaxed) {
            self.write(ACTION_OOM_SCORE.max(self.spared))?;
        }
        Ok(())
    }

    fn write(&self, adjustment: i16) -> Result<(), Errno> {
        let file = self.file.as_ref().ok_or(Errno::ACCESS)?;
        rustix::io::write(file, adjustment.to_string().as_bytes()).map(drop)
    }
}
