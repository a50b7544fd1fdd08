//! Another engine that takes actions which wait too long here, or which are for another machine.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use model::{Digest, InstanceName, proto};

/// An engine that runs actions elsewhere.
pub trait Elsewhere: Send + Sync {
    /// Whether the engine answered when it was last asked.
    fn is_up(&self) -> bool;

    /// Runs an action there, and brings every blob that its result names into the store. An action whose future is
    /// dropped is cancelled.
    fn execute(&self, order: Order, news: News) -> Answered;
}

/// The answer of an engine, some time.
pub type Answered =
    Pin<Box<dyn Future<Output = Result<proto::ExecuteResponse, ElsewhereError>> + Send>>;

/// Called when the engine says that the action runs. It must not wait.
pub type News = Arc<dyn Fn() + Send + Sync>;

/// An action for another engine.
#[derive(Debug, Clone)]
pub struct Order {
    /// The instance name here.
    pub instance: InstanceName,
    /// The Action blob.
    pub action: Digest,
    /// Every blob that the action needs, the Action among them. All are in the store.
    pub blobs: Vec<Digest>,
    /// Run it even when its result is known.
    pub skip_cache_lookup: bool,
    /// The priority that the client gave it.
    pub priority: i32,
    /// The encoded `RequestMetadata` of the request.
    pub caller: Bytes,
}

/// Why an engine has no answer that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ElsewhereError {
    /// The engine is away, busy or broken. The action can be run here, or there later.
    #[error("{0}")]
    Unavailable(String),
    /// The engine does not take this action, and would not take it later.
    #[error("{0}")]
    Refused(String),
}
