//! Errors to status codes: the one place where that happens.
//!
//! Three audiences: the caller of a method ([`Status`]), the reader of one item
//! of a batch ([`to_rpc`]), and the reader of an `ExecuteResponse`
//! ([`of_action`]), whose `status` field says what became of the action while
//! the call itself was fine.

use std::error::Error;
use std::io;
use std::time::Duration;

use model::{Chain, Digest, DigestFunction};
use prost::Message as _;
use proto::google::protobuf::Any;
use proto::google::rpc::precondition_failure::Violation;
use proto::google::rpc::{PreconditionFailure, Status as RpcStatus};
use store::StoreError;
use tokio::task::JoinError;
use tonic::{Code, Status};
use worker::{ActionError, CacheError, SubmitError};

use crate::byte_stream::{ReadRefused, WriteRefused};
use crate::cas::TreeRefused;
use crate::memory::Exhausted;
use crate::request::RequestError;
use crate::resource_name::ResourceNameError;

/// Blobs named by one PreconditionFailure. A client that lacks more uploads
/// these, asks again and is told the rest; and the message stays below the
/// 4 MiB that gRPC clients take by default.
const MAX_VIOLATIONS: usize = 20_000;

/// A request that is wrong in itself.
pub(crate) fn request(error: RequestError) -> Status {
    Status::invalid_argument(error.to_string())
}

/// A resource name that is none.
pub(crate) fn name(error: ResourceNameError) -> Status {
    Status::invalid_argument(error.to_string())
}

/// A message that can't be decoded.
pub(crate) fn decoded<T>(message: Result<T, prost::DecodeError>) -> Result<T, Status> {
    message.map_err(|error| Status::invalid_argument(format!("not the expected message: {error}")))
}

/// A stream of messages that ends within one.
pub(crate) fn cut_short() -> Status {
    Status::internal("the stream ended within a message")
}

/// A compressed message, where no compression of messages was agreed on.
pub(crate) fn compressed_message() -> Status {
    Status::internal("a message is compressed, but no grpc-encoding was named")
}

/// A message over the limit, in bytes.
pub(crate) fn message_too_large(size_bytes: usize, max_bytes: usize) -> Status {
    Status::out_of_range(format!("a message of {size_bytes} bytes; {max_bytes} is the most"))
}

/// A request whose rest does not come.
pub(crate) fn silent(after: Duration) -> Status {
    Status::deadline_exceeded(format!("nothing came of the request for {} s", after.as_secs()))
}

/// A call for which there is no memory now.
pub(crate) fn exhausted(error: Exhausted) -> Status {
    Status::resource_exhausted(error.to_string())
}

/// An upload that breaks the rules.
pub(crate) fn write_refused(error: WriteRefused) -> Status {
    let code = match error {
        WriteRefused::Start(_) => Code::OutOfRange,
        _ => Code::InvalidArgument,
    };
    Status::new(code, error.to_string())
}

/// A download that breaks the rules.
pub(crate) fn read_refused(error: ReadRefused) -> Status {
    let code = match error {
        ReadRefused::Offset { .. } => Code::OutOfRange,
        ReadRefused::Limit(_) => Code::InvalidArgument,
    };
    Status::new(code, error.to_string())
}

/// A blob that could be opened, but not read to its end.
pub(crate) fn read_failed(error: io::Error) -> Status {
    Status::internal(chain("reading a blob failed", &error))
}

/// A tree that can't be walked.
pub(crate) fn tree_refused(error: TreeRefused) -> Status {
    let code = match error {
        TreeRefused::Malformed { .. } | TreeRefused::PageToken(_) => Code::InvalidArgument,
        TreeRefused::TooLarge => Code::ResourceExhausted,
    };
    Status::new(code, error.to_string())
}

/// A blob that is not there.
pub(crate) fn blob_not_found(digest: &Digest) -> Status {
    Status::not_found(format!("blob {digest} ({}) is not here", digest.function()))
}

/// A blob that an action or a result needs.
pub(crate) fn blob_in_use(digest: &Digest) -> Status {
    Status::failed_precondition(format!("blob {digest} is in use"))
}

/// A lookup without a hit.
pub(crate) fn not_cached(action: &Digest) -> Status {
    Status::not_found(format!("no cached result of action {action}"))
}

/// An update without a result.
pub(crate) fn no_result() -> Status {
    Status::invalid_argument("action_result: the result is missing")
}

/// An update with a result that is none.
pub(crate) fn bad_result(error: impl Error) -> Status {
    Status::invalid_argument(format!("action_result: {error}"))
}

/// A batch over a limit, in bytes.
pub(crate) fn batch_too_large(size_bytes: u64, max_bytes: u64) -> Status {
    Status::invalid_argument(format!(
        "{size_bytes} bytes are over the limit of {max_bytes}; use the ByteStream service"
    ))
}

/// A compressor that was not announced.
pub(crate) fn unsupported_compressor(value: i32) -> Status {
    Status::invalid_argument(format!("compressor {value} is not supported; use IDENTITY or ZSTD"))
}

/// Compressed data that can't be unpacked into the store: a disk's error where
/// there is one below, else the client's.
pub(crate) fn decompression(error: io::Error) -> Status {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<StoreError>()) {
        Some(error) => cas(error),
        None => Status::invalid_argument(format!("unpacking the blob failed: {error}")),
    }
}

/// What the store says.
pub(crate) fn cas<E: std::borrow::Borrow<StoreError>>(error: E) -> Status {
    let error = error.borrow();
    let code = match error {
        StoreError::DigestMismatch { .. }
        | StoreError::TooManyBytes { .. }
        | StoreError::EntryTooLarge { .. } => Code::InvalidArgument,
        StoreError::TooLargeToRead { .. } => Code::FailedPrecondition,
        StoreError::Closed | StoreError::WouldWait => Code::Unavailable,
        StoreError::Full(_) => Code::ResourceExhausted,
        StoreError::Io { .. } if error.is_out_of_space() => Code::ResourceExhausted,
        StoreError::Io { .. } | StoreError::SyncFailed => Code::Internal,
    };
    Status::new(code, chain("the store", error))
}

/// A lookup in the action cache that failed.
pub(crate) fn cache(error: &CacheError) -> Status {
    Status::internal(chain("the action cache", error))
}

/// An action that was not taken on.
pub(crate) fn submit(error: &SubmitError) -> Status {
    let code = match error {
        SubmitError::QueueFull { .. } => Code::ResourceExhausted,
        SubmitError::Draining | SubmitError::WouldWait => Code::Unavailable,
    };
    Status::new(code, chain("the action was not taken on", error))
}

/// An operation that nobody knows, or not any more.
pub(crate) fn operation_not_found(name: &str) -> Status {
    Status::not_found(format!("no operation `{}`", name.chars().take(80).collect::<String>()))
}

/// A thread that ended without an answer.
pub(crate) fn lost(error: &JoinError) -> Status {
    Status::internal(format!("a thread of the server ended early: {error}"))
}

/// The outcome of one item of a batch.
pub(crate) fn to_rpc(outcome: Result<(), Status>) -> RpcStatus {
    match outcome {
        Ok(()) => RpcStatus::default(),
        Err(status) => RpcStatus {
            code: status.code().into(),
            message: status.message().to_owned(),
            details: Vec::new(),
        },
    }
}

/// What `ExecuteResponse.status` says of an action that came to nothing good.
pub(crate) fn of_action(error: &ActionError) -> RpcStatus {
    let (code, details) = match error {
        ActionError::MissingBlobs(digests) => (Code::FailedPrecondition, vec![missing(digests)]),
        ActionError::Invalid(_)
        | ActionError::Unsupported(_)
        | ActionError::CommandNotRunnable { .. } => (Code::InvalidArgument, Vec::new()),
        // As the older lists of outputs demand.
        ActionError::WrongKind(_) => (Code::FailedPrecondition, Vec::new()),
        ActionError::TimedOut { .. } => (Code::DeadlineExceeded, Vec::new()),
        ActionError::Cancelled => (Code::Cancelled, Vec::new()),
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
    match digest.function() {
        DigestFunction::Sha256 => format!("blobs/{digest}"),
        function => format!("blobs/{function}/{digest}"),
    }
}

/// `what`, then an error with its causes.
fn chain(what: &str, error: &(dyn Error + 'static)) -> String {
    format!("{what}: {}", Chain(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(function: DigestFunction) -> Digest {
        Digest::of(function, b"abc")
    }

    fn io_error(errno: i32) -> StoreError {
        let source = io::Error::from_raw_os_error(errno);
        StoreError::Io { step: "write", what: "a blob".to_owned(), source }
    }

    #[test]
    fn store_errors() {
        let expected = digest(DigestFunction::Sha256);
        let check = |error: StoreError, code| assert_eq!(cas(&error).code(), code, "{error}");
        check(StoreError::DigestMismatch { expected, actual: expected }, Code::InvalidArgument);
        check(StoreError::TooManyBytes { expected }, Code::InvalidArgument);
        check(StoreError::EntryTooLarge { size_bytes: 2, max_bytes: 1 }, Code::InvalidArgument);
        check(
            StoreError::TooLargeToRead { digest: expected, max_bytes: 1 },
            Code::FailedPrecondition,
        );
        check(StoreError::Closed, Code::Unavailable);
        check(io_error(28), Code::ResourceExhausted);
        check(io_error(122), Code::ResourceExhausted);
        check(io_error(5), Code::Internal);
        assert!(cas(io_error(5)).message().contains("Input/output error"));
        assert_eq!(decompression(io::Error::other(io_error(28))).code(), Code::ResourceExhausted);
        assert_eq!(decompression(io::Error::other("bad")).code(), Code::InvalidArgument);
    }

    #[test]
    fn refusals() {
        use Code::{InvalidArgument, OutOfRange, ResourceExhausted, Unavailable};
        assert_eq!(write_refused(WriteRefused::Start(3)).code(), OutOfRange);
        assert_eq!(write_refused(WriteRefused::Unfinished).code(), InvalidArgument);
        assert_eq!(read_refused(ReadRefused::Limit(-1)).code(), InvalidArgument);
        let beyond = ReadRefused::Offset { offset: 4, size_bytes: 3 };
        assert_eq!(read_refused(beyond).code(), OutOfRange);
        assert_eq!(tree_refused(TreeRefused::TooLarge).code(), ResourceExhausted);
        assert_eq!(submit(&SubmitError::QueueFull { limit: 1 }).code(), ResourceExhausted);
        assert_eq!(submit(&SubmitError::Draining).code(), Unavailable);
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
            ActionError::CommandNotRunnable { program: text(), step: text(), errno: text() },
            Code::InvalidArgument,
        );
        check(ActionError::TimedOut { after: Duration::from_secs(1) }, Code::DeadlineExceeded);
        check(ActionError::Cancelled, Code::Cancelled);
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
