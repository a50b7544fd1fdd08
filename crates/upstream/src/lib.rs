//! The tier below the store: a cache of others that speaks the Remote Execution API.
//!
//! The tier fetches and verifies blobs and results that the store lacks, and copies new results to the upstream
//! with all that they name. A client is only told of what is in the store here, so that the upstream may lose
//! blobs or be down at any time: then there is less to fetch, and nothing else changes.
//!
//! Any server of the Remote Execution API will do: only `Capabilities`, `FindMissingBlobs`, the two batch calls,
//! `ByteStream` and the action cache are used. This crate decides nothing about actions, and its errors never
//! reach a client.
//!
//! ```text
//!  fetch, fetch_result ─► fetch ──► flights      one download of a blob at a time
//!                           │
//!                           ▼
//!                         calls ──► link ──► breaker      UNKNOWN ──► UP ◄──► DOWN
//!                           ▲         deadlines, retries, metrics
//!  publish ─► journal ─► publish      results that are not upstream yet; survives a restart
//! ```
//!
//! - [`address`]: where an upstream is, as text.
//! - [`headers`]: the headers of every call, which hold secrets.
//! - [`config`]: everything an operator decides.
//! - `counters`: what is told to metrics.
//! - `error`: why there is no tier.
//! - `breaker`: when an upstream is given up for a while.
//! - `link`: the connection to a server, and whether it is up.
//! - [`mod@connect`]: connections to servers, by plain TCP or TLS.
//! - `calls`: the calls that move blobs and results.
//! - `flights`: downloads on their way, so that nothing is fetched twice at once.
//! - `contents`: every blob that a result names.
//! - `fetch`: from the upstream into the store.
//! - `journal`: results that are to be copied upstream.
//! - `upload`: blobs from the store to the upstream.
//! - `delivery`: a result and all that it names, while somebody waits for it.
//! - `publish`: results from the journal to the upstream.
//! - [`tier`]: the whole, wired.

pub mod address;
mod breaker;
mod calls;
pub mod config;
pub mod connect;
mod contents;
mod counters;
mod delivery;
mod error;
mod fetch;
mod flights;
pub mod headers;
mod journal;
mod link;
mod publish;
pub mod tier;
mod upload;

pub use address::{Address, AddressError};
pub use config::{Config, Entries, Security, Writes};
pub use connect::connect;
pub use counters::Counts;
pub use delivery::DeliveryError;
pub use error::UpstreamError;
pub use headers::{Headers, HeadersError};
pub use journal::JournalError;
pub use tier::{Stats, Upstream};
