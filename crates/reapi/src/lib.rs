//! The gRPC services of the Remote Execution API.
//!
//! Bytes on a stream become validated values here, and results become bytes
//! again. This is the only crate that knows gRPC, and [`status`] is the only
//! place where an error becomes a status code. It decides nothing about actions
//! (`worker`) and nothing about how blobs are kept (`store`).
//!
//! ```text
//!  connections ──► server ──┬─► capabilities
//!  (TCP, later vsock)       ├─► cas, byte_stream ─────► store
//!                           ├─► action_cache ──┐
//!                           ├─► execution,     ├──────► worker
//!                           │   operations  ───┘
//!                           └─► internal, health, reflection
//! ```
//!
//! - [`server`]: the HTTP/2 settings, and all services behind one address.
//! - [`status`]: errors to status codes.
//! - [`request`]: what all requests share: digests, instance names.
//! - `origin`: the names that a client gives its requests.
//! - [`grpc`]: hand-made services, where the generated ones would copy blobs.
//! - [`memory`]: what clients can make the server hold.

mod action_cache;
mod blocking;
mod byte_stream;
mod capabilities;
mod cas;
mod execution;
mod grpc;
mod inline;
mod internal;
mod memory;
mod operations;
mod origin;
mod reflection;
mod request;
mod resource_name;
mod server;
mod status;

pub use server::{Health, ServeError, Services, serve};
