//! The daemon's events, which every listener gets.
//!
//! The worker tells an event and knows nothing of its readers: the log, the metrics, the event file
//! and the web page each implement [`Listener`]. A new reader needs no change below it.
//!
//! ```text
//!  worker ──► Listeners ──┬─► log      a line per action
//!                         ├─► metrics  counters and histograms
//!                         ├─► history  a row and a JSON line per event, running actions
//!                         ├─► traces   spans of answered operations, for a collector
//!                         └─► web      pages of what history has
//! ```
//!
//! Words that a client or an action chose are [`Printable`] in them: a reader need not escape them for a
//! line of text, nor bound them.
//!
//! - [`Origin`] and [`Caller`]: the names that a client gives its requests, parsed and not parsed.
//! - [`TraceContext`]: the place of a request in a trace of its client.
//!
//! Events are plain values without I/O. A listener runs on the thread that tells the event, so it
//! must be quick and must never block: one that writes to a disk hands the event to a thread of its
//! own, and drops it if that thread lags behind.

mod origin;
mod trace;

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use chain::Printable;
use model::{Digest, InstanceName};
use serde::Serialize;

pub use origin::{Caller, EncodedBuild, Origin};
pub use trace::TraceContext;

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
    LookedUp(Arc<LookedUp>),
}

/// An action that waits for a slot.
#[derive(Debug, Clone)]
pub struct Queued {
    /// The operation's name.
    pub operation: Arc<str>,
    /// The instance name.
    pub instance: String,
    /// The function of the action's digest.
    pub digest_function: &'static str,
    /// The action's digest, as `hash/size`.
    pub action: String,
    /// Names that the client gave the request.
    pub origin: Arc<Origin>,
}

/// A lookup in the action cache by a client that did not ask for an execution.
///
/// Clients send tens of thousands of lookups in a second, so nothing in it costs an allocation for each name.
#[derive(Debug, Clone)]
pub struct LookedUp {
    /// The instance name.
    pub instance: InstanceName,
    /// The action.
    pub action: Digest,
    /// The sender of the request.
    pub caller: Caller,
    /// When the lookup was over.
    pub at: SystemTime,
    /// The reason why there was no result; `None` for a hit.
    pub miss: Option<Miss>,
}

/// The reason why an action had no result in the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Miss {
    /// The cache had no result of this action.
    Absent,
    /// The cache had a result, and the store lacked a blob that it names.
    Incomplete,
    /// The cache had a result that was computed with another root file system than the action would have now.
    OtherEnvironment,
    /// The client asked to execute without a lookup.
    Skipped,
    /// The action asks not to be cached.
    Uncacheable,
    /// The cache could not be read.
    Failed,
}

impl Miss {
    /// Every reason.
    pub const ALL: [Self; 6] = [
        Self::Absent,
        Self::Incomplete,
        Self::OtherEnvironment,
        Self::Skipped,
        Self::Uncacheable,
        Self::Failed,
    ];

    /// The name, as in JSON and in the labels of metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Incomplete => "incomplete",
            Self::OtherEnvironment => "other_environment",
            Self::Skipped => "skipped",
            Self::Uncacheable => "uncacheable",
            Self::Failed => "failed",
        }
    }
}

/// An operation that has its answer.
#[derive(Debug, Clone, Serialize)]
pub struct Finished {
    /// The operation's name.
    pub operation: Arc<str>,
    /// The instance name.
    pub instance: String,
    /// The function of the digests.
    pub digest_function: &'static str,
    /// The action's digest, as `hash/size`.
    pub action: String,
    /// The digest of its Command; `None` where the Action was not read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// The digest of its input root; `None` where the Action was not read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_root: Option<String>,
    /// The size of its input tree; `None` where the tree was not read.
    #[serde(flatten)]
    pub inputs: Option<InputTotals>,
    /// Names that the client gave the request.
    pub origin: Arc<Origin>,
    /// When the request came.
    #[serde(serialize_with = "unix_us", rename = "queued_at_us")]
    pub queued_at: SystemTime,
    /// Whether the result was in the action cache.
    pub cached: bool,
    /// The reason why it was not; `None` if it was, and where the action was refused before that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub miss: Option<Miss>,
    /// The bounds of the action beside the server's own.
    #[serde(skip_serializing_if = "Limits::is_empty")]
    pub limits: Limits,
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
    /// The encoded `ActionResult` (REAPI) with digests in place of contents; `None` where nothing ran, and
    /// for a result that takes more than [`RESULT_BYTES_MAX`].
    #[serde(skip)]
    pub result: Option<Bytes>,
}

/// The size of an input tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct InputTotals {
    /// Files at all places.
    #[serde(rename = "input_files")]
    pub files: u64,
    /// The bytes of the blobs that the tree is made of, each counted once.
    #[serde(rename = "input_bytes")]
    pub bytes: u64,
}

/// The largest result that an event has. Real ones take some hundred bytes; a listener may hold thousands of
/// events.
pub const RESULT_BYTES_MAX: usize = 8 << 10;

/// The bounds of one action. `None` where only the server's own bounds apply.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Limits {
    /// The timeout, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_us: Option<u64>,
    /// The most memory, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// The most processor time, in cores.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_cores: Option<u32>,
    /// The most processes and threads at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pids_max: Option<u32>,
}

impl Limits {
    /// Whether there is no bound.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The reason for the lack of a good result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// The kind, in a fixed small set of words that may label a metric.
    pub kind: &'static str,
    /// The step of the sandbox's set-up that failed, in a fixed small set; `None` if another thing failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<Printable>,
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
    /// From the presented tree to the command's execve(2).
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

impl Stages {
    /// The names and durations in microseconds of the stages that were reached, in their order and without
    /// the total.
    pub fn reached(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
        let all = [
            ("queued", self.queued_us),
            ("inputs", self.inputs_us),
            ("sandbox", self.sandbox_us),
            ("set_up", self.set_up_us),
            ("run", self.run_us),
            ("end", self.end_us),
            ("outputs", self.outputs_us),
        ];
        all.into_iter().filter_map(|(name, us)| Some((name, us?)))
    }
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
