//! Sandboxes that wait for their next action.

use std::sync::Arc;

use inputroot::HostUser;
use parking_lot::Mutex;
use runtimes::Rootfs;
use rustix::io::Errno;

use crate::daemon::config::Config;
use crate::daemon::cpus::Cpus;
use crate::daemon::error::RunError;
use crate::daemon::permit::{Permit, Permits};
use crate::daemon::sandbox::{Readiness, Sandbox};
use crate::plan::step::StepName;

/// Makes sandboxes and keeps them for reuse, by root file system; shared by all slots.
///
/// There is one more for a view than actions run with it at a time: while its
/// helper cleans up after an action and prepares the next, another one is ready.
/// There are never more than [`Config::helpers_max`]. When one is needed for
/// another view, the one that was idle longest makes room.
#[derive(Debug)]
pub struct Pool {
    config: Arc<Config>,
    cpus: Arc<Cpus>,
    /// In the order of their release.
    idle: Mutex<Vec<Sandbox>>,
    permits: Arc<Permits>,
}

impl Pool {
    /// An empty pool; sandboxes are made when they are needed.
    pub fn new(config: Config) -> Self {
        Self {
            config: Arc::new(config),
            cpus: Arc::new(Cpus::of_this_process()),
            idle: Mutex::default(),
            permits: Arc::default(),
        }
    }

    /// A sandbox with that root file system: one that is idle, best one that is ready, or
    /// else a new one, which takes some milliseconds.
    ///
    /// # Errors
    /// The step of the set-up that failed; EAGAIN when there are as many sandboxes
    /// in use as there may be.
    pub fn acquire(&self, view: &Arc<Rootfs>) -> Result<Sandbox, RunError> {
        match self.take_idle(view) {
            Some(sandbox) => Ok(sandbox),
            None => self.start(view, self.permit()?),
        }
    }

    /// Takes a sandbox of a bare root through its whole life, up to execve(2): there is no program in
    /// it, and the kernel says so exactly if everything before succeeded. The sandbox is kept.
    ///
    /// # Errors
    /// The step that failed.
    pub fn try_out(&self) -> Result<(), RunError> {
        let mut sandbox = self.acquire(&Arc::new(Rootfs::bare()))?;
        let tried = sandbox.try_out();
        self.release(sandbox);
        tried
    }

    /// Has `look` look at the user of the host that a sandbox has for itself. The sandbox is not kept.
    ///
    /// # Errors
    /// The step of the sandbox's set-up that failed.
    pub fn try_user<T>(&self, look: impl FnOnce(Option<HostUser<'_>>) -> T) -> Result<T, RunError> {
        let sandbox = self.acquire(&Arc::new(Rootfs::bare()))?;
        Ok(look(sandbox.user()))
    }

    fn start(&self, view: &Arc<Rootfs>, permit: Permit) -> Result<Sandbox, RunError> {
        Sandbox::start(Arc::clone(view), Arc::clone(&self.config), Arc::clone(&self.cpus), permit)
    }

    /// Takes a sandbox back, to be called when the action's answer is out: the
    /// helper now takes down what it left and prepares the next, in the
    /// background. May start one more, and takes some milliseconds then.
    pub fn release(&self, mut sandbox: Sandbox) {
        let view = Arc::clone(sandbox.view());
        if let Err(error) = sandbox.recycle() {
            tracing::warn!(%error, view = view.name, "a sandbox is replaced");
            return;
        }
        if self.keep(sandbox) {
            self.add_spare(&view);
        }
    }

    /// Keeps a sandbox for reuse, unless its view is retired. Returns whether it is the only one of its view.
    fn keep(&self, sandbox: Sandbox) -> bool {
        let mut idle = self.idle.lock();
        // Under the lock: whoever retires the view takes it after that, and then finds the sandbox.
        if sandbox.view().is_retired() {
            drop(idle);
            drop(sandbox);
            return false;
        }
        let is_alone = !idle.iter().any(|other| same(other.view(), sandbox.view()));
        idle.push(sandbox);
        is_alone
    }

    /// Ends the idle sandboxes whose views are retired. Those that run an action end after it.
    pub fn end_retired(&self) {
        let mut idle = self.idle.lock();
        let retired: Vec<_> = idle.extract_if(.., |sandbox| sandbox.view().is_retired()).collect();
        // Ending a helper takes time; others need not wait for the list.
        drop(idle);
        drop(retired);
    }

    /// One more, if there is a permit for it.
    fn add_spare(&self, view: &Arc<Rootfs>) {
        let Some(permit) = self.permits.take(self.config.helpers_max) else { return };
        match self.start(view, permit) {
            Ok(spare) => {
                self.keep(spare);
            }
            Err(error) => tracing::warn!(%error, view = view.name, "no spare sandbox"),
        }
    }

    /// The one that was used last of those that are ready, as most of what it
    /// touches is still cached; else the one that will be ready first.
    fn take_idle(&self, view: &Arc<Rootfs>) -> Option<Sandbox> {
        let mut dead = Vec::new();
        let mut idle = self.idle.lock();
        let mut soon = None;
        for index in (0..idle.len()).rev() {
            let Some(sandbox) = idle.get_mut(index).filter(|other| same(other.view(), view)) else {
                continue;
            };
            match sandbox.readiness() {
                Readiness::Ready => return Some(idle.remove(index)),
                Readiness::Soon => soon = Some(index),
                Readiness::Never => {
                    dead.push(idle.remove(index));
                    // The entries after it have moved.
                    soon = soon.map(|later: usize| later - 1);
                }
            }
        }
        let soon = soon.map(|index| idle.remove(index));
        // Burying a helper takes time; others need not wait for the list.
        drop(idle);
        drop(dead);
        soon
    }

    fn permit(&self) -> Result<Permit, RunError> {
        loop {
            if let Some(permit) = self.permits.take(self.config.helpers_max) {
                return Ok(permit);
            }
            let mut idle = self.idle.lock();
            if idle.is_empty() {
                return Err(RunError::new(StepName::Spawn, Errno::AGAIN));
            }
            let oldest = idle.remove(0);
            // Ending a helper takes time; others need not wait for the list.
            drop(idle);
            drop(oldest);
        }
    }
}

fn same(one: &Arc<Rootfs>, other: &Arc<Rootfs>) -> bool {
    Arc::ptr_eq(one, other) || one == other
}
