//! A thread with a mount namespace of its own.
//!
//! The kernel makes some mounts only from mounts that are attached in the caller's mount namespace.
//! This thread is such a caller: no other thread sees what it attaches, and all of it is gone when
//! the process dies.

use std::sync::mpsc::{SyncSender, sync_channel};

use crate::error::PresentError;

/// The length of the queue. Callers wait for their answers, so there are never more jobs than
/// callers; a longer queue would gain nothing.
const MAX_WAITING: usize = 16;

type Job<D> = Box<dyn FnOnce(&D) + Send>;

/// A handle on the thread, which ends when the handle is dropped.
///
/// `D` holds the directories that jobs use, opened in the thread's namespace. A descriptor that was
/// opened elsewhere leads to the same directory through another mount, which the kernel refuses.
#[derive(Debug)]
pub(crate) struct MountThread<D> {
    jobs: SyncSender<Job<D>>,
}

impl<D: 'static> MountThread<D> {
    /// Starts the thread; `open` runs on it first.
    pub(crate) fn start(
        open: impl FnOnce() -> Result<D, PresentError> + Send + 'static,
    ) -> Result<Self, PresentError> {
        let (jobs, waiting) = sync_channel::<Job<D>>(MAX_WAITING);
        let (ready, started) = sync_channel(1);
        let body = move || {
            let entered = sys::mount::enter_private_namespace().map_err(PresentError::from);
            let directories = match entered.and_then(|()| open()) {
                Ok(directories) => directories,
                Err(error) => return drop(ready.send(Err(error))),
            };
            drop(ready.send(Ok(())));
            for job in waiting {
                job(&directories);
            }
        };
        let thread = std::thread::Builder::new().name("inputroot-mounter".to_owned());
        thread.spawn(body).map_err(|source| PresentError::Thread { source })?;
        started.recv().map_err(|_| PresentError::MounterGone)??;
        Ok(Self { jobs })
    }

    /// Runs `job` on the thread and waits for what it returns.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&D) -> T + Send + 'static,
    ) -> Result<T, PresentError> {
        let (answer, answered) = sync_channel(1);
        let job = move |directories: &D| drop(answer.send(job(directories)));
        self.jobs.send(Box::new(job)).map_err(|_| PresentError::MounterGone)?;
        answered.recv().map_err(|_| PresentError::MounterGone)
    }
}
