//! Data of small outputs within the answer.

use anyhow::ensure;
use testkit::{Digest, proto};
use tonic::Code;

use super::requests::{look, some_action, update, with_file, worked};
use crate::check::{Check, Outcome, must, should, skip};
use crate::expect::{refused, same, same_bytes};
use crate::server::{DEFAULT_MESSAGE_BYTES, Server, noise, unique};

pub(super) const CHECKS: &[Check] = &[
    must!(
        stdout_is_not_sent_unless_asked_for,
        "ActionResult.stdout_raw",
        "The server SHOULD NOT inline stdout unless requested by the client in the"
    ),
    should!(
        stdout_is_sent_where_asked_for,
        "GetActionResultRequest.inline_stdout",
        "A hint to the server to request inlining stdout in the"
    ),
    should!(
        stderr_is_sent_where_asked_for,
        "GetActionResultRequest.inline_stderr",
        "A hint to the server to request inlining stderr in the"
    ),
    should!(
        files_are_sent_where_asked_for,
        "GetActionResultRequest.inline_output_files",
        "A hint to the server to inline the contents of the listed output files."
    ),
    must!(
        large_files_stay_out_of_the_answer,
        "OutputFile.contents",
        "The server MAY omit inlining, even if requested, and MUST do so if inlining would cause the response to exceed message size limits."
    ),
    must!(
        a_clients_own_inline_data_does_not_break_the_answer,
        "ActionResult.stdout_raw",
        "MUST do so if inlining would cause the response to exceed message size limits."
    ),
    should!(
        a_clients_own_inline_data_comes_only_where_asked_for,
        "ActionResult.stdout_raw",
        "The server SHOULD NOT inline stdout unless requested by the client in the"
    ),
];

/// Keeps a result with small streams and one small file, all in the CAS.
async fn with_streams(server: &Server) -> anyhow::Result<(Digest, [Vec<u8>; 3])> {
    let action = some_action(server).await?;
    let blobs = [unique("stdout"), unique("stderr"), unique("out")];
    server.client.put_all(blobs.clone()).await?;
    let [stdout, stderr, file] = [0, 1, 2].map(|it| server.client.digest(&blobs[it]));
    let result = proto::ActionResult {
        stdout_digest: Some(stdout.to_proto()),
        stderr_digest: Some(stderr.to_proto()),
        ..with_file(&file)
    };
    update(server, &action, result).await?;
    Ok((action, blobs))
}

async fn stdout_is_not_sent_unless_asked_for(server: Server) -> Outcome {
    let (action, _) = with_streams(&server).await?;
    let served = look(&server, &action, |_| ()).await?;
    same_bytes("stdout_raw", &served.stdout_raw, b"")?;
    same_bytes("stderr_raw", &served.stderr_raw, b"")
}

async fn stdout_is_sent_where_asked_for(server: Server) -> Outcome {
    let (action, [stdout, ..]) = with_streams(&server).await?;
    let served = look(&server, &action, |request| request.inline_stdout = true).await?;
    same_bytes("stdout_raw", &served.stdout_raw, &stdout)
}

async fn stderr_is_sent_where_asked_for(server: Server) -> Outcome {
    let (action, [_, stderr, _]) = with_streams(&server).await?;
    let served = look(&server, &action, |request| request.inline_stderr = true).await?;
    same_bytes("stderr_raw", &served.stderr_raw, &stderr)
}

async fn files_are_sent_where_asked_for(server: Server) -> Outcome {
    let (action, [.., file]) = with_streams(&server).await?;
    let wanted = vec!["out".to_owned()];
    let served = look(&server, &action, |request| request.inline_output_files = wanted).await?;
    ensure!(!served.output_files.is_empty(), "no output file");
    same_bytes("contents", &served.output_files[0].contents, &file)
}

async fn large_files_stay_out_of_the_answer(server: Server) -> Outcome {
    let action = some_action(&server).await?;
    let mut result = worked();
    let mut wanted = Vec::new();
    for number in 0..5 {
        let path = format!("out{number}");
        let digest = server.client.put(noise(1_000_000)).await?;
        let digest = Some(digest.to_proto());
        wanted.push(path.clone());
        result.output_files.push(proto::OutputFile { path, digest, ..Default::default() });
    }
    update(&server, &action, result).await?;
    let served = look(&server, &action, |request| request.inline_output_files = wanted).await?;
    same("output files", served.output_files.len(), 5)
}

/// Keeps a result with a client's own data in it.
async fn own_inline_data(server: &Server, bytes: usize) -> anyhow::Result<Option<Digest>> {
    let action = some_action(server).await?;
    let data = noise(bytes);
    let stdout = server.client.digest(&data);
    let name = crate::areas::byte_stream::upload_name(server, &stdout);
    server.client.write(&name, &data, 1 << 20).await?;
    let result = proto::ActionResult {
        stdout_digest: Some(stdout.to_proto()),
        stdout_raw: data.into(),
        ..worked()
    };
    let codes = [Code::InvalidArgument, Code::OutOfRange, Code::ResourceExhausted];
    match update(server, &action, result).await {
        Ok(_) => Ok(Some(action)),
        Err(status) => refused::<()>(Err(status), &codes).map(|_| None),
    }
}

async fn a_clients_own_inline_data_does_not_break_the_answer(server: Server) -> Outcome {
    // Refusing that much is fine; taking it and then answering with more than clients take is not.
    if let Some(action) = own_inline_data(&server, DEFAULT_MESSAGE_BYTES - 50_000).await? {
        let served = look(&server, &action, |request| request.inline_stdout = true).await?;
        ensure!(served.stdout_digest.is_some(), "stdout_digest is gone");
    }
    Ok(())
}

async fn a_clients_own_inline_data_comes_only_where_asked_for(server: Server) -> Outcome {
    let Some(action) = own_inline_data(&server, 1000).await? else {
        return skip("the server takes no result with stdout_raw");
    };
    let served = look(&server, &action, |_| ()).await?;
    same_bytes("stdout_raw", &served.stdout_raw, b"")?;
    ensure!(served.stdout_digest.is_some(), "stdout_digest is gone");
    Ok(())
}
