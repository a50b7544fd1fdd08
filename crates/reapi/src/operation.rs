//! Operations as clients see them: the messages that `Execution` and `Operations` answer with.
//!
//! The outcome of an action is in `ExecuteResponse.status`; the status of the call itself says
//! only whether the call was answered.

use model::Digest;
use model::proto::{
    ActionResult, ExecuteOperationMetadata, ExecuteResponse, LogFile,
    execution_stage::Value as ProtoStage,
};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};
use proto::google::longrunning::{Operation, operation};
use proto::google::protobuf::Any;
use proto::google::rpc::precondition_failure::Violation;
use proto::google::rpc::{PreconditionFailure, Status as RpcStatus};
use tonic::{Code, Status};
use worker::{ActionError, Done, OperationState, SERVER_LOG, Stage};

use crate::status;

/// Blobs named by one PreconditionFailure. A client that lacks more uploads
/// these, asks again and is told the rest; and the message stays below the
/// 4 MiB that gRPC clients take by default.
const MAX_VIOLATIONS: usize = 20_000;

/// There is no operation of that name, or not any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no operation `{name}`")]
pub(crate) struct UnknownOperation {
    /// The first 80 characters of the name.
    name: String,
}

impl UnknownOperation {
    pub(crate) fn new(name: &str) -> Self {
        Self { name: name.chars().take(80).collect() }
    }
}

impl From<UnknownOperation> for Status {
    fn from(error: UnknownOperation) -> Self {
        status::of(Code::NotFound, &error)
    }
}

/// An operation's state as clients see it.
pub(crate) fn message(name: &str, state: &OperationState) -> Operation {
    Operation {
        name: name.to_owned(),
        metadata: Some(any("ExecuteOperationMetadata", metadata(state).encode_to_vec())),
        done: state.done.is_some(),
        result: state.done.as_ref().map(|done| {
            // Never `Operation.error`: the API says that it is not for this.
            operation::Result::Response(any("ExecuteResponse", response(done)))
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

/// The number of `ExecuteResponse.result`.
const RESULT: u32 = 1;

/// The `ExecuteResponse` of an answer, with `result` in the place of the answer's own.
pub fn execute_response(done: &Done, result: Option<ActionResult>) -> ExecuteResponse {
    ExecuteResponse {
        result,
        cached_result: done.cached,
        status: Some(done.error.as_ref().map_or_else(RpcStatus::default, of_action)),
        message: done.message.clone(),
        server_logs: done.server_log.iter().map(server_log).collect(),
    }
}

/// An encoded `ExecuteResponse`. The result, which may be large, is encoded already.
fn response(done: &Done) -> Vec<u8> {
    let others = execute_response(done, None);
    let result = done.result.as_ref().map(|result| &result.message()[..]);
    let result_bytes = result.map_or(0, |result| RESULT_KEY_BYTES_MAX + result.len());
    let mut response = Vec::with_capacity(result_bytes + others.encoded_len());
    if let Some(result) = result {
        encode_key(RESULT, WireType::LengthDelimited, &mut response);
        encode_varint(result.len() as u64, &mut response);
        response.extend_from_slice(result);
    }
    others.encode_raw(&mut response);
    response
}

/// An entry of `ExecuteResponse.server_logs`.
fn server_log(digest: &Digest) -> (String, LogFile) {
    let log = LogFile { digest: Some(digest.to_proto()), human_readable: true };
    (SERVER_LOG.to_owned(), log)
}

/// A key of one byte and a length of up to ten.
const RESULT_KEY_BYTES_MAX: usize = 11;

/// Packs an encoded REAPI message.
fn any(name: &str, value: Vec<u8>) -> Any {
    Any { type_url: format!("type.googleapis.com/build.bazel.remote.execution.v2.{name}"), value }
}

/// The `ExecuteResponse.status` of an action that failed.
fn of_action(error: &ActionError) -> RpcStatus {
    let (code, details) = match error {
        ActionError::MissingBlobs(digests) => (Code::FailedPrecondition, vec![missing(digests)]),
        ActionError::Invalid(_)
        | ActionError::Unsupported(_)
        | ActionError::WorkingDirectory { .. } => (Code::InvalidArgument, Vec::new()),
        // As the older lists of outputs demand.
        ActionError::WrongKind(_) => (Code::FailedPrecondition, Vec::new()),
        ActionError::TimedOut { .. } => (Code::DeadlineExceeded, Vec::new()),
        ActionError::Cancelled => (Code::Cancelled, Vec::new()),
        ActionError::ShuttingDown | ActionError::Unavailable(_) => (Code::Unavailable, Vec::new()),
        ActionError::ResourceExhausted(_) => (Code::ResourceExhausted, Vec::new()),
        ActionError::SetUp { .. } | ActionError::Internal(_) => (Code::Internal, Vec::new()),
    };
    RpcStatus { code: code.into(), message: error.to_string(), details }
}

/// The detail by which clients know what to upload. All violations are of type
/// MISSING, and it is the only detail: Bazel gives up on anything else.
fn missing(digests: &[Digest]) -> Any {
    let violation = |digest: &Digest| Violation {
        r#type: "MISSING".to_owned(),
        subject: subject(digest),
        description: String::new(),
    };
    let violations = digests.iter().take(MAX_VIOLATIONS).map(violation).collect();
    Any {
        type_url: "type.googleapis.com/google.rpc.PreconditionFailure".to_owned(),
        value: PreconditionFailure { violations }.encode_to_vec(),
    }
}

/// `blobs/hash/size`, with the function before the hash for those newer than
/// REAPI 2.2, as in resource names.
fn subject(digest: &Digest) -> String {
    match digest.function().resource_name_segment() {
        None => format!("blobs/{digest}"),
        Some(function) => format!("blobs/{function}/{digest}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{DigestFunction, EncodedResult};
    use std::time::Duration;

    fn digest(function: DigestFunction) -> Digest {
        Digest::of(function, b"abc")
    }

    #[test]
    fn a_response_is_what_the_generated_code_writes() {
        for (error, exit_code) in [(None, 3), (Some(ActionError::Cancelled), 0)] {
            let result = ActionResult { exit_code, ..ActionResult::default() };
            let done = Done {
                result: Some(EncodedResult::of(&result)),
                cached: true,
                error,
                message: "why".to_owned(),
                server_log: Some(digest(DigestFunction::Blake3)),
            };
            let decoded = ExecuteResponse::decode(response(&done).as_slice()).unwrap();
            assert_eq!(decoded, execute_response(&done, Some(result)));
            assert_eq!((decoded.cached_result, decoded.message.as_str()), (true, "why"));
            let log = decoded.server_logs[SERVER_LOG].digest.clone();
            assert_eq!(log, Some(digest(DigestFunction::Blake3).to_proto()));
            let code = if done.error.is_some() { Code::Cancelled } else { Code::Ok };
            assert_eq!(decoded.status.unwrap().code, i32::from(code));
            let without = Done { result: None, ..done };
            let decoded = ExecuteResponse::decode(response(&without).as_slice()).unwrap();
            assert_eq!(decoded.result, None);
        }
    }

    #[test]
    fn action_errors() {
        let text = || "why".to_owned();
        let check = |error: ActionError, code: Code| {
            let status = of_action(&error);
            assert_eq!(status.code, i32::from(code), "{error}");
            assert_eq!(status.message, error.to_string());
            let names_blobs = matches!(error, ActionError::MissingBlobs(_));
            assert_eq!(status.details.len(), usize::from(names_blobs), "{error}");
        };
        check(ActionError::MissingBlobs(Vec::new()), Code::FailedPrecondition);
        check(ActionError::Invalid(text()), Code::InvalidArgument);
        check(ActionError::Unsupported(text()), Code::InvalidArgument);
        check(ActionError::WrongKind(text()), Code::FailedPrecondition);
        check(
            ActionError::WorkingDirectory { directory: model::Printable::name("d"), errno: text() },
            Code::InvalidArgument,
        );
        check(ActionError::TimedOut { after: Duration::from_secs(1) }, Code::DeadlineExceeded);
        check(ActionError::Cancelled, Code::Cancelled);
        check(ActionError::ShuttingDown, Code::Unavailable);
        check(ActionError::Unavailable(text()), Code::Unavailable);
        check(ActionError::ResourceExhausted(text()), Code::ResourceExhausted);
        check(ActionError::SetUp { step: text(), errno: text() }, Code::Internal);
        check(ActionError::Internal(text()), Code::Internal);
    }

    #[test]
    fn missing_blobs_are_named_as_clients_expect() {
        let digests = [digest(DigestFunction::Sha256), digest(DigestFunction::Blake3)];
        let detail = missing(&digests);
        assert_eq!(detail.type_url, "type.googleapis.com/google.rpc.PreconditionFailure");
        let failure = PreconditionFailure::decode(detail.value.as_slice()).unwrap();
        let subjects: Vec<_> = failure.violations.iter().map(|one| one.subject.as_str()).collect();
        assert_eq!(
            subjects,
            [
                "blobs/ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad/3",
                "blobs/blake3/6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85/3",
            ]
        );
        assert!(failure.violations.iter().all(|one| one.r#type == "MISSING"));
    }

    #[test]
    fn very_many_missing_blobs_are_told_in_parts() {
        let detail = missing(&vec![digest(DigestFunction::Blake3); MAX_VIOLATIONS + 1]);
        let failure = PreconditionFailure::decode(detail.value.as_slice()).unwrap();
        assert_eq!(failure.violations.len(), MAX_VIOLATIONS);
        assert!(detail.value.len() < 4 << 20);
    }
}
