//! The content of a write: verified, and not needed where the blob is there.

use testkit::Digest;
use tonic::Code;

use super::requests::{fresh, message, upload_name};
use crate::check::{Check, Outcome, must};
use crate::expect::{refused, same, same_bytes};
use crate::server::{Server, noise};

pub(super) const CHECKS: &[Check] = &[
    must!(
        other_content_is_refused_in_a_write,
        "ContentAddressableStorage",
        "If the client completes the upload but the [Digest][build.bazel.remote.execution.v2.Digest] does not match, an `INVALID_ARGUMENT` error will be returned."
    ),
    must!(
        too_few_bytes_are_refused,
        "ContentAddressableStorage",
        "If the client completes the upload but the [Digest][build.bazel.remote.execution.v2.Digest] does not match, an `INVALID_ARGUMENT` error will be returned."
    ),
    must!(
        too_many_bytes_are_refused,
        "ContentAddressableStorage",
        "If the client completes the upload but the [Digest][build.bazel.remote.execution.v2.Digest] does not match, an `INVALID_ARGUMENT` error will be returned."
    ),
    must!(
        refused_content_is_not_in_the_cas,
        "ContentAddressableStorage",
        "If the client completes the upload but the [Digest][build.bazel.remote.execution.v2.Digest] does not match, an `INVALID_ARGUMENT` error will be returned."
    ),
    must!(
        a_blob_that_is_there_ends_its_upload,
        "ContentAddressableStorage",
        "the request will terminate immediately without error, and with a response whose `committed_size` is the value `-1` if this is a compressed upload, or with the full size of the uploaded file if this is an uncompressed upload (regardless of how much data was transmitted by the client)."
    ),
    must!(
        the_empty_blob_is_written,
        "ContentAddressableStorage",
        "Clients MAY optimize away the uploading or downloading of empty blobs."
    ),
    must!(
        the_same_blob_is_written_at_once,
        "ContentAddressableStorage",
        "Uploads of the same data MAY occur concurrently in any form, compressed or uncompressed."
    ),
];

async fn bad_content(server: &Server, change: impl FnOnce(&mut Vec<u8>)) -> anyhow::Result<Digest> {
    let (mut data, digest, name) = fresh(server, 100);
    change(&mut data);
    let answer = server.client.write(&name, &data, 1000).await;
    refused(answer, &[Code::InvalidArgument])?;
    Ok(digest)
}

async fn other_content_is_refused_in_a_write(server: Server) -> Outcome {
    bad_content(&server, |data| data[7] = !data[7]).await.map(|_| ())
}

async fn too_few_bytes_are_refused(server: Server) -> Outcome {
    bad_content(&server, |data| data.truncate(99)).await.map(|_| ())
}

async fn too_many_bytes_are_refused(server: Server) -> Outcome {
    bad_content(&server, |data| data.push(0)).await.map(|_| ())
}

async fn refused_content_is_not_in_the_cas(server: Server) -> Outcome {
    let digest = bad_content(&server, |data| data[7] = !data[7]).await?;
    same("missing", server.client.missing(&[digest]).await?, vec![digest])
}

async fn a_blob_that_is_there_ends_its_upload(server: Server) -> Outcome {
    let data = noise(1000);
    let digest = server.client.put(data.clone()).await?;
    let name = upload_name(&server, &digest);
    same("committed_size", server.client.write(&name, &data, 100).await?, 1000)?;
    let half = vec![message(&name, 0, &data[..500], false)];
    same("committed_size after half", server.client.write_messages(half).await?, 1000)
}

async fn the_empty_blob_is_written(server: Server) -> Outcome {
    let name = upload_name(&server, &server.client.digest(b""));
    same("committed_size", server.client.write(&name, b"", 1).await?, 0)
}

async fn the_same_blob_is_written_at_once(server: Server) -> Outcome {
    let (data, digest, name) = fresh(&server, 1 << 20);
    let other = upload_name(&server, &digest);
    let writes =
        [name.as_str(), &name, &other, &other].map(|name| server.client.write(name, &data, 10_000));
    for committed in futures_util::future::join_all(writes).await {
        same("committed_size", committed?, 1 << 20)?;
    }
    same_bytes("it", &server.client.get(&digest).await?, &data)
}
