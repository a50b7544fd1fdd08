//! The compression of single messages, which gRPC calls encoding.
//!
//! A client names the encoding of its messages in `grpc-encoding`, and those that it reads in
//! `grpc-accept-encoding`. The services know nothing of it: they get bodies of plain messages and
//! answer with such, so that every service takes compressed messages, and those that take blobs off
//! the wire without a copy go on to do so for everybody else.
//!
//! ```text
//!  client ── gzip ──► Unpack ── plain ──► service ── plain ──► Pack ── gzip ──► client
//!                    (request)                             (response)
//! ```
//!
//! An answer is compressed only where the request was. gRPC's C++, Java and Python libraries offer
//! gzip with every call, also of users who never asked for compression; to take that for a wish would
//! cost more time than a network in one building saves. grpc-go's servers do the same.
//!
//! A message is unpacked after the memory for all of it was reserved, and never becomes larger than one
//! that came plain: a few bytes can stand for gigabytes.
//!
//! - [`service`]: the bodies of a call, by its headers.
//! - [`request`], [`response`]: the messages of a call, one after the other.
//! - [`rewritten`]: a body whose messages become others.
//! - [`algorithm`]: gzip and zstd.

mod algorithm;
mod request;
mod response;
mod rewritten;
mod service;

pub(crate) use response::Incompressible;
pub(crate) use service::EncodingService;

/// The size in bytes from which packing or unpacking takes long enough, tens of microseconds, to let the
/// runtime move its other tasks to another thread meanwhile.
const LONG_WORK_BYTES: usize = 64 << 10;

/// Runs `work` on that many bytes.
fn run<T>(size_bytes: usize, work: impl FnOnce() -> T) -> T {
    if size_bytes < LONG_WORK_BYTES { work() } else { tokio::task::block_in_place(work) }
}
