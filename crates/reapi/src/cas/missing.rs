//! `FindMissingBlobs`.

use model::DigestFunctions;
use proto::encoded::reapi::{FindMissingBlobsRequest, FindMissingBlobsResponse};
use store::Store;
use tonic::{Response, Status};

use crate::request;

/// Answers from memory, and with the client's own encoding of the digests:
/// nothing is allocated per digest, nor for the answer. One bad digest fails the call, since there is
/// no true answer to it.
pub(super) fn find_missing_blobs(
    store: &Store,
    offered: &DigestFunctions,
    message: FindMissingBlobsRequest,
) -> Result<Response<FindMissingBlobsResponse>, Status> {
    request::instance_name(&message.instance_name)?;
    let function = request::function(offered, message.digest_function, &message.blob_digests)?;
    let mut digests = message.blob_digests;
    let mut refused = None;
    digests.retain(|encoded| {
        if refused.is_some() {
            return false;
        }
        match request::encoded_digest("blob_digests", encoded, function) {
            Ok(digest) => !store.cas().contains(&digest),
            Err(error) => {
                refused = Some(error);
                false
            }
        }
    });
    match refused {
        Some(error) => Err(error.into()),
        None => Ok(Response::new(FindMissingBlobsResponse { missing_blob_digests: digests })),
    }
}
