//! `FindMissingBlobs`.

use proto::encoded::reapi::{FindMissingBlobsRequest, FindMissingBlobsResponse};
use store::Store;
use tonic::{Response, Status};

use crate::request;

/// Answers from memory, and with the client's own encoding of the digests:
/// nothing is allocated per digest. One bad digest fails the call, since there is
/// no true answer to it.
pub(super) fn find_missing_blobs(
    store: &Store,
    message: FindMissingBlobsRequest,
) -> Result<Response<FindMissingBlobsResponse>, Status> {
    request::instance_name(&message.instance_name)?;
    let function = request::function(message.digest_function)?;
    let mut missing = Vec::new();
    for encoded in message.blob_digests {
        let digest = request::encoded_digest("blob_digests", &encoded, function)?;
        if !store.cas().contains(&digest) {
            missing.push(encoded);
        }
    }
    Ok(Response::new(FindMissingBlobsResponse { missing_blob_digests: missing }))
}
