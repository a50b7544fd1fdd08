//! File I/O off the threads that drive connections.

use std::sync::{Arc, Weak};

use store::Store;
use tonic::Status;

/// The one that waits for some work.
pub(crate) struct Caller(Weak<()>);

impl Caller {
    /// Whether nobody waits any more: the client has left.
    pub(crate) fn is_gone(&self) -> bool {
        self.0.strong_count() == 0
    }
}

/// As [`run`], for long work, which looks now and then whether its caller still waits.
pub(crate) async fn run_for_caller<T, F>(work: F) -> Result<T, Status>
where
    T: Send + 'static,
    F: FnOnce(&Caller) -> Result<T, Status> + Send + 'static,
{
    // Dropped with this future, at the latest when the client leaves.
    let here = Arc::new(());
    let caller = Caller(Arc::downgrade(&here));
    let outcome = run(move || work(&caller)).await;
    drop(here);
    outcome
}

/// Runs `work`, which may wait for a disk, on a thread of its own.
///
/// The runtime bounds those threads, and `work` never waits for a client, so
/// that slow clients can't hold all of them.
pub(crate) async fn run<T, F>(work: F) -> Result<T, Status>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, Status> + Send + 'static,
{
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(crate::status::lost(&error)))
}

/// Asks for the presence of blobs, which needs no disk. Only while the store is still opening it may, and
/// then the runtime goes on without this thread.
pub(crate) fn presence<T>(store: &Store, ask: impl FnOnce() -> T) -> T {
    if store.is_open() { ask() } else { tokio::task::block_in_place(ask) }
}

/// Waits until what a client is told next is on the disk, where the operator asked for that.
pub(crate) async fn make_durable(store: &Arc<Store>) -> Result<(), Status> {
    if store.is_told_durably() {
        return Ok(());
    }
    let store = Arc::clone(store);
    run(move || store.make_durable().map_err(crate::status::store)).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[tokio::test]
    async fn work_notices_that_its_caller_left() {
        let (started, has_started) = mpsc::channel();
        let (ended, has_ended) = mpsc::channel();
        let work = tokio::spawn(run_for_caller(move |caller| {
            started.send(caller.is_gone()).unwrap();
            while !caller.is_gone() {
                std::thread::yield_now();
            }
            ended.send(()).unwrap();
            Ok(())
        }));
        let was_gone = tokio::task::spawn_blocking(move || has_started.recv().unwrap());
        assert!(!was_gone.await.unwrap());
        work.abort();
        tokio::task::spawn_blocking(move || has_ended.recv().unwrap()).await.unwrap();
    }
}
