//! `google.bytestream.ByteStream`: blobs of any size, in pieces.
//!
//! Neither direction holds a thread while it waits for the client: pieces are
//! gathered to about [`piece::PIECE_BYTES`], and only the work on one of them goes to a
//! thread that may block. While the disk works on a piece, the network works on
//! the next one, so a stream holds about two pieces in memory.

#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod partial;
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

use crate::blocking;
use crate::grpc::{Call, Methods};
use crate::offer::Offer;
use crate::resource_name;
use partial::{Key, PartialUploads};
use upload_messages::UploadMessages;
use write::Uploads;

/// The service.
#[derive(Clone)]
pub(crate) struct ByteStream {
    store: Arc<Store>,
    offer: Offer,
    partial: Arc<PartialUploads>,
}

impl ByteStream {
    pub(crate) fn new(store: Arc<Store>, offer: Offer) -> Self {
        let partial = PartialUploads::of(&store);
        Self { store, offer, partial }
    }

    /// The size of a blob that came or comes compressed is that of its content, for offsets are told in it.
    ///
    /// ByteStream has NOT_FOUND for a resource that no `Write` has reached. Bazel 7 asks after an upload
    /// that broke off, possibly with an earlier server, and gives up at NOT_FOUND; at 0 it starts anew.
    fn query_write_status(
        &self,
        request: QueryWriteStatusRequest,
        principal: String,
    ) -> Result<QueryWriteStatusResponse, Status> {
        let resource = resource_name::parse_write(&request.resource_name, &self.offer)?;
        let cas = self.store.cas();
        let complete = blocking::presence(&self.store, || cas.contains(&resource.digest));
        // If it is not on the disk yet, the client writes it again and is told when it is.
        let complete = complete && self.store.is_told_durably();
        let committed_size = if complete {
            resource.digest.size_bytes()
        } else {
            self.partial.committed(&Key { principal, name: request.resource_name }).unwrap_or(0)
        };
        Ok(QueryWriteStatusResponse { committed_size: committed_size as i64, complete })
    }
}

impl Methods for ByteStream {
    const NAME: &'static str = "google.bytestream.ByteStream";

    fn dispatch(self, method: &str, call: Call) -> BoxFuture<http::Response<Body>, Infallible> {
        let (quota, caller) = (call.quota(), call.caller(&self.store));
        match method {
            "Read" => call.chunks(move |request: ReadRequest| {
                read::read(self.store, quota, self.offer, caller, request)
            }),
            "Write" => {
                let principal = call.principal();
                let Self { store, offer, partial } = self;
                let uploads = Uploads { store, quota, offer, partial, principal };
                call.raw(move |body| write::write(uploads, UploadMessages::new(body)))
            }
            "QueryWriteStatus" => {
                let principal = call.principal();
                call.unary(move |request: Request<QueryWriteStatusRequest>| {
                    let answer = self.query_write_status(request.into_inner(), principal.clone());
                    std::future::ready(answer.map(Response::new))
                })
            }
            _ => call.unimplemented(),
        }
    }
}
