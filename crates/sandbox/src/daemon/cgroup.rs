//! A cgroup (version 2) for each action, where this process has controllers to
//! give away.
//!
//! ```text
//! the cgroup this process was started in, or that of `run`
//! ├── actiond-run         `run` and its command, if it started this process
//! ├── actiond-daemon      this process (a cgroup with children has no processes)
//! └── actiond-actions
//!     ├── 4711-1          one action of process 4711: fresh, because a cgroup
//!     └── 4711-2 …        that was ever killed kills what is cloned into it
//! ```
//!
//! Version 1 is not supported. Without controllers there are no cgroups at all,
//! and `sandbox` falls back to limits of single processes.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use model::Limits;
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;
use sys::proc_file;

use crate::daemon::error::RunError;
use crate::daemon::hierarchy::{
    ACTIONS, CgroupError, Controllers, DAEMON, create, enable, own_cgroup, remove_empty_children,
};
use crate::daemon::leaf::Leaf;
use crate::plan::step::StepName;

/// The period over which a CPU limit is counted, microseconds: the kernel's own
/// default.
const CPU_PERIOD_US: u64 = 100_000;

/// The number of tries to remove a cgroup whose processes are dying, and the wait in between: ten
/// thousand processes are gone within a second.
const REMOVALS: u32 = 100;
const REMOVAL_PAUSE: Duration = Duration::from_millis(20);

/// The place where actions' cgroups are made.
#[derive(Debug)]
pub struct Cgroups {
    path: PathBuf,
    actions: OwnedFd,
    controllers: Controllers,
    next: AtomicU64,
}

impl Cgroups {
    /// Divides a cgroup, if it has controllers; `None` if it has not. Without `given` it is the one that this
    /// process is in; a process that started this one and has [moved to a leaf](Leaf) gives the one above.
    ///
    /// # Errors
    /// When there are controllers, but the cgroup belongs to somebody else or has
    /// other processes in it. It is as it was then.
    pub fn set_up(given: Option<PathBuf>) -> Result<Option<Self>, CgroupError> {
        let Some(divided) = given.or_else(own_cgroup) else { return Ok(None) };
        let controllers = Controllers::of(&divided);
        if !controllers.any() {
            return Ok(None);
        }
        let leaf = Leaf::enter(divided, DAEMON, controllers)?;
        let actions = Self::below(leaf.divided(), controllers)?;
        leaf.stay();
        Ok(Some(actions))
    }

    /// Makes actions' cgroups in a directory below `parent`, whose children have
    /// `controllers`.
    ///
    /// # Errors
    /// Of making the directory and of enabling the controllers in it.
    pub fn below(parent: &Path, controllers: Controllers) -> Result<Self, CgroupError> {
        let path = parent.join(ACTIONS);
        let failed = |action| {
            let path = path.clone();
            move |errno| CgroupError { action, path, errno }
        };
        create(CWD, &path).map_err(failed("creating"))?;
        if controllers.any() {
            enable(&path, controllers)?;
        }
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let actions = rustix::fs::open(&path, flags, Mode::empty()).map_err(failed("opening"))?;
        remove_empty_children(&path);
        Ok(Self { path, actions, controllers, next: AtomicU64::new(1) })
    }

    /// The resources that can be limited.
    pub fn controllers(&self) -> Controllers {
        self.controllers
    }

    /// A fresh cgroup for one action, without limits yet.
    pub(crate) fn create(self: &Arc<Self>) -> Result<Cgroup, RunError> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        // The remains of a killed server may have a process of their own for some time.
        let name = format!("{}-{number}", std::process::id());
        let failed = |errno| RunError::with_detail(StepName::Cgroup, errno, name.clone());
        rustix::fs::mkdirat(&self.actions, &name, Mode::from_raw_mode(0o755)).map_err(failed)?;
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let directory =
            rustix::fs::openat(&self.actions, &name, flags, Mode::empty()).map_err(failed)?;
        Ok(Cgroup { cgroups: Arc::clone(self), name, directory })
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        // EBUSY if an action's cgroup is left, and then it is better left.
        let _ = std::fs::remove_dir(&self.path);
    }
}

/// One action's cgroup, removed when dropped; everything in it must be dead then.
#[derive(Debug)]
pub(crate) struct Cgroup {
    cgroups: Arc<Cgroups>,
    name: String,
    directory: OwnedFd,
}

impl Cgroup {
    /// Sets what `limits` ask for and, if they do not, at most `processes_max`
    /// processes. Must be done before the action is let in.
    pub(crate) fn limit(&self, limits: &Limits, processes_max: u32) -> Result<(), RunError> {
        let Controllers { memory, cpu, pids } = self.cgroups.controllers;
        if let Some(bytes) = limits.memory_bytes.filter(|_| memory) {
            // Not memory.oom.group: PID 1 is in the group too, and who kills it kills
            // all that share its memory, which is the helper.
            self.set("memory.max", &bytes.to_string())?;
            // Swap would let the action use more than it was given, slowly. A
            // kernel without swap accounting has no such file.
            let _ = proc_file::write(&self.directory, "memory.swap.max", "0");
        }
        if let Some(cores) = limits.cpu_cores.filter(|_| cpu) {
            let quota = u64::from(cores).saturating_mul(CPU_PERIOD_US);
            self.set("cpu.max", &format!("{quota} {CPU_PERIOD_US}"))?;
        }
        if pids {
            // One more for PID 1.
            let processes = u64::from(limits.pids_max.unwrap_or(processes_max)) + 1;
            self.set("pids.max", &processes.to_string())?;
        }
        Ok(())
    }

    fn set(&self, file: &'static str, value: &str) -> Result<(), RunError> {
        proc_file::write(&self.directory, file, value).map_err(|errno| {
            RunError::with_detail(StepName::Cgroup, errno, format!("{file} = {value}"))
        })
    }

    /// Whether the kernel killed any of it for its memory limit.
    pub(crate) fn was_oom_killed(&self) -> bool {
        self.memory_events("oom_kill") > 0
    }

    /// Whether it reached its memory limit with nothing left to give back. The process that
    /// was killed for it may count elsewhere: PID 1 is in this cgroup, its memory is the helper's.
    pub(crate) fn was_out_of_memory(&self) -> bool {
        self.memory_events("oom") > 0
    }

    fn memory_events(&self, name: &str) -> u64 {
        if !self.cgroups.controllers.memory {
            return 0;
        }
        proc_file::read(&self.directory, "memory.events").map_or(0, |events| count(&events, name))
    }
}

impl AsFd for Cgroup {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

impl Cgroup {
    fn remove(&self) -> Result<(), Errno> {
        rustix::fs::unlinkat(&self.cgroups.actions, &self.name, AtFlags::REMOVEDIR)
    }

    /// Removes one whose helper was killed, and with it who waits for the others in it to be dead.
    fn kill_and_remove(&self) -> Result<(), Errno> {
        let _ = proc_file::write(&self.directory, "cgroup.kill", "1");
        for _ in 1..REMOVALS {
            std::thread::sleep(REMOVAL_PAUSE);
            match self.remove() {
                Err(Errno::BUSY) => {}
                done => return done,
            }
        }
        self.remove()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let removed = match self.remove() {
            Err(Errno::BUSY) => self.kill_and_remove(),
            done => done,
        };
        if let Err(errno) = removed {
            tracing::warn!(cgroup = self.name, %errno, "an action's cgroup could not be removed");
        }
    }
}

/// A count in `memory.events` (the kernel's Documentation/admin-guide/cgroup-v2.rst).
fn count(events: &str, name: &str) -> u64 {
    let counts = events.lines().filter_map(|line| line.split_once(' '));
    counts
        .filter(|(found, _)| *found == name)
        .filter_map(|(_, count)| count.parse::<u64>().ok())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kills_are_counted() {
        let events = "low 0\nhigh 0\nmax 12\noom 1\noom_kill 3\noom_group_kill 1\n";
        assert_eq!(count(events, "oom_kill"), 3);
        assert_eq!(count(events, "oom"), 1);
        assert_eq!(count("", "oom"), 0);
    }
}
