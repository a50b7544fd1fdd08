//! `FindMissingBlobs`.

use bytes::Bytes;
use model::DigestFunction;
use proto::encoded::reapi::{FindMissingBlobsRequest, FindMissingBlobsResponse};
use store::Store;
use tonic::{Response, Status};

use crate::memory::Reservation;
use crate::offer::Offer;
use crate::request::RequestError;
use crate::{below, blocking, request};

/// Answers from memory, and with the client's own encoding of the digests:
/// nothing is allocated per digest, nor for the answer. One bad digest fails the call, since there is
/// no true answer to it.
///
/// Fetches blobs that only a tier below the store has, before it answers.
pub(super) async fn find_missing_blobs(
    store: &Store,
    offer: &Offer,
    reservation: &Reservation,
    caller: Bytes,
    message: FindMissingBlobsRequest,
) -> Result<Response<FindMissingBlobsResponse>, Status> {
    request::instance_name(offer, &message.instance_name)?;
    let function =
        request::function(&offer.functions, message.digest_function, &message.blob_digests)?;
    let mut digests = message.blob_digests;
    blocking::presence(store, || retain_missing(store, &mut digests, function))?;
    if store.tier().is_some() && !digests.is_empty() {
        let parse = |encoded: &Bytes| request::encoded_digest("blob_digests", encoded, function);
        let absent = digests.iter().filter_map(|encoded| parse(encoded).ok());
        below::fetch(store, reservation, absent.collect::<Vec<_>>(), caller).await?;
        retain_missing(store, &mut digests, function)?;
    }
    Ok(Response::new(FindMissingBlobsResponse { missing_blob_digests: digests }))
}

/// Leaves those of the encoded digests whose blobs are not in the store.
fn retain_missing(
    store: &Store,
    digests: &mut Vec<Bytes>,
    function: DigestFunction,
) -> Result<(), RequestError> {
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
        Some(error) => Err(error),
        None => Ok(()),
    }
}
