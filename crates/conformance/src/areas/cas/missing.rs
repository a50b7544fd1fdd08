//! `FindMissingBlobs`, and the empty blob, which is never missing.

use anyhow::ensure;

use super::requests::read_one;
use crate::check::{Check, Outcome, must};
use crate::expect::{same, same_bytes};
use crate::server::{Server, unique};

pub(super) const CHECKS: &[Check] = &[
    must!(
        an_unknown_blob_is_missing,
        "FindMissingBlobsResponse.missing_blob_digests",
        "A list of the blobs requested *not* present in the storage."
    ),
    must!(
        a_stored_blob_is_not_missing,
        "ContentAddressableStorage.FindMissingBlobs",
        "Determine if blobs are present in the CAS."
    ),
    must!(
        only_missing_blobs_are_named,
        "FindMissingBlobsResponse.missing_blob_digests",
        "A list of the blobs requested *not* present in the storage."
    ),
    must!(
        no_blob_is_missing_of_an_empty_list,
        "FindMissingBlobsRequest.blob_digests",
        "A list of the blobs to check."
    ),
    must!(
        many_blobs_are_asked_for_at_once,
        "ContentAddressableStorage.FindMissingBlobs",
        "There are no method-specific errors."
    ),
    must!(
        the_empty_blob_is_never_missing,
        "ContentAddressableStorage",
        "Servers MUST behave as though empty blobs are always available, even if they have not been uploaded."
    ),
    must!(
        the_empty_blob_is_read_in_a_batch,
        "ContentAddressableStorage",
        "Servers MUST behave as though empty blobs are always available, even if they have not been uploaded."
    ),
    must!(
        the_empty_blob_is_read_as_a_stream,
        "ContentAddressableStorage",
        "Servers MUST behave as though empty blobs are always available, even if they have not been uploaded."
    ),
    must!(
        the_empty_blob_is_stored_in_a_batch,
        "ContentAddressableStorage",
        "Clients MAY optimize away the uploading or downloading of empty blobs."
    ),
];

async fn an_unknown_blob_is_missing(server: Server) -> Outcome {
    let digest = server.client.digest(unique("unknown"));
    same("missing", server.client.missing(&[digest]).await?, vec![digest])
}

async fn a_stored_blob_is_not_missing(server: Server) -> Outcome {
    let digest = server.client.put(unique("stored")).await?;
    same("missing", server.client.missing(&[digest]).await?, vec![])
}

async fn only_missing_blobs_are_named(server: Server) -> Outcome {
    let stored = server.client.put(unique("stored")).await?;
    let (one, two) = (server.client.digest(unique("1")), server.client.digest(unique("2")));
    let mut missing = server.client.missing(&[one, stored, two]).await?;
    let mut expected = vec![one, two];
    missing.sort();
    expected.sort();
    same("missing", missing, expected)
}

async fn no_blob_is_missing_of_an_empty_list(server: Server) -> Outcome {
    same("missing", server.client.missing(&[]).await?, vec![])
}

async fn many_blobs_are_asked_for_at_once(server: Server) -> Outcome {
    let digests: Vec<_> =
        (0..10_000).map(|number: u32| server.client.digest(unique(&number.to_string()))).collect();
    let mut missing = server.client.missing(&digests).await?;
    missing.sort();
    missing.dedup();
    same("missing", missing.len(), digests.len())
}

async fn the_empty_blob_is_never_missing(server: Server) -> Outcome {
    for function in server.functions() {
        let client = server.client.with_function(function);
        let missing = client.missing(&[client.digest(b"")]).await?;
        ensure!(missing.is_empty(), "it is missing for {function}");
    }
    Ok(())
}

async fn the_empty_blob_is_read_in_a_batch(server: Server) -> Outcome {
    same_bytes("it", &read_one(&server, server.client.digest(b"")).await?, b"")
}

async fn the_empty_blob_is_read_as_a_stream(server: Server) -> Outcome {
    same_bytes("it", &server.client.get(&server.client.digest(b"")).await?, b"")
}

async fn the_empty_blob_is_stored_in_a_batch(server: Server) -> Outcome {
    server.client.put(b"".as_slice()).await?;
    Ok(())
}
