//! The tier below the store: a cache of others that speaks the Remote Execution API, or an object store.
//!
//! The tier fetches and verifies blobs and results that the store lacks, and copies new results to the upstream
//! with all that they name. A client is only told of what is in the store here, so that the upstream may lose
//! blobs or be down at any time: then there is less to fetch, and nothing else changes.
//!
//! Any server of the Remote Execution API will do: only `Capabilities`, `FindMissingBlobs`, the two batch calls,
//! `ByteStream` and the action cache are used. An object store has an object for each blob and each result. This crate
//! decides nothing about actions, and its errors never reach a client.
//!
//! ```text
//!  fetch, fetch_result ─► fetch ──► flights      one download of a blob at a time
//!                           │
//!                           ▼
//!                         calls ──► link ──► breaker      UNKNOWN ──► UP ◄──► DOWN
//!                           ▲  │      deadlines, retries, metrics
//!                           │  └──► grpc_calls, bucket_calls
//!  publish ─► journal ─► publish      results that are not upstream yet; survives a restart
//! ```
//!
//! - [`address`]: where a server is, as text.
//! - [`place`]: where an upstream is, as text: at a server or in an object store.
//! - [`headers`]: the headers of every call, which hold secrets.
//! - [`config`]: everything an operator decides.
//! - [`mod@reason`]: why a call failed, for an operator.
//! - `counters`: what is told to metrics.
//! - `error`: why there is no tier.
//! - `breaker`: when an upstream is given up for a while.
//! - `abilities`: what an upstream can do.
//! - `call_error`: why a call has no answer that can be used.
//! - [`mod@connect`]: connections to servers, by plain TCP or TLS.
//! - `grpc`: the connections to one server.
//! - `object_error`: errors of object stores as errors of calls.
//! - `directory`: objects as files of a directory that others may write to.
//! - `objects`: those of a directory or of a service, in the same words.
//! - `bucket`: an object store.
//! - `server`: the one or the other.
//! - `link`: an upstream with deadlines and retries, and whether it is up.
//! - `pieces`: blobs in pieces, from the store and into it.
//! - `grpc_calls`: the calls of a server that move blobs and results.
//! - `bucket_calls`: those of an object store.
//! - `calls`: those of an upstream.
//! - `flights`: downloads on their way, so that nothing is fetched twice at once.
//! - `contents`: every blob that a result names.
//! - `fetch`: from the upstream into the store.
//! - `journal`: results that are to be copied upstream.
//! - `upload`: blobs from the store to the upstream.
//! - `delivery`: a result and all that it names, while somebody waits for it.
//! - `publish`: results from the journal to the upstream.
//! - [`tier`]: the whole, wired.
//! - `execution`: one call of an action at an engine of others.
//! - [`engine`]: such an engine: an action's blobs go there, and what it answers comes here.

mod abilities;
pub mod address;
mod breaker;
#[cfg(feature = "objects")]
mod bucket;
#[cfg(feature = "objects")]
mod bucket_calls;
mod call_error;
mod calls;
pub mod config;
pub mod connect;
mod contents;
mod counters;
mod delivery;
#[cfg(feature = "objects")]
mod directory;
pub mod engine;
mod error;
mod execution;
mod fetch;
mod flights;
mod grpc;
mod grpc_calls;
pub mod headers;
mod journal;
mod link;
#[cfg(feature = "objects")]
mod object_error;
#[cfg(feature = "objects")]
mod objects;
mod pieces;
pub mod place;
mod publish;
pub mod reason;
mod server;
pub mod tier;
mod upload;

pub use address::{Address, AddressError};
pub use config::{Config, Entries, ResultsConfig, Security, Writes};
pub use connect::{connect, endpoint};
pub use counters::Counts;
pub use delivery::DeliveryError;
pub use engine::{Engine, EngineConfig, EngineError, Order};
pub use error::UpstreamError;
pub use headers::{Headers, HeadersError};
pub use journal::JournalError;
pub use place::{ObjectsAddress, Place, PlaceError, Service};
pub use reason::{reason, was_not_sent};
pub use tier::{Stats, Upstream};
