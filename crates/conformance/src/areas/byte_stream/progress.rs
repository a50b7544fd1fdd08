//! The status of a write.

use anyhow::ensure;
use testkit::google::bytestream::QueryWriteStatusResponse;
use tonic::{Code, Status};

use super::requests::{fresh, message, status};
use crate::check::{Check, Outcome, must};
use crate::expect::{refused, same};
use crate::server::Server;

pub(super) const CHECKS: &[Check] = &[
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

/// NOT_FOUND, or a size of 0: servers answer that for clients which give up at NOT_FOUND, as Bazel 7 does.
pub(in crate::areas) fn nothing_is_committed(
    answer: Result<QueryWriteStatusResponse, Status>,
) -> Outcome {
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
