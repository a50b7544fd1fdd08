//! Errors of actions, by what a client can do about them.

use std::io;
use std::time::Duration;

use model::{Chain, Digest, Printable};
use rustix::io::Errno;
use store::{StoreError, is_exhaustion};

/// The reason why an action has no good result. `reapi` maps each variant to one status
/// code of `ExecuteResponse.status`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ActionError {
    /// Blobs that the action needs are not in the store, at any depth. The
    /// client uploads them and asks again.
    #[error("{} of the blobs that the action needs are not in the store, {} among them", .0.len(), first(.0))]
    MissingBlobs(Vec<Digest>),
    /// The action itself is wrong; asking again does not help.
    #[error("{0}")]
    Invalid(String),
    /// The action asks for something that this server was not started with.
    #[error("{0}")]
    Unsupported(String),
    /// An output is not of the kind that the client declared.
    #[error("{0}")]
    WrongKind(String),
    /// The timeout passed; the result holds the output so far.
    #[error("the action was stopped after its timeout of {} s", .after.as_secs_f64())]
    TimedOut {
        /// The timeout that was in force.
        after: Duration,
    },
    /// A client asked for the action to stop, or all of its clients went away.
    #[error("the action was cancelled")]
    Cancelled,
    /// The server is about to end and stopped the action. Another server, or the next one here, can
    /// run it.
    #[error("the server is shutting down")]
    ShuttingDown,
    /// A server that this one depends on, such as the storage of a cluster, does not answer. The action may
    /// succeed later.
    #[error("{0}")]
    Unavailable(String),
    /// The action went over a bound of the server.
    #[error("{0}")]
    ResourceExhausted(String),
    /// The working directory is not there, or no directory.
    #[error("cannot enter the working directory `{directory}`: {errno}")]
    WorkingDirectory {
        /// The directory, relative to the input root.
        directory: Printable,
        /// The system's error, by name and text.
        errno: String,
    },
    /// The sandbox could not be set up.
    #[error("setting up the sandbox failed: {step}: {errno}")]
    SetUp {
        /// The step of the set-up that failed.
        step: String,
        /// The system's error, by name and text.
        errno: String,
    },
    /// The server is at fault.
    #[error("{0}")]
    Internal(String),
}

fn first(digests: &[Digest]) -> String {
    digests.first().map(ToString::to_string).unwrap_or_default()
}

impl ActionError {
    /// The kind of failure as one of a fixed set of words, for metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::MissingBlobs(_) => "missing_blobs",
            Self::Invalid(_) => "invalid",
            Self::Unsupported(_) => "unsupported",
            Self::WrongKind(_) => "wrong_kind",
            Self::TimedOut { .. } => "timed_out",
            Self::Cancelled => "cancelled",
            Self::ShuttingDown => "shutting_down",
            Self::Unavailable(_) => "unavailable",
            Self::ResourceExhausted(_) => "resource_exhausted",
            Self::WorkingDirectory { .. } => "working_directory",
            Self::SetUp { .. } => "set_up",
            Self::Internal(_) => "internal",
        }
    }

    /// The step of the sandbox's set-up that failed.
    pub(crate) fn step(&self) -> Option<&str> {
        match self {
            Self::SetUp { step, .. } => Some(step),
            _ => None,
        }
    }

    /// The memory that it takes beside its own size, in bytes.
    pub(crate) fn memory_bytes(&self) -> u64 {
        let bytes = match self {
            Self::MissingBlobs(digests) => size_of_val(digests.as_slice()),
            Self::Invalid(text)
            | Self::Unsupported(text)
            | Self::WrongKind(text)
            | Self::Unavailable(text)
            | Self::ResourceExhausted(text)
            | Self::Internal(text) => text.len(),
            Self::WorkingDirectory { directory, errno } => directory.as_str().len() + errno.len(),
            Self::SetUp { step, errno } => step.len() + errno.len(),
            Self::TimedOut { .. } | Self::Cancelled | Self::ShuttingDown => 0,
        };
        bytes as u64
    }

    /// An error of the server's own, with the act that failed.
    pub(crate) fn internal(act: &str, error: &(dyn std::error::Error + 'static)) -> Self {
        Self::Internal(format!("{act}: {}", Chain(error)))
    }

    /// An error of the server's own at which the kernel answered `errno`. A full disk or a lack of
    /// memory is not the client's fault and may pass, so it is [`ActionError::ResourceExhausted`];
    /// all else is [`ActionError::Internal`].
    pub(crate) fn of_errno(
        act: &str,
        error: &(dyn std::error::Error + 'static),
        errno: Option<Errno>,
    ) -> Self {
        match Self::internal(act, error) {
            Self::Internal(text) if errno.is_some_and(is_exhaustion) => {
                Self::ResourceExhausted(text)
            }
            other => other,
        }
    }

    /// The store refused to read or to write.
    pub(crate) fn of_store(act: &str, error: &StoreError) -> Self {
        match Self::internal(act, error) {
            Self::Internal(text) if error.is_exhausted() => Self::ResourceExhausted(text),
            other => other,
        }
    }
}

/// The reason why an action was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// The view of the store would have to wait for a disk: ask again with one that may.
    #[error("the store would have to wait for a disk")]
    WouldWait,
    /// The queue is full; try again later.
    #[error("{limit} actions are waiting already")]
    QueueFull {
        /// The bound, [`crate::Limits::queue`].
        limit: usize,
    },
    /// The actions that wait take too much memory; try again later.
    #[error("the actions that are waiting already take {limit_bytes} bytes")]
    QueueTooLarge {
        /// The bound, [`crate::WorkerConfig::queue_bytes`].
        limit_bytes: u64,
    },
    /// The actions of this client fill nearly all of the queue; try again later.
    #[error(
        "the actions of this invocation that are waiting already fill the queue, but for what others may need"
    )]
    ClientFull,
    /// The server is about to end and takes nothing new.
    #[error("the server is shutting down")]
    Draining,
}

/// An error of asking the action cache.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The view of the store would have to wait for a disk: ask again with one that may.
    #[error("the store would have to wait for a disk")]
    WouldWait,
    /// The entry could not be read from the store.
    #[error("reading the cached result of {action}")]
    Read {
        /// The action.
        action: Digest,
        /// The store's error.
        #[source]
        source: Box<StoreError>,
    },
    /// A tree that the entry names could not be read from the store.
    #[error("reading the output tree {tree} of the cached result of {action}")]
    ReadTree {
        /// The action.
        action: Digest,
        /// The Tree blob.
        tree: Digest,
        /// The store's error.
        #[source]
        source: Box<StoreError>,
    },
}

/// An error of starting the worker.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A thread could not be made.
    #[error("starting the thread of slot {slot}")]
    Thread {
        /// The slot's number, from 0.
        slot: usize,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The directory that actions write to could not be watched.
    #[error("duplicating the descriptor of the work directory")]
    Disk(#[source] io::Error),
    /// The descriptor that tells actions to stop could not be made.
    #[error("making an event descriptor")]
    Event(#[source] io::Error),
}
