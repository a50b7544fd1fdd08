//! New records, for those that follow them.

use events::{Event, Listener};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::broadcast::{self, Receiver, Sender};

use crate::record::Record;

/// Events that a follower may be behind before it misses some.
const BEHIND_MAX: usize = 1024;

/// Hands events on to those that follow them.
pub struct Feed(Sender<Event>);

impl Default for Feed {
    fn default() -> Self {
        Self(broadcast::channel(BEHIND_MAX).0)
    }
}

impl Feed {
    /// A follower of everything from now on.
    pub fn follow(&self) -> Follower {
        Follower(self.0.subscribe())
    }
}

impl Listener for Feed {
    fn tell(&self, event: &Event) {
        // Without a follower, the usual case, this costs one atomic load.
        if self.0.receiver_count() > 0 && matches!(event, Event::Finished(_) | Event::LookedUp(_)) {
            // An error means that the last follower went meanwhile.
            let _ = self.0.send(event.clone());
        }
    }
}

/// One that follows.
pub struct Follower(Receiver<Event>);

impl Follower {
    /// The next record, or the number of records that were missed because the follower was slow. `None`
    /// at the end of the daemon.
    pub async fn next(&mut self) -> Option<Result<Record, u64>> {
        loop {
            let event = match self.0.recv().await {
                Ok(event) => event,
                Err(RecvError::Lagged(missed)) => return Some(Err(missed)),
                Err(RecvError::Closed) => return None,
            };
            let record = match event {
                Event::Finished(finished) => Record::of_finished(&finished),
                Event::LookedUp(lookup) => Some(Record::of_lookup(&lookup)),
                Event::Queued(_) | Event::Withdrawn { .. } | Event::Started { .. } => None,
            };
            if let Some(record) = record {
                return Some(Ok(record));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::record::tests::finished;

    #[tokio::test]
    async fn followers_get_what_comes() {
        let feed = Feed::default();
        let event = |number| Event::Finished(Arc::new(finished(number)));
        feed.tell(&event(1));
        let mut follower = feed.follow();
        feed.tell(&Event::Started { operation: "operations/1".into() });
        feed.tell(&event(2));
        let record = follower.next().await.unwrap().unwrap();
        assert_eq!(record.operation, "operations/1-2");
        for number in 0..2 * BEHIND_MAX as u32 {
            feed.tell(&event(number));
        }
        assert_eq!(follower.next().await.unwrap().err(), Some(BEHIND_MAX as u64));
        drop(feed);
        let mut left = 0;
        while let Some(next) = follower.next().await {
            left += usize::from(next.is_ok());
        }
        assert_eq!(left, BEHIND_MAX);
    }
}
