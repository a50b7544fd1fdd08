//! OpenTelemetry traces: the spans of answered operations, sent to a collector.
//!
//! Whether and when the collector takes them changes nothing for actions: they wait in a bounded queue, a thread
//! sends them, and what does not fit or is not taken is counted and lost. Two forms of the protocol (OTLP) are spoken:
//! gRPC, and protobuf over HTTP.
//!
//! ```text
//!  slots ──► bounded queue ──► thread: batches ──► spans ──► collector
//!                  │ full                           │ not taken
//!                  └──────────► counted ◄───────────┘
//! ```
//!
//! - [`collector`]: where the collector is.
//! - `error`: why nothing is sent.
//! - `span`: from an event to spans. Pure.
//! - `refusal`: why a collector did not take a message.
//! - `roots`: the certificates that its own is checked with.
//! - `http`: the calls over HTTP.
//! - `sender`: the thread, and the calls over gRPC.

pub mod collector;
mod error;
mod http;
mod refusal;
#[cfg(feature = "tls")]
mod roots;
mod sender;
mod span;

pub use collector::{Collector, CollectorError};
pub use error::TracesError;
pub use sender::{Counters, Options, Stats, Traces};
