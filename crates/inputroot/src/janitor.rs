//! Work that nobody waits for: closing mounts, emptying directories.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use parking_lot::Mutex;

use crate::image::Image;
use crate::staging::{Staging, StagingPool};

/// How many retired input roots may wait.
///
/// Whoever retires one more waits until there is room. That is the back-pressure: an action that
/// leaves a million files behind slows down the slots, and does not fill the disk unseen.
const MAX_WAITING: usize = 32;
/// Deleting is bound by the file system's journal, of which there is one.
const MAX_THREADS: usize = 4;

/// What is left of an input root.
#[derive(Debug, Default)]
pub(crate) struct Retired {
    /// Closed first: only then nothing uses the directories any more.
    pub(crate) mounts: Vec<Arc<OwnedFd>>,
    pub(crate) images: Vec<Arc<Image>>,
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
            // The directory stays behind until the next start; it is not used again.
            tracing::warn!(staging = ?name, %error, "a staging directory could not be put away");
        }
    }
}
