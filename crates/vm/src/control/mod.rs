//! The control protocol: what the host asks of the guest beside the work itself.
//!
//! A connection to guest port [`CONTROL_PORT`](crate::CONTROL_PORT) carries calls one after the
//! other, each a request and its response. `docs/control-protocol.md` has every byte and every
//! method. Either side takes the other for hostile: every length has a bound before memory is
//! taken, and the first malformed byte ends the connection.
//!
//! - [`frame`]: headers and messages as bytes.
//! - [`method`]: the methods, with their bodies as types.
//! - [`client`]: the host's side. - [`server`]: the guest's side.

pub mod client;
pub mod frame;
pub mod method;
pub mod server;

pub use client::{CallError, Client};
pub use method::{MemoryRelease, Method, ReleasedMemory, SetTime, TimeSet};
pub use server::{Handler, serve_connection};
