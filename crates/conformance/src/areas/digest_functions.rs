//! Digest functions: every announced one, on every path, and what is inferred where a request names
//! none.

use anyhow::ensure;
use testkit::{DigestFunction, proto};
use tonic::Code;

use crate::check::{Check, Outcome, must, skip};
use crate::expect::same;
use crate::server::{Server, unique};

pub(crate) const CHECKS: &[Check] = &[
    must!(
        every_announced_function_names_blobs,
        "CacheCapabilities.digest_functions",
        "All the digest functions supported by the remote cache."
    ),
    must!(
        every_announced_function_names_streams,
        "ContentAddressableStorage",
        "indicating which digest function was used to compute `hash`"
    ),
    must!(
        every_announced_function_runs_actions,
        "ExecutionCapabilities.digest_functions",
        "All the digest functions supported by the remote execution system."
    ),
    must!(
        blobs_of_different_functions_are_apart,
        "FindMissingBlobsRequest.digest_function",
        "The digest function of the blobs whose existence is checked."
    ),
    must!(
        the_length_of_a_hash_tells_its_function,
        "FindMissingBlobsRequest.digest_function",
        "In that case the server SHOULD infer the digest function using the length of the blob digest hashes and the digest functions announced in the server's capabilities."
    ),
    must!(
        content_is_verified_with_every_function,
        "ContentAddressableStorage.BatchUpdateBlobs",
        "does not match the provided data."
    ),
];

async fn every_announced_function_names_blobs(server: Server) -> Outcome {
    for function in server.functions() {
        let client = server.client.with_function(function);
        let content = unique("blob");
        let digest = client.digest(&content);
        same("missing", client.missing(&[digest]).await?, vec![digest])?;
        client.put(content.clone()).await?;
        same("missing", client.missing(&[digest]).await?, vec![])?;
        let read = proto::BatchReadBlobsRequest {
            instance_name: client.instance().to_owned(),
            digests: vec![digest.to_proto()],
            digest_function: function.to_proto(),
            ..Default::default()
        };
        let answer = client.cas().batch_read_blobs(read).await?.into_inner();
        let item = answer.responses.first();
        ensure!(item.is_some_and(|item| item.data == content), "{function}: {answer:?}");
    }
    Ok(())
}

async fn every_announced_function_names_streams(server: Server) -> Outcome {
    for function in server.functions() {
        let client = server.client.with_function(function);
        let content = unique("stream");
        let digest = client.digest(&content);
        client.write(&client.upload_name(&digest), &content, 7).await?;
        ensure!(client.get(&digest).await? == content, "{function}");
    }
    Ok(())
}

async fn every_announced_function_runs_actions(server: Server) -> Outcome {
    for function in server.execution_functions()? {
        let server = server.with_function(function);
        let run = server.action("cat in > out")?.input("in", "content").output("out").run().await?;
        let content = run.succeeded().await?.file("out").await?;
        ensure!(content == "content", "{function}: {content:?}");
        let digest = run.output_file("out")?.digest.clone();
        same("the output's digest", digest, Some(server.client.digest("content").to_proto()))?;
    }
    Ok(())
}

async fn blobs_of_different_functions_are_apart(server: Server) -> Outcome {
    let functions = server.functions();
    if functions.len() < 2 {
        return skip("only one digest function is announced");
    }
    let content = unique("same content");
    for function in functions {
        let client = server.client.with_function(function);
        let digest = client.digest(&content);
        let client_missing = client.missing(&[digest]).await?;
        // A server may compute the others' digests by itself, but what it has must be readable.
        if client_missing.is_empty() {
            ensure!(client.get(&digest).await? == content, "{function}");
        }
        client.put(content.clone()).await?;
    }
    Ok(())
}

async fn the_length_of_a_hash_tells_its_function(server: Server) -> Outcome {
    let mut found = 0;
    let functions = server.functions();
    for function in &functions {
        let is_unique = |other: &&DigestFunction| other.hash_bytes() == function.hash_bytes();
        if functions.iter().filter(is_unique).count() > 1 && *function != DigestFunction::Sha256 {
            continue;
        }
        found += 1;
        let client = server.client.with_function(*function);
        let digest = client.put(unique("inferred")).await?;
        let request = proto::FindMissingBlobsRequest {
            instance_name: client.instance().to_owned(),
            blob_digests: vec![digest.to_proto()],
            digest_function: 0,
        };
        let answer = client.cas().find_missing_blobs(request).await?.into_inner();
        ensure!(answer.missing_blob_digests.is_empty(), "{function}: {answer:?}");
    }
    if found == 0 { skip("no digest function has hashes of a length of its own") } else { Ok(()) }
}

async fn content_is_verified_with_every_function(server: Server) -> Outcome {
    for function in server.functions() {
        let client = server.client.with_function(function);
        let item = proto::batch_update_blobs_request::Request {
            digest: Some(client.digest("told to").to_proto()),
            data: "sent to".into(),
            ..Default::default()
        };
        let request = proto::BatchUpdateBlobsRequest {
            instance_name: client.instance().to_owned(),
            requests: vec![item],
            digest_function: function.to_proto(),
        };
        let answer = client.cas().batch_update_blobs(request).await?.into_inner();
        let code = answer.responses.first().and_then(|item| item.status.as_ref()).map(|it| it.code);
        same("the code", code.map(Code::from), Some(Code::InvalidArgument))?;
    }
    Ok(())
}
