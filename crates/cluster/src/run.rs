//! An assignment from the start to its answer.
//!
//! The storage of a cluster restarts now and then. An action does not fail of that: what could not be fetched or copied
//! is tried again for some time, while the slot goes on to tell the scheduler that it is at work.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use model::proto::{Action, ActionResult, ExecuteResponse, Message as _};
use model::{ActionMessage, Chain, EncodedResult};
use store::{Store, StoreView as _};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use upstream::{DeliveryError, Upstream};
use worker::{ActionError, Done, ExecuteRequest, Stage, SubmitError, Subscription, Worker};

use crate::assignment::Assignment;
use crate::config::Config;
use crate::counters::Counters;
use crate::protocol::Phase;

/// The time in which the storage may be away amid one action: that of a restart on another machine.
const STORAGE_PATIENCE: Duration = Duration::from_secs(120);

/// Tries of what the storage failed at although it is up.
const STORAGE_TRIES: u32 = 5;

/// The wait between them.
const STORAGE_PAUSE: Duration = Duration::from_secs(1);

/// Missing blobs that one answer names: some 100 bytes each. A client that lacks more uploads these and is told the
/// rest when it asks again.
const MISSING_MAX: usize = 5_000;

/// The largest answer: gRPC's default for a message is 4 MiB, and the scheduler sends it on with its own words.
const ANSWER_BYTES_MAX: usize = (4 << 20) - (256 << 10);

/// The answer to an action whose task panicked.
const LOST: &str = "a thread of the worker ended early";

/// All that runs assignments.
pub(crate) struct Runner {
    pub(crate) config: Config,
    pub(crate) store: Arc<Store>,
    pub(crate) worker: Worker,
    pub(crate) storage: Arc<Upstream>,
    pub(crate) counters: Arc<Counters>,
}

/// The wish that an assignment stops, and its progress.
pub(crate) struct Reins {
    pub(crate) is_stopped: watch::Receiver<bool>,
    pub(crate) phase: watch::Sender<Phase>,
}

impl Reins {
    fn is_stopped(&self) -> bool {
        *self.is_stopped.borrow()
    }

    /// Waits until the assignment is to stop.
    async fn stopped(&mut self) {
        if self.is_stopped.wait_for(|is_stopped| *is_stopped).await.is_err() {
            // The slot is gone, and waits for the end of the runtime.
            std::future::pending::<()>().await;
        }
    }
}

/// How often the storage has failed at one action.
struct Patience {
    until: Instant,
    tries_left: u32,
}

impl Patience {
    fn new() -> Self {
        Self { until: Instant::now() + STORAGE_PATIENCE, tries_left: STORAGE_TRIES }
    }
}

/// An execution that is over.
struct Executed {
    done: Done,
    do_not_cache: bool,
}

impl Runner {
    /// Runs the action, and gives its answer once its outputs are in the storage.
    pub(crate) async fn run(&self, assignment: Assignment, mut reins: Reins) -> ExecuteResponse {
        let executed = self.execute(&assignment, &mut reins).await;
        let executed = executed.unwrap_or_else(Executed::failed);
        let done = &executed.done;
        // The scheduler does not read the answer of an action that was stopped.
        if reins.is_stopped() {
            return answer(done, None);
        }
        reins.phase.send_replace(Phase::Uploading);
        match self.deliver(&assignment, &executed, &mut reins).await {
            Ok(result) => answer(&self.with_message(&assignment, executed.done), result),
            Err(error) => answer(&failed(error), None),
        }
    }

    /// Runs the action, again if the storage was away when its inputs were fetched.
    async fn execute(
        &self,
        assignment: &Assignment,
        reins: &mut Reins,
    ) -> Result<Executed, ActionError> {
        let mut patience = Patience::new();
        loop {
            let mut executed = self.execute_once(assignment, reins).await?;
            let Some(ActionError::MissingBlobs(missing)) = &mut executed.done.error else {
                return Ok(executed);
            };
            if reins.is_stopped() {
                return Ok(executed);
            }
            missing.sort_unstable();
            missing.truncate(MISSING_MAX);
            let failure = match self.storage.absent(missing.clone()).await {
                Ok(absent) if absent.is_empty() => "blobs of it can't be fetched".to_owned(),
                // Truly missing: the client uploads them and asks again.
                Ok(_) => return Ok(executed),
                Err(error) => Chain(&error).to_string(),
            };
            self.wait_for_storage(&mut patience, reins, failure).await?;
            reins.phase.send_replace(Phase::Fetching);
        }
    }

    async fn execute_once(
        &self,
        assignment: &Assignment,
        reins: &mut Reins,
    ) -> Result<Executed, ActionError> {
        let Some(message) = self.message(assignment).await? else {
            return Ok(Executed::failed(ActionError::MissingBlobs(vec![assignment.action])));
        };
        // One that can't be decoded is refused below.
        let do_not_cache = Action::decode(message.clone()).is_ok_and(|action| action.do_not_cache);
        let request = ExecuteRequest {
            instance: assignment.instance.clone(),
            action: assignment.action,
            assigned: Some(message),
            skip_cache_lookup: true,
            priority: 0,
            is_forwarded: false,
            origin: Arc::clone(&assignment.origin),
        };
        // Nothing is read here: the Action is in the request, and no result is looked up.
        let submitted = self.worker.execute(&self.store.resident(), &request);
        let subscription = submitted.map_err(|error| match error {
            SubmitError::Draining => ActionError::ShuttingDown,
            error => ActionError::Unavailable(Chain(&error).to_string()),
        })?;
        Ok(Executed { done: self.follow(subscription, reins).await, do_not_cache })
    }

    /// The encoded Action; `None` if only its digest came and its blob can't be fetched.
    async fn message(&self, assignment: &Assignment) -> Result<Option<Bytes>, ActionError> {
        if let Some(message) = &assignment.message {
            return Ok(Some(message.clone()));
        }
        let action = assignment.action;
        ActionMessage::check_size(action, action.size_bytes())
            .map_err(|error| ActionError::Invalid(Chain(&error).to_string()))?;
        if let Some(tier) = self.store.tier() {
            tier.fetch(vec![action], Bytes::new()).await;
        }
        let store = Arc::clone(&self.store);
        let read = tokio::task::spawn_blocking(move || store.blocking().blob(&action)).await;
        // An error of the task means that it panicked, which is logged.
        let read = read.map_err(|_| ActionError::Internal(LOST.to_owned()))?;
        read.map_err(|error| ActionError::Internal(Chain(&error).to_string()))
    }

    /// The answer of an execution, which is cancelled when the assignment is to stop.
    async fn follow(&self, mut subscription: Subscription, reins: &mut Reins) -> Done {
        let mut is_cancelled = false;
        loop {
            let state = tokio::select! {
                state = subscription.next() => state,
                () = reins.stopped(), if !is_cancelled => {
                    self.worker.cancel(subscription.operation_name());
                    is_cancelled = true;
                    continue;
                }
            };
            let Some(state) = state else {
                return failed(ActionError::Internal("the operation has no answer".to_owned()));
            };
            if state.stage == Stage::Executing {
                reins.phase.send_replace(Phase::Running);
            }
            if let Some(done) = &state.done {
                return done.clone();
            }
        }
    }

    /// Copies the outputs to the storage, and the result if it is one that may be served again. Returns the result as
    /// the cluster sees it.
    async fn deliver(
        &self,
        assignment: &Assignment,
        executed: &Executed,
        reins: &mut Reins,
    ) -> Result<Option<ActionResult>, ActionError> {
        let done = &executed.done;
        if let Some(log) = done.server_log {
            // The action has failed already, and the log only tells why.
            if let Err(error) = self.storage.send(vec![log]).await {
                let error = Chain(&error).to_string();
                tracing::warn!(error, "the log of a failed action was not copied to the storage");
            }
        }
        let Some(result) = &done.result else { return Ok(None) };
        let result = decoded(result)?;
        let result = in_cluster(result, assignment);
        let keeps = done.error.is_none() && result.exit_code == 0 && !executed.do_not_cache;
        let suffix = assignment.suffix(&self.config.instance);
        let mut patience = Patience::new();
        loop {
            let kept = without_streams(result.clone());
            let delivered = tokio::select! {
                delivered = self.storage.deliver(suffix, assignment.action, kept, keeps) => delivered,
                () = reins.stopped() => return Err(ActionError::Cancelled),
            };
            let failure = match delivered {
                Ok(()) => return Ok(Some(result)),
                Err(DeliveryError::Failed(text)) => text,
                Err(error) => {
                    let text = format!("copying the outputs: {}", Chain(&error));
                    return Err(ActionError::Internal(text));
                }
            };
            self.wait_for_storage(&mut patience, reins, failure).await?;
        }
    }

    /// Waits before another try. Fails when there were too many, or the storage does not come back.
    async fn wait_for_storage(
        &self,
        patience: &mut Patience,
        reins: &mut Reins,
        failure: String,
    ) -> Result<(), ActionError> {
        tracing::warn!(failure, "the storage of the cluster failed; the action waits for it");
        patience.tries_left = patience.tries_left.saturating_sub(1);
        let pause = async {
            tokio::time::sleep(STORAGE_PAUSE).await;
            self.storage.until_up().await;
        };
        let is_back = tokio::select! {
            waited = timeout_at(patience.until, pause) => waited.is_ok(),
            () = reins.stopped() => return Err(ActionError::Cancelled),
        };
        if is_back && patience.tries_left > 0 {
            return Ok(());
        }
        Err(ActionError::Unavailable(format!("the storage of the cluster failed: {failure}")))
    }

    /// The answer with the page of the action, where there is one.
    fn with_message(&self, assignment: &Assignment, mut done: Done) -> Done {
        if let Some(browser) = &self.config.browser {
            let page = browser.action(&assignment.instance, &assignment.action);
            let page = format!("Action details: {page}");
            let words = [std::mem::take(&mut done.message), page];
            let words = words.into_iter().filter(|words| !words.is_empty());
            done.message = words.collect::<Vec<_>>().join("\n");
        }
        done
    }
}

impl Executed {
    fn failed(error: ActionError) -> Self {
        Self { done: failed(error), do_not_cache: true }
    }
}

/// The answer of an action that came to nothing.
fn failed(error: ActionError) -> Done {
    let (cached, message) = (false, String::new());
    Done { result: None, cached, error: Some(error), message, server_log: None }
}

/// The answer to an assignment that can't be run.
pub(crate) fn refused(error: &(dyn std::error::Error + 'static)) -> ExecuteResponse {
    answer(&failed(ActionError::Invalid(Chain(error).to_string())), None)
}

/// The answer to an assignment whose task ended early.
pub(crate) fn lost() -> ExecuteResponse {
    answer(&failed(ActionError::Internal(LOST.to_owned())), None)
}

fn decoded(result: &EncodedResult) -> Result<ActionResult, ActionError> {
    ActionResult::decode(result.message().clone())
        .map_err(|error| ActionError::Internal(format!("decoding the result: {}", Chain(&error))))
}

/// The result with what the scheduler knows of the action.
fn in_cluster(mut result: ActionResult, assignment: &Assignment) -> ActionResult {
    let metadata = result.execution_metadata.get_or_insert_default();
    if assignment.queued.is_some() {
        metadata.queued_timestamp = assignment.queued;
    }
    metadata.auxiliary_metadata.extend(assignment.auxiliary_metadata.iter().cloned());
    result
}

/// The result as it is cached: the streams are blobs too.
fn without_streams(result: ActionResult) -> ActionResult {
    ActionResult { stdout_raw: Default::default(), stderr_raw: Default::default(), ..result }
}

/// The message with an answer, whose result is that one.
fn answer(done: &Done, result: Option<ActionResult>) -> ExecuteResponse {
    let mut response = reapi::execute_response(done, result);
    if response.encoded_len() > ANSWER_BYTES_MAX {
        response.result = response.result.map(without_streams);
    }
    if response.encoded_len() > ANSWER_BYTES_MAX {
        let text = "the result is larger than an answer to the scheduler may be".to_owned();
        return answer(&failed(ActionError::ResourceExhausted(text)), None);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::proto::{OutputFile, Timestamp};
    use model::{Digest, DigestFunction};

    fn done() -> Done {
        Done { error: None, ..failed(ActionError::Cancelled) }
    }

    #[test]
    fn an_answer_fits_into_a_message() {
        let small = ActionResult { stdout_raw: vec![b'x'; 1_000].into(), ..Default::default() };
        assert_eq!(answer(&done(), Some(small.clone())).result, Some(small));

        let large = ActionResult { stdout_raw: vec![b'x'; 5 << 20].into(), ..Default::default() };
        assert_eq!(answer(&done(), Some(large)).result, Some(ActionResult::default()));

        let path = "x".repeat(1_000);
        let file = OutputFile { path, ..Default::default() };
        let many = ActionResult { output_files: vec![file; 5_000], ..Default::default() };
        let response = answer(&done(), Some(many));
        assert_eq!((response.result, response.status.map(|it| it.code)), (None, Some(8)));
    }

    #[test]
    fn all_missing_blobs_that_an_answer_may_name_fit() {
        let digest = Digest::of(DigestFunction::Sha512, b"x");
        let response = answer(&failed(ActionError::MissingBlobs(vec![digest; MISSING_MAX])), None);
        let status = response.status.clone().unwrap_or_default();
        assert_eq!((status.code, status.details.len()), (9, 1));
        assert!(response.encoded_len() < ANSWER_BYTES_MAX / 2, "{}", response.encoded_len());
    }

    #[test]
    fn the_time_in_the_schedulers_queue_counts() {
        let queued = Some(Timestamp { seconds: 7, nanos: 0 });
        let assignment = Assignment {
            action: Digest::of(DigestFunction::Sha256, b"action"),
            message: None,
            instance: Default::default(),
            origin: Default::default(),
            queued,
            auxiliary_metadata: vec![Default::default()],
        };
        let metadata = in_cluster(ActionResult::default(), &assignment).execution_metadata.unwrap();
        assert_eq!(metadata.queued_timestamp, queued);
        assert_eq!(metadata.auxiliary_metadata.len(), 1);
    }
}
