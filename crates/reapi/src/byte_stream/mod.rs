//! `google.bytestream.ByteStream`: blobs of any size, in pieces.
//!
//! Neither direction holds a thread while it waits for the client: pieces are
//! gathered to about [`PIECE_BYTES`], and only the work on one of them goes to a
//! thread that may block. While the disk works on a piece, the network works on
//! the next one, so a stream holds about two pieces in memory.

mod progress;
mod read;
mod upload_messages;
mod write;

pub(crate) use progress::WriteRefused;
pub(crate) use read::ReadRefused;

use std::convert::Infallible;
use std::sync::Arc;

use proto::google::bytestream::{QueryWriteStatusRequest, QueryWriteStatusResponse, ReadRequest};
use store::Store;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, http};
use tonic::{Request, Response, Status};

use crate::grpc::{Call, Methods};
use crate::memory::Account;
use crate::{resource_name, status};
use upload_messages::UploadMessages;

/// What one visit to the disk reads or writes: large enough for the hand-over
/// between threads (about 10 µs) not to matter, small enough for a thousand
/// streams to fit in memory.
const PIECE_BYTES: usize = 1 << 20;

/// The same when memory is scarce: slower, and room for eight times the streams.
const SMALL_PIECE_BYTES: usize = PIECE_BYTES / 8;

/// How large the pieces of a stream are that begins now.
fn piece_bytes(account: &Account) -> usize {
    if account.is_scarce() { SMALL_PIECE_BYTES } else { PIECE_BYTES }
}

/// The service.
#[derive(Clone)]
pub(crate) struct ByteStream {
    store: Arc<Store>,
}

impl ByteStream {
    pub(crate) fn new(store: Arc<Store>) -> Self {
        Self { store }
    }

    /// There are no partial uploads to be resumed: a write is whole, or it left
    /// no trace.
    fn query_write_status(
        &self,
        request: &QueryWriteStatusRequest,
    ) -> Result<QueryWriteStatusResponse, Status> {
        let resource = resource_name::parse_write(&request.resource_name).map_err(status::name)?;
        let complete = self.store.cas().contains(&resource.digest);
        let committed_size = if complete { write::committed_size(&resource) } else { 0 };
        Ok(QueryWriteStatusResponse { committed_size, complete })
    }
}

impl Methods for ByteStream {
    const NAME: &'static str = "google.bytestream.ByteStream";

    fn dispatch(self, method: &str, call: Call) -> BoxFuture<http::Response<Body>, Infallible> {
        let account = call.account();
        match method {
            "Read" => call.chunks(|request: ReadRequest| read::read(self.store, account, request)),
            "Write" => {
                call.raw(|body| write::write(self.store, account, UploadMessages::new(body)))
            }
            "QueryWriteStatus" => call.unary(move |request: Request<QueryWriteStatusRequest>| {
                let answer = self.query_write_status(request.get_ref());
                std::future::ready(answer.map(Response::new))
            }),
            _ => call.unimplemented(),
        }
    }
}
