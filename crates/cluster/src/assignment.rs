//! An action to run, as every scheduler means it.

use std::sync::Arc;

use bytes::Bytes;
use events::Origin;
use model::proto::{Any, Timestamp};
use model::{Digest, DigestError, InstanceName, InstanceNameError};

/// An action to run.
#[derive(Debug, Clone)]
pub(crate) struct Assignment {
    pub(crate) action: Digest,
    /// The encoded Action; `None` if the scheduler sent the digest only, and the storage has it.
    pub(crate) message: Option<Bytes>,
    /// The whole instance name.
    pub(crate) instance: InstanceName,
    pub(crate) origin: Arc<Origin>,
    pub(crate) queued: Option<Timestamp>,
    pub(crate) auxiliary_metadata: Vec<Any>,
}

/// Why an action of the scheduler can't be run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AssignmentError {
    #[error("the scheduler sent no Action")]
    NoAction,
    #[error("the Action names no Command")]
    NoCommand,
    #[error("the scheduler sent a {0:?}, which is neither an Action nor the digest of one")]
    Payload(String),
    #[error("the digest of the Action")]
    Digest(#[from] DigestError),
    #[error("decoding the Action or its digest")]
    Encoding(#[from] prost::DecodeError),
    #[error("this worker does not run actions with digests of the function {0}")]
    Function(i32),
    #[error("the instance name of the action")]
    Instance(#[from] InstanceNameError),
}

impl Assignment {
    /// The part of the instance name after the prefix, which is that of the storage's addresses.
    pub(crate) fn suffix<'a>(&'a self, prefix: &InstanceName) -> &'a str {
        let suffix = self.instance.as_str().strip_prefix(prefix.as_str()).unwrap_or_default();
        suffix.trim_start_matches('/')
    }
}
