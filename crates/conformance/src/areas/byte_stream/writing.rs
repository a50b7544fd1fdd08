//! The messages of a write: their names, offsets and end.

use anyhow::ensure;
use testkit::google::bytestream::WriteRequest;

use super::requests::{fresh, message};
use crate::check::{Check, Outcome, must};
use crate::expect::{refused_somehow, same, same_bytes};
use crate::server::Server;

pub(super) const CHECKS: &[Check] = &[
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
];

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
