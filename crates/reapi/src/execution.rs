//! `Execution`: actions, and the operations that stand for them.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use access::check_instance;
use model::proto::WaitExecutionRequest;
use proto::google::longrunning::Operation;
use store::Store;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, BoxStream, http};
use tonic::{Code, Request, Response, Status};
use worker::{Done, ExecuteRequest, OperationState, SubmitError, Subscription, Worker};

use crate::grpc::{Call, Methods};
use crate::inline::{MAX_INLINED_BYTES, Wanted};
use crate::lookups::Lookups;
use crate::memory::Reservation;
use crate::offer::Offer;
use crate::operation::{UnknownOperation, message};
use crate::operations::check_visible;
use crate::{below, blocking, origin, request, status};

/// A stream on which nothing happens repeats its last message this often:
/// clients and proxies between take silence for a broken connection.
const REPEAT: Duration = Duration::from_secs(30);

/// The time in which an answer comes alone. The stages of a short action are over before a client could show them,
/// and telling them took 8 % of a no-op action.
const SHORT: Duration = Duration::from_millis(20);

/// Actions up to this size are read without reserving: real ones take some hundred bytes.
const SMALL_ACTION_BYTES: u64 = 4 << 10;

/// The largest Action that the worker reads.
pub(crate) const MAX_ACTION_BYTES: u64 = 1 << 20;

/// The time after which a client may try again when the queue is full: a few actions end in that.
const RETRY_SECONDS: i64 = 1;

/// The status of an action that was not taken on.
pub(crate) fn not_taken_on(error: &SubmitError) -> Status {
    let act = "the action was not taken on";
    match error {
        SubmitError::QueueFull { .. }
        | SubmitError::QueueTooLarge { .. }
        | SubmitError::ClientFull => {
            status::retry_after(status::of_act(Code::ResourceExhausted, act, error), RETRY_SECONDS)
        }
        SubmitError::Draining | SubmitError::WouldWait => {
            status::of_act(Code::Unavailable, act, error)
        }
    }
}

/// The service.
#[derive(Clone)]
pub(crate) struct Execution {
    store: Arc<Store>,
    worker: Worker,
    lookups: Lookups,
    offer: Offer,
}

impl Execution {
    pub(crate) fn new(store: Arc<Store>, worker: Worker, lookups: Lookups, offer: Offer) -> Self {
        Self { store, worker, lookups, offer }
    }

    /// Each state of an operation as it comes, the current one at once. Dropping
    /// the stream tells the worker that the client is gone.
    fn follow(
        &self,
        subscription: Subscription,
        wanted: Wanted,
        reserved: Lent,
    ) -> BoxStream<Operation> {
        let following = Following {
            subscription,
            store: Arc::clone(&self.store),
            wanted: Arc::new(wanted),
            reserved,
            last: None,
        };
        Box::pin(futures_util::stream::unfold(following, |mut following| async move {
            let message = following.next().await?;
            Some((message, following))
        }))
    }
}

impl Methods for Execution {
    const NAME: &'static str = "build.bazel.remote.execution.v2.Execution";

    fn dispatch(self, method: &str, call: Call) -> BoxFuture<http::Response<Body>, Infallible> {
        match method {
            "Execute" => {
                let reservation = call.reservation();
                call.server_streaming(move |request| {
                    self.clone().execute(request, Arc::clone(&reservation))
                })
            }
            "WaitExecution" => {
                let reservation = call.reservation();
                call.server_streaming(move |request| {
                    self.clone().wait_execution(request, Arc::clone(&reservation))
                })
            }
            _ => call.unimplemented(),
        }
    }
}

impl Execution {
    async fn execute(
        self,
        request: Request<proto::build::bazel::remote::execution::v2::ExecuteRequest>,
        reservation: Arc<Reservation>,
    ) -> Result<Response<BoxStream<Operation>>, Status> {
        let caller = origin::encoded(request.metadata());
        let mut origin = origin::caller(request.extensions(), &caller).origin();
        origin.trace = origin::trace(request.metadata());
        let is_forwarded = origin::is_forwarded(request.metadata());
        let origin = Arc::new(origin);
        check_instance(request.extensions(), &request.get_ref().instance_name)?;
        let message = request.into_inner();
        let instance = request::instance_name(&self.offer, &message.instance_name)?;
        let action = request::action(
            message.action_digest.as_ref(),
            message.digest_function,
            &self.offer.functions,
            self.store.cas(),
        )?;
        let request = ExecuteRequest {
            instance,
            action,
            assigned: None,
            skip_cache_lookup: message.skip_cache_lookup,
            priority: message.execution_policy.map_or(0, |policy| policy.priority),
            is_forwarded,
            origin,
        };
        let wanted =
            Wanted::new(message.inline_stdout, message.inline_stderr, message.inline_output_files);
        if action.size_bytes() > SMALL_ACTION_BYTES {
            reservation.grow_by(2 * action.size_bytes().min(MAX_ACTION_BYTES))?;
        }
        if self.store.tier().is_some() {
            if !request.skip_cache_lookup {
                let (instance, caller) = (&request.instance, caller.clone());
                below::fetch_result(&self.store, &self.worker, instance, action, caller).await?;
            }
            below::fetch(&self.store, &reservation, [action], caller).await?;
        }
        // Going to another thread and back costs more than what is done there, mostly.
        let mut lent_bytes = 0;
        let mut subscription = match self.worker.execute(&self.store.resident(), &request) {
            Err(SubmitError::WouldWait) => {
                // Lasts until a cached result was reserved for.
                let _turn = self.lookups.turn().await;
                let (worker, store) = (self.worker.clone(), Arc::clone(&self.store));
                let execute = move || {
                    let submitted = worker.execute(&store.blocking(), &request);
                    submitted.map_err(|error| not_taken_on(&error))
                };
                let subscription = blocking::run(execute).await?;
                lent_bytes = subscription.memory_bytes();
                reservation.grow_by(lent_bytes)?;
                subscription
            }
            submitted => submitted.map_err(|error| not_taken_on(&error))?,
        };
        subscription.settle(SHORT).await;
        Ok(Response::new(self.follow(
            subscription,
            wanted,
            Lent { reservation, bytes: lent_bytes },
        )))
    }

    async fn wait_execution(
        self,
        request: Request<WaitExecutionRequest>,
        reservation: Arc<Reservation>,
    ) -> Result<Response<BoxStream<Operation>>, Status> {
        let name = &request.get_ref().name;
        check_visible(&self.worker, request.extensions(), name)?;
        let subscription = self.worker.attach(name).ok_or_else(|| UnknownOperation::new(name))?;
        Ok(Response::new(self.follow(
            subscription,
            Wanted::default(),
            Lent { reservation, bytes: 0 },
        )))
    }
}

/// The reservation of a call, and how much of it is for the operation.
struct Lent {
    reservation: Arc<Reservation>,
    bytes: u64,
}

/// An operation on its way to one client.
struct Following {
    subscription: Subscription,
    store: Arc<Store>,
    wanted: Arc<Wanted>,
    reserved: Lent,
    last: Option<Arc<OperationState>>,
}

impl Following {
    /// The next message; `None` after the one with the answer.
    async fn next(&mut self) -> Option<Result<Operation, Status>> {
        let state = self.next_state().await?;
        self.last = Some(Arc::clone(&state));
        Some(self.message(state).await)
    }

    async fn message(&self, state: Arc<OperationState>) -> Result<Operation, Status> {
        let name = self.subscription.operation_name();
        let Some(done) = &state.done else { return Ok(message(name, &state)) };
        // The answer, which may be forgotten elsewhere by now, and the message with it.
        let Lent { reservation, bytes } = &self.reserved;
        reservation.grow_by((2 * done.memory_bytes()).saturating_sub(*bytes))?;
        let Some(result) = done.result.clone().filter(|_| !self.wanted.is_nothing()) else {
            return Ok(message(name, &state));
        };
        reservation.grow_by(result.message().len() as u64 + MAX_INLINED_BYTES)?;
        let (store, wanted) = (Arc::clone(&self.store), Arc::clone(&self.wanted));
        let function = state.action.function();
        let filled = blocking::run_for_caller(move |caller| {
            wanted.fill(store.cas(), function, &result, caller)
        })
        .await?;
        let done = Done { result: Some(filled), ..done.clone() };
        Ok(message(name, &OperationState { done: Some(done), ..(*state).clone() }))
    }

    /// The next state, or the last one again after a while of silence.
    async fn next_state(&mut self) -> Option<Arc<OperationState>> {
        let next = self.subscription.next();
        match (tokio::time::timeout(REPEAT, next).await, &self.last) {
            (Ok(state), _) => state,
            (Err(_), Some(last)) => Some(Arc::clone(last)),
            // Does not happen: the first state does not wait.
            (Err(_), None) => self.subscription.next().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message as _;
    use proto::google::rpc::{RetryInfo, Status as RpcStatus};

    #[test]
    fn codes_of_actions_that_are_not_taken_on() {
        let full = SubmitError::QueueFull { limit: 1 };
        let status = not_taken_on(&full);
        assert_eq!(status.code(), Code::ResourceExhausted);
        let details = RpcStatus::decode(status.details()).unwrap().details;
        assert_eq!(details[0].type_url, "type.googleapis.com/google.rpc.RetryInfo");
        let retry = RetryInfo::decode(&details[0].value[..]).unwrap();
        assert_eq!(retry.retry_delay.map(|delay| delay.seconds), Some(RETRY_SECONDS));
        assert_eq!(not_taken_on(&SubmitError::ClientFull).code(), Code::ResourceExhausted);
        let large = SubmitError::QueueTooLarge { limit_bytes: 1 };
        assert_eq!(not_taken_on(&large).code(), Code::ResourceExhausted);
        assert_eq!(not_taken_on(&SubmitError::Draining).code(), Code::Unavailable);
    }
}
