//! `ByteStream` for uncompressed blobs: reading, writing, resuming.

use std::time::Duration;

use anyhow::{bail, ensure};
use testkit::google::bytestream::{
    QueryWriteStatusRequest, QueryWriteStatusResponse, ReadRequest, WriteRequest,
};
use testkit::{Digest, DigestFunction};
use tokio::sync::mpsc::Sender;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};
use uuid::Uuid;

use crate::check::{Check, Outcome, must, should, skip};
use crate::expect::{refused, refused_somehow, same, same_bytes};
use crate::server::{DEFAULT_MESSAGE_BYTES, Server, noise, unique};

pub(crate) const CHECKS: &[Check] = &[
    must!(
        a_blob_is_written_and_read,
        "ByteStream.Read",
        "`Read()` is used to retrieve the contents of a resource as a sequence of bytes."
    ),
    must!(
        a_large_blob_is_written_and_read,
        "ByteStream.Write",
        "The bytes are sent in a sequence of request protos of a client-side streaming RPC."
    ),
    must!(
        what_is_read_fits_default_clients,
        "ReadResponse.data",
        "A portion of the data for the resource."
    ),
    must!(
        a_write_tells_the_whole_size,
        "WriteResponse.committed_size",
        "The number of bytes that have been processed for the given resource."
    ),
    must!(
        a_written_blob_is_in_the_cas,
        "ContentAddressableStorage",
        "For large uploads, the client must use the"
    ),
    must!(
        a_write_in_single_bytes_is_taken,
        "WriteRequest.write_offset",
        "the sum of the first `write_offset` and the sizes of all `data` bundles sent previously on this stream."
    ),
    must!(
        messages_without_data_are_taken,
        "WriteRequest.data",
        "The client **may** leave `data` empty for any given `WriteRequest`."
    ),
    must!(
        the_end_may_come_in_a_message_of_its_own,
        "WriteRequest.finish_write",
        "If `true`, this indicates that the write is complete."
    ),
    must!(
        the_name_may_be_repeated,
        "WriteRequest.resource_name",
        "If it is set on subsequent calls, it **must** match the value of the first request."
    ),
    must!(
        another_name_is_refused,
        "WriteRequest.resource_name",
        "If it is set on subsequent calls, it **must** match the value of the first request."
    ),
    must!(
        a_write_without_a_name_is_refused,
        "WriteRequest.resource_name",
        "This **must** be set on the first `WriteRequest` of each `Write()` action."
    ),
    must!(a_gap_is_refused, "WriteRequest.write_offset", "An incorrect value will cause an error."),
    must!(
        a_first_offset_that_is_not_committed_is_refused,
        "WriteRequest.write_offset",
        "The value **must** be equal to the `committed_size` that a call to `QueryWriteStatus()` would return."
    ),
    must!(
        a_negative_offset_is_refused_in_a_write,
        "WriteRequest.write_offset",
        "An incorrect value will cause an error."
    ),
    must!(
        messages_after_the_end_are_refused,
        "ByteStream.Write",
        "Sending any requests on a stream after sending a request with `finish_write` set to `true` will cause an error."
    ),
    must!(
        without_an_end_nothing_is_complete,
        "ByteStream.Write",
        "The service will not view the resource as `complete` until the client has sent a `WriteRequest` with `finish_write` set to `true`."
    ),
    must!(
        without_an_end_the_size_so_far_is_told,
        "ByteStream.Write",
        "When the client closes the request channel, the service will respond with a `WriteResponse`."
    ),
    should!(a_write_is_resumed, "ByteStream.Write", "A `Write()` action is resumable."),
    should!(
        a_write_that_broke_off_is_resumed,
        "ByteStream.Write",
        "If there is an error or the connection is broken during the `Write()`, the client should check the status of the `Write()` by calling `QueryWriteStatus()` and continue writing from the returned `committed_size`."
    ),
    must!(
        a_resumed_write_is_verified_as_a_whole,
        "ContentAddressableStorage",
        "If the client completes the upload but the [Digest][build.bazel.remote.execution.v2.Digest] does not match, an `INVALID_ARGUMENT` error will be returned."
    ),
    should!(
        a_blob_that_comes_from_elsewhere_ends_an_upload_in_its_middle,
        "ContentAddressableStorage",
        "(which may occur in the middle of a single upload if another client uploads the same blob concurrently)"
    ),
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
        metadata_in_the_name_is_ignored,
        "ContentAddressableStorage",
        "`optional_metadata` is implementation specific data, which clients MAY omit."
    ),
    must!(
        a_uuid_is_reused,
        "ContentAddressableStorage",
        "Clients MAY reuse the same `uuid` for uploading different blobs."
    ),
    must!(
        the_same_blob_is_written_at_once,
        "ContentAddressableStorage",
        "Uploads of the same data MAY occur concurrently in any form, compressed or uncompressed."
    ),
    must!(
        a_function_in_the_name_is_read,
        "ContentAddressableStorage",
        "`digest_function` is a lowercase string form of a `DigestFunction.Value` enum, indicating which digest function was used to compute `hash`."
    ),
    must!(
        a_name_of_another_form_is_refused,
        "ContentAddressableStorage",
        "For uncompressed data, the `WriteRequest.resource_name` is of the following form:"
    ),
    must!(
        a_read_of_another_form_is_refused,
        "ContentAddressableStorage",
        "For uncompressed data, the `ReadRequest.resource_name` is of the following form:"
    ),
    must!(
        a_read_starts_at_its_offset,
        "ReadRequest.read_offset",
        "The offset for the first byte to return in the read, relative to the start of the resource."
    ),
    must!(
        a_read_at_the_end_is_empty,
        "ReadRequest.read_offset",
        "A `read_offset` that is negative or greater than the size of the resource will cause an `OUT_OF_RANGE` error."
    ),
    must!(
        a_read_beyond_the_end_is_out_of_range,
        "ReadRequest.read_offset",
        "A `read_offset` that is negative or greater than the size of the resource will cause an `OUT_OF_RANGE` error."
    ),
    must!(
        a_negative_offset_is_out_of_range,
        "ReadRequest.read_offset",
        "A `read_offset` that is negative or greater than the size of the resource will cause an `OUT_OF_RANGE` error."
    ),
    must!(
        a_read_keeps_to_its_limit,
        "ReadRequest.read_limit",
        "The maximum number of `data` bytes the server is allowed to return in the sum of all `ReadResponse` messages."
    ),
    must!(
        a_limit_of_zero_is_none,
        "ReadRequest.read_limit",
        "A `read_limit` of zero indicates that there is no limit, and a negative `read_limit` will cause an error."
    ),
    must!(
        a_negative_limit_is_refused,
        "ReadRequest.read_limit",
        "A `read_limit` of zero indicates that there is no limit, and a negative `read_limit` will cause an error."
    ),
    must!(
        a_limit_beyond_the_end_reads_to_the_end,
        "ReadRequest.read_limit",
        "the stream includes all data from the `read_offset` to the end of the resource."
    ),
    must!(
        an_unknown_blob_is_not_found,
        "ByteStream.Read",
        "`Read()` is used to retrieve the contents of a resource as a sequence of bytes."
    ),
    must!(
        a_status_of_nothing_is_not_found,
        "ByteStream.QueryWriteStatus",
        "If the resource does not exist (i.e., the resource has been deleted, or the first `Write()` has not yet reached the service), this method returns the error `NOT_FOUND`."
    ),
    must!(
        a_status_of_a_written_blob_is_complete,
        "QueryWriteStatusResponse.complete",
        "`complete` is `true` only if the client has sent a `WriteRequest` with `finish_write` set to true, and the server has processed that request."
    ),
    must!(
        a_status_of_half_a_blob_is_not_complete,
        "QueryWriteStatusResponse.complete",
        "`complete` is `true` only if the client has sent a `WriteRequest` with `finish_write` set to true, and the server has processed that request."
    ),
    must!(
        a_status_never_goes_back,
        "ByteStream.QueryWriteStatus",
        "the sequence of returned `committed_size` values will be non-decreasing."
    ),
    must!(
        a_status_of_another_form_is_refused,
        "QueryWriteStatusRequest.resource_name",
        "The name of the resource whose write status is being requested."
    ),
];

/// The name of an upload that no other check makes.
pub(super) fn upload_name(server: &Server, digest: &Digest) -> String {
    let name = server.client.download_name(digest);
    let (instance, blob) = name.split_at(name.rfind("blobs/").unwrap_or(0));
    format!("{instance}uploads/{}/{blob}", Uuid::new_v4())
}

fn message(name: &str, offset: usize, data: &[u8], finish_write: bool) -> WriteRequest {
    WriteRequest {
        resource_name: name.to_owned(),
        write_offset: offset as i64,
        finish_write,
        data: data.to_vec().into(),
    }
}

async fn status(server: &Server, name: &str) -> Result<QueryWriteStatusResponse, Status> {
    let request = QueryWriteStatusRequest { resource_name: name.to_owned() };
    Ok(server.client.byte_stream().query_write_status(request).await?.into_inner())
}

/// A blob that no server has, with the name of its upload.
fn fresh(server: &Server, length: usize) -> (Vec<u8>, Digest, String) {
    let data = noise(length);
    let digest = server.client.digest(&data);
    let name = upload_name(server, &digest);
    (data, digest, name)
}

/// Stores a blob, and gives the name under which it is read.
async fn stored(server: &Server, length: usize) -> anyhow::Result<(Vec<u8>, String)> {
    let data = noise(length);
    let digest = server.client.put(data.clone()).await?;
    Ok((data, server.client.download_name(&digest)))
}

async fn a_blob_is_written_and_read(server: Server) -> Outcome {
    let (data, digest, name) = fresh(&server, 1000);
    server.client.write(&name, &data, 1000).await?;
    same_bytes("it", &server.client.get(&digest).await?, &data)
}

async fn a_large_blob_is_written_and_read(server: Server) -> Outcome {
    let (data, digest, name) = fresh(&server, 9_000_001);
    server.client.write(&name, &data, 1 << 20).await?;
    same_bytes("it", &server.client.get(&digest).await?, &data)
}

async fn what_is_read_fits_default_clients(server: Server) -> Outcome {
    let (data, digest, name) = fresh(&server, DEFAULT_MESSAGE_BYTES + 4096);
    server.client.write(&name, &data, 1 << 20).await?;
    let request =
        ReadRequest { resource_name: server.client.download_name(&digest), ..Default::default() };
    let mut stream = server.client.byte_stream().read(request).await?.into_inner();
    while let Some(message) = stream.message().await? {
        let bytes = prost::Message::encoded_len(&message);
        ensure!(bytes <= DEFAULT_MESSAGE_BYTES, "a message of {bytes} bytes");
    }
    Ok(())
}

async fn a_write_tells_the_whole_size(server: Server) -> Outcome {
    let (data, _, name) = fresh(&server, 12_345);
    same("committed_size", server.client.write(&name, &data, 1000).await?, 12_345)
}

async fn a_written_blob_is_in_the_cas(server: Server) -> Outcome {
    let (data, digest, name) = fresh(&server, 1000);
    server.client.write(&name, &data, 1000).await?;
    same("missing", server.client.missing(&[digest]).await?, vec![])
}

async fn a_write_in_single_bytes_is_taken(server: Server) -> Outcome {
    let (data, digest, name) = fresh(&server, 300);
    server.client.write(&name, &data, 1).await?;
    same_bytes("it", &server.client.get(&digest).await?, &data)
}

async fn messages_without_data_are_taken(server: Server) -> Outcome {
    let (data, digest, name) = fresh(&server, 100);
    let messages = vec![
        message(&name, 0, b"", false),
        message("", 0, &data[..50], false),
        message("", 50, b"", false),
        message("", 50, &data[50..], true),
    ];
    server.client.write_messages(messages).await?;
    same_bytes("it", &server.client.get(&digest).await?, &data)
}

async fn the_end_may_come_in_a_message_of_its_own(server: Server) -> Outcome {
    let (data, digest, name) = fresh(&server, 100);
    let messages = vec![message(&name, 0, &data, false), message("", 100, b"", true)];
    same("committed_size", server.client.write_messages(messages).await?, 100)?;
    same_bytes("it", &server.client.get(&digest).await?, &data)
}

async fn the_name_may_be_repeated(server: Server) -> Outcome {
    let (data, digest, name) = fresh(&server, 100);
    let messages =
        vec![message(&name, 0, &data[..50], false), message(&name, 50, &data[50..], true)];
    server.client.write_messages(messages).await?;
    same_bytes("it", &server.client.get(&digest).await?, &data)
}

async fn another_name_is_refused(server: Server) -> Outcome {
    let (data, _, name) = fresh(&server, 100);
    let (_, _, other) = fresh(&server, 100);
    let messages =
        vec![message(&name, 0, &data[..50], false), message(&other, 50, &data[50..], true)];
    refused_somehow(server.client.write_messages(messages).await)?;
    Ok(())
}

async fn a_write_without_a_name_is_refused(server: Server) -> Outcome {
    refused_somehow(server.client.write_messages(vec![message("", 0, b"data", true)]).await)?;
    Ok(())
}

async fn a_gap_is_refused(server: Server) -> Outcome {
    let (data, _, name) = fresh(&server, 100);
    let messages = vec![message(&name, 0, &data[..50], false), message("", 51, &data[50..], true)];
    refused_somehow(server.client.write_messages(messages).await)?;
    Ok(())
}

async fn a_first_offset_that_is_not_committed_is_refused(server: Server) -> Outcome {
    let (data, _, name) = fresh(&server, 100);
    let messages = vec![message(&name, 50, &data[50..], true)];
    refused_somehow(server.client.write_messages(messages).await)?;
    Ok(())
}

async fn a_negative_offset_is_refused_in_a_write(server: Server) -> Outcome {
    let (data, _, name) = fresh(&server, 100);
    let first = WriteRequest { write_offset: -1, ..message(&name, 0, &data, true) };
    refused_somehow(server.client.write_messages(vec![first]).await)?;
    Ok(())
}

async fn messages_after_the_end_are_refused(server: Server) -> Outcome {
    // The blob is long and its data comes last, so that the server cannot have answered before.
    let (data, _, name) = fresh(&server, 100);
    let messages = vec![
        message(&name, 0, &data[..99], false),
        message("", 99, &data[99..], true),
        message("", 100, b"more", false),
    ];
    refused_somehow(server.client.write_messages(messages).await)?;
    Ok(())
}

async fn without_an_end_nothing_is_complete(server: Server) -> Outcome {
    let (data, digest, name) = fresh(&server, 100);
    let messages = vec![message(&name, 0, &data[..60], false)];
    let _any_answer = server.client.write_messages(messages).await;
    same("missing", server.client.missing(&[digest]).await?, vec![digest])
}

async fn without_an_end_the_size_so_far_is_told(server: Server) -> Outcome {
    let (data, _, name) = fresh(&server, 100);
    let messages = vec![message(&name, 0, &data[..60], false)];
    let committed = server.client.write_messages(messages).await?;
    // "Determine how much data the service was able to commit": a server may keep nothing.
    ensure!((0..=60).contains(&committed), "committed_size is {committed} after 60 bytes");
    Ok(())
}

async fn a_write_is_resumed(server: Server) -> Outcome {
    let (data, digest, name) = fresh(&server, 100);
    let _interrupted =
        server.client.write_messages(vec![message(&name, 0, &data[..60], false)]).await;
    let committed = match status(&server, &name).await {
        Ok(status) => usize::try_from(status.committed_size)?,
        Err(status) if status.code() == Code::NotFound => 0,
        Err(status) => return Err(status.into()),
    };
    ensure!(committed <= 60, "committed_size is {committed} after 60 bytes");
    let rest = vec![message(&name, committed, &data[committed..], true)];
    same("committed_size", server.client.write_messages(rest).await?, 100)?;
    same_bytes("it", &server.client.get(&digest).await?, &data)
}

/// A write whose messages are sent one by one.
fn slow_write(server: &Server) -> (Sender<WriteRequest>, JoinHandle<Result<i64, Status>>) {
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let mut stub = server.client.byte_stream();
    let write = async move {
        Ok(stub.write(ReceiverStream::new(receiver)).await?.into_inner().committed_size)
    };
    (sender, tokio::spawn(write))
}

async fn a_write_that_broke_off_is_resumed(server: Server) -> Outcome {
    let (data, digest, name) = fresh(&server, 3 << 20);
    let (sender, write) = slow_write(&server);
    for offset in [0, 1 << 20] {
        sender.send(message(&name, offset, &data[offset..offset + (1 << 20)], false)).await?;
    }
    // The client goes away in the middle of its stream. A server needs some time to notice that.
    tokio::time::sleep(Duration::from_millis(200)).await;
    write.abort();
    drop(sender);
    let mut committed = 0;
    for _ in 0..50 {
        committed = match status(&server, &name).await {
            Ok(status) => usize::try_from(status.committed_size)?,
            Err(status) if status.code() == Code::NotFound => 0,
            Err(status) => return Err(status.into()),
        };
        if committed > 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    if committed == 0 {
        return skip("nothing of a write that broke off is committed");
    }
    ensure!(committed <= 2 << 20, "committed_size is {committed} after 2 MiB");
    same("missing", server.client.missing(&[digest]).await?, vec![digest])?;
    let rest = vec![message(&name, committed, &data[committed..], true)];
    same("committed_size", server.client.write_messages(rest).await?, 3 << 20)?;
    same_bytes("it", &server.client.get(&digest).await?, &data)
}

async fn a_resumed_write_is_verified_as_a_whole(server: Server) -> Outcome {
    let (data, digest, name) = fresh(&server, 1000);
    let wrong = vec![message(&name, 0, &[0; 500], false)];
    let committed = usize::try_from(server.client.write_messages(wrong).await?)?;
    if committed == 0 {
        return skip("nothing of a write that ended early is committed");
    }
    let rest = vec![message(&name, committed, &data[committed..], true)];
    refused(server.client.write_messages(rest).await, &[Code::InvalidArgument])?;
    same("missing", server.client.missing(&[digest]).await?, vec![digest])
}

async fn a_blob_that_comes_from_elsewhere_ends_an_upload_in_its_middle(server: Server) -> Outcome {
    const MIB: usize = 1 << 20;
    let (data, digest, name) = fresh(&server, 20 * MIB);
    let (sender, write) = slow_write(&server);
    sender.send(message(&name, 0, &data[..MIB], false)).await?;
    server.client.write(&upload_name(&server, &digest), &data, MIB).await?;
    // All but the last piece, which would complete the upload.
    for offset in (MIB..19 * MIB).step_by(MIB) {
        let next = message("", offset, &data[offset..offset + MIB], false);
        if sender.send(next).await.is_err() {
            break;
        }
    }
    let answer = tokio::time::timeout(Duration::from_secs(20), write).await;
    drop(sender);
    match answer {
        Ok(answer) => same("committed_size", answer??, 20 << 20),
        Err(_) => bail!("no answer to the upload while its last piece was still to come"),
    }
}

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

async fn metadata_in_the_name_is_ignored(server: Server) -> Outcome {
    let (data, digest, name) = fresh(&server, 100);
    server.client.write(&format!("{name}/some/file.txt"), &data, 100).await?;
    same("missing", server.client.missing(&[digest]).await?, vec![])
}

async fn a_uuid_is_reused(server: Server) -> Outcome {
    for _ in 0..2 {
        let (data, digest, _) = fresh(&server, 100);
        // The fixed UUID of the test kit.
        server.client.write(&server.client.upload_name(&digest), &data, 100).await?;
        same("missing", server.client.missing(&[digest]).await?, vec![])?;
    }
    Ok(())
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

async fn a_function_in_the_name_is_read(server: Server) -> Outcome {
    let named = |function: &DigestFunction| *function != DigestFunction::Sha256;
    let Some(function) = server.functions().into_iter().find(named) else {
        return skip("no function that stands in names is announced and known here");
    };
    let client = server.client.with_function(function);
    let data = noise(1000);
    let digest = client.digest(&data);
    client.write(&upload_name(&server, &digest), &data, 100).await?;
    same_bytes("it", &client.get(&digest).await?, &data)
}

async fn a_name_of_another_form_is_refused(server: Server) -> Outcome {
    let hash = "0".repeat(64);
    let uuid = Uuid::new_v4();
    for name in [
        format!("blobs/{hash}/4"),
        format!("uploads/{uuid}/{hash}/4"),
        format!("uploads/{uuid}/blobs/{hash}"),
        format!("uploads/{uuid}/blobs/{hash}/x"),
        format!("uploads/{uuid}/blobs/{hash}/-4"),
    ] {
        let answer = server.client.write_messages(vec![message(&name, 0, b"data", true)]).await;
        refused(answer, &[Code::InvalidArgument, Code::NotFound])?;
    }
    Ok(())
}

async fn a_read_of_another_form_is_refused(server: Server) -> Outcome {
    let hash = "0".repeat(64);
    for name in [
        String::new(),
        format!("blobs/{hash}"),
        format!("blobs/{hash}/x"),
        format!("blobs/{hash}/-4"),
        format!("blobs/{}/4", &hash[1..]),
    ] {
        let answer = server.client.read(&name, 0, 0).await;
        refused(answer, &[Code::InvalidArgument, Code::NotFound])?;
    }
    Ok(())
}

async fn a_read_starts_at_its_offset(server: Server) -> Outcome {
    let (data, name) = stored(&server, 1000).await?;
    same_bytes("it", &server.client.read(&name, 300, 0).await?, &data[300..])
}

async fn a_read_at_the_end_is_empty(server: Server) -> Outcome {
    let (_, name) = stored(&server, 1000).await?;
    same_bytes("it", &server.client.read(&name, 1000, 0).await?, b"")
}

async fn a_read_beyond_the_end_is_out_of_range(server: Server) -> Outcome {
    let (_, name) = stored(&server, 1000).await?;
    refused(server.client.read(&name, 1001, 0).await, &[Code::OutOfRange])?;
    Ok(())
}

async fn a_negative_offset_is_out_of_range(server: Server) -> Outcome {
    let (_, name) = stored(&server, 1000).await?;
    refused(server.client.read(&name, -1, 0).await, &[Code::OutOfRange])?;
    Ok(())
}

async fn a_read_keeps_to_its_limit(server: Server) -> Outcome {
    let (data, name) = stored(&server, 1000).await?;
    same_bytes("it", &server.client.read(&name, 0, 300).await?, &data[..300])?;
    same_bytes("at an offset", &server.client.read(&name, 500, 1).await?, &data[500..501])
}

async fn a_limit_of_zero_is_none(server: Server) -> Outcome {
    let (data, name) = stored(&server, 1000).await?;
    same_bytes("it", &server.client.read(&name, 0, 0).await?, &data)
}

async fn a_negative_limit_is_refused(server: Server) -> Outcome {
    let (_, name) = stored(&server, 1000).await?;
    refused_somehow(server.client.read(&name, 0, -1).await)?;
    Ok(())
}

async fn a_limit_beyond_the_end_reads_to_the_end(server: Server) -> Outcome {
    let (data, name) = stored(&server, 1000).await?;
    same_bytes("it", &server.client.read(&name, 100, 5000).await?, &data[100..])
}

async fn an_unknown_blob_is_not_found(server: Server) -> Outcome {
    let digest = server.client.digest(unique("absent"));
    let read = server.client.read(&server.client.download_name(&digest), 0, 0).await;
    refused(read, &[Code::NotFound])?;
    Ok(())
}

/// NOT_FOUND, or a size of 0: servers answer that for clients which give up at NOT_FOUND, as Bazel 7 does.
pub(super) fn nothing_is_committed(answer: Result<QueryWriteStatusResponse, Status>) -> Outcome {
    match answer {
        Ok(status) => {
            same("complete", status.complete, false)?;
            same("committed_size", status.committed_size, 0)
        }
        Err(status) => refused::<()>(Err(status), &[Code::NotFound]).map(|_| ()),
    }
}

async fn a_status_of_nothing_is_not_found(server: Server) -> Outcome {
    let (_, _, name) = fresh(&server, 100);
    nothing_is_committed(status(&server, &name).await)
}

async fn a_status_of_a_written_blob_is_complete(server: Server) -> Outcome {
    let (data, _, name) = fresh(&server, 1000);
    server.client.write(&name, &data, 100).await?;
    let status = status(&server, &name).await?;
    same("complete", status.complete, true)?;
    same("committed_size", status.committed_size, 1000)
}

async fn a_status_of_half_a_blob_is_not_complete(server: Server) -> Outcome {
    let (data, _, name) = fresh(&server, 1000);
    let _interrupted =
        server.client.write_messages(vec![message(&name, 0, &data[..600], false)]).await;
    match status(&server, &name).await {
        Ok(status) => {
            same("complete", status.complete, false)?;
            let size = status.committed_size;
            ensure!((0..=600).contains(&size), "committed_size is {size} after 600 bytes");
            Ok(())
        }
        // The server kept nothing of it.
        Err(status) => refused::<()>(Err(status), &[Code::NotFound]).map(|_| ()),
    }
}

async fn a_status_never_goes_back(server: Server) -> Outcome {
    let (data, _, name) = fresh(&server, 1000);
    let mut last = 0;
    let mut sent = 0;
    for until in [300, 600, 1000] {
        let finish = until == 1000;
        let part = message(&name, sent, &data[sent..until], finish);
        let _answer = server.client.write_messages(vec![part]).await;
        match status(&server, &name).await {
            Ok(status) => {
                let size = status.committed_size;
                ensure!(size >= last, "committed_size went from {last} to {size}");
                last = size;
                sent = usize::try_from(size)?;
            }
            Err(status) if status.code() == Code::NotFound && last == 0 => sent = 0,
            Err(status) => return Err(status.into()),
        }
    }
    Ok(())
}

async fn a_status_of_another_form_is_refused(server: Server) -> Outcome {
    let answer = status(&server, "uploads/none").await;
    refused(answer, &[Code::InvalidArgument, Code::NotFound])?;
    Ok(())
}
