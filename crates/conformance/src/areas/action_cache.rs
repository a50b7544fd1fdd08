//! `ActionCache`: results of clients, and which of them are served.

use anyhow::ensure;
use prost::Message as _;
use testkit::{Digest, DigestFunction, proto};
use tonic::{Code, Status};

use crate::check::{Check, Outcome, must, should, skip};
use crate::expect::{refused, same, same_bytes};
use crate::server::{DEFAULT_MESSAGE_BYTES, Server, noise, unique};

pub(crate) const CHECKS: &[Check] = &[
    must!(
        an_unknown_action_is_not_found,
        "ActionCache.GetActionResult",
        "`NOT_FOUND`: The requested `ActionResult` is not in the cache."
    ),
    must!(
        a_result_is_kept_and_served,
        "UpdateActionResultRequest.action_result",
        "to store in the cache."
    ),
    must!(
        an_update_answers_with_the_result,
        "ActionCache.UpdateActionResult",
        "Server implementations MAY modify the `UpdateActionResultRequest.action_result` and return an equivalent value."
    ),
    must!(
        a_result_replaces_the_one_before,
        "ActionCache.UpdateActionResult",
        "Upload a new execution result."
    ),
    must!(
        results_of_functions_are_apart,
        "GetActionResultRequest.digest_function",
        "The digest function that was used to compute the action digest."
    ),
    should!(
        a_result_with_a_missing_file_is_not_served,
        "ActionCache.GetActionResult",
        "are available at the time of returning the"
    ),
    should!(
        a_result_with_missing_stdout_is_not_served,
        "ActionCache.GetActionResult",
        "are available at the time of returning the"
    ),
    should!(
        a_result_with_missing_stderr_is_not_served,
        "ActionCache.GetActionResult",
        "are available at the time of returning the"
    ),
    should!(
        a_result_with_a_missing_tree_is_not_served,
        "ActionCache.GetActionResult",
        "are available at the time of returning the"
    ),
    should!(
        a_result_with_a_missing_file_in_a_tree_is_not_served,
        "ActionCache.GetActionResult",
        "are available at the time of returning the"
    ),
    should!(
        a_result_with_a_missing_root_directory_is_not_served,
        "ActionCache.GetActionResult",
        "are available at the time of returning the"
    ),
    should!(
        a_result_with_a_missing_directory_below_its_root_is_not_served,
        "ActionCache.GetActionResult",
        "are available at the time of returning the"
    ),
    should!(
        a_result_with_a_missing_file_below_its_root_is_not_served,
        "ActionCache.GetActionResult",
        "are available at the time of returning the"
    ),
    should!(
        a_result_with_a_whole_root_directory_is_served,
        "OutputDirectory.root_directory_digest",
        "containing the contents of the directory's root."
    ),
    should!(
        a_result_is_served_once_its_blobs_are_there,
        "ActionCache.GetActionResult",
        "Implementations SHOULD ensure that any blobs referenced from the"
    ),
    should!(
        a_result_of_a_tree_that_is_none_is_a_miss,
        "ActionCache.GetActionResult",
        "`NOT_FOUND`: The requested `ActionResult` is not in the cache."
    ),
    must!(
        a_failed_result_is_not_served,
        "ExecuteResponse.status",
        "If the status code is other than `OK`, then the result MUST NOT be cached."
    ),
    should!(
        a_failed_result_removes_the_one_before,
        "ActionCache.UpdateActionResult",
        "Upload a new execution result."
    ),
    must!(
        an_action_that_may_not_be_cached_is_not_served,
        "Action.do_not_cache",
        "If true, then the `Action`'s result cannot be cached, and in-flight requests for the same `Action` may not be merged."
    ),
    must!(
        an_update_without_a_result_is_refused,
        "ActionCache.UpdateActionResult",
        "`INVALID_ARGUMENT`: One or more arguments are invalid."
    ),
    must!(
        an_update_with_a_bad_digest_is_refused,
        "ActionCache.UpdateActionResult",
        "`INVALID_ARGUMENT`: One or more arguments are invalid."
    ),
    must!(
        an_update_of_a_bad_action_digest_is_refused,
        "ActionCache.UpdateActionResult",
        "`INVALID_ARGUMENT`: One or more arguments are invalid."
    ),
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
    should!(
        the_digest_function_is_inferred_for_lookups,
        "GetActionResultRequest.digest_function",
        "In that case the server SHOULD infer the digest function using the length of the action digest hash and the digest functions announced in the server's capabilities."
    ),
    should!(
        the_digest_function_is_inferred_for_updates,
        "UpdateActionResultRequest.digest_function",
        "In that case the server SHOULD infer the digest function using the length of the action digest hash and the digest functions announced in the server's capabilities."
    ),
    should!(
        the_digest_function_of_updates_is_that_of_lookups,
        "UpdateActionResultRequest.digest_function",
        "The digest function that was used to compute the action digest."
    ),
];

/// Stores an Action with its Command and input root, and gives its digest.
async fn action(
    server: &Server,
    function: DigestFunction,
    change: impl FnOnce(&mut proto::Action),
) -> anyhow::Result<Digest> {
    server.updates_results()?;
    let client = server.client.with_function(function);
    let command = proto::Command {
        arguments: vec!["/bin/true".to_owned()],
        output_paths: vec!["out".to_owned()],
        ..Default::default()
    };
    let mut action = proto::Action {
        command_digest: Some(client.put(command.encode_to_vec()).await?.to_proto()),
        input_root_digest: Some(client.put(b"".as_slice()).await?.to_proto()),
        timeout: Some(testkit::google::protobuf::Duration { seconds: 60, nanos: 0 }),
        salt: unique("salt").into(),
        ..Default::default()
    };
    change(&mut action);
    client.put(action.encode_to_vec()).await
}

/// Any Action.
async fn some_action(server: &Server) -> anyhow::Result<Digest> {
    action(server, server.client.function(), |_| ()).await
}

fn update_request(
    server: &Server,
    action: &Digest,
    result: proto::ActionResult,
) -> proto::UpdateActionResultRequest {
    proto::UpdateActionResultRequest {
        instance_name: server.client.instance().to_owned(),
        action_digest: Some(action.to_proto()),
        action_result: Some(result),
        digest_function: action.function().to_proto(),
        ..Default::default()
    }
}

async fn update(
    server: &Server,
    action: &Digest,
    result: proto::ActionResult,
) -> Result<proto::ActionResult, Status> {
    let request = update_request(server, action, result);
    Ok(server.client.action_cache().update_action_result(request).await?.into_inner())
}

/// The lookup as a client makes it that takes messages of the default size.
async fn look(
    server: &Server,
    action: &Digest,
    change: impl FnOnce(&mut proto::GetActionResultRequest),
) -> Result<proto::ActionResult, Status> {
    let mut request = proto::GetActionResultRequest {
        instance_name: server.client.instance().to_owned(),
        action_digest: Some(action.to_proto()),
        digest_function: action.function().to_proto(),
        ..Default::default()
    };
    change(&mut request);
    let mut cache = proto::action_cache_client::ActionCacheClient::new(server.client.channel());
    Ok(cache.get_action_result(request).await?.into_inner())
}

async fn is_a_miss(server: &Server, action: &Digest) -> Outcome {
    refused(look(server, action, |_| ()).await, &[Code::NotFound])?;
    Ok(())
}

/// A result with one output file.
fn with_file(digest: &Digest) -> proto::ActionResult {
    let file = proto::OutputFile {
        path: "out".to_owned(),
        digest: Some(digest.to_proto()),
        ..Default::default()
    };
    proto::ActionResult { output_files: vec![file], ..worked() }
}

/// A result that is not empty.
fn worked() -> proto::ActionResult {
    let worker = "actiond-conformance".to_owned();
    proto::ActionResult {
        execution_metadata: Some(proto::ExecutedActionMetadata { worker, ..Default::default() }),
        ..Default::default()
    }
}

fn with_directory(tree: Option<&Digest>, root: Option<&Digest>) -> proto::ActionResult {
    let directory = proto::OutputDirectory {
        path: "out".to_owned(),
        tree_digest: tree.map(Digest::to_proto),
        root_directory_digest: root.map(Digest::to_proto),
        ..Default::default()
    };
    proto::ActionResult { output_directories: vec![directory], ..worked() }
}

async fn an_unknown_action_is_not_found(server: Server) -> Outcome {
    let absent = server.client.digest(unique("absent"));
    is_a_miss(&server, &absent).await
}

async fn a_result_is_kept_and_served(server: Server) -> Outcome {
    let action = some_action(&server).await?;
    let file = server.client.put(unique("out")).await?;
    update(&server, &action, with_file(&file)).await?;
    let served = look(&server, &action, |_| ()).await?;
    same("output_files", served.output_files, with_file(&file).output_files)?;
    same("exit_code", served.exit_code, 0)
}

async fn an_update_answers_with_the_result(server: Server) -> Outcome {
    let action = some_action(&server).await?;
    let file = server.client.put(unique("out")).await?;
    let answer = update(&server, &action, with_file(&file)).await?;
    same("output_files", answer.output_files, with_file(&file).output_files)
}

async fn a_result_replaces_the_one_before(server: Server) -> Outcome {
    let action = some_action(&server).await?;
    for _ in 0..2 {
        let file = server.client.put(unique("out")).await?;
        update(&server, &action, with_file(&file)).await?;
        let served = look(&server, &action, |_| ()).await?;
        same("output_files", served.output_files, with_file(&file).output_files)?;
    }
    Ok(())
}

async fn results_of_functions_are_apart(server: Server) -> Outcome {
    let functions = server.functions();
    let [one, other, ..] = functions[..] else {
        return skip("fewer than two announced digest functions are known here");
    };
    let action = action(&server, one, |_| ()).await?;
    update(&server, &action, worked()).await?;
    let digest = Digest::parse_hex(other, &action.hex(), action.size_bytes())?;
    is_a_miss(&server, &digest).await
}

/// A result is served with all of its blobs, and not without one of them.
async fn misses(server: &Server, result: impl FnOnce(Digest) -> proto::ActionResult) -> Outcome {
    let action = some_action(server).await?;
    let absent = server.client.digest(unique("absent"));
    refuse_or_miss(server, &action, result(absent)).await
}

/// A server may refuse such a result, too.
async fn refuse_or_miss(server: &Server, action: &Digest, result: proto::ActionResult) -> Outcome {
    if let Err(status) = update(server, action, result).await {
        refused::<()>(Err(status), &[Code::FailedPrecondition, Code::InvalidArgument])?;
    }
    is_a_miss(server, action).await
}

async fn a_result_with_a_missing_file_is_not_served(server: Server) -> Outcome {
    misses(&server, |absent| with_file(&absent)).await
}

async fn a_result_with_missing_stdout_is_not_served(server: Server) -> Outcome {
    let result =
        |it: Digest| proto::ActionResult { stdout_digest: Some(it.to_proto()), ..worked() };
    misses(&server, result).await
}

async fn a_result_with_missing_stderr_is_not_served(server: Server) -> Outcome {
    let result =
        |it: Digest| proto::ActionResult { stderr_digest: Some(it.to_proto()), ..worked() };
    misses(&server, result).await
}

async fn a_result_with_a_missing_tree_is_not_served(server: Server) -> Outcome {
    misses(&server, |absent| with_directory(Some(&absent), None)).await
}

fn directory_with(name: &str, file: &Digest) -> proto::Directory {
    proto::Directory {
        files: vec![proto::FileNode {
            name: name.to_owned(),
            digest: Some(file.to_proto()),
            ..Default::default()
        }],
        ..Default::default()
    }
}

async fn a_result_with_a_missing_file_in_a_tree_is_not_served(server: Server) -> Outcome {
    let absent = server.client.digest(unique("absent"));
    let child = directory_with("file", &absent);
    let node = proto::DirectoryNode {
        name: "child".to_owned(),
        digest: Some(server.client.digest(child.encode_to_vec()).to_proto()),
    };
    let root = proto::Directory { directories: vec![node], ..Default::default() };
    let tree = proto::Tree { root: Some(root), children: vec![child] };
    let tree = server.client.put(tree.encode_to_vec()).await?;
    misses(&server, |_| with_directory(Some(&tree), None)).await
}

async fn a_result_with_a_missing_root_directory_is_not_served(server: Server) -> Outcome {
    misses(&server, |absent| with_directory(None, Some(&absent))).await
}

/// A tree of two levels of which everything is stored but the blob that `missing` picks by its level: the
/// file's content is 0, its directory 1, the root 2.
async fn root_without(server: &Server, missing: Option<usize>) -> anyhow::Result<Digest> {
    let content = unique("content");
    let child = directory_with("file", &server.client.digest(&content)).encode_to_vec();
    let node = proto::DirectoryNode {
        name: "child".to_owned(),
        digest: Some(server.client.digest(&child).to_proto()),
    };
    let root = proto::Directory { directories: vec![node], ..Default::default() }.encode_to_vec();
    let digest = server.client.digest(&root);
    for (level, blob) in [content, child, root].into_iter().enumerate() {
        if Some(level) != missing {
            server.client.put(blob).await?;
        }
    }
    Ok(digest)
}

async fn a_result_with_a_missing_directory_below_its_root_is_not_served(server: Server) -> Outcome {
    let root = root_without(&server, Some(1)).await?;
    misses(&server, |_| with_directory(None, Some(&root))).await
}

async fn a_result_with_a_missing_file_below_its_root_is_not_served(server: Server) -> Outcome {
    let root = root_without(&server, Some(0)).await?;
    misses(&server, |_| with_directory(None, Some(&root))).await
}

async fn a_result_with_a_whole_root_directory_is_served(server: Server) -> Outcome {
    let action = some_action(&server).await?;
    let root = root_without(&server, None).await?;
    update(&server, &action, with_directory(None, Some(&root))).await?;
    let served = look(&server, &action, |_| ()).await?;
    let expected = with_directory(None, Some(&root)).output_directories;
    same("output_directories", served.output_directories, expected)
}

async fn a_result_is_served_once_its_blobs_are_there(server: Server) -> Outcome {
    let action = some_action(&server).await?;
    let content = unique("late");
    let file = server.client.digest(&content);
    if let Err(status) = update(&server, &action, with_file(&file)).await {
        refused::<()>(Err(status), &[Code::FailedPrecondition, Code::InvalidArgument])?;
        return skip("the server takes no result whose blobs are missing");
    }
    is_a_miss(&server, &action).await?;
    server.client.put(content).await?;
    // A server may have dropped the entry at the miss.
    match look(&server, &action, |_| ()).await {
        Ok(served) => same("output_files", served.output_files, with_file(&file).output_files),
        Err(status) => refused::<()>(Err(status), &[Code::NotFound]).map(|_| ()),
    }
}

async fn a_result_of_a_tree_that_is_none_is_a_miss(server: Server) -> Outcome {
    let action = some_action(&server).await?;
    let tree = server.client.put([&[0xff; 20][..], &unique("no tree")].concat()).await?;
    refuse_or_miss(&server, &action, with_directory(Some(&tree), None)).await
}

fn failed() -> proto::ActionResult {
    proto::ActionResult { exit_code: 1, ..worked() }
}

async fn a_failed_result_is_not_served(server: Server) -> Outcome {
    let action = some_action(&server).await?;
    refuse_or_miss(&server, &action, failed()).await
}

async fn a_failed_result_removes_the_one_before(server: Server) -> Outcome {
    let action = some_action(&server).await?;
    update(&server, &action, worked()).await?;
    look(&server, &action, |_| ()).await?;
    refuse_or_miss(&server, &action, failed()).await
}

async fn an_action_that_may_not_be_cached_is_not_served(server: Server) -> Outcome {
    let function = server.client.function();
    let action = action(&server, function, |action| action.do_not_cache = true).await?;
    refuse_or_miss(&server, &action, worked()).await
}

async fn an_update_without_a_result_is_refused(server: Server) -> Outcome {
    let action = some_action(&server).await?;
    let request = proto::UpdateActionResultRequest {
        action_result: None,
        ..update_request(&server, &action, worked())
    };
    let answer = server.client.action_cache().update_action_result(request).await;
    refused(answer, &[Code::InvalidArgument])?;
    Ok(())
}

async fn an_update_with_a_bad_digest_is_refused(server: Server) -> Outcome {
    let action = some_action(&server).await?;
    let digest = proto::Digest { hash: "not a hash".to_owned(), size_bytes: 1 };
    let result = proto::ActionResult { stdout_digest: Some(digest), ..worked() };
    refused(update(&server, &action, result).await, &[Code::InvalidArgument])?;
    Ok(())
}

async fn an_update_of_a_bad_action_digest_is_refused(server: Server) -> Outcome {
    let action = some_action(&server).await?;
    let digest = proto::Digest { hash: "not a hash".to_owned(), size_bytes: 1 };
    let request = proto::UpdateActionResultRequest {
        action_digest: Some(digest),
        ..update_request(&server, &action, worked())
    };
    let answer = server.client.action_cache().update_action_result(request).await;
    refused(answer, &[Code::InvalidArgument])?;
    Ok(())
}

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
    let name = super::byte_stream::upload_name(server, &stdout);
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

async fn the_digest_function_is_inferred_for_lookups(server: Server) -> Outcome {
    server.infers()?;
    let action = some_action(&server).await?;
    update(&server, &action, worked()).await?;
    look(&server, &action, |request| request.digest_function = 0).await?;
    Ok(())
}

async fn update_without_function(server: &Server, action: &Digest) -> Outcome {
    let request = proto::UpdateActionResultRequest {
        digest_function: 0,
        ..update_request(server, action, worked())
    };
    server.client.action_cache().update_action_result(request).await?;
    Ok(())
}

async fn the_digest_function_is_inferred_for_updates(server: Server) -> Outcome {
    server.infers()?;
    let action = some_action(&server).await?;
    update_without_function(&server, &action).await?;
    look(&server, &action, |_| ()).await?;
    Ok(())
}

/// Clients that use BLAKE3 need not say so, for some of them do not: a result that such a client keeps must
/// be found by the same client.
async fn the_digest_function_of_updates_is_that_of_lookups(server: Server) -> Outcome {
    for function in server.functions() {
        let action = action(&server, function, |_| ()).await?;
        update_without_function(&server, &action).await?;
        let found = look(&server, &action, |request| request.digest_function = 0).await;
        ensure!(found.is_ok(), "{function}: {:?}", found.map(|_| ()));
    }
    Ok(())
}
