//! Writes that broke off and go on.

use std::time::Duration;

use anyhow::{bail, ensure};
use testkit::google::bytestream::WriteRequest;
use tokio::sync::mpsc::Sender;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

use super::requests::{fresh, message, status, upload_name};
use crate::check::{Check, Outcome, must, should, skip};
use crate::expect::{refused, same, same_bytes};
use crate::server::Server;

pub(super) const CHECKS: &[Check] = &[
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
];

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
    // No message tells how far the server has read. On a busy machine it may have read nothing when the client leaves.
    for pause in [200, 2000, 10_000].map(Duration::from_millis) {
        let (data, digest, name) = fresh(&server, 3 << 20);
        let committed = committed_of_broken_write(&server, &data, &name, pause).await?;
        if committed == 0 {
            continue;
        }
        ensure!(committed <= 2 << 20, "committed_size is {committed} after 2 MiB");
        same("missing", server.client.missing(&[digest]).await?, vec![digest])?;
        let rest = vec![message(&name, committed, &data[committed..], true)];
        same("committed_size", server.client.write_messages(rest).await?, 3 << 20)?;
        return same_bytes("it", &server.client.get(&digest).await?, &data);
    }
    skip("nothing of a write that broke off is committed")
}

/// Sends 2 MiB, and goes away after that pause. Returns the `committed_size` that the server tells then, or 0 if it
/// knows nothing of the upload.
async fn committed_of_broken_write(
    server: &Server,
    data: &[u8],
    name: &str,
    pause: Duration,
) -> anyhow::Result<usize> {
    let (sender, write) = slow_write(server);
    for offset in [0, 1 << 20] {
        sender.send(message(name, offset, &data[offset..offset + (1 << 20)], false)).await?;
    }
    tokio::time::sleep(pause).await;
    write.abort();
    drop(sender);
    // A server needs some time to notice that.
    for _ in 0..50 {
        match status(server, name).await {
            Ok(status) if status.committed_size == 0 => {}
            Ok(status) => return Ok(usize::try_from(status.committed_size)?),
            Err(status) if status.code() == Code::NotFound => {}
            Err(status) => return Err(status.into()),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(0)
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
