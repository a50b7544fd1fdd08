//! Compressed blobs in batches.

use testkit::Digest;
use testkit::proto::batch_update_blobs_request::Request as Upload;
use testkit::proto::{self, compressor::Value as Compressor};
use tonic::Code;

use super::requests::{identity, read, read_one, read_request, update, upload};
use crate::check::{Check, Outcome, must};
use crate::expect::{item_code, only, same, same_bytes};
use crate::server::{Server, unique};

pub(super) const CHECKS: &[Check] = &[
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
