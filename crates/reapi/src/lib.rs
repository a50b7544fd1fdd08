//! The gRPC services of the Remote Execution API.
//!
//! Bytes on a stream become validated values here, and results become bytes
//! again. This is the only crate that knows gRPC, and the only one in which an
//! error becomes a status code. It decides nothing about actions (`worker`) and
//! nothing about how blobs are kept (`store`).
//!
//! ```text
//!  connections ──► server ──┬─► capabilities
//!  (TCP, UNIX, vsock)       ├─► cas, byte_stream ─────► store
//!                           ├─► action_cache ──┐
//!                           ├─► execution,     ├──────► worker
//!                           │   operations  ───┘
//!                           ├─► asset ──────────────► asset, store
//!                           ├─► image_service ──────► images
//!                           └─► internal, health, reflection
//! ```
//!
//! A module imports only those below it:
//!
//! - [`server`]: the HTTP/2 settings, and all services behind one address.
//! - `capabilities`, `cas`, `byte_stream`, `action_cache`, `asset`, `execution`, `operations`, `internal`,
//!   `store_maintenance`, `image_service`, `history`, `reflection`: a service each.
//! - [`by_target`]: the blobs of a store by target.
//! - `shell`: streams into the sandbox of an action.
//! - [`maintenance`]: what operators do with the store, as messages.
//! - [`operation`]: operations as clients see them.
//! - [`compression`]: blobs in compressed form.
//! - [`inline`]: small blobs sent inside a result.
//! - `asset_origin`: assets that nobody pushed, from where they come from.
//! - [`lookups`]: how many cached results are read at a time.
//! - `below`: what is fetched from the tier below the store.
//! - [`grpc`]: hand-made services, where the generated ones would copy blobs.
//! - [`encoding`]: compressed messages, as plain ones to the services.
//! - [`memory`]: what clients can make the server hold.
//! - [`frame`]: the messages of a gRPC stream.
//! - [`request`], [`resource_name`], `origin`: the fields, names and headers of requests.
//! - [`offer`]: the digest functions and instances that clients may name.
//! - [`blocking`]: work that may wait for a disk.
//! - [`status`]: status codes of other crates' errors. An error of this crate has its code beside
//!   its type.

mod action_cache;
mod asset;
mod asset_origin;
mod asset_turns;
mod below;
mod blocking;
pub mod by_target;
mod byte_stream;
mod capabilities;
mod cas;
mod compression;
mod encoding;
mod execution;
mod frame;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod grpc;
mod history;
mod image_service;
mod inline;
mod internal;
mod lookups;
pub mod maintenance;
mod memory;
mod offer;
mod operation;
mod operation_filter;
mod operations;
mod origin;
mod reflection;
mod request;
mod resource_name;
mod server;
mod shell;
mod status;
mod store_maintenance;

pub use capabilities::OfferedFunctions;
pub use memory::Meters;
pub use operation::execute_response;
pub use server::{Health, ServeError, Services, serve};
