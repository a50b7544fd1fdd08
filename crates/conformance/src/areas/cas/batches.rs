//! Blobs that are stored and read in batches.

use anyhow::ensure;
use testkit::Digest;
use testkit::proto;
use testkit::proto::batch_update_blobs_request::Request as Upload;
use tonic::Code;

use super::requests::{identity, read, read_one, resized, update, upload};
use crate::check::{Check, Outcome, must};
use crate::expect::{item_code, only, same, same_bytes};
use crate::server::{Server, noise, unique};

pub(super) const CHECKS: &[Check] = &[
    must!(
        a_stored_blob_is_read_back,
        "ContentAddressableStorage.BatchReadBlobs",
        "Download many blobs at once."
    ),
    must!(
        an_update_answers_for_every_blob,
        "BatchUpdateBlobsResponse.Response.digest",
        "The blob digest to which this response corresponds."
    ),
    must!(
        a_read_answers_for_every_digest,
        "BatchReadBlobsResponse.Response.digest",
        "The digest to which this response corresponds."
    ),
    must!(
        an_update_without_blobs_is_fine,
        "BatchUpdateBlobsRequest.requests",
        "The individual upload requests."
    ),
    must!(
        a_read_without_digests_is_fine,
        "BatchReadBlobsRequest.digests",
        "The individual blob digests."
    ),
    must!(
        other_content_is_refused,
        "ContentAddressableStorage.BatchUpdateBlobs",
        "does not match the provided data."
    ),
    must!(
        refused_content_is_not_stored,
        "BatchUpdateBlobsRequest.Request.digest",
        "This MUST be the digest of `data`."
    ),
    must!(
        content_of_another_size_is_refused,
        "BatchUpdateBlobsRequest.Request.digest",
        "This MUST be the digest of `data`."
    ),
    must!(
        one_bad_blob_does_not_spoil_an_update,
        "ContentAddressableStorage.BatchUpdateBlobs",
        "The requests may succeed or fail independently."
    ),
    must!(
        one_missing_blob_does_not_spoil_a_read,
        "ContentAddressableStorage.BatchReadBlobs",
        "Every error on individual read will be returned in the corresponding digest status."
    ),
    must!(
        a_missing_blob_is_not_found_in_a_batch,
        "BatchReadBlobsResponse.Response.status",
        "The result of attempting to download that blob."
    ),
    must!(
        the_same_blob_is_stored_twice,
        "ContentAddressableStorage.BatchUpdateBlobs",
        "This request is equivalent to calling a Bytestream `Write` request on each individual blob, in parallel."
    ),
];

async fn a_stored_blob_is_read_back(server: Server) -> Outcome {
    let data = unique("stored");
    let digest = server.client.put(data.clone()).await?;
    same_bytes("it", &read_one(&server, digest).await?, &data)
}

async fn an_update_answers_for_every_blob(server: Server) -> Outcome {
    let uploads: Vec<_> = (0..20).map(|_| identity(&server, unique("stored"))).collect();
    let mut expected: Vec<_> = uploads.iter().map(|upload| upload.digest.clone()).collect();
    let responses = update(&server, uploads).await?;
    let mut answered: Vec<_> = responses.into_iter().map(|response| response.digest).collect();
    let key = |digest: &Option<proto::Digest>| digest.clone().unwrap_or_default().hash;
    expected.sort_by_key(key);
    answered.sort_by_key(key);
    same("digests", answered, expected)
}

async fn a_read_answers_for_every_digest(server: Server) -> Outcome {
    let blobs: Vec<_> = (0..20).map(|_| unique("stored")).collect();
    server.client.put_all(blobs.clone()).await?;
    let mut digests: Vec<_> = blobs.iter().map(|blob| server.client.digest(blob)).collect();
    let responses = read(&server, &digests).await?;
    let mut answered = Vec::new();
    for response in responses {
        let digest = Digest::from_proto_field(response.digest.as_ref(), server.client.function())?;
        ensure!(server.client.digest(&response.data) == digest, "{digest} has other data");
        answered.push(digest);
    }
    digests.sort();
    answered.sort();
    same("digests", answered, digests)
}

async fn an_update_without_blobs_is_fine(server: Server) -> Outcome {
    same("responses", update(&server, vec![]).await?.len(), 0)
}

async fn a_read_without_digests_is_fine(server: Server) -> Outcome {
    same("responses", read(&server, &[]).await?.len(), 0)
}

async fn other_content_is_refused(server: Server) -> Outcome {
    let (promised, mut sent) = (noise(100), noise(100));
    sent[0] = !promised[0];
    let responses = update(&server, vec![upload(server.client.digest(&promised), sent)]).await?;
    let response = only(responses, "response")?;
    same("the code", item_code(response.status.as_ref()), Code::InvalidArgument)
}

async fn refused_content_is_not_stored(server: Server) -> Outcome {
    let (promised, sent) = (noise(100), noise(100));
    let digests = [server.client.digest(&promised), server.client.digest(&sent)];
    let _refused = update(&server, vec![upload(digests[0], sent)]).await;
    let missing = server.client.missing(&digests[..1]).await?;
    same("missing", missing, digests[..1].to_vec())
}

async fn content_of_another_size_is_refused(server: Server) -> Outcome {
    let data = unique("stored");
    let digest = resized(server.client.digest(&data));
    let one = Upload { digest: Some(digest), data: data.into(), ..Default::default() };
    let response = only(update(&server, vec![one]).await?, "response")?;
    same("the code", item_code(response.status.as_ref()), Code::InvalidArgument)
}

async fn one_bad_blob_does_not_spoil_an_update(server: Server) -> Outcome {
    let (good, bad) = (identity(&server, unique("good")), server.client.digest(unique("bad")));
    let digest = good.digest.clone();
    let responses = update(&server, vec![upload(bad, unique("worse")), good]).await?;
    same("responses", responses.len(), 2)?;
    for response in responses {
        let code = item_code(response.status.as_ref());
        ensure!((code == Code::Ok) == (response.digest == digest), "{code:?} for {response:?}");
    }
    Ok(())
}

async fn one_missing_blob_does_not_spoil_a_read(server: Server) -> Outcome {
    let stored = server.client.put(unique("stored")).await?;
    let absent = server.client.digest(unique("absent"));
    let responses = read(&server, &[absent, stored]).await?;
    same("responses", responses.len(), 2)?;
    for response in responses {
        let code = item_code(response.status.as_ref());
        let is_stored = response.digest == Some(stored.to_proto());
        ensure!((code == Code::Ok) == is_stored, "{code:?} for {:?}", response.digest);
    }
    Ok(())
}

async fn a_missing_blob_is_not_found_in_a_batch(server: Server) -> Outcome {
    let absent = server.client.digest(unique("absent"));
    let response = only(read(&server, &[absent]).await?, "response")?;
    same("the code", item_code(response.status.as_ref()), Code::NotFound)
}

async fn the_same_blob_is_stored_twice(server: Server) -> Outcome {
    let one = identity(&server, unique("stored"));
    for uploads in [vec![one.clone(), one.clone()], vec![one]] {
        for response in update(&server, uploads).await? {
            same("the code", item_code(response.status.as_ref()), Code::Ok)?;
        }
    }
    Ok(())
}
