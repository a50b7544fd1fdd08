//! The requests and results that the checks of this area share.

use prost::Message as _;
use testkit::{Digest, DigestFunction, proto};
use tonic::{Code, Status};

use crate::check::Outcome;
use crate::expect::refused;
use crate::server::{Server, unique};

/// Stores an Action with its Command and input root, and gives its digest.
pub(super) async fn action(
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
pub(super) async fn some_action(server: &Server) -> anyhow::Result<Digest> {
    action(server, server.client.function(), |_| ()).await
}

pub(super) fn update_request(
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

pub(super) async fn update(
    server: &Server,
    action: &Digest,
    result: proto::ActionResult,
) -> Result<proto::ActionResult, Status> {
    let request = update_request(server, action, result);
    Ok(server.client.action_cache().update_action_result(request).await?.into_inner())
}

/// The lookup as a client makes it that takes messages of the default size.
pub(super) async fn look(
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

pub(super) async fn is_a_miss(server: &Server, action: &Digest) -> Outcome {
    refused(look(server, action, |_| ()).await, &[Code::NotFound])?;
    Ok(())
}

/// A result with one output file.
pub(super) fn with_file(digest: &Digest) -> proto::ActionResult {
    let file = proto::OutputFile {
        path: "out".to_owned(),
        digest: Some(digest.to_proto()),
        ..Default::default()
    };
    proto::ActionResult { output_files: vec![file], ..worked() }
}

/// A result that is not empty.
pub(super) fn worked() -> proto::ActionResult {
    let worker = "actiond-conformance".to_owned();
    proto::ActionResult {
        execution_metadata: Some(proto::ExecutedActionMetadata { worker, ..Default::default() }),
        ..Default::default()
    }
}

pub(super) fn with_directory(tree: Option<&Digest>, root: Option<&Digest>) -> proto::ActionResult {
    let directory = proto::OutputDirectory {
        path: "out".to_owned(),
        tree_digest: tree.map(Digest::to_proto),
        root_directory_digest: root.map(Digest::to_proto),
        ..Default::default()
    };
    proto::ActionResult { output_directories: vec![directory], ..worked() }
}
