//! One execution as its subscribers see it: a short history of states.
//!
//! Every stage is kept until the operation is forgotten, so that each
//! subscriber of `Execute` gets each stage of an action that takes a while, also
//! if it is over before its stream has been written to. There are at most three.
//!
//! Clients that ask for equal actions share one execution. Each has a [`Ticket`] with a name of its own,
//! which is the operation that this client knows: to cancel it ends this client's part, and the execution
//! goes on while another ticket is in use.
//!
//! ```text
//! client A ── Subscription ──► Ticket operations/1 ──┐
//! client B ── Subscription ──► Ticket operations/2 ──┴─► Operation ──► a slot
//! ```

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use model::{Digest, EncodedResult, InstanceName, proto};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::cancel::Cancellation;
use crate::error::ActionError;

/// The stages of `ExecutionStage.Value` (REAPI v2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The action cache is asked.
    CacheCheck,
    /// The action waits for a slot.
    Queued,
    /// A slot has it.
    Executing,
    /// There is an answer.
    Completed,
}

/// The answer.
///
/// The result stays encoded: decoded it could take a hundred times as much, for as long as the
/// operation is remembered.
#[derive(Debug, Clone, PartialEq)]
pub struct Done {
    /// The action's outputs; also partial, beside an error.
    pub result: Option<EncodedResult>,
    /// Whether the result was in the action cache.
    pub cached: bool,
    /// The reason why there is no good result.
    pub error: Option<ActionError>,
    /// Words for a person beside what `error` says; clients show both when the action failed.
    pub message: String,
    /// A text about the server's part, if that is to blame.
    pub server_log: Option<Digest>,
}

impl Done {
    /// The answer of an action that came to nothing.
    pub(crate) fn failed(error: ActionError) -> Self {
        let (cached, message) = (false, String::new());
        Self { result: None, cached, error: Some(error), message, server_log: None }
    }

    /// The memory that it takes beside its own size, in bytes.
    pub fn memory_bytes(&self) -> u64 {
        let result = self.result.as_ref().map_or(0, |result| result.message().len());
        let error = self.error.as_ref().map_or(0, ActionError::memory_bytes);
        (result + self.message.len()) as u64 + error
    }
}

/// One point in an operation's history.
#[derive(Debug, Clone)]
pub struct OperationState {
    /// The stage of the action.
    pub stage: Stage,
    /// The action.
    pub action: Digest,
    /// The timestamps known so far.
    pub metadata: proto::ExecutedActionMetadata,
    /// The answer, in the last state only.
    pub done: Option<Done>,
}

impl OperationState {
    /// An action that was in the cache, before its answer.
    pub(crate) fn looked_up(action: Digest) -> Self {
        let metadata = proto::ExecutedActionMetadata::default();
        Self { stage: Stage::CacheCheck, action, metadata, done: None }
    }

    /// The memory that it takes, in bytes.
    pub fn memory_bytes(&self) -> u64 {
        let done = self.done.as_ref().map_or(0, Done::memory_bytes);
        let auxiliary = self.metadata.auxiliary_metadata.iter();
        let auxiliary: usize =
            auxiliary.map(|any| size_of_val(any) + any.type_url.len() + any.value.len()).sum();
        (size_of::<Self>() + self.metadata.worker.len() + auxiliary) as u64 + done
    }

    /// An action that waits for a slot.
    pub(crate) fn queued(action: Digest, metadata: proto::ExecutedActionMetadata) -> Self {
        Self { stage: Stage::Queued, action, metadata, done: None }
    }
}

type History = Vec<Arc<OperationState>>;

/// The listeners, and the time since when there is none.
#[derive(Debug)]
struct Audience {
    subscribers: usize,
    empty_since: Option<Instant>,
}

/// One execution.
#[derive(Debug)]
pub(crate) struct Operation {
    /// The name in the log and in events: that of the ticket of the first client.
    pub(crate) name: String,
    pub(crate) instance: InstanceName,
    pub(crate) action: Digest,
    history: watch::Sender<History>,
    /// Told of the answer alone, for those who wait for nothing else.
    answered: Notify,
    /// The clients that have not cancelled; the registry owns the tickets.
    tickets: Mutex<Vec<Weak<Ticket>>>,
    pub(crate) cancellation: Cancellation,
}

/// The part of one client in an execution.
#[derive(Debug)]
pub(crate) struct Ticket {
    /// The name of the operation that the client knows.
    pub(crate) name: String,
    pub(crate) operation: Arc<Operation>,
    audience: Mutex<Audience>,
    /// The answer of a client that cancelled while others went on.
    left: watch::Sender<Option<Arc<OperationState>>>,
}

impl Operation {
    /// A new operation.
    pub(crate) fn new(name: String, instance: InstanceName, first: OperationState) -> Self {
        Self {
            name,
            instance,
            action: first.action,
            history: watch::Sender::new(vec![Arc::new(first)]),
            answered: Notify::new(),
            tickets: Mutex::default(),
            cancellation: Cancellation::default(),
        }
    }

    /// Goes on to `stage`, unless there is an answer already.
    pub(crate) fn advance(&self, stage: Stage, metadata: proto::ExecutedActionMetadata) {
        self.push(OperationState { stage, action: self.action, metadata, done: None });
    }

    /// Gives the answer. The first one stands: a cancellation may cross a
    /// completion. Returns whether it was this one.
    pub(crate) fn complete(&self, metadata: proto::ExecutedActionMetadata, done: Done) -> bool {
        let is_first = self.push(OperationState {
            stage: Stage::Completed,
            action: self.action,
            metadata,
            done: Some(done),
        });
        if is_first {
            self.answered.notify_waiters();
        }
        is_first
    }

    fn push(&self, state: OperationState) -> bool {
        self.history.send_if_modified(|history| {
            let open = !is_done(history);
            if open {
                history.push(Arc::new(state));
            }
            open
        })
    }

    /// The memory that it takes, in bytes.
    pub(crate) fn memory_bytes(&self) -> u64 {
        let history = self.history.borrow();
        let states: u64 = history.iter().map(|state| state.memory_bytes()).sum();
        // The name is also a key of the registry, and stands in its list.
        let names = 3 * self.name.len() + self.instance.as_str().len();
        (size_of::<Self>() + names) as u64 + states
    }

    /// Whether there is an answer.
    pub(crate) fn is_done(&self) -> bool {
        is_done(&self.history.borrow())
    }

    /// The answer, if there is one.
    #[cfg(test)]
    pub(crate) fn answer(&self) -> Option<Done> {
        self.history.borrow().last().and_then(|state| state.done.clone())
    }

    /// One more client, which knows the execution as the operation `name`; `None` if it has as many as
    /// it may have.
    pub(crate) fn admit(self: &Arc<Self>, name: String) -> Option<Arc<Ticket>> {
        let mut tickets = self.tickets.lock();
        if tickets.len() >= MAX_TICKETS {
            return None;
        }
        let ticket = Arc::new(Ticket {
            name,
            operation: Arc::clone(self),
            audience: Mutex::new(Audience { subscribers: 0, empty_since: Some(Instant::now()) }),
            left: watch::Sender::new(None),
        });
        tickets.push(Arc::downgrade(&ticket));
        Some(ticket)
    }

    /// The tickets of all clients that have not cancelled, the oldest first.
    pub(crate) fn tickets(&self) -> Vec<Arc<Ticket>> {
        self.tickets.lock().iter().filter_map(Weak::upgrade).collect()
    }

    /// Whether no client has listened for `grace`.
    pub(crate) fn is_orphaned(&self, now: Instant, grace: Duration) -> bool {
        self.tickets().iter().all(|ticket| {
            let since = ticket.orphaned_since();
            since.is_some_and(|since| now.duration_since(since) >= grace)
        })
    }
}

/// Clients of one execution. Each costs some hundred bytes until the execution ends, and a client can ask
/// again and again. Further clients get an execution of their own, which the queue bounds.
const MAX_TICKETS: usize = 1_000;

impl Ticket {
    /// Ends the part of this client, unless it is the only one or the execution is over. Returns whether
    /// it is the only one: then the execution itself is to be cancelled.
    pub(crate) fn leave(&self) -> Leaving {
        let mut tickets = self.operation.tickets.lock();
        if self.operation.is_done() || self.has_left() {
            return Leaving::IsOver;
        }
        if tickets.len() <= 1 {
            return Leaving::IsLast;
        }
        tickets.retain(|ticket| !std::ptr::eq(ticket.as_ptr(), self));
        self.left.send_replace(Some(Arc::new(OperationState {
            stage: Stage::Completed,
            action: self.operation.action,
            metadata: proto::ExecutedActionMetadata::default(),
            done: Some(Done::failed(ActionError::Cancelled)),
        })));
        Leaving::OthersStay
    }

    fn has_left(&self) -> bool {
        self.left.borrow().is_some()
    }

    /// Whether the client has its answer.
    pub(crate) fn is_done(&self) -> bool {
        self.has_left() || self.operation.is_done()
    }

    /// The memory that the ticket takes beside the execution, in bytes.
    pub(crate) fn memory_bytes(&self) -> u64 {
        // The name is also a key of the registry, and stands in its list.
        (size_of::<Self>() + size_of::<OperationState>() + 3 * self.name.len()) as u64
    }

    /// The time since when nobody has been listening.
    fn orphaned_since(&self) -> Option<Instant> {
        self.audience.lock().empty_since
    }

    /// The latest state, for a client that looks and does not wait: it keeps no execution alive.
    pub(crate) fn latest(&self) -> Option<Arc<OperationState>> {
        let left = self.left.borrow().clone();
        left.or_else(|| self.operation.history.borrow().last().cloned())
    }

    /// A subscription that starts at the first state.
    pub(crate) fn subscribe(self: &Arc<Self>) -> Subscription {
        self.subscription(0)
    }

    /// A subscription that starts at the latest state.
    pub(crate) fn subscribe_from_now(self: &Arc<Self>) -> Subscription {
        let latest = self.operation.history.borrow().len() - 1;
        self.subscription(latest)
    }

    fn subscription(self: &Arc<Self>, next: usize) -> Subscription {
        let mut audience = self.audience.lock();
        audience.subscribers += 1;
        audience.empty_since = None;
        Subscription {
            history: self.operation.history.subscribe(),
            left: self.left.subscribe(),
            ticket: Arc::clone(self),
            next,
            is_over: false,
        }
    }

    fn unsubscribe(&self) {
        let mut audience = self.audience.lock();
        audience.subscribers -= 1;
        if audience.subscribers == 0 {
            audience.empty_since = Some(Instant::now());
        }
    }
}

/// The effect of a client's wish to cancel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leaving {
    /// The client had its answer already.
    IsOver,
    /// No other client wants the execution.
    IsLast,
    /// The execution goes on for other clients.
    OthersStay,
}

fn is_done(history: &History) -> bool {
    history.last().is_some_and(|state| state.done.is_some())
}

/// A client's view of an operation. Dropping it means that the client is gone;
/// the action goes on for [`crate::Limits::orphan_grace`].
#[derive(Debug)]
pub struct Subscription {
    ticket: Arc<Ticket>,
    history: watch::Receiver<History>,
    left: watch::Receiver<Option<Arc<OperationState>>>,
    next: usize,
    /// The state that holds the answer was returned.
    is_over: bool,
}

impl Subscription {
    /// The operation's name, `operations/<uuid>`.
    pub fn operation_name(&self) -> &str {
        &self.ticket.name
    }

    /// The memory that the operation takes by now, in bytes.
    pub fn memory_bytes(&self) -> u64 {
        self.ticket.memory_bytes() + self.ticket.operation.memory_bytes()
    }

    /// Waits for the answer, for `patience` at most. If it is there then, it is the next state: those
    /// before it would tell the client nothing any more.
    pub async fn settle(&mut self, patience: Duration) {
        let operation = &self.ticket.operation;
        // Before it is asked whether the answer is there: nothing gets lost in between.
        let answered = operation.answered.notified();
        if !operation.is_done() {
            let _ = tokio::time::timeout(patience, answered).await;
        }
        let history = operation.history.borrow();
        if is_done(&history) {
            self.next = history.len() - 1;
        }
    }

    /// The next state; the first call does not wait. `None` after the state
    /// that holds the answer.
    pub async fn next(&mut self) -> Option<Arc<OperationState>> {
        while !self.is_over {
            if let Some(state) = self.ready() {
                self.is_over = state.done.is_some();
                return Some(state);
            }
            // The senders live in the ticket that this subscription holds.
            tokio::select! {
                changed = self.history.changed() => changed.ok()?,
                changed = self.left.changed() => changed.ok()?,
            }
        }
        None
    }

    /// The next state, if there is one by now.
    fn ready(&mut self) -> Option<Arc<OperationState>> {
        if let Some(state) = &*self.left.borrow_and_update() {
            return Some(Arc::clone(state));
        }
        let history = self.history.borrow_and_update();
        let state = history.get(self.next)?;
        self.next += 1;
        Some(Arc::clone(state))
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.ticket.unsubscribe();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::DigestFunction;

    fn operation() -> Arc<Operation> {
        let action = Digest::of(DigestFunction::Sha256, b"action");
        let first = OperationState::queued(action, metadata());
        Arc::new(Operation::new("operations/1".into(), InstanceName::default(), first))
    }

    fn ticket(operation: &Arc<Operation>) -> Arc<Ticket> {
        operation.admit("operations/1".into()).unwrap()
    }

    fn metadata() -> proto::ExecutedActionMetadata {
        proto::ExecutedActionMetadata::default()
    }

    async fn stages(mut subscription: Subscription) -> Vec<Stage> {
        let mut stages = Vec::new();
        while let Some(state) = subscription.next().await {
            stages.push(state.stage);
        }
        stages
    }

    #[tokio::test]
    async fn a_late_reader_still_gets_every_stage() {
        let operation = operation();
        let ticket = ticket(&operation);
        let from_start = ticket.subscribe();
        operation.advance(Stage::Executing, metadata());
        operation.complete(metadata(), Done::failed(ActionError::Cancelled));
        let from_now = ticket.subscribe_from_now();
        use Stage::{Completed, Executing, Queued};
        assert_eq!(stages(from_start).await, [Queued, Executing, Completed]);
        assert_eq!(stages(from_now).await, [Completed]);
    }

    #[tokio::test]
    async fn an_answer_that_comes_soon_is_the_only_state() {
        use Stage::{Completed, Executing, Queued};
        const LONG: Duration = Duration::from_secs(300);
        let operation = operation();
        let ticket = ticket(&operation);
        let mut impatient = ticket.subscribe();
        impatient.settle(Duration::ZERO).await;
        let [mut waiting, mut late] = [ticket.subscribe(), ticket.subscribe()];
        let answer = async {
            operation.advance(Executing, metadata());
            operation.complete(metadata(), Done::failed(ActionError::Cancelled));
        };
        tokio::join!(waiting.settle(LONG), answer);
        late.settle(LONG).await;
        assert_eq!(stages(waiting).await, [Completed]);
        assert_eq!(stages(late).await, [Completed]);
        assert_eq!(stages(impatient).await, [Queued, Executing, Completed]);
    }

    #[tokio::test]
    async fn the_first_answer_stands() {
        let operation = operation();
        assert!(operation.complete(metadata(), Done::failed(ActionError::Cancelled)));
        assert!(!operation.complete(metadata(), Done::failed(ActionError::Invalid("late".into()))));
        operation.advance(Stage::Executing, metadata());
        let last = ticket(&operation).subscribe_from_now().next().await.unwrap();
        assert_eq!(last.done.as_ref().unwrap().error, Some(ActionError::Cancelled));
    }

    #[tokio::test]
    async fn an_execution_is_orphaned_when_no_client_listens() {
        let operation = operation();
        let (first, second) = (ticket(&operation), ticket(&operation));
        let is_orphaned = || operation.is_orphaned(Instant::now(), Duration::ZERO);
        let one = first.subscribe();
        let two = second.subscribe();
        drop(one);
        assert!(!is_orphaned());
        drop(two);
        assert!(is_orphaned());
        assert!(!operation.is_orphaned(Instant::now(), Duration::from_secs(3600)));
    }

    #[tokio::test]
    async fn a_client_that_cancels_leaves_the_others_alone() {
        use Stage::{Completed, Executing, Queued};
        let operation = operation();
        let (first, second) = (ticket(&operation), ticket(&operation));
        let (mut one, two) = (first.subscribe(), second.subscribe());
        assert_eq!(one.next().await.unwrap().stage, Queued);
        assert_eq!(first.leave(), Leaving::OthersStay);
        assert_eq!(first.leave(), Leaving::IsOver);
        let last = one.next().await.unwrap();
        assert_eq!(last.done.as_ref().unwrap().error, Some(ActionError::Cancelled));
        assert!(one.next().await.is_none());
        assert!(first.is_done() && !second.is_done());
        assert_eq!(second.leave(), Leaving::IsLast, "the execution itself is to be cancelled");
        operation.advance(Executing, metadata());
        operation.complete(metadata(), Done::failed(ActionError::Invalid("x".into())));
        assert_eq!(stages(two).await, [Queued, Executing, Completed]);
        assert_eq!(second.leave(), Leaving::IsOver);
        assert_eq!(stages(first.subscribe()).await, [Completed], "later, it is still cancelled");
    }

    #[test]
    fn clients_of_one_execution_are_bounded() {
        let operation = operation();
        let tickets: Vec<_> = (0..MAX_TICKETS).map(|_| ticket(&operation)).collect();
        assert!(operation.admit("operations/more".into()).is_none());
        assert_eq!(tickets[0].leave(), Leaving::OthersStay);
        assert!(operation.admit("operations/more".into()).is_some());
    }
}
