//! Puts away what is left of input roots, in the background: closes mounts, empties directories.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use chain::Chain;
use parking_lot::Mutex;

use super::pool::{Staging, StagingPool};
use crate::mounts::LowerLayer;

/// The number of retired input roots that may wait.
///
/// A slot that retires one more waits until there is room: an action that leaves a million files
/// behind slows the slots down instead of filling the disk unseen.
const MAX_WAITING: usize = 32;
/// The limit is the file system's journal, of which there is one.
const MAX_THREADS: usize = 4;

/// The remains of an input root.
#[derive(Debug, Default)]
pub(crate) struct Retired {
    /// Closed first: until then they use the directories.
    pub(crate) mounts: Vec<Arc<OwnedFd>>,
    pub(crate) images: Vec<Arc<LowerLayer>>,
    pub(crate) staging: Option<Staging>,
}

/// Threads that put away what is left of input roots. Dropping it waits until they are done.
#[derive(Debug)]
pub(crate) struct Janitor {
    queue: Option<SyncSender<Retired>>,
    threads: Vec<JoinHandle<()>>,
}

impl Janitor {
    pub(crate) fn start(staging: &Arc<StagingPool>) -> std::io::Result<Self> {
        let (queue, waiting) = sync_channel(MAX_WAITING);
        let waiting = Arc::new(Mutex::new(waiting));
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let mut threads = Vec::new();
        for _ in 0..cores.div_ceil(4).min(MAX_THREADS) {
            let (waiting, staging) = (Arc::clone(&waiting), Arc::clone(staging));
            let thread = std::thread::Builder::new().name("inputroot-janitor".to_owned());
            threads.push(thread.spawn(move || work(&waiting, &staging))?);
        }
        Ok(Self { queue: Some(queue), threads })
    }

    /// Hands over what is left of an input root; waits while too much is waiting already.
    pub(crate) fn retire(&self, retired: Retired) {
        if let Some(queue) = &self.queue
            && queue.send(retired).is_err()
        {
            tracing::error!("the threads that put away input roots have ended");
        }
    }
}

impl Drop for Janitor {
    fn drop(&mut self) {
        self.queue = None;
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread that puts away input roots panicked");
            }
        }
    }
}

/// Remains of an input root that go to the janitor when this is dropped.
#[derive(Debug)]
pub(crate) struct Leftovers {
    pub(crate) retired: Retired,
    janitor: Arc<Janitor>,
}

impl Leftovers {
    pub(crate) fn new(janitor: &Arc<Janitor>) -> Self {
        Self { retired: Retired::default(), janitor: Arc::clone(janitor) }
    }
}

impl Drop for Leftovers {
    fn drop(&mut self) {
        self.janitor.retire(std::mem::take(&mut self.retired));
    }
}

fn work(waiting: &Mutex<Receiver<Retired>>, pool: &StagingPool) {
    loop {
        let next = waiting.lock().recv();
        let Ok(retired) = next else { return };
        drop(retired.mounts);
        drop(retired.images);
        let Some(staging) = retired.staging else {
            continue;
        };
        let name = staging.name().to_owned();
        if let Err(error) = pool.give_back(staging) {
            // The directory stays until the next start and is not used again.
            let error = Chain(&error);
            tracing::warn!(staging = ?name, %error, "a staging directory could not be put away");
        }
    }
}
