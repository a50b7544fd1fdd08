//! Actions that another engine runs for us, on a thread each that waits for it.
//!
//! ```text
//!                    waited too long                    answered
//!  queue ──► slot  ┌─────────────────► overflow slot ───────────► COMPLETED
//!    │             │                        │
//!    └─────────────┘◄───────────────────────┘
//!                    the engine is away: it waits for a slot here again
//! ```
//!
//! The operation stays ours: its name, its subscribers and its cancellation are those of an action that runs here. A
//! result is answered and cached once every blob that it names is in the store.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use events::Event;
use model::{ActionMessage, Digest, EncodedResult, Printable, proto};
use parking_lot::Mutex;

use crate::below;
use crate::elsewhere::{Elsewhere, ElsewhereError, News, Order};
use crate::error::ActionError;
use crate::inputs::PinnedTree;
use crate::operation::{Done, Operation, Stage};
use crate::queue::Taken;
use crate::slot::{Job, Machine, Slot, has_failed};
use crate::stamp::entry_of_others;
use crate::timeline::{Moment, Timeline};

/// The codes of google.rpc.Code that engines answer actions with.
mod code {
    pub(super) const OK: i32 = 0;
    pub(super) const CANCELLED: i32 = 1;
    pub(super) const INVALID_ARGUMENT: i32 = 3;
    pub(super) const DEADLINE_EXCEEDED: i32 = 4;
    pub(super) const RESOURCE_EXHAUSTED: i32 = 8;
    pub(super) const FAILED_PRECONDITION: i32 = 9;
    pub(super) const ABORTED: i32 = 10;
    pub(super) const UNAVAILABLE: i32 = 14;
}

/// An action that came back from the other engine so often stays here: it would wait again each time.
const RETURNS_MAX: u8 = 3;

/// A slot whose actions run elsewhere.
pub(crate) struct OverflowSlot {
    pub(crate) slot: Slot,
    pub(crate) elsewhere: Arc<dyn Elsewhere>,
}

/// Why an action has no answer from elsewhere.
enum Failure {
    Action(ActionError),
    /// It can be run here.
    Elsewhere(ElsewhereError),
}

impl From<ActionError> for Failure {
    fn from(error: ActionError) -> Self {
        Self::Action(error)
    }
}

impl OverflowSlot {
    /// Serves the queue until it is closed and empty.
    pub(crate) fn serve(&self) {
        let shared = &self.slot.shared;
        let wait = shared.config.overflow_wait;
        let is_welcome = || self.elsewhere.is_up();
        while let Some(Taken { item: job, demand }) = shared.queue.pop_overdue(wait, is_welcome) {
            let (operation, origin) = (Arc::clone(&job.operation), Arc::clone(&job.origin));
            let described = job.described;
            let ran = catch_unwind(AssertUnwindSafe(|| self.run(job)));
            if ran.is_err() {
                let error = ActionError::Internal("the server panicked on this action".into());
                let timeline = Timeline::queued_now("");
                self.slot.answer(&operation, &origin, &described, timeline, Done::failed(error));
            }
            shared.queue.finished(demand);
        }
    }

    fn run(&self, mut job: Job) {
        let (operation, origin) = (Arc::clone(&job.operation), Arc::clone(&job.origin));
        let (described, mut timeline) = (job.described, job.timeline.clone());
        timeline.mark(Moment::WorkerStart);
        let is_started = Arc::new(Mutex::new(job.journey.is_started));
        let ran = if operation.cancellation.attach(&self.slot.stop) {
            self.execute(&job, &mut timeline, &is_started)
        } else {
            Err(self.slot.shared.cancelled().into())
        };
        operation.cancellation.detach();
        // News that come late find that it was told.
        job.journey.is_started = std::mem::replace(&mut *is_started.lock(), true);
        timeline.mark(Moment::WorkerCompleted);
        let ran = ran.and_then(|response| usable(&job, response));
        let done = match ran {
            Ok(response) => self.publish(&job.action, &operation, response),
            Err(Failure::Action(error)) => Done::failed(error),
            Err(Failure::Elsewhere(_)) if operation.cancellation.is_requested() => {
                Done::failed(self.slot.shared.cancelled())
            }
            Err(Failure::Elsewhere(error)) => match self.give_back(job, error) {
                Ok(()) => return,
                Err(error) => Done::failed(error),
            },
        };
        self.slot.answer(&operation, &origin, &described, timeline, done);
    }

    fn execute(
        &self,
        job: &Job,
        timeline: &mut Timeline,
        is_started: &Arc<Mutex<bool>>,
    ) -> Result<proto::ExecuteResponse, Failure> {
        let Job { operation, origin, action, .. } = job;
        timeline.mark(Moment::InputFetchStart);
        let inputs = self.slot.load_unread(operation, origin, action)?;
        timeline.mark(Moment::InputFetchCompleted);
        let order = Order {
            instance: operation.instance.clone(),
            action: action.action,
            blobs: blobs_of(&inputs, action),
            skip_cache_lookup: job.skip_cache_lookup,
            priority: job.rank.priority,
            caller: below::caller(origin, &action.action),
        };
        let news = self.news(operation, timeline, is_started);
        let is_wanted = || !operation.cancellation.is_requested();
        match below::wait_for(self.elsewhere.execute(order, news), &is_wanted) {
            Some(answered) => answered.map_err(Failure::Elsewhere),
            None => Err(self.slot.shared.cancelled().into()),
        }
    }

    /// Tells subscribers and listeners once that the action runs.
    fn news(
        &self,
        operation: &Arc<Operation>,
        timeline: &Timeline,
        is_started: &Arc<Mutex<bool>>,
    ) -> News {
        let (shared, operation) = (Arc::clone(&self.slot.shared), Arc::clone(operation));
        let (metadata, is_started) = (timeline.metadata().clone(), Arc::clone(is_started));
        Arc::new(move || {
            // Held until listeners know, so that they are not told after the end.
            let mut is_started = is_started.lock();
            if !std::mem::replace(&mut *is_started, true) {
                let name = operation.name.as_str().into();
                shared.listeners.tell(&Event::Started { operation: name });
                operation.advance(Stage::Executing, metadata.clone());
            }
        })
    }

    /// Lets slots here run the action, if they can. Otherwise its error is returned.
    fn give_back(&self, mut job: Job, error: ElsewhereError) -> Result<(), ActionError> {
        let action = job.action.action;
        // One that was overdue before a slot here has looked at it can be for another machine too.
        let is_foreign =
            job.journey.is_foreign || matches!(self.slot.machine_of(&job), Machine::Another);
        tracing::info!(%action, %error, is_foreign, "not run elsewhere");
        if is_foreign {
            return Err(match error {
                ElsewhereError::Unavailable(text) => ActionError::Unavailable(text),
                ElsewhereError::Refused(text) => ActionError::Unsupported(text),
            });
        }
        job.journey.returns += 1;
        let is_refused = matches!(error, ElsewhereError::Refused(_));
        job.rank.may_leave &= !is_refused && job.journey.returns < RETURNS_MAX;
        let (bytes, rank) = (job.memory_bytes(), job.rank.clone());
        let queue = &self.slot.shared.queue;
        queue.put_back(job, bytes, rank).map_err(|_| ActionError::ShuttingDown)
    }

    /// The answer of the engine as ours. A good result is cached: all that it names is in the store.
    fn publish(
        &self,
        action: &ActionMessage,
        operation: &Operation,
        response: proto::ExecuteResponse,
    ) -> Done {
        let shared = &self.slot.shared;
        let status = response.status.unwrap_or_default();
        let message = Printable::message(response.message).as_str().to_owned();
        let error = error_of(status.code, &status.message, action);
        let Some(result) = response.result else {
            let missing = || ActionError::Internal("the other engine sent no result".to_owned());
            return Done { message, ..Done::failed(error.unwrap_or_else(missing)) };
        };
        let cacheable = !action.do_not_cache;
        if cacheable && has_failed(error.as_ref(), result.exit_code) {
            self.slot.forget_success(operation);
        }
        if cacheable && error.is_none() && result.exit_code == 0 && shared.disk.allows() {
            let (instance, entry) = (operation.instance.as_str(), entry_of_others(result.clone()));
            match shared.destination.cache(instance, &operation.action, &entry) {
                Ok(()) => self.slot.copy_below(operation),
                Err(error) => {
                    // The result is good all the same.
                    let (action, error) = (operation.action, &error as &dyn std::error::Error);
                    tracing::warn!(%action, error, "not cached");
                }
            }
        }
        let error = error.or_else(|| self.slot.make_durable().err());
        Done {
            result: Some(EncodedResult::of(&result)),
            cached: response.cached_result,
            error,
            message,
            server_log: None,
        }
    }
}

/// The answer of the engine, if the client may have it. An action that the engine could not run is run here, unless it is
/// for another machine: then the client is told why.
fn usable(job: &Job, response: proto::ExecuteResponse) -> Result<proto::ExecuteResponse, Failure> {
    let status = response.status.as_ref();
    let code = status.map_or(code::OK, |status| status.code);
    let is_end = match code {
        code::OK => response.result.is_some(),
        // The timeout is the action's own.
        code::DEADLINE_EXCEEDED => job.action.timeout.is_some(),
        _ => false,
    };
    if is_end || job.journey.is_foreign {
        return Ok(response);
    }
    let text = status.map_or("an answer without a result", |status| status.message.as_str());
    let text = format!("code {code}: {}", Printable::message(text).as_str());
    Err(Failure::Elsewhere(ElsewhereError::Refused(text)))
}

/// Every blob that the action needs.
fn blobs_of(inputs: &PinnedTree, action: &ActionMessage) -> Vec<Digest> {
    let mut blobs = inputs.tree.blobs().to_vec();
    blobs.extend([action.action, action.command]);
    blobs
}

/// The error of an action that another engine has answered.
fn error_of(code: i32, text: &str, action: &ActionMessage) -> Option<ActionError> {
    let text = format!("the other engine: {}", Printable::message(text).as_str());
    Some(match code {
        code::OK => return None,
        code::INVALID_ARGUMENT => ActionError::Invalid(text),
        code::DEADLINE_EXCEEDED => {
            ActionError::TimedOut { after: action.timeout.unwrap_or_default() }
        }
        code::RESOURCE_EXHAUSTED => ActionError::ResourceExhausted(text),
        code::FAILED_PRECONDITION => ActionError::Unsupported(text),
        // We did not cancel it.
        code::CANCELLED | code::ABORTED | code::UNAVAILABLE => ActionError::Unavailable(text),
        _ => ActionError::Internal(text),
    })
}
