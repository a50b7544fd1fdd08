//! The blobs that were lost, in order: not evicted or deleted, but damaged or removed by other processes.
//!
//! A caller that depends on blobs for a while notes the position at the beginning, and asks at the end for
//! what was lost since. Whether a blob was stored again in between does not matter: it was missing or
//! false for a while.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};

use model::Digest;
use parking_lot::Mutex;

/// Losses that are remembered. A loss is an accident, and more of them in the time of one action are a
/// disaster, of which nobody needs the details.
const REMEMBERED: usize = 4096;

/// See the module.
#[derive(Default)]
pub(crate) struct Losses {
    count: AtomicU64,
    last: Mutex<VecDeque<Digest>>,
}

impl Losses {
    /// The number of losses so far.
    pub(crate) fn position(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    pub(crate) fn add(&self, digest: &Digest) {
        let mut last = self.last.lock();
        if last.len() == REMEMBERED {
            last.pop_front();
        }
        last.push_back(*digest);
        self.count.fetch_add(1, Ordering::Release);
    }

    /// The losses since that position; `None` when they were too many.
    pub(crate) fn since(&self, position: u64) -> Option<Vec<Digest>> {
        let last = self.last.lock();
        let new = usize::try_from(self.position() - position).ok()?;
        let skipped = last.len().checked_sub(new)?;
        Some(last.iter().skip(skipped).copied().collect())
    }
}

#[cfg(test)]
mod tests {
    use model::DigestFunction;

    use super::*;

    #[test]
    fn losses_are_told_since_a_position() {
        let losses = Losses::default();
        let digest = |number: usize| Digest::of(DigestFunction::Sha256, &number.to_le_bytes());
        losses.add(&digest(0));
        let position = losses.position();
        assert_eq!(losses.since(position), Some(Vec::new()));
        for number in 1..=REMEMBERED {
            losses.add(&digest(number));
        }
        let lost = losses.since(position).expect("remembered");
        assert_eq!((lost.len(), lost[0]), (REMEMBERED, digest(1)));
        losses.add(&digest(0));
        assert_eq!(losses.since(position), None);
        assert_eq!(losses.since(position + 1).map(|lost| lost.len()), Some(REMEMBERED));
    }
}
