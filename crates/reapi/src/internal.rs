//! `actiond.internal.v1.CAS`: an interface of this project for its own tests and
//! for operators on the machine itself.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use model::{DigestFunction, DigestFunctions};
use proto::encoded::actiond::delete_blobs_response::Response as DeleteBlobsOutcome;
use proto::encoded::actiond::{DeleteBlobsRequest, DeleteBlobsResponse};
use store::{Deleted, Store};
use tonic::body::Body;
use tonic::codegen::{BoxFuture, http};
use tonic::{Request, Response, Status};

use crate::cas::OUTCOME_BYTES;
use crate::grpc::{Call, Methods};
use crate::memory::Reservation;
use crate::offer::Offer;
use crate::{blocking, request, status};

/// The service.
#[derive(Clone)]
pub(crate) struct InternalCas {
    store: Arc<Store>,
    offered: DigestFunctions,
}

impl InternalCas {
    pub(crate) fn new(store: Arc<Store>, offered: DigestFunctions) -> Self {
        Self { store, offered }
    }
}

impl Methods for InternalCas {
    const NAME: &'static str = "actiond.internal.v1.CAS";

    fn dispatch(self, method: &str, call: Call) -> BoxFuture<http::Response<Body>, Infallible> {
        match method {
            "DeleteBlobs" => {
                let reservation = call.reservation();
                call.unary(move |request| {
                    delete_blobs(
                        Arc::clone(&self.store),
                        Arc::clone(&reservation),
                        self.offered,
                        request,
                    )
                })
            }
            _ => call.unimplemented(),
        }
    }
}

/// Deletes blobs; each has its own status: OK, NOT_FOUND, or FAILED_PRECONDITION
/// while an action or a result needs it.
async fn delete_blobs(
    store: Arc<Store>,
    reservation: Arc<Reservation>,
    offered: DigestFunctions,
    request: Request<DeleteBlobsRequest>,
) -> Result<Response<DeleteBlobsResponse>, Status> {
    let message = request.into_inner();
    // Of any instance: blobs are those of all, and operators need not know which ones clients have.
    request::instance_name(&Offer::default(), &message.instance_name)?;
    let function = request::function(&offered, message.digest_function, &message.blob_digests)?;
    reservation.grow_by(OUTCOME_BYTES * message.blob_digests.len() as u64)?;
    let responses = blocking::run(move || {
        let outcome = |encoded: Bytes| DeleteBlobsOutcome {
            status: Some(status::to_rpc(delete_one(&store, function, &encoded))),
            digest: encoded,
        };
        Ok(message.blob_digests.into_iter().map(outcome).collect())
    })
    .await?;
    Ok(Response::new(DeleteBlobsResponse { responses }))
}

fn delete_one(store: &Store, function: DigestFunction, encoded: &[u8]) -> Result<(), Status> {
    let digest = request::encoded_digest("blob_digests", encoded, function)?;
    match store.cas().delete(&digest).map_err(status::store)? {
        Deleted::Gone => Ok(()),
        Deleted::Absent => Err(status::blob_not_found(&digest)),
        Deleted::Pinned => Err(Status::failed_precondition(format!("blob {digest} is in use"))),
    }
}
