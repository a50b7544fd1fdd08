//! `google.bytestream.ByteStream`: blobs of any size, in pieces.
//!
//! Neither direction holds a thread while it waits for the client: pieces are
//! gathered to about [`piece::PIECE_BYTES`], and only the work on one of them goes to a
//! thread that may block. While the disk works on a piece, the network works on
//! the next one, so a stream holds about two pieces in memory.

mod piece;
mod progress;
mod read;
mod upload_messages;
mod write;

use std::convert::Infallible;
use std::sync::Arc;

use proto::google::bytestream::{QueryWriteStatusRequest, QueryWriteStatusResponse, ReadRequest};
use store::Store;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, http};
use tonic::{Request, Response, Status};

use crate::grpc::{Call, Methods};
use crate::{resource_name, status};
use upload_messages::UploadMessages;

/// The service.
#[derive(Clone)]
pub(crate) struct ByteStream {
    store: Arc<Store>,
}

impl ByteStream {
    pub(crate) fn new(store: Arc<Store>) -> Self {
        Self { store }
    }

    /// There are no partial uploads to be resumed: a write is whole, or it left no trace. The size of
    /// a blob that came compressed is that of its content, for offsets are told in it.
    fn query_write_status(
        &self,
        request: &QueryWriteStatusRequest,
    ) -> Result<QueryWriteStatusResponse, Status> {
        let resource = resource_name::parse_write(&request.resource_name)?;
        if !self.store.cas().contains(&resource.digest) {
            return Err(status::blob_not_found(&resource.digest));
        }
        let committed_size = resource.digest.size_bytes() as i64;
        Ok(QueryWriteStatusResponse { committed_size, complete: true })
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
