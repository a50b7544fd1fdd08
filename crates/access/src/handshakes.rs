//! TLS handshakes that are not complete, bounded in number.

use std::collections::VecDeque;

use tokio::task::{AbortHandle, JoinSet};

/// Handshakes at a time of one listener: those of many clients that start together. Each costs some
/// 50 KiB.
pub(crate) const MAX_HANDSHAKES: usize = 256;

/// The handshakes of one listener that are not complete, oldest first. Dropping this ends them.
#[derive(Default)]
pub(crate) struct Handshakes {
    tasks: JoinSet<()>,
    oldest_first: VecDeque<AbortHandle>,
}

impl Handshakes {
    /// Starts one. If there are too many, the oldest one ends: an honest client needs a moment, so it is
    /// not among the oldest, however many clients stop halfway.
    pub(crate) fn start(&mut self, handshake: impl Future<Output = ()> + Send + 'static) {
        while self.tasks.try_join_next().is_some() {}
        if self.oldest_first.len() >= MAX_HANDSHAKES {
            self.oldest_first.retain(|task| !task.is_finished());
        }
        if self.oldest_first.len() >= MAX_HANDSHAKES
            && let Some(oldest) = self.oldest_first.pop_front()
        {
            oldest.abort();
        }
        self.oldest_first.push_back(self.tasks.spawn(handshake));
    }
}
