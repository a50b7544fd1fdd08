//! Sandboxes that wait for their next action.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use runtimes::RootView;
use rustix::io::Errno;

use crate::config::Config;
use crate::cpus::Cpus;
use crate::error::RunError;
use crate::sandbox::Sandbox;
use crate::step::StepName;

/// Makes sandboxes and keeps them for reuse, by root view; shared by all slots.
///
/// There are never more than [`Config::helpers_max`]. When one is needed for
/// another view, the one that was idle longest makes room.
#[derive(Debug)]
pub struct Pool {
    config: Arc<Config>,
    cpus: Arc<Cpus>,
    /// In the order of their release.
    idle: Mutex<Vec<Sandbox>>,
    count: Arc<AtomicUsize>,
}

impl Pool {
    /// An empty pool; sandboxes are made when they are needed.
    pub fn new(config: Config) -> Self {
        Self {
            config: Arc::new(config),
            cpus: Arc::new(Cpus::of_this_process()),
            idle: Mutex::default(),
            count: Arc::default(),
        }
    }

    /// A sandbox with that root view: one that is idle, or else a new one, which
    /// takes some milliseconds.
    ///
    /// # Errors
    /// The step of the set-up that failed; EAGAIN when there are as many sandboxes
    /// in use as there may be.
    pub fn acquire(&self, view: &Arc<RootView>) -> Result<Sandbox, RunError> {
        while let Some(sandbox) = self.take_idle(view) {
            // One whose helper died meanwhile is dropped and the next one taken.
            if sandbox.is_ready() {
                return Ok(sandbox);
            }
        }
        let place = self.place()?;
        Sandbox::start(Arc::clone(view), Arc::clone(&self.config), Arc::clone(&self.cpus), place)
    }

    /// Takes a sandbox back, to be called when the action's answer is out: the
    /// helper now takes down what it left and prepares the next, in the
    /// background.
    pub fn release(&self, mut sandbox: Sandbox) {
        match sandbox.recycle() {
            Ok(()) => self.idle.lock().push(sandbox),
            Err(error) => {
                tracing::warn!(%error, view = sandbox.view().name, "a sandbox is replaced")
            }
        }
    }

    /// The one that was used last: most of what it touches is still cached.
    fn take_idle(&self, view: &Arc<RootView>) -> Option<Sandbox> {
        let mut idle = self.idle.lock();
        let index = idle.iter().rposition(|sandbox| same(sandbox.view(), view))?;
        Some(idle.remove(index))
    }

    fn place(&self) -> Result<Place, RunError> {
        loop {
            if let Some(place) = Place::take(&self.count, self.config.helpers_max) {
                return Ok(place);
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

fn same(one: &Arc<RootView>, other: &Arc<RootView>) -> bool {
    Arc::ptr_eq(one, other) || one == other
}

/// Counts a sandbox against the pool's bound for as long as it exists.
#[derive(Debug)]
pub(crate) struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(count: &Arc<AtomicUsize>, most: usize) -> Option<Self> {
        count
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| {
                (taken < most).then_some(taken + 1)
            })
            .ok()
            .map(|_| Self(Arc::clone(count)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
