//! One call of an action at an engine, from `Execute` to its answer.
//!
//! ```text
//!  Execute ──► stream ──► answer
//!                │ breaks        ┌── found: the stream goes on
//!                └──► WaitExecution
//!                                └── not found: the caller asks again
//! ```

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use model::proto::execution_client::ExecutionClient;
use model::proto::google::longrunning::operation::Result as Outcome;
use model::proto::google::longrunning::operations_client::OperationsClient;
use model::proto::google::longrunning::{CancelOperationRequest, Operation};
use model::proto::google::rpc::{PreconditionFailure, Status as RpcStatus};
use model::proto::{
    ExecuteOperationMetadata, ExecuteRequest, ExecuteResponse, Message as _, WaitExecutionRequest,
    execution_stage,
};
use tokio::runtime::Handle;
use tokio::time::timeout;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Code, Request, Status, Streaming};

use crate::call_error::CallError;
use crate::headers::Headers;
use crate::link::Link;

/// The largest message of an engine: a result, with streams inside of it.
const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// The silence after which it is asked whether the engine is still there. Engines repeat themselves once a minute.
const SILENCE: Duration = Duration::from_secs(60);

/// Such questions in a row without an answer, or tries of finding the operation again.
const TRIES: u32 = 3;

/// The wait between tries.
const PAUSE: Duration = Duration::from_millis(500);

/// The time for telling the engine that nobody wants the action.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(5);

/// The header with an encoded `RequestMetadata`.
const CALLER: &str = "build.bazel.remote.execution.v2.requestmetadata-bin";

/// The header that tells another actiond not to send the action on, as `reapi::origin` reads it.
const FORWARDED: &str = "actiond-overflow";

/// The type of the detail of an answer that names missing blobs.
const PRECONDITION_FAILURE: &str = "type.googleapis.com/google.rpc.PreconditionFailure";

/// The end of an action at an engine.
pub(crate) enum Answer {
    /// The engine has run it, or says why it cannot.
    Done(Box<ExecuteResponse>),
    /// The engine does not have all blobs of it.
    LacksBlobs,
}

/// One action at an engine; cancelled there when dropped before its end.
pub(crate) struct Execution {
    channel: Channel,
    headers: Headers,
    caller: Bytes,
    handle: Handle,
    /// Held until the engine was told to cancel.
    busy: Busy,
    /// The engine's name of it, while it is not over.
    name: Option<String>,
}

/// Work that the end of the daemon waits for: it is counted.
pub(crate) type Busy = Arc<()>;

impl Execution {
    /// An action that nobody has asked for yet.
    pub(crate) fn new(
        channel: Channel,
        headers: Headers,
        caller: Bytes,
        handle: Handle,
        busy: Busy,
    ) -> Self {
        Self { channel, headers, caller, handle, busy, name: None }
    }

    /// Asks for the action and waits for its end. `news` is called when it runs.
    pub(crate) async fn run(
        mut self,
        request: ExecuteRequest,
        link: &Link,
        news: &(dyn Fn() + Send + Sync),
    ) -> Result<Answer, CallError> {
        let mut client = self.client();
        let mut request = self.request(request);
        request.metadata_mut().insert(FORWARDED, MetadataValue::from_static("1"));
        let mut stream = match timeout(SILENCE, client.execute(request)).await {
            Ok(Ok(stream)) => stream.into_inner(),
            Ok(Err(status)) => return of_status(status),
            Err(_) => return Err(CallError::TimedOut(SILENCE)),
        };
        loop {
            let status = match self.follow(&mut stream, link, news).await {
                Ok(answer) => {
                    self.name = None;
                    return Ok(answer);
                }
                Err(status) => status,
            };
            stream = self.find_again(status).await?;
        }
    }

    /// Reads the stream to the answer.
    async fn follow(
        &mut self,
        stream: &mut Streaming<Operation>,
        link: &Link,
        news: &(dyn Fn() + Send + Sync),
    ) -> Result<Answer, Status> {
        let mut silences = 0;
        loop {
            let operation = match timeout(SILENCE, stream.message()).await {
                Ok(Ok(Some(operation))) => operation,
                Ok(Ok(None)) => return Err(Status::unavailable("the stream ended early")),
                Ok(Err(status)) => return Err(status),
                Err(_) if link.answers().await => {
                    silences = 0;
                    continue;
                }
                Err(_) => {
                    silences += 1;
                    if silences == TRIES {
                        return Err(Status::unavailable("the engine does not answer any more"));
                    }
                    continue;
                }
            };
            silences = 0;
            if !operation.name.is_empty() {
                self.name = Some(operation.name.clone());
            }
            if operation.done {
                return Ok(answer(operation.result));
            }
            if is_executing(&operation) {
                news();
            }
        }
    }

    /// Follows the operation again after its stream broke.
    async fn find_again(&mut self, status: Status) -> Result<Streaming<Operation>, CallError> {
        let Some(name) = self.name.clone() else { return Err(CallError::of(status)) };
        let mut last = status;
        for _ in 0..TRIES {
            tokio::time::sleep(PAUSE).await;
            let request = self.request(WaitExecutionRequest { name: name.clone() });
            let waited = timeout(SILENCE, self.client().wait_execution(request)).await;
            match waited.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer"))) {
                Ok(stream) => return Ok(stream.into_inner()),
                Err(status) if matches!(status.code(), Code::NotFound | Code::Unimplemented) => {
                    self.name = None;
                    let text = "the engine has forgotten the action";
                    return Err(CallError::of(Status::unavailable(text)));
                }
                Err(status) => last = status,
            }
        }
        Err(CallError::of(Status::unavailable(format!("{}: {}", last.code(), last.message()))))
    }

    fn client(&self) -> ExecutionClient<Channel> {
        ExecutionClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        self.headers.add_to(request.metadata_mut());
        request.metadata_mut().insert_bin(CALLER, MetadataValue::from_bytes(&self.caller));
        request
    }
}

impl Drop for Execution {
    fn drop(&mut self) {
        let Some(name) = self.name.take() else { return };
        let request = self.request(CancelOperationRequest { name });
        let mut client = OperationsClient::new(self.channel.clone());
        let busy = Arc::clone(&self.busy);
        self.handle.spawn(async move {
            // An engine without that call stops what nobody listens to.
            let _ = timeout(CANCEL_TIMEOUT, client.cancel_operation(request)).await;
            drop(busy);
        });
    }
}

/// The answer in an operation that is over.
fn answer(outcome: Option<Outcome>) -> Answer {
    let response = match outcome {
        Some(Outcome::Response(any)) => ExecuteResponse::decode(any.value.as_slice())
            .unwrap_or_else(|_| failed(Code::Internal, "an answer that is no ExecuteResponse")),
        Some(Outcome::Error(status)) => {
            ExecuteResponse { status: Some(status), ..Default::default() }
        }
        None => failed(Code::Internal, "an operation that is over without an answer"),
    };
    if response.status.as_ref().is_some_and(names_missing_blobs) {
        return Answer::LacksBlobs;
    }
    Answer::Done(Box::new(response))
}

fn failed(code: Code, text: &str) -> ExecuteResponse {
    let status = RpcStatus { code: code as i32, message: text.to_owned(), details: Vec::new() };
    ExecuteResponse { status: Some(status), ..Default::default() }
}

/// The error of a call that has failed itself.
fn of_status(status: Status) -> Result<Answer, CallError> {
    if let Ok(details) = RpcStatus::decode(status.details())
        && names_missing_blobs(&details)
    {
        return Ok(Answer::LacksBlobs);
    }
    match status.code() {
        // Of an action, and not of a blob.
        Code::NotFound => Err(CallError::Refused(Box::new(status))),
        _ => Err(CallError::of(status)),
    }
}

/// Whether blobs are missing, as REAPI says it.
fn names_missing_blobs(status: &RpcStatus) -> bool {
    status.code == Code::FailedPrecondition as i32
        && status.details.iter().filter(|any| any.type_url == PRECONDITION_FAILURE).any(|any| {
            let failure = PreconditionFailure::decode(any.value.as_slice()).unwrap_or_default();
            failure.violations.iter().any(|violation| violation.r#type == "MISSING")
        })
}

fn is_executing(operation: &Operation) -> bool {
    let metadata = operation.metadata.as_ref();
    metadata.is_some_and(|any| {
        ExecuteOperationMetadata::decode(any.value.as_slice())
            .is_ok_and(|metadata| metadata.stage == execution_stage::Value::Executing as i32)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::proto::google::rpc::precondition_failure::Violation;

    fn status(code: Code, kind: &str) -> RpcStatus {
        let violation = Violation { r#type: kind.to_owned(), ..Default::default() };
        let failure = PreconditionFailure { violations: vec![violation] };
        let detail = model::proto::Any {
            type_url: PRECONDITION_FAILURE.to_owned(),
            value: failure.encode_to_vec(),
        };
        RpcStatus { code: code as i32, message: String::new(), details: vec![detail] }
    }

    #[test]
    fn missing_blobs_are_told_from_other_answers() {
        for (code, kind, expected) in [
            (Code::FailedPrecondition, "MISSING", true),
            (Code::FailedPrecondition, "OTHER", false),
            (Code::InvalidArgument, "MISSING", false),
        ] {
            let status = status(code, kind);
            assert_eq!(names_missing_blobs(&status), expected, "{code:?} {kind}");
            let is_lack = matches!(answer(Some(Outcome::Error(status))), Answer::LacksBlobs);
            assert_eq!(is_lack, expected, "{code:?} {kind}");
        }
    }

    #[test]
    fn an_answer_that_is_none_is_an_error() {
        let any = model::proto::Any { type_url: String::new(), value: b"\xff".to_vec() };
        for outcome in [None, Some(Outcome::Response(any))] {
            let Answer::Done(response) = answer(outcome) else { panic!("no blobs are named") };
            assert_eq!(response.status.map(|status| status.code), Some(Code::Internal as i32));
        }
    }

    #[test]
    fn calls_that_fail_are_for_later_or_refused() {
        for (code, is_refused) in [
            (Code::Unavailable, false),
            (Code::ResourceExhausted, false),
            (Code::PermissionDenied, true),
            (Code::InvalidArgument, true),
            (Code::NotFound, true),
            (Code::Unimplemented, true),
        ] {
            let refused = matches!(of_status(Status::new(code, "")), Err(CallError::Refused(_)));
            assert_eq!(refused, is_refused, "{code:?}");
        }
    }
}
