//! How many cached results are read from the disk at a time.
//!
//! How large a cached result is shows only when it was read, so a call can reserve for it only
//! afterwards. Until then it is held without a reservation, which only a few calls may do at once.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Calls that read one at the same time: enough to keep a disk busy, and 40 MiB of results as large as
/// clients can upload them.
const MAX_LOOKUPS: usize = 8;

/// The calls that read cached results. Clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Lookups(Arc<Semaphore>);

impl Lookups {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Semaphore::new(MAX_LOOKUPS)))
    }

    /// Waits for this call's turn, which lasts until the answer is dropped. Those that have one wait
    /// for a disk only.
    pub(crate) async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        // It is never closed.
        Arc::clone(&self.0).acquire_owned().await.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    #[tokio::test]
    async fn only_a_few_have_their_turn() {
        let lookups = Lookups::new();
        let mut turns = Vec::new();
        while let Some(turn) = lookups.turn().now_or_never() {
            turns.push(turn);
        }
        assert_eq!(turns.len(), MAX_LOOKUPS);
        drop(turns.pop());
        assert!(lookups.turn().now_or_never().flatten().is_some());
    }
}
