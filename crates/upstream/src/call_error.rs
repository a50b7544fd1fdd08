//! Why a call to an upstream has no answer that can be used, and which errors are the upstream's fault.

use std::sync::Arc;
use std::time::Duration;

use tonic::{Code, Status};

use crate::reason::reason;

/// Why a call has no answer that can be used.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum CallError {
    /// The server is down, or was never up.
    #[error("the upstream is down")]
    Down,
    /// The time was over.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    /// The server could not be reached, or is at fault.
    #[error("the call failed: {}", reason(.0))]
    Failed(Box<Status>),
    /// The server has answered that it will not.
    #[error("the server refused: {}", reason(.0))]
    Refused(Box<Status>),
    /// The blob or the result is not there.
    #[error("it is not upstream")]
    Missing,
    /// The upstream sent something other than what was asked for.
    #[error("the upstream sent something else")]
    Damaged,
    /// A blob of ours can't be read.
    #[error("a blob can't be read")]
    Unreadable(#[source] Arc<std::io::Error>),
    /// The store did not take it or give it.
    #[error("the store failed")]
    Store(#[source] Arc<store::StoreError>),
}

impl From<store::StoreError> for CallError {
    fn from(error: store::StoreError) -> Self {
        match error {
            store::StoreError::DigestMismatch { .. } | store::StoreError::TooManyBytes { .. } => {
                Self::Damaged
            }
            error => Self::Store(Arc::new(error)),
        }
    }
}

impl CallError {
    pub(crate) fn of(status: Status) -> Self {
        match status.code() {
            Code::NotFound => Self::Missing,
            Code::Unavailable
            | Code::DeadlineExceeded
            | Code::Unknown
            | Code::Internal
            | Code::Aborted
            | Code::Cancelled
            | Code::ResourceExhausted => Self::Failed(Box::new(status)),
            _ => Self::Refused(Box::new(status)),
        }
    }

    /// Whether the server, or the way to it, is at fault.
    pub(crate) fn is_failure(&self) -> bool {
        matches!(self, Self::TimedOut(_) | Self::Failed(_))
    }
}

impl From<Status> for CallError {
    fn from(status: Status) -> Self {
        Self::of(status)
    }
}

/// The error of a task that panicked.
pub(crate) fn lost(error: tokio::task::JoinError) -> CallError {
    CallError::Failed(Box::new(Status::internal(error.to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_failures_or_answers() {
        for (code, is_failure) in [
            (Code::Unavailable, true),
            (Code::DeadlineExceeded, true),
            (Code::Internal, true),
            (Code::NotFound, false),
            (Code::PermissionDenied, false),
            (Code::InvalidArgument, false),
        ] {
            assert_eq!(CallError::of(Status::new(code, "")).is_failure(), is_failure, "{code:?}");
        }
    }
}
