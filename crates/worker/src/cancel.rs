//! The wish that an action stops: a flag while it waits, an event while it runs.
//!
//! The event descriptor belongs to the slot, not to the operation: thousands of
//! actions may wait, and each would hold a descriptor for nothing.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::event::{EventfdFlags, eventfd};

/// Readable from the moment on that the slot's action is to stop.
#[derive(Debug, Clone)]
pub(crate) struct StopEvent(Arc<OwnedFd>);

impl StopEvent {
    /// A fresh event, not signalled.
    pub(crate) fn new() -> std::io::Result<Self> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self(Arc::new(fd)))
    }

    fn signal(&self) {
        // The counter overflows after 2^64 - 2 signals, and a full one is
        // readable as well: there is no error to act on.
        let _ = rustix::io::write(&*self.0, &1u64.to_ne_bytes());
    }

    fn clear(&self) {
        // EAGAIN says that it was not signalled.
        let _ = rustix::io::read(&*self.0, &mut [0u8; 8]);
    }
}

impl AsFd for StopEvent {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Whether an action is to stop, and who has to be told.
#[derive(Debug, Default)]
pub(crate) struct Cancellation(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    requested: bool,
    running: Option<StopEvent>,
}

impl Cancellation {
    /// Asks the action to stop. Returns whether it runs, and thus will.
    pub(crate) fn request(&self) -> bool {
        let mut state = self.0.lock();
        state.requested = true;
        if let Some(event) = &state.running {
            event.signal();
        }
        state.running.is_some()
    }

    /// Whether it was asked to stop.
    pub(crate) fn is_requested(&self) -> bool {
        self.0.lock().requested
    }

    /// The action starts in a slot, which listens to `event`. Returns false
    /// when it was asked to stop before.
    pub(crate) fn attach(&self, event: &StopEvent) -> bool {
        let mut state = self.0.lock();
        event.clear();
        state.running = Some(event.clone());
        !state.requested
    }

    /// The action is over: the slot's event is for the next one.
    pub(crate) fn detach(&self) {
        self.0.lock().running = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    fn is_signalled(event: &StopEvent) -> bool {
        let mut set = [PollFd::new(event, PollFlags::IN)];
        poll(&mut set, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() == 1
    }

    #[test]
    fn a_waiting_action_learns_of_it_when_it_starts() {
        let cancellation = Cancellation::default();
        assert!(!cancellation.request());
        assert!(cancellation.is_requested());
        assert!(!cancellation.attach(&StopEvent::new().unwrap()));
    }

    #[test]
    fn a_running_action_is_woken_and_the_next_one_is_not() {
        let event = StopEvent::new().unwrap();
        let first = Cancellation::default();
        assert!(first.attach(&event));
        assert!(first.request());
        assert!(is_signalled(&event));
        first.detach();
        assert!(Cancellation::default().attach(&event));
        first.request();
        assert!(!is_signalled(&event));
    }
}
