//! File I/O off the threads that drive connections.

use tonic::Status;

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
