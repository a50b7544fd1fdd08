//! The queue in front of the history's thread.
//!
//! A push is a part of the answer to a client, who may look for tens of thousands of results in a second.
//! So it takes no lock, allocates nothing, and makes no system call unless the thread sleeps with nothing to do;
//! the thread then looks again every few milliseconds, and pushes need not wake it.
//!
//! ```text
//!            a push wakes it            nap(): looks again by itself
//!  wait() ─────────────────► working ◄──────────────► napping
//!     ▲                         │
//!     └─────── all is done ◄────┘
//! ```

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::thread::Thread;
use std::time::{Duration, Instant};

use crossbeam_queue::ArrayQueue;

/// A bounded queue with many senders and one thread that takes.
pub(crate) struct Inbox<T> {
    queue: ArrayQueue<T>,
    /// Whether the thread sleeps until somebody wakes it.
    is_asleep: AtomicBool,
    is_closed: AtomicBool,
    thread: OnceLock<Thread>,
}

impl<T> Inbox<T> {
    /// A queue for `limit` messages, whose memory it takes at once.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            queue: ArrayQueue::new(limit),
            is_asleep: AtomicBool::new(false),
            is_closed: AtomicBool::new(false),
            thread: OnceLock::new(),
        }
    }

    /// Adds a message. Returns whether there was room for it.
    pub(crate) fn push(&self, message: T) -> bool {
        let has_room = self.queue.push(message).is_ok();
        // Pairs with the fence in `wait`: either this sees that the thread is asleep, or the thread sees the
        // message.
        fence(Ordering::SeqCst);
        if self.is_asleep.load(Ordering::Relaxed) && self.is_asleep.swap(false, Ordering::Relaxed) {
            self.wake();
        }
        has_room
    }

    /// Adds a message that ends a nap. Returns whether there was room for it.
    pub(crate) fn push_urgent(&self, message: T) -> bool {
        let has_room = self.queue.push(message).is_ok();
        self.wake();
        has_room
    }

    /// Tells the thread that nothing comes any more.
    pub(crate) fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
        self.wake();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire)
    }

    /// The next message, if there is one.
    pub(crate) fn pop(&self) -> Option<T> {
        self.queue.pop()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Waits for a message, for the end, or until `deadline`. Only ever called by one thread.
    pub(crate) fn wait(&self, deadline: Option<Instant>) {
        self.thread.get_or_init(std::thread::current);
        loop {
            let left = deadline.map(|end| end.saturating_duration_since(Instant::now()));
            self.is_asleep.store(true, Ordering::Relaxed);
            fence(Ordering::SeqCst);
            let is_over = !self.queue.is_empty() || self.is_closed();
            if is_over || left.is_some_and(|left| left.is_zero()) {
                self.is_asleep.store(false, Ordering::Relaxed);
                return;
            }
            match left {
                Some(left) => std::thread::park_timeout(left),
                None => std::thread::park(),
            }
        }
    }

    /// Sleeps for `time`, or until something urgent comes. Pushes do not end it.
    pub(crate) fn nap(&self, time: Duration) {
        std::thread::park_timeout(time);
    }

    fn wake(&self) {
        // Without a thread yet: it looks into the queue before it sleeps.
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn every_message_arrives_once_and_the_thread_never_sleeps_through_one() {
        const SENDERS: u32 = 4;
        const MESSAGES: u32 = 5_000;
        let inbox = Arc::new(Inbox::new(64));
        let taker = {
            let inbox = Arc::clone(&inbox);
            std::thread::spawn(move || {
                let mut taken = Vec::new();
                // Without a deadline: a lost wake-up hangs the test.
                while taken.len() < (SENDERS * MESSAGES) as usize {
                    inbox.wait(None);
                    taken.extend(std::iter::from_fn(|| inbox.pop()));
                }
                taken
            })
        };
        let senders: Vec<_> = (0..SENDERS)
            .map(|sender| {
                let inbox = Arc::clone(&inbox);
                std::thread::spawn(move || {
                    for number in 0..MESSAGES {
                        while !inbox.push(sender * MESSAGES + number) {
                            std::thread::yield_now();
                        }
                    }
                })
            })
            .collect();
        senders.into_iter().for_each(|sender| sender.join().unwrap());
        let mut taken = taker.join().unwrap();
        taken.sort_unstable();
        assert_eq!(taken, (0..SENDERS * MESSAGES).collect::<Vec<_>>());
    }

    #[test]
    fn a_full_queue_refuses_and_a_closed_one_waits_for_nothing() {
        let inbox = Inbox::new(2);
        assert!(inbox.push(1) && inbox.push_urgent(2));
        assert!(!inbox.push(3) && !inbox.push_urgent(3));
        inbox.wait(None);
        assert_eq!((inbox.pop(), inbox.pop(), inbox.pop()), (Some(1), Some(2), None));
        inbox.wait(Some(Instant::now()));
        inbox.close();
        inbox.wait(None);
        assert!(inbox.is_closed());
    }
}
