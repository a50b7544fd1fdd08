//! `google.bytestream.ByteStream`: blobs of any size, in pieces.
//!
//! Neither direction holds a thread while it waits for the client: pieces are
//! gathered to about [`PIECE_BYTES`], and only the work on one of them goes to a
//! thread that may block. While the disk works on a piece, the network works on
//! the next one, so a stream holds about two pieces in memory.

mod progress;
mod read;
mod write;

pub(crate) use progress::WriteRefused;
pub(crate) use read::ReadRefused;

use std::convert::Infallible;
use std::sync::Arc;

use model::proto::google::bytestream::{
    QueryWriteStatusRequest, QueryWriteStatusResponse, ReadRequest,
};
use store::Store;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, http};
use tonic::{Request, Response, Status};

use crate::grpc::{Call, Methods};
use crate::{resource_name, status};

/// What one visit to the disk reads or writes: large enough for the hand-over
/// between threads (about 10 µs) not to matter, small enough for a thousand
/// streams to fit in memory.
const PIECE_BYTES: usize = 1 << 20;

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
        match method {
            "Read" => call.server_streaming(move |request: Request<ReadRequest>| {
                read::read(Arc::clone(&self.store), request.into_inner())
            }),
            "Write" => call.client_streaming(move |request| {
                write::write(Arc::clone(&self.store), request.into_inner())
            }),
            "QueryWriteStatus" => call.unary(move |request: Request<QueryWriteStatusRequest>| {
                let answer = self.query_write_status(request.get_ref());
                std::future::ready(answer.map(Response::new))
            }),
            _ => call.unimplemented(),
        }
    }
}
