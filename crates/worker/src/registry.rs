//! The operations that exist: those in flight, and the last finished ones.
//!
//! An operation of a client is a [`Ticket`]; several can stand for one execution.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use model::{Digest, InstanceName};
use parking_lot::Mutex;

use crate::operation::{Leaving, Operation, OperationState, Ticket};

/// All operations that a client can still ask for.
#[derive(Debug)]
pub(crate) struct Registry {
    state: Mutex<State>,
    finished_limit: usize,
    finished_limit_bytes: u64,
    /// Distinguishes this server's operations from those of one before it.
    epoch: u64,
    counter: AtomicU64,
}

/// Equal actions of one instance are one operation.
type Key = (InstanceName, Digest);

#[derive(Debug, Default)]
struct State {
    by_name: HashMap<String, Arc<Ticket>>,
    shared: HashMap<Key, Arc<Operation>>,
    /// The names of finished operations, the oldest first, each with the memory that it takes.
    finished: VecDeque<(String, u64)>,
    finished_bytes: u64,
}

impl State {
    fn forget(&mut self, name: &str) {
        self.by_name.remove(name);
        let mut bytes_of_it = 0;
        self.finished.retain(|(finished, bytes)| {
            let stays = finished != name;
            bytes_of_it += if stays { 0 } else { *bytes };
            stays
        });
        self.finished_bytes -= bytes_of_it;
    }

    /// The client of a ticket has its answer.
    fn push_finished(&mut self, name: String, bytes: u64) {
        self.finished.push_back((name, bytes));
        self.finished_bytes += bytes;
    }

    /// Forgets the oldest finished operations until the rest keeps the bounds.
    fn forget_oldest(&mut self, limit: usize, limit_bytes: u64) {
        while (self.finished.len() > limit || self.finished_bytes > limit_bytes)
            && let Some((oldest, bytes)) = self.finished.pop_front()
        {
            self.finished_bytes -= bytes;
            self.by_name.remove(&oldest);
        }
    }
}

/// The result of a request to forget an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forgotten {
    /// It is forgotten.
    Yes,
    /// It has no answer yet, and stays.
    Unfinished,
    /// There is no operation of that name.
    Unknown,
}

/// The outcome of a request to run an action.
#[derive(Debug)]
pub(crate) enum Admission {
    /// An equal action is in flight: listen to that one.
    Joined(Arc<Ticket>),
    /// A new execution, to be run.
    New(Arc<Ticket>),
}

impl Registry {
    /// An empty registry that remembers `finished_limit` finished operations, which take up to
    /// `finished_limit_bytes` of memory together.
    pub(crate) fn new(finished_limit: usize, finished_limit_bytes: u64) -> Self {
        let since_1970 = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        Self {
            state: Mutex::default(),
            finished_limit,
            finished_limit_bytes,
            epoch: since_1970.as_nanos() as u64,
            counter: AtomicU64::new(1),
        }
    }

    fn next_name(&self) -> String {
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        format!("operations/{:x}-{number}", self.epoch)
    }

    /// Joins the equal action in flight when both are `shareable`, else makes a
    /// new execution that begins with `first`.
    pub(crate) fn admit(
        &self,
        instance: InstanceName,
        first: OperationState,
        shareable: bool,
    ) -> Admission {
        let mut state = self.state.lock();
        let key = (instance, first.action);
        if shareable
            && let Some(operation) = state.shared.get(&key)
            && !operation.cancellation.is_requested()
            // Its client may have the answer already, and has uploaded what was missing.
            && !operation.is_done()
            && let Some(ticket) = operation.admit(self.next_name())
        {
            state.by_name.insert(ticket.name.clone(), Arc::clone(&ticket));
            return Admission::Joined(ticket);
        }
        let name = self.next_name();
        let operation = Arc::new(Operation::new(name.clone(), key.0.clone(), first));
        let ticket = operation.admit(name).expect("a new execution has no tickets");
        state.by_name.insert(ticket.name.clone(), Arc::clone(&ticket));
        if shareable {
            state.shared.insert(key, operation);
        }
        Admission::New(ticket)
    }

    /// An operation that a client knows by name.
    pub(crate) fn find(&self, name: &str) -> Option<Arc<Ticket>> {
        self.state.lock().by_name.get(name).cloned()
    }

    /// Ends the part of one client, if others go on; see [`Ticket::leave`].
    pub(crate) fn leave(&self, ticket: &Arc<Ticket>) -> Leaving {
        let mut state = self.state.lock();
        let leaving = ticket.leave();
        if leaving == Leaving::OthersStay {
            state.push_finished(ticket.name.clone(), ticket.memory_bytes());
            state.forget_oldest(self.finished_limit, self.finished_limit_bytes);
        }
        leaving
    }

    /// The execution has its answer: nobody joins it any more, and its operations are
    /// forgotten once the newer ones reach one of the bounds. One that is over
    /// the bound in bytes by itself is forgotten at once: those that listen
    /// still get its answer, and a client that asks again finds it in the cache.
    pub(crate) fn finish(&self, operation: &Arc<Operation>) {
        let mut bytes = operation.memory_bytes();
        let mut state = self.state.lock();
        let key = (operation.instance.clone(), operation.action);
        if state.shared.get(&key).is_some_and(|shared| Arc::ptr_eq(shared, operation)) {
            state.shared.remove(&key);
        }
        let is_huge = bytes > self.finished_limit_bytes;
        for ticket in operation.tickets() {
            if is_huge {
                state.by_name.remove(&ticket.name);
                continue;
            }
            // The execution lives as long as one of its tickets: it counts with the newest, and is
            // forgotten with all others then.
            state.push_finished(ticket.name.clone(), ticket.memory_bytes() + bytes);
            bytes = 0;
        }
        state.forget_oldest(self.finished_limit, self.finished_limit_bytes);
    }

    /// Forgets an operation by its name, if it has its answer.
    pub(crate) fn forget(&self, name: &str) -> Forgotten {
        let mut state = self.state.lock();
        match state.by_name.get(name).map(|ticket| ticket.is_done()) {
            None => Forgotten::Unknown,
            Some(false) => Forgotten::Unfinished,
            Some(true) => {
                state.forget(name);
                Forgotten::Yes
            }
        }
    }

    /// Forgets an execution that was never taken on.
    pub(crate) fn withdraw(&self, operation: &Arc<Operation>) {
        self.finish(operation);
        let mut state = self.state.lock();
        operation.tickets().iter().for_each(|ticket| state.forget(&ticket.name));
    }

    /// Executions without an answer to which no client has listened for `grace`, and
    /// that are not being cancelled yet.
    pub(crate) fn orphans(&self, grace: Duration) -> Vec<Arc<Operation>> {
        let now = Instant::now();
        self.unfinished_that(|operation| {
            // Some take a while to end: once is enough.
            !operation.cancellation.is_requested() && operation.is_orphaned(now, grace)
        })
    }

    /// All executions without an answer.
    pub(crate) fn unfinished(&self) -> Vec<Arc<Operation>> {
        self.unfinished_that(|_| true)
    }

    /// The names of all operations that a client can still ask for.
    pub(crate) fn names(&self) -> Vec<String> {
        self.state.lock().by_name.keys().cloned().collect()
    }

    fn unfinished_that(&self, wanted: impl Fn(&Operation) -> bool) -> Vec<Arc<Operation>> {
        let state = self.state.lock();
        let mut seen = HashSet::new();
        let operations = state.by_name.values().map(|ticket| &ticket.operation);
        operations
            .filter(|operation| !operation.is_done() && seen.insert(Arc::as_ptr(operation)))
            .filter(|operation| wanted(operation))
            .cloned()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ActionError;
    use crate::operation::Done;
    use model::DigestFunction;

    fn queued(name: &str) -> OperationState {
        let action = Digest::of(DigestFunction::Sha256, name.as_bytes());
        OperationState::queued(action, Default::default())
    }

    fn ticket(registry: &Registry, name: &str, shareable: bool) -> (Arc<Ticket>, bool) {
        match registry.admit(InstanceName::default(), queued(name), shareable) {
            Admission::Joined(ticket) => (ticket, true),
            Admission::New(ticket) => (ticket, false),
        }
    }

    fn admit(registry: &Registry, name: &str, shareable: bool) -> (Arc<Operation>, bool) {
        let (ticket, joined) = ticket(registry, name, shareable);
        (Arc::clone(&ticket.operation), joined)
    }

    fn finish(registry: &Registry, operation: &Arc<Operation>) {
        operation.complete(Default::default(), Done::failed(ActionError::Cancelled));
        registry.finish(operation);
    }

    #[test]
    fn equal_actions_in_flight_are_one() {
        let registry = Registry::new(10, u64::MAX);
        let (first, joined) = admit(&registry, "a", true);
        assert!(!joined);
        assert!(admit(&registry, "a", true).1);
        assert!(!admit(&registry, "a", false).1, "one that must run by itself");
        assert!(!admit(&registry, "b", true).1);
        let other = registry.admit(InstanceName::parse("other").unwrap(), queued("a"), true);
        assert!(matches!(other, Admission::New(_)), "instances do not mix");
        finish(&registry, &first);
        assert!(!admit(&registry, "a", true).1);
    }

    #[test]
    fn nobody_joins_what_is_being_cancelled() {
        let registry = Registry::new(10, u64::MAX);
        let (first, _) = admit(&registry, "a", true);
        first.cancellation.request();
        let (second, joined) = admit(&registry, "a", true);
        assert!(!joined);
        finish(&registry, &first);
        let (third, joined) = admit(&registry, "a", true);
        assert!(joined && Arc::ptr_eq(&second, &third), "the end of the first leaves the second");
    }

    #[test]
    fn nobody_joins_what_has_its_answer() {
        let registry = Registry::new(10, u64::MAX);
        let (first, _) = admit(&registry, "a", true);
        first.complete(Default::default(), Done::failed(ActionError::Cancelled));
        let (second, joined) = admit(&registry, "a", true);
        assert!(!joined);
        registry.finish(&first);
        let (third, joined) = admit(&registry, "a", true);
        assert!(joined && Arc::ptr_eq(&second, &third), "the end of the first leaves the second");
    }

    #[test]
    fn finished_operations_are_remembered_up_to_the_bound() {
        let registry = Registry::new(1, u64::MAX);
        let (first, _) = admit(&registry, "a", true);
        let (second, _) = admit(&registry, "b", true);
        finish(&registry, &first);
        assert!(registry.find(&first.name).is_some());
        finish(&registry, &second);
        assert!(registry.find(&first.name).is_none());
        assert!(registry.find(&second.name).is_some());
    }

    #[test]
    fn finished_operations_are_remembered_up_to_the_bound_in_bytes() {
        let registry = Registry::new(100, 64 << 10);
        let finish_with = |name, message_bytes| {
            let (operation, _) = admit(&registry, name, true);
            let message = "m".repeat(message_bytes);
            let error = ActionError::Invalid("why".into());
            let done = Done { message, ..Done::failed(error) };
            operation.complete(Default::default(), done);
            registry.finish(&operation);
            operation
        };
        let small = finish_with("a", 10);
        let large = finish_with("b", 40 << 10);
        assert!(registry.find(&small.name).is_some() && registry.find(&large.name).is_some());
        let other = finish_with("c", 40 << 10);
        assert!(registry.find(&small.name).is_none() && registry.find(&large.name).is_none());
        assert!(registry.find(&other.name).is_some());
        let huge = finish_with("d", 65 << 10);
        assert!(registry.find(&huge.name).is_none(), "it is over the bound by itself");
        assert!(registry.find(&other.name).is_some(), "others do not pay for it");
        let before = registry.state.lock().finished_bytes;
        let again = finish_with("e", 10);
        assert!(registry.find(&again.name).is_some());
        registry.withdraw(&again);
        assert_eq!(registry.state.lock().finished_bytes, before);
    }

    #[test]
    fn only_an_operation_that_is_over_is_forgotten() {
        let registry = Registry::new(10, u64::MAX);
        let (operation, _) = admit(&registry, "a", true);
        assert_eq!(registry.forget(&operation.name), Forgotten::Unfinished);
        assert!(registry.find(&operation.name).is_some());
        finish(&registry, &operation);
        assert_eq!(registry.forget(&operation.name), Forgotten::Yes);
        assert!(registry.find(&operation.name).is_none());
        assert_eq!(registry.forget(&operation.name), Forgotten::Unknown);
        assert_eq!(registry.state.lock().finished_bytes, 0);
    }

    #[test]
    fn orphans_are_those_that_nobody_listens_to() {
        let registry = Registry::new(10, u64::MAX);
        let (heard, _) = ticket(&registry, "a", true);
        let (unheard, _) = admit(&registry, "b", true);
        let _listening = heard.subscribe();
        let orphans = registry.orphans(Duration::ZERO);
        assert_eq!(orphans.iter().map(|o| &o.name).collect::<Vec<_>>(), [&unheard.name]);
        assert!(registry.orphans(Duration::from_secs(3600)).is_empty());
        unheard.cancellation.request();
        assert!(registry.orphans(Duration::ZERO).is_empty(), "it is told once");
        finish(&registry, &unheard);
        assert!(registry.orphans(Duration::ZERO).is_empty());
        assert_eq!(registry.unfinished().len(), 1);
    }

    #[test]
    fn a_client_that_cancels_is_remembered_like_one_that_has_its_answer() {
        let registry = Registry::new(2, u64::MAX);
        let (first, _) = ticket(&registry, "a", true);
        let (second, joined) = ticket(&registry, "a", true);
        assert!(joined && first.name != second.name);
        assert!(Arc::ptr_eq(&first.operation, &second.operation));
        assert_eq!(registry.leave(&first), Leaving::OthersStay);
        assert!(registry.find(&first.name).is_some_and(|ticket| ticket.is_done()));
        assert_eq!(registry.forget(&second.name), Forgotten::Unfinished);
        assert_eq!(registry.unfinished().len(), 1);
        assert_eq!(registry.leave(&second), Leaving::IsLast);
        finish(&registry, &second.operation);
        assert_eq!(registry.forget(&first.name), Forgotten::Yes);
        assert_eq!(registry.forget(&second.name), Forgotten::Yes);
        assert_eq!(registry.state.lock().finished_bytes, 0);
    }

    #[test]
    fn clients_that_cancel_one_after_the_other_do_not_pile_up() {
        let registry = Registry::new(3, u64::MAX);
        let (_stays, _) = ticket(&registry, "a", true);
        for _ in 0..20 {
            let (goes, joined) = ticket(&registry, "a", true);
            assert!(joined);
            assert_eq!(registry.leave(&goes), Leaving::OthersStay);
        }
        assert_eq!(registry.names().len(), 4);
    }
}
