//! The memory that clients can make the server hold.
//!
//! A client can send half of each of a thousand messages, or ask for a thousand
//! blobs and not read them. The memory that the server holds for such a client is
//! reserved from one [`Budget`], and given back when it is no longer held:
//!
//! ```text
//!  Budget ──── the server: all that connections hold, and a limit
//!    └ ConnectionQuota ── a connection: what it holds; some is guaranteed to each
//!        └ Reservation ──── a message, a piece of a blob, a buffer: until it is dropped
//! ```
//!
//! Over the limit an upload is refused with RESOURCE_EXHAUSTED, which clients try
//! again, and does not wait: to let the rest of a message wait in the connection's
//! HTTP/2 window would block those that are nearly whole. A download waits, and
//! both take smaller pieces when the budget is half used up. The guarantee keeps one
//! client from starving others, up to a reserve. So what is held has a bound: limit and
//! reserve.
//!
//! A call reserves before it allocates: for a request when its length is known, for its
//! decoded form when that was counted, for blobs by the sizes in their digests, and for
//! an answer before it is encoded.
//!
//! - [`budget`]: the budget, its quotas and reservations.
//! - [`connection`]: a connection with its quota; its first bytes must come soon.
//! - [`service`]: calls that reserve for what they receive and send.
//! - [`meters`]: numbers about calls, connections and that memory.
//! - [`request`], [`response`]: the bodies of such a call.

mod budget;
mod connection;
mod meters;
mod request;
mod response;
mod service;

#[cfg(test)]
pub(crate) use budget::GUARANTEED_BYTES;
pub(crate) use budget::{Budget, ConnectionQuota, Exhausted, MAX_BORROWED_BYTES, Reservation};
pub(crate) use connection::Accounted;
pub use meters::Meters;
pub(crate) use response::lent;
pub(crate) use service::QuotaService;
