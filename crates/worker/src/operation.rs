//! One execution as its subscribers see it: a short history of states.
//!
//! Every stage is kept until the operation is forgotten, so that each
//! subscriber of `Execute` gets each stage, also of an action that is over
//! before its stream has been written to. There are at most three.

use std::sync::Arc;
use std::time::Instant;

use model::{Digest, EncodedResult, InstanceName, proto};
use parking_lot::Mutex;
use tokio::sync::watch;

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
}

impl Done {
    /// The answer of an action that came to nothing.
    pub(crate) fn failed(error: ActionError) -> Self {
        Self { result: None, cached: false, error: Some(error), message: String::new() }
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
        (size_of::<Self>() + self.metadata.worker.len()) as u64 + done
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
    pub(crate) name: String,
    pub(crate) instance: InstanceName,
    pub(crate) action: Digest,
    history: watch::Sender<History>,
    audience: Mutex<Audience>,
    pub(crate) cancellation: Cancellation,
}

impl Operation {
    /// A new operation.
    pub(crate) fn new(name: String, instance: InstanceName, first: OperationState) -> Self {
        Self {
            name,
            instance,
            action: first.action,
            history: watch::Sender::new(vec![Arc::new(first)]),
            audience: Mutex::new(Audience { subscribers: 0, empty_since: Some(Instant::now()) }),
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
        self.push(OperationState {
            stage: Stage::Completed,
            action: self.action,
            metadata,
            done: Some(done),
        })
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

    /// Since when nobody has been listening.
    pub(crate) fn orphaned_since(&self) -> Option<Instant> {
        self.audience.lock().empty_since
    }

    /// A subscription that starts at the first state.
    pub(crate) fn subscribe(self: &Arc<Self>) -> Subscription {
        self.subscription(0)
    }

    /// A subscription that starts at the latest state.
    pub(crate) fn subscribe_from_now(self: &Arc<Self>) -> Subscription {
        let latest = self.history.borrow().len() - 1;
        self.subscription(latest)
    }

    fn subscription(self: &Arc<Self>, next: usize) -> Subscription {
        let mut audience = self.audience.lock();
        audience.subscribers += 1;
        audience.empty_since = None;
        Subscription { operation: Arc::clone(self), history: self.history.subscribe(), next }
    }

    fn unsubscribe(&self) {
        let mut audience = self.audience.lock();
        audience.subscribers -= 1;
        if audience.subscribers == 0 {
            audience.empty_since = Some(Instant::now());
        }
    }
}

fn is_done(history: &History) -> bool {
    history.last().is_some_and(|state| state.done.is_some())
}

/// A client's view of an operation. Dropping it means that the client is gone;
/// the action goes on for [`crate::WorkerConfig::orphan_grace`].
#[derive(Debug)]
pub struct Subscription {
    operation: Arc<Operation>,
    history: watch::Receiver<History>,
    next: usize,
}

impl Subscription {
    /// The operation's name, `operations/<uuid>`.
    pub fn operation_name(&self) -> &str {
        &self.operation.name
    }

    /// The instance of the action.
    pub fn instance(&self) -> &InstanceName {
        &self.operation.instance
    }

    /// The memory that the operation takes by now, in bytes.
    pub fn memory_bytes(&self) -> u64 {
        self.operation.memory_bytes()
    }

    /// The next state; the first call does not wait. `None` after the state
    /// that holds the answer.
    pub async fn next(&mut self) -> Option<Arc<OperationState>> {
        loop {
            {
                let history = self.history.borrow_and_update();
                if let Some(state) = history.get(self.next) {
                    self.next += 1;
                    return Some(Arc::clone(state));
                }
                if is_done(&history) {
                    return None;
                }
            }
            // The sender lives in the operation that this subscription holds.
            self.history.changed().await.ok()?;
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.operation.unsubscribe();
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
        let from_start = operation.subscribe();
        operation.advance(Stage::Executing, metadata());
        operation.complete(metadata(), Done::failed(ActionError::Cancelled));
        let from_now = operation.subscribe_from_now();
        use Stage::{Completed, Executing, Queued};
        assert_eq!(stages(from_start).await, [Queued, Executing, Completed]);
        assert_eq!(stages(from_now).await, [Completed]);
    }

    #[tokio::test]
    async fn the_first_answer_stands() {
        let operation = operation();
        assert!(operation.complete(metadata(), Done::failed(ActionError::Cancelled)));
        assert!(!operation.complete(metadata(), Done::failed(ActionError::Invalid("late".into()))));
        operation.advance(Stage::Executing, metadata());
        let last = operation.subscribe_from_now().next().await.unwrap();
        assert_eq!(last.done.as_ref().unwrap().error, Some(ActionError::Cancelled));
    }

    #[tokio::test]
    async fn an_operation_knows_since_when_nobody_listens() {
        let operation = operation();
        let one = operation.subscribe();
        let two = operation.subscribe();
        drop(one);
        assert!(operation.orphaned_since().is_none());
        drop(two);
        assert!(operation.orphaned_since().is_some());
    }
}
