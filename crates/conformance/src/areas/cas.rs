//! `ContentAddressableStorage`: asking for blobs, and moving small ones in batches.

use anyhow::ensure;
use testkit::Digest;
use testkit::proto::batch_update_blobs_request::Request as Upload;
use testkit::proto::{self, compressor::Value as Compressor};
use tonic::{Code, Status};

use crate::check::{Check, Outcome, must, should, skip};
use crate::expect::{item_code, only, refused, refused_somehow, same, same_bytes};
use crate::server::{DEFAULT_MESSAGE_BYTES, Server, noise, unique};

pub(crate) const CHECKS: &[Check] = &[
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
    must!(
        a_hash_with_another_size_is_missing,
        "Digest",
        "That is, even if the `hash` field is correctly specified but `size_bytes` is not, the server MUST reject the request."
    ),
    must!(
        a_hash_with_another_size_is_not_read_in_a_batch,
        "Digest",
        "That is, even if the `hash` field is correctly specified but `size_bytes` is not, the server MUST reject the request."
    ),
    must!(
        a_hash_with_another_size_is_not_read_as_a_stream,
        "Digest",
        "That is, even if the `hash` field is correctly specified but `size_bytes` is not, the server MUST reject the request."
    ),
    must!(a_negative_size_is_refused, "Digest.size_bytes", "The size of the blob, in bytes."),
    should!(
        a_short_hash_is_refused,
        "Digest.hash",
        "The hash, represented as a lowercase hexadecimal string, padded with leading zeroes up to the hash function length."
    ),
    should!(
        a_hash_in_upper_case_is_no_digest,
        "Digest.hash",
        "The hash, represented as a lowercase hexadecimal string, padded with leading zeroes up to the hash function length."
    ),
    should!(
        a_hash_that_is_not_hexadecimal_is_refused,
        "Digest.hash",
        "The hash, represented as a lowercase hexadecimal string, padded with leading zeroes up to the hash function length."
    ),
    should!(
        the_digest_function_is_inferred_when_asking,
        "FindMissingBlobsRequest.digest_function",
        "In that case the server SHOULD infer the digest function using the length of the blob digest hashes and the digest functions announced in the server's capabilities."
    ),
    should!(
        the_digest_function_is_inferred_when_storing,
        "BatchUpdateBlobsRequest.digest_function",
        "In that case the server SHOULD infer the digest function using the length of the blob digest hashes and the digest functions announced in the server's capabilities."
    ),
    should!(
        the_digest_function_is_inferred_when_reading,
        "BatchReadBlobsRequest.digest_function",
        "In that case the server SHOULD infer the digest function using the length of the blob digest hashes and the digest functions announced in the server's capabilities."
    ),
    must!(
        every_announced_digest_function_stores,
        "CacheCapabilities.digest_functions",
        "Remote cache may support multiple digest functions simultaneously."
    ),
    must!(
        blobs_of_functions_are_apart,
        "FindMissingBlobsRequest.digest_function",
        "The digest function of the blobs whose existence is checked."
    ),
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
    must!(
        an_update_up_to_the_limit_is_taken,
        "ContentAddressableStorage.BatchUpdateBlobs",
        "This limit may be obtained using the"
    ),
    must!(
        an_update_of_very_many_blobs_is_taken,
        "CacheCapabilities.max_batch_total_size_bytes",
        "Maximum total size of blobs to be uploaded/downloaded using batch methods."
    ),
    must!(
        an_update_over_the_limit_is_refused,
        "ContentAddressableStorage.BatchUpdateBlobs",
        "`INVALID_ARGUMENT`: The client attempted to upload more than the server supported limit."
    ),
    must!(
        an_update_far_over_the_limit_is_refused,
        "ContentAddressableStorage.BatchUpdateBlobs",
        "`INVALID_ARGUMENT`: The client attempted to upload more than the server supported limit."
    ),
    must!(
        a_read_up_to_the_limit_fits_default_clients,
        "CacheCapabilities.max_batch_total_size_bytes",
        "in practice there will always be a message size limitation of the protocol in use, e.g. GRPC."
    ),
    must!(
        a_read_of_very_many_blobs_fits_default_clients,
        "CacheCapabilities.max_batch_total_size_bytes",
        "in practice there will always be a message size limitation of the protocol in use, e.g. GRPC."
    ),
    must!(
        a_read_over_the_limit_is_refused,
        "ContentAddressableStorage.BatchReadBlobs",
        "`INVALID_ARGUMENT`: The client attempted to read more than the server supported limit."
    ),
    must!(
        a_read_is_not_compressed_unless_allowed,
        "BatchReadBlobsResponse.Response.compressor",
        "or one of the acceptable compressors specified in the `BatchReadBlobsRequest`."
    ),
    must!(
        a_read_that_allows_zstd_is_read_back,
        "BatchReadBlobsRequest.acceptable_compressors",
        "`IDENTITY` is always allowed even if not specified here."
    ),
    must!(
        a_compressed_blob_is_stored_in_a_batch,
        "CacheCapabilities.supported_batch_update_compressors",
        "Compressors supported for inlined data in"
    ),
    must!(
        compressed_content_is_verified_in_a_batch,
        "BatchUpdateBlobsRequest.Request.digest",
        "This MUST be the digest of `data`."
    ),
    must!(
        a_compressor_that_is_not_announced_is_refused_in_a_batch,
        "BatchUpdateBlobsRequest.Request.compressor",
        "Must be `IDENTITY`/unspecified, or one of the compressors advertised by the"
    ),
];

/// The form of an upload, as the API would have it.
fn upload(digest: Digest, data: Vec<u8>) -> Upload {
    Upload { digest: Some(digest.to_proto()), data: data.into(), ..Default::default() }
}

fn identity(server: &Server, data: Vec<u8>) -> Upload {
    upload(server.client.digest(&data), data)
}

async fn update(
    server: &Server,
    requests: Vec<Upload>,
) -> Result<Vec<proto::batch_update_blobs_response::Response>, Status> {
    let message = proto::BatchUpdateBlobsRequest {
        instance_name: server.client.instance().to_owned(),
        requests,
        digest_function: server.client.function().to_proto(),
    };
    Ok(server.default_cas().batch_update_blobs(message).await?.into_inner().responses)
}

fn read_request(server: &Server, digests: Vec<proto::Digest>) -> proto::BatchReadBlobsRequest {
    proto::BatchReadBlobsRequest {
        instance_name: server.client.instance().to_owned(),
        digests,
        digest_function: server.client.function().to_proto(),
        ..Default::default()
    }
}

async fn read(
    server: &Server,
    digests: &[Digest],
) -> Result<Vec<proto::batch_read_blobs_response::Response>, Status> {
    let digests = digests.iter().map(Digest::to_proto).collect();
    let message = read_request(server, digests);
    Ok(server.default_cas().batch_read_blobs(message).await?.into_inner().responses)
}

/// The one blob of `digest`, read in a batch.
async fn read_one(server: &Server, digest: Digest) -> anyhow::Result<Vec<u8>> {
    let response = only(read(server, &[digest]).await?, "response")?;
    same("the code", item_code(response.status.as_ref()), Code::Ok)?;
    Ok(response.data.to_vec())
}

async fn find(
    server: &Server,
    blob_digests: Vec<proto::Digest>,
) -> Result<Vec<proto::Digest>, Status> {
    let message = proto::FindMissingBlobsRequest {
        instance_name: server.client.instance().to_owned(),
        blob_digests,
        digest_function: server.client.function().to_proto(),
    };
    Ok(server.default_cas().find_missing_blobs(message).await?.into_inner().missing_blob_digests)
}

/// A digest like `digest`, with another size.
fn resized(digest: Digest) -> proto::Digest {
    let digest = digest.to_proto();
    proto::Digest { size_bytes: digest.size_bytes + 1, ..digest }
}

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

async fn a_hash_with_another_size_is_missing(server: Server) -> Outcome {
    let digest = resized(server.client.put(unique("stored")).await?);
    match find(&server, vec![digest.clone()]).await {
        Ok(missing) => same("missing", missing, vec![digest]),
        Err(status) => refused_somehow::<()>(Err(status)).map(|_| ()),
    }
}

async fn a_hash_with_another_size_is_not_read_in_a_batch(server: Server) -> Outcome {
    let digest = resized(server.client.put(unique("stored")).await?);
    let message = read_request(&server, vec![digest]);
    match server.client.cas().batch_read_blobs(message).await {
        Ok(response) => {
            let response = only(response.into_inner().responses, "response")?;
            let code = item_code(response.status.as_ref());
            ensure!(code != Code::Ok, "it is read");
            Ok(())
        }
        Err(status) => refused_somehow::<()>(Err(status)).map(|_| ()),
    }
}

async fn a_hash_with_another_size_is_not_read_as_a_stream(server: Server) -> Outcome {
    let digest = server.client.put(unique("stored")).await?;
    let name = server.client.download_name(&digest);
    let (stem, size) = name.rsplit_once('/').unwrap_or_default();
    let name = format!("{stem}/{}", size.parse::<u64>()? + 1);
    let read = server.client.read(&name, 0, 0).await;
    refused(read, &[Code::NotFound, Code::InvalidArgument, Code::FailedPrecondition])?;
    Ok(())
}

async fn a_negative_size_is_refused(server: Server) -> Outcome {
    let digest = server.client.digest(unique("negative")).to_proto();
    let digest = proto::Digest { size_bytes: -1, ..digest };
    refused(find(&server, vec![digest]).await, &[Code::InvalidArgument])?;
    Ok(())
}

async fn bad_hash(server: &Server, change: impl FnOnce(String) -> String) -> Outcome {
    let digest = server.client.put(unique("hash")).await?.to_proto();
    let digest = proto::Digest { hash: change(digest.hash), ..digest };
    refused(find(server, vec![digest]).await, &[Code::InvalidArgument])?;
    Ok(())
}

async fn a_short_hash_is_refused(server: Server) -> Outcome {
    bad_hash(&server, |hash| hash[1..].to_owned()).await
}

async fn a_hash_that_is_not_hexadecimal_is_refused(server: Server) -> Outcome {
    bad_hash(&server, |hash| format!("g{}", &hash[1..])).await
}

async fn a_hash_in_upper_case_is_no_digest(server: Server) -> Outcome {
    // About one hash in 10^13 has no letter.
    let digest = server.client.put(unique("hash")).await?.to_proto();
    let digest = proto::Digest { hash: digest.hash.to_uppercase(), ..digest };
    match find(&server, vec![digest.clone()]).await {
        Ok(missing) => same("missing", missing, vec![digest]),
        Err(status) => refused_somehow::<()>(Err(status)).map(|_| ()),
    }
}

async fn the_digest_function_is_inferred_when_asking(server: Server) -> Outcome {
    server.infers()?;
    let stored = server.client.put(unique("stored")).await?;
    let absent = server.client.digest(unique("absent"));
    let message = proto::FindMissingBlobsRequest {
        instance_name: server.client.instance().to_owned(),
        blob_digests: vec![stored.to_proto(), absent.to_proto()],
        ..Default::default()
    };
    let answer = server.client.cas().find_missing_blobs(message).await?.into_inner();
    same("missing", answer.missing_blob_digests, vec![absent.to_proto()])
}

async fn the_digest_function_is_inferred_when_storing(server: Server) -> Outcome {
    server.infers()?;
    let data = unique("stored");
    let digest = server.client.digest(&data);
    let message = proto::BatchUpdateBlobsRequest {
        instance_name: server.client.instance().to_owned(),
        requests: vec![upload(digest, data)],
        ..Default::default()
    };
    let answer = server.client.cas().batch_update_blobs(message).await?.into_inner();
    let response = only(answer.responses, "response")?;
    same("the code", item_code(response.status.as_ref()), Code::Ok)?;
    same("missing", server.client.missing(&[digest]).await?, vec![])
}

async fn the_digest_function_is_inferred_when_reading(server: Server) -> Outcome {
    server.infers()?;
    let data = unique("stored");
    let digest = server.client.put(data.clone()).await?;
    let message = proto::BatchReadBlobsRequest {
        digest_function: 0,
        ..read_request(&server, vec![digest.to_proto()])
    };
    let answer = server.client.cas().batch_read_blobs(message).await?.into_inner();
    same_bytes("it", &only(answer.responses, "response")?.data, &data)
}

async fn every_announced_digest_function_stores(server: Server) -> Outcome {
    for function in server.functions() {
        let client = server.client.with_function(function);
        let data = unique("stored");
        let digest = client.put(data.clone()).await?;
        same_bytes(&function.to_string(), &client.get(&digest).await?, &data)?;
    }
    Ok(())
}

async fn blobs_of_functions_are_apart(server: Server) -> Outcome {
    let functions = server.functions();
    let [one, other, ..] = functions[..] else {
        return skip("fewer than two announced digest functions are known here");
    };
    let digest = server.client.with_function(one).put(unique("stored")).await?.to_proto();
    // The same hash under the other function is the hash of nothing.
    let client = server.client.with_function(other);
    let message = proto::FindMissingBlobsRequest {
        instance_name: client.instance().to_owned(),
        blob_digests: vec![digest.clone()],
        digest_function: other.to_proto(),
    };
    match client.cas().find_missing_blobs(message).await {
        Ok(answer) => same("missing", answer.into_inner().missing_blob_digests, vec![digest]),
        Err(status) => refused_somehow::<()>(Err(status)).map(|_| ()),
    }
}

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

/// Blobs of `size` bytes each, as many as one batch may hold.
fn full_batch(server: &Server, size: usize) -> anyhow::Result<Vec<Vec<u8>>> {
    let bytes = server.batch_bytes()?;
    if bytes > 64 << 20 {
        return skip(format!("a batch may hold {bytes} bytes, which this program does not send"));
    }
    Ok((0..bytes / size).map(|_| noise(size)).collect())
}

/// Stores a batch at once.
async fn store_at_once(server: &Server, blobs: Vec<Vec<u8>>) -> anyhow::Result<Vec<Digest>> {
    let digests = blobs.iter().map(|blob| server.client.digest(blob)).collect();
    let uploads = blobs.into_iter().map(|blob| identity(server, blob)).collect();
    for response in update(server, uploads).await? {
        same("the code of a blob", item_code(response.status.as_ref()), Code::Ok)?;
    }
    Ok(digests)
}

async fn an_update_up_to_the_limit_is_taken(server: Server) -> Outcome {
    let blob = noise(server.batch_bytes()?.min(64 << 20));
    store_at_once(&server, vec![blob]).await?;
    Ok(())
}

async fn an_update_of_very_many_blobs_is_taken(server: Server) -> Outcome {
    let digests = store_at_once(&server, full_batch(&server, 200)?).await?;
    same("missing", server.client.missing(&digests).await?, vec![])
}

async fn over_the_limit(server: &Server, excess: usize) -> Outcome {
    if server.cache()?.max_batch_total_size_bytes == 0 {
        return skip("no limit is announced");
    }
    let half = server.batch_bytes()? / 2;
    let uploads = vec![identity(server, noise(half)), identity(server, noise(half + excess))];
    refused(update(server, uploads).await, &[Code::InvalidArgument])?;
    Ok(())
}

async fn an_update_over_the_limit_is_refused(server: Server) -> Outcome {
    over_the_limit(&server, 2).await
}

async fn an_update_far_over_the_limit_is_refused(server: Server) -> Outcome {
    over_the_limit(&server, server.batch_bytes()?).await
}

/// The answer to a full batch fits a client that was not told to take more.
async fn fits(server: &Server, size: usize) -> Outcome {
    if server.batch_bytes()? > DEFAULT_MESSAGE_BYTES && size > 200 {
        return skip("a batch may hold more than such a client takes");
    }
    let blobs = full_batch(server, size)?;
    let digests: Vec<_> = blobs.iter().map(|blob| server.client.digest(blob)).collect();
    for part in blobs.chunks(500) {
        server.client.put_all(part.to_vec()).await?;
    }
    let mut whole = 0;
    for response in read(server, &digests).await? {
        match item_code(response.status.as_ref()) {
            Code::Ok => whole += response.data.len(),
            // A blob that finds no room in the answer may be asked for again.
            Code::ResourceExhausted => {}
            code => anyhow::bail!("{code:?} for {:?}", response.digest),
        }
    }
    ensure!(whole > 0, "nothing was read");
    Ok(())
}

async fn a_read_up_to_the_limit_fits_default_clients(server: Server) -> Outcome {
    fits(&server, server.batch_bytes()?.min(DEFAULT_MESSAGE_BYTES) / 4).await
}

async fn a_read_of_very_many_blobs_fits_default_clients(server: Server) -> Outcome {
    fits(&server, 200).await
}

async fn a_read_over_the_limit_is_refused(server: Server) -> Outcome {
    if server.cache()?.max_batch_total_size_bytes == 0 {
        return skip("no limit is announced");
    }
    let half = server.batch_bytes()? / 2;
    let blobs = [noise(half), noise(half + 2)];
    let mut digests = Vec::new();
    for blob in blobs {
        digests.push(server.client.put(blob).await?);
    }
    refused(read(&server, &digests).await, &[Code::InvalidArgument])?;
    Ok(())
}

async fn a_read_is_not_compressed_unless_allowed(server: Server) -> Outcome {
    let digest = server.client.put(unique("text ").repeat(1000)).await?;
    let response = only(read(&server, &[digest]).await?, "response")?;
    same("the compressor", response.compressor, Compressor::Identity.into())
}

async fn a_read_that_allows_zstd_is_read_back(server: Server) -> Outcome {
    let data = unique("text ").repeat(1000);
    let digest = server.client.put(data.clone()).await?;
    let message = proto::BatchReadBlobsRequest {
        acceptable_compressors: vec![Compressor::Zstd.into()],
        ..read_request(&server, vec![digest.to_proto()])
    };
    let answer = server.client.cas().batch_read_blobs(message).await?.into_inner();
    let response = only(answer.responses, "response")?;
    same("the code", item_code(response.status.as_ref()), Code::Ok)?;
    let content = match Compressor::try_from(response.compressor) {
        Ok(Compressor::Identity) => response.data.to_vec(),
        Ok(Compressor::Zstd) => zstd::stream::decode_all(response.data.as_ref())?,
        _ => anyhow::bail!("compressor {} was not allowed", response.compressor),
    };
    same_bytes("it", &content, &data)
}

fn compressed(digest: Digest, data: &[u8]) -> anyhow::Result<Upload> {
    let compressor = Compressor::Zstd.into();
    Ok(Upload { compressor, ..upload(digest, zstd::stream::encode_all(data, 3)?) })
}

async fn a_compressed_blob_is_stored_in_a_batch(server: Server) -> Outcome {
    server.batches(testkit::Compressor::Zstd)?;
    let data = unique("text ").repeat(1000);
    let digest = server.client.digest(&data);
    let response = only(update(&server, vec![compressed(digest, &data)?]).await?, "response")?;
    same("the code", item_code(response.status.as_ref()), Code::Ok)?;
    same_bytes("it", &read_one(&server, digest).await?, &data)
}

async fn compressed_content_is_verified_in_a_batch(server: Server) -> Outcome {
    server.batches(testkit::Compressor::Zstd)?;
    let digest = server.client.digest(unique("promised"));
    let one = compressed(digest, &unique("sent"))?;
    let response = only(update(&server, vec![one]).await?, "response")?;
    same("the code", item_code(response.status.as_ref()), Code::InvalidArgument)
}

async fn a_compressor_that_is_not_announced_is_refused_in_a_batch(server: Server) -> Outcome {
    let announced = &server.cache()?.supported_batch_update_compressors;
    let all = [Compressor::Brotli, Compressor::Deflate, Compressor::Zstd].map(i32::from);
    // Where all are announced, one that the API does not have.
    let compressor = all.into_iter().find(|one| !announced.contains(one)).unwrap_or(99);
    let one = Upload { compressor, ..identity(&server, unique("stored")) };
    let code = match update(&server, vec![one]).await {
        Ok(responses) => item_code(only(responses, "response")?.status.as_ref()),
        Err(status) => status.code(),
    };
    same("the code", code, Code::InvalidArgument)
}
