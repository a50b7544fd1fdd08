//! Status codes of errors that other crates define and that several services meet.
//!
//! An error of this crate has its code beside its type, as `impl From<…> for Status`. An error that
//! only one service meets has its code in that service. This module knows no service.

use std::borrow::Borrow;
use std::error::Error;

use model::{Chain, Digest};
use prost::Message as _;
use proto::google::protobuf::{Any, Duration};
use proto::google::rpc::{RetryInfo, Status as RpcStatus};
use store::StoreError;
use tokio::task::JoinError;
use tonic::{Code, Status};

/// The status of an error with that code; its message has the error and all causes.
pub(crate) fn of(code: Code, error: &(dyn Error + 'static)) -> Status {
    Status::new(code, Chain(error).to_string())
}

/// As [`of`], with the failed act before the error.
pub(crate) fn of_act(code: Code, act: &str, error: &(dyn Error + 'static)) -> Status {
    Status::new(code, format!("{act}: {}", Chain(error)))
}

/// The same status with the time after which its call may be tried again.
pub(crate) fn retry_after(status: Status, seconds: i64) -> Status {
    let retry = RetryInfo { retry_delay: Some(Duration { seconds, nanos: 0 }) };
    let details = RpcStatus {
        code: status.code().into(),
        message: status.message().to_owned(),
        details: vec![Any {
            type_url: "type.googleapis.com/google.rpc.RetryInfo".to_owned(),
            value: retry.encode_to_vec(),
        }],
    };
    let details = details.encode_to_vec().into();
    Status::with_details(status.code(), status.message().to_owned(), details)
}

/// The status of an error of the store.
pub(crate) fn store<E: Borrow<StoreError>>(error: E) -> Status {
    let error = error.borrow();
    let code = match error {
        StoreError::DigestMismatch { .. }
        | StoreError::TooManyBytes { .. }
        | StoreError::EntryTooLarge { .. } => Code::InvalidArgument,
        StoreError::TooLargeToRead { .. } => Code::FailedPrecondition,
        StoreError::Closed | StoreError::WouldWait => Code::Unavailable,
        StoreError::Full(_) => Code::ResourceExhausted,
        StoreError::Io { .. } if error.is_exhausted() => Code::ResourceExhausted,
        StoreError::Io { .. } | StoreError::SyncFailed => Code::Internal,
    };
    of_act(code, "the store", error)
}

/// The status of a blob that is not in the store.
pub(crate) fn blob_not_found(digest: &Digest) -> Status {
    Status::not_found(format!("blob {digest} ({}) is not here", digest.function()))
}

/// The status of a thread that ended without an answer.
pub(crate) fn lost(error: &JoinError) -> Status {
    of_act(Code::Internal, "a thread of the server ended early", error)
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

#[cfg(test)]
mod tests {
    use super::*;
    use model::DigestFunction;
    use std::io;

    fn io_error(errno: i32) -> StoreError {
        let source = io::Error::from_raw_os_error(errno);
        StoreError::Io { step: "write", what: "a blob".to_owned(), source }
    }

    #[test]
    fn store_errors() {
        let expected = Digest::of(DigestFunction::Sha256, b"abc");
        let check = |error: StoreError, code| assert_eq!(store(&error).code(), code, "{error}");
        check(StoreError::DigestMismatch { expected, actual: expected }, Code::InvalidArgument);
        check(StoreError::TooManyBytes { expected }, Code::InvalidArgument);
        check(StoreError::EntryTooLarge { size_bytes: 2, max_bytes: 1 }, Code::InvalidArgument);
        check(
            StoreError::TooLargeToRead { digest: expected, max_bytes: 1 },
            Code::FailedPrecondition,
        );
        check(StoreError::Closed, Code::Unavailable);
        // ENOSPC, EDQUOT, EMFILE, ENFILE, ENOMEM, EAGAIN; then EIO and EROFS.
        for errno in [28, 122, 24, 23, 12, 11] {
            check(io_error(errno), Code::ResourceExhausted);
        }
        for errno in [5, 30] {
            check(io_error(errno), Code::Internal);
        }
        assert_eq!(store(io_error(5)).message().matches("Input/output error").count(), 1);
    }
}
