//! OpenTelemetry traces: the spans of answered operations, sent to a collector.
//!
//! Whether and when the collector takes them changes nothing for actions: they wait in a bounded queue, a thread
//! sends them, and what does not fit or is not taken is counted and lost. Only the gRPC form of the protocol (OTLP) is
//! spoken, which every collector has.
//!
//! ```text
//!  slots ──► bounded queue ──► thread: batches ──► spans ──► collector
//!                  │ full                           │ not taken
//!                  └──────────► counted ◄───────────┘
//! ```
//!
//! - [`collector`]: where the collector is.
//! - `span`: from an event to spans. Pure.
//! - `sender`: the thread.

pub mod collector;
mod sender;
mod span;

pub use collector::{Collector, CollectorError};
pub use sender::{Counters, Options, Stats, Traces, TracesError};
