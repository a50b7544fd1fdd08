//! `Execution`: actions, and the operations that stand for them.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use model::proto::{
    ExecuteOperationMetadata, ExecuteResponse, WaitExecutionRequest,
    execution_stage::Value as ProtoStage,
};
use prost::Message;
use proto::google::longrunning::{Operation, operation};
use proto::google::protobuf::Any;
use proto::google::rpc::Status as RpcStatus;
use store::Store;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, BoxStream, http};
use tonic::{Request, Response, Status};
use worker::{Done, ExecuteRequest, OperationState, Stage, SubmitError, Subscription, Worker};

use crate::grpc::{Call, Methods};
use crate::inline::Wanted;
use crate::{blocking, origin, request, status};

/// A stream on which nothing happens repeats its last message this often:
/// clients and proxies between take silence for a broken connection.
const REPEAT: Duration = Duration::from_secs(30);

/// The service.
#[derive(Clone)]
pub(crate) struct Execution {
    store: Arc<Store>,
    worker: Worker,
}

impl Execution {
    pub(crate) fn new(store: Arc<Store>, worker: Worker) -> Self {
        Self { store, worker }
    }

    /// Each state of an operation as it comes, the current one at once. Dropping
    /// the stream tells the worker that the client is gone.
    fn follow(&self, subscription: Subscription, wanted: Wanted) -> BoxStream<Operation> {
        let following = Following {
            subscription,
            store: Arc::clone(&self.store),
            wanted: Arc::new(wanted),
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
            "Execute" => call.server_streaming(move |request| self.clone().execute(request)),
            "WaitExecution" => {
                call.server_streaming(move |request| self.clone().wait_execution(request))
            }
            _ => call.unimplemented(),
        }
    }
}

impl Execution {
    async fn execute(
        self,
        request: Request<proto::build::bazel::remote::execution::v2::ExecuteRequest>,
    ) -> Result<Response<BoxStream<Operation>>, Status> {
        let origin = Arc::new(origin::of(request.metadata()));
        let message = request.into_inner();
        request::instance_name(&message.instance_name).map_err(status::request)?;
        let action = request::action(
            message.action_digest.as_ref(),
            message.digest_function,
            self.store.cas(),
        )
        .map_err(status::request)?;
        let request = ExecuteRequest {
            instance: message.instance_name,
            action,
            skip_cache_lookup: message.skip_cache_lookup,
            origin,
        };
        let wanted = Wanted {
            stdout: message.inline_stdout,
            stderr: message.inline_stderr,
            output_files: message.inline_output_files,
        };
        // Going to another thread and back costs more than what is done there, mostly.
        let subscription = match self.worker.execute(&self.store.resident(), &request) {
            Err(SubmitError::WouldWait) => {
                let (worker, store) = (self.worker.clone(), Arc::clone(&self.store));
                let execute = move || {
                    let submitted = worker.execute(&store.blocking(), &request);
                    submitted.map_err(|error| status::submit(&error))
                };
                blocking::run(execute).await?
            }
            submitted => submitted.map_err(|error| status::submit(&error))?,
        };
        Ok(Response::new(self.follow(subscription, wanted)))
    }

    async fn wait_execution(
        self,
        request: Request<WaitExecutionRequest>,
    ) -> Result<Response<BoxStream<Operation>>, Status> {
        let name = &request.get_ref().name;
        let subscription = self.worker.attach(name);
        let subscription = subscription.ok_or_else(|| status::operation_not_found(name))?;
        Ok(Response::new(self.follow(subscription, Wanted::default())))
    }
}

/// An operation on its way to one client.
struct Following {
    subscription: Subscription,
    store: Arc<Store>,
    wanted: Arc<Wanted>,
    last: Option<Arc<OperationState>>,
}

impl Following {
    /// The next message; `None` after the one with the answer.
    async fn next(&mut self) -> Option<Result<Operation, Status>> {
        let state = self.next_state().await?;
        self.last = Some(Arc::clone(&state));
        let name = self.subscription.operation_name();
        if state.done.is_none() || self.wanted.is_nothing() {
            return Some(Ok(operation(name, &state)));
        }
        let (store, wanted, name) =
            (Arc::clone(&self.store), Arc::clone(&self.wanted), name.to_owned());
        let inlined = blocking::run(move || {
            let mut state = (*state).clone();
            let function = state.action.function();
            if let Some(result) = state.done.as_mut().and_then(|done| done.result.as_mut()) {
                wanted.fill(store.cas(), function, result)?;
            }
            Ok(operation(&name, &state))
        });
        Some(inlined.await)
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

/// An operation's state as clients see it.
pub(crate) fn operation(name: &str, state: &OperationState) -> Operation {
    Operation {
        name: name.to_owned(),
        metadata: Some(any("ExecuteOperationMetadata", &metadata(state))),
        done: state.done.is_some(),
        result: state.done.as_ref().map(|done| {
            // Never `Operation.error`: the API says that it is not for this.
            operation::Result::Response(any("ExecuteResponse", &response(done)))
        }),
    }
}

fn metadata(state: &OperationState) -> ExecuteOperationMetadata {
    let stage = match state.stage {
        Stage::CacheCheck => ProtoStage::CacheCheck,
        Stage::Queued => ProtoStage::Queued,
        Stage::Executing => ProtoStage::Executing,
        Stage::Completed => ProtoStage::Completed,
    };
    ExecuteOperationMetadata {
        stage: stage.into(),
        action_digest: Some(state.action.to_proto()),
        partial_execution_metadata: Some(state.metadata.clone()),
        digest_function: state.action.function().to_proto(),
        // Output is not streamed while it is being made.
        ..ExecuteOperationMetadata::default()
    }
}

fn response(done: &Done) -> ExecuteResponse {
    ExecuteResponse {
        result: done.result.clone(),
        cached_result: done.cached,
        status: Some(done.error.as_ref().map_or_else(RpcStatus::default, status::of_action)),
        message: done.message.clone(),
        ..ExecuteResponse::default()
    }
}

/// Packs a REAPI message.
fn any(name: &str, message: &impl Message) -> Any {
    Any {
        type_url: format!("type.googleapis.com/build.bazel.remote.execution.v2.{name}"),
        value: message.encode_to_vec(),
    }
}
