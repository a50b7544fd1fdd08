//! The daemon's events, which every listener gets.
//!
//! The worker tells an event and knows nothing of its readers: the log, the metrics, the event file
//! and the web page each implement [`Listener`]. A new reader needs no change below it.
//!
//! ```text
//!  worker ──► Listeners ──┬─► log      a line per action
//!                         ├─► metrics  counters and histograms
//!                         ├─► history  a JSON line per event
//!                         └─► web      running and recent actions
//! ```
//!
//! Words that a client or an action chose are [`Printable`] in them: a reader need not escape them for a
//! line of text, nor bound them.
//!
//! Events are plain values without I/O. A listener runs on the thread that tells the event, so it
//! must be quick and must never block: one that writes to a disk hands the event to a thread of its
//! own, and drops it if that thread lags behind.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use chain::Printable;
use serde::Serialize;

/// Something that happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// An action waits for a slot.
    Queued(Queued),
    /// The queue refused the action; it was never answered.
    Withdrawn {
        /// The operation's name.
        operation: Arc<str>,
    },
    /// A slot runs the action of this operation.
    Started {
        /// The operation's name.
        operation: Arc<str>,
    },
    /// An operation has its answer.
    Finished(Arc<Finished>),
    /// A client asked for a cached result without executing.
    LookedUp {
        /// What it got.
        result: Lookup,
    },
}

/// The outcome of looking for a cached result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lookup {
    /// There is a complete one.
    Hit,
    /// There is none, or a blob that it names is gone.
    Miss,
    /// There is one that was computed with another root file system than the action would have now.
    OtherEnvironment,
}

/// An action that waits for a slot.
#[derive(Debug, Clone)]
pub struct Queued {
    /// The operation's name.
    pub operation: Arc<str>,
    /// The action's digest, as `hash/size`.
    pub action: String,
    /// Names that the client gave the request.
    pub origin: Arc<Origin>,
}

/// The origin of a request. All names but the principal's are from its `RequestMetadata` (REAPI) and empty
/// where the client sent none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Origin {
    /// The principal, by the operator's name; empty for anonymous callers.
    #[serde(skip_serializing_if = "Printable::is_empty")]
    pub principal: Printable,
    /// The client program and its version.
    #[serde(skip_serializing_if = "Printable::is_empty")]
    pub tool: Printable,
    /// One run of the client, such as one `bazel build`.
    #[serde(skip_serializing_if = "Printable::is_empty")]
    pub invocation: Printable,
    /// The kind of action, such as `CppCompile`.
    #[serde(skip_serializing_if = "Printable::is_empty")]
    pub mnemonic: Printable,
    /// The target that the action belongs to.
    #[serde(skip_serializing_if = "Printable::is_empty")]
    pub target: Printable,
    /// The configuration that the target is built in.
    #[serde(skip_serializing_if = "Printable::is_empty")]
    pub configuration: Printable,
}

/// An operation that has its answer.
#[derive(Debug, Clone, Serialize)]
pub struct Finished {
    /// The operation's name.
    pub operation: Arc<str>,
    /// The instance name.
    pub instance: String,
    /// The action's digest, as `hash/size`.
    pub action: String,
    /// Names that the client gave the request.
    pub origin: Arc<Origin>,
    /// When the request came.
    #[serde(serialize_with = "unix_us", rename = "queued_at_us")]
    pub queued_at: SystemTime,
    /// Whether the result was in the action cache.
    pub cached: bool,
    /// Whether there was a cached result that was computed with another root file system than the action
    /// has now.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub other_environment: bool,
    /// The command's exit code; none where it did not run to its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The reason for the lack of a good result; `None` if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
    /// The duration of each stage.
    #[serde(flatten)]
    pub stages: Stages,
    /// The resource usage of the action's processes; `None` if nothing ran.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// Declared outputs that were stored: files, and directories as one each.
    pub outputs: u64,
    /// The sizes of the output files, in bytes; files in output directories are left out.
    pub output_bytes: u64,
    /// The worker's name.
    pub worker: String,
}

/// The reason for the lack of a good result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// The kind, in a fixed small set of words that may label a metric.
    pub kind: &'static str,
    /// The message for people. It may quote the client.
    pub message: Printable,
}

/// The duration of each stage of an action in microseconds. A stage that was not reached has none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Stages {
    /// In the queue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queued_us: Option<u64>,
    /// Reading the messages, pinning the inputs, presenting their tree.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inputs_us: Option<u64>,
    /// Waiting for a sandbox; almost nothing where one was prepared in advance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sandbox_us: Option<u64>,
    /// From there to the command's execve(2).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub set_up_us: Option<u64>,
    /// The command itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_us: Option<u64>,
    /// From its end until all of it is dead and its streams are stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_us: Option<u64>,
    /// Collecting declared outputs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outputs_us: Option<u64>,
    /// From the slot taking the action to the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_us: Option<u64>,
}

/// The resource usage of an action's processes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// CPU time in user mode, in microseconds.
    pub user_us: u64,
    /// CPU time in the kernel, in microseconds.
    pub system_us: u64,
    /// The largest resident set of any one process, in bytes.
    pub max_resident_bytes: u64,
    /// Bytes read from storage.
    pub read_bytes: u64,
    /// Bytes written to storage.
    pub written_bytes: u64,
}

fn unix_us<S: serde::Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    let since_1970 = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    serializer.serialize_u64(u64::try_from(since_1970.as_micros()).unwrap_or(u64::MAX))
}

/// A reader of events.
pub trait Listener: Send + Sync {
    /// Takes notice of an event. Called on the thread of the action or the request: it must not block.
    fn tell(&self, event: &Event);
}

/// Every reader of events. Clones tell the same readers.
#[derive(Clone, Default)]
pub struct Listeners(Arc<[Arc<dyn Listener>]>);

impl Listeners {
    /// These readers, told in this order.
    pub fn new(listeners: impl IntoIterator<Item = Arc<dyn Listener>>) -> Self {
        Self(listeners.into_iter().collect())
    }

    /// Tells every reader.
    pub fn tell(&self, event: &Event) {
        for listener in &*self.0 {
            listener.tell(event);
        }
    }
}

impl fmt::Debug for Listeners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Listeners({})", self.0.len())
    }
}
