//! The queue between requests and slots: first come, first served, bounded in items and in bytes.

use std::collections::VecDeque;

use parking_lot::{Condvar, Mutex};

/// A queue that refuses what goes over its bound instead of growing.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
    limit: usize,
    limit_bytes: u64,
}

#[derive(Debug)]
struct State<T> {
    /// The items, each with the memory that it takes.
    waiting: VecDeque<(T, u64)>,
    waiting_bytes: u64,
    /// Takers that hold an item they have not finished yet.
    busy: usize,
    closed: bool,
}

/// The reason why an item was not accepted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum PushError {
    /// As many items as the bound allows are waiting.
    Full,
    /// The waiting items take as many bytes as the bound allows.
    TooManyBytes,
    /// The queue is closed.
    Closed,
}

impl<T> Queue<T> {
    /// An empty queue that holds up to `limit` waiting items of up to `limit_bytes` together.
    pub(crate) fn new(limit: usize, limit_bytes: u64) -> Self {
        let state = State { waiting: VecDeque::new(), waiting_bytes: 0, busy: 0, closed: false };
        Self { state: Mutex::new(state), changed: Condvar::new(), limit, limit_bytes }
    }

    /// Appends an item that takes `bytes` of memory.
    pub(crate) fn push(&self, item: T, bytes: u64) -> Result<(), PushError> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(PushError::Closed);
        }
        if state.waiting.len() >= self.limit {
            return Err(PushError::Full);
        }
        if state.waiting_bytes + bytes > self.limit_bytes {
            return Err(PushError::TooManyBytes);
        }
        state.waiting_bytes += bytes;
        state.waiting.push_back((item, bytes));
        self.changed.notify_one();
        Ok(())
    }

    /// The oldest item, waiting for one; `None` once the queue is closed and
    /// empty. Each item is to be answered with [`Queue::finished`].
    pub(crate) fn pop(&self) -> Option<T> {
        let mut state = self.state.lock();
        loop {
            if let Some((item, bytes)) = state.waiting.pop_front() {
                state.waiting_bytes -= bytes;
                state.busy += 1;
                return Some(item);
            }
            if state.closed {
                return None;
            }
            self.changed.wait(&mut state);
        }
    }

    /// A taker is through with its item.
    pub(crate) fn finished(&self) {
        self.state.lock().busy -= 1;
    }

    /// Takes nothing new; what waits is still served.
    pub(crate) fn close(&self) {
        self.state.lock().closed = true;
        self.changed.notify_all();
    }

    /// Whether nothing waits and nothing is being worked on.
    pub(crate) fn is_idle(&self) -> bool {
        let state = self.state.lock();
        state.waiting.is_empty() && state.busy == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_come_out_in_order_and_the_bound_holds() {
        let queue = Queue::new(2, 100);
        queue.push(1, 1).unwrap();
        queue.push(2, 1).unwrap();
        assert_eq!(queue.push(3, 1), Err(PushError::Full));
        assert_eq!(queue.pop(), Some(1));
        queue.push(3, 1).unwrap();
        assert_eq!((queue.pop(), queue.pop()), (Some(2), Some(3)));
        assert!(!queue.is_idle());
        for _ in 0..3 {
            queue.finished();
        }
        assert!(queue.is_idle());
    }

    #[test]
    fn what_waits_is_bounded_in_bytes() {
        let queue = Queue::new(10, 100);
        queue.push(1, 60).unwrap();
        assert_eq!(queue.push(2, 41), Err(PushError::TooManyBytes));
        queue.push(2, 40).unwrap();
        assert_eq!(queue.push(3, 1), Err(PushError::TooManyBytes));
        assert_eq!(queue.pop(), Some(1));
        queue.push(3, 60).unwrap();
    }

    #[test]
    fn a_closed_queue_serves_what_waits_and_takes_nothing_new() {
        let queue = Queue::new(2, 100);
        queue.push(1, 1).unwrap();
        queue.close();
        assert_eq!(queue.push(2, 1), Err(PushError::Closed));
        assert_eq!(queue.pop(), Some(1));
        assert_eq!(queue.pop(), None);
    }
}
