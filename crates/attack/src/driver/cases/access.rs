//! Callers that are not who they say, and principals that want more than they may.

use std::time::Duration;

use anyhow::{Result, ensure};
use prost::Message as _;
use testkit::google::longrunning::ListOperationsRequest;
use testkit::pki::{Authority, Request};
use testkit::run::metadata;
use testkit::{DigestFunction, proto};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::case::{Case, Need, Steps, steps};
use crate::guarded::{Guarded, TOKENS, bearer, call, look_and_cancel};
use crate::world::{World, eventually, file};

const fn guarded(name: &'static str, attempt: Steps) -> Case {
    steps(name, attempt).needs(Need::Daemon)
}

pub(super) const CASES: &[Case] = &[
    guarded("no-token", |world| Box::pin(without_a_token(world))),
    guarded("a-token-that-nobody-has", |world| Box::pin(wrong_tokens(world))),
    guarded("more-than-the-rights-of-a-token", |world| Box::pin(a_reader(world))),
    guarded("the-rights-of-another-instance", |world| Box::pin(another_instance(world))),
    guarded("the-operation-of-another-principal", |world| Box::pin(another_operation(world))),
    guarded("no-certificate-or-a-wrong-one", |world| Box::pin(wrong_certificates(world))),
    guarded("a-certificate-that-is-not-listed", |world| Box::pin(an_unlisted_certificate(world))),
    guarded("a-token-and-a-certificate-that-were-revoked", |world| Box::pin(revoked(world))),
];

/// Every method that does or tells something.
const METHODS: [&str; 29] = [
    "/build.bazel.remote.execution.v2.Capabilities/GetCapabilities",
    "/build.bazel.remote.execution.v2.ContentAddressableStorage/FindMissingBlobs",
    "/build.bazel.remote.execution.v2.ContentAddressableStorage/BatchReadBlobs",
    "/build.bazel.remote.execution.v2.ContentAddressableStorage/GetTree",
    "/build.bazel.remote.execution.v2.ActionCache/GetActionResult",
    "/google.bytestream.ByteStream/Read",
    "/build.bazel.remote.asset.v1.Fetch/FetchBlob",
    "/build.bazel.remote.asset.v1.Fetch/FetchDirectory",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    // Methods that change something, from here on.
    "/build.bazel.remote.execution.v2.ContentAddressableStorage/BatchUpdateBlobs",
    "/build.bazel.remote.execution.v2.ActionCache/UpdateActionResult",
    "/build.bazel.remote.execution.v2.Execution/Execute",
    "/build.bazel.remote.execution.v2.Execution/WaitExecution",
    "/google.bytestream.ByteStream/Write",
    "/google.bytestream.ByteStream/QueryWriteStatus",
    "/google.longrunning.Operations/ListOperations",
    "/google.longrunning.Operations/GetOperation",
    "/google.longrunning.Operations/WaitOperation",
    "/google.longrunning.Operations/DeleteOperation",
    "/google.longrunning.Operations/CancelOperation",
    "/actiond.internal.v1.CAS/DeleteBlobs",
    "/actiond.internal.v1.Store/GetUsage",
    "/actiond.internal.v1.Store/CollectGarbage",
    "/actiond.internal.v1.Store/Verify",
    "/actiond.internal.v1.Images/ListImages",
    "/actiond.internal.v1.Images/PutImage",
    "/actiond.internal.v1.Images/RemoveImage",
    "/build.bazel.remote.asset.v1.Push/PushBlob",
    "/build.bazel.remote.asset.v1.Push/PushDirectory",
];

/// The number of those that only tell something.
const READING: usize = 9;

fn code(outcome: Result<(), Status>) -> Code {
    outcome.err().map_or(Code::Ok, |status| status.code())
}

/// All of `methods` must be refused with that code.
async fn refused(
    channel: &Channel,
    methods: &[&'static str],
    authorization: Option<&str>,
    expected: Code,
) -> Result<()> {
    for method in methods {
        let code = code(call(channel, method, (), authorization).await);
        ensure!(code == expected, "{method} with {authorization:?}: {code:?}");
    }
    Ok(())
}

async fn without_a_token(world: &World) -> Result<()> {
    let server = world.guarded().await?;
    refused(&server.connect().await?, &METHODS, None, Code::Unauthenticated).await
}

async fn wrong_tokens(world: &World) -> Result<()> {
    let channel = world.guarded().await?.connect().await?;
    let hash = testkit::Digest::of(DigestFunction::Sha256, TOKENS[1].token.as_bytes()).hex();
    let wrong = [
        String::new(),
        "Bearer".to_owned(),
        "Bearer ".to_owned(),
        bearer("token-of-nobody"),
        bearer("TOKEN-OF-BUILDER"),
        bearer("token-of-builder2"),
        bearer("token-of-build"),
        // The hash, as the file has it.
        bearer(&hash),
        format!("Basic {}", TOKENS[1].token),
        // `x:token-of-builder`, as a browser would send it: only the page takes it.
        "Basic eDp0b2tlbi1vZi1idWlsZGVy".to_owned(),
        TOKENS[1].token.to_owned(),
        bearer(&TOKENS.map(|it| it.token).join(" ")),
        bearer(&"t".repeat(4000)),
    ];
    for authorization in &wrong {
        refused(&channel, &METHODS, Some(authorization), Code::Unauthenticated).await?;
    }
    Ok(())
}

async fn a_reader(world: &World) -> Result<()> {
    let channel = world.guarded().await?.connect().await?;
    let reader = bearer("token-of-reader");
    let find = proto::FindMissingBlobsRequest::default();
    call(&channel, METHODS[1], find, Some(&reader)).await?;
    refused(&channel, &METHODS[READING..], Some(&reader), Code::PermissionDenied).await
}

async fn another_instance(world: &World) -> Result<()> {
    let channel = world.guarded().await?.connect().await?;
    let builder = bearer("token-of-builder");
    let digest = testkit::Digest::of(DigestFunction::Sha256, b"").to_proto();
    for (instance, expected) in [
        ("main", Code::Ok),
        ("other", Code::PermissionDenied),
        ("", Code::PermissionDenied),
        ("main/below", Code::PermissionDenied),
        ("main/", Code::PermissionDenied),
        ("/main", Code::PermissionDenied),
        ("MAIN", Code::PermissionDenied),
        ("main/../other", Code::PermissionDenied),
        ("*", Code::PermissionDenied),
    ] {
        let update = proto::UpdateActionResultRequest {
            instance_name: instance.to_owned(),
            action_digest: Some(digest.clone()),
            action_result: Some(proto::ActionResult::default()),
            ..Default::default()
        };
        let execute = proto::ExecuteRequest {
            instance_name: instance.to_owned(),
            action_digest: Some(digest.clone()),
            ..Default::default()
        };
        let get = proto::GetActionResultRequest {
            instance_name: instance.to_owned(),
            action_digest: Some(digest.clone()),
            ..Default::default()
        };
        let codes = [
            code(call(&channel, METHODS[10], update, Some(&builder)).await),
            code(call(&channel, METHODS[11], execute, Some(&builder)).await),
            code(call(&channel, METHODS[4], get, Some(&builder)).await),
        ];
        // Names that no instance has are refused for that; either is fine.
        let is_refused = |code: &Code| [expected, Code::InvalidArgument].contains(code);
        let held = match expected {
            Code::Ok => codes.iter().all(|code| *code != Code::PermissionDenied),
            _ => codes.iter().all(is_refused),
        };
        ensure!(held, "in {instance:?}: {codes:?}");
    }
    Ok(())
}

async fn another_operation(world: &World) -> Result<()> {
    let server = world.guarded().await?;
    let channel = server.connect().await?;
    let operator = server.operator().with_instance("main");
    let content = world.attacker_content()?;
    let attacker = operator.digest(&content);
    operator.write(&operator.upload_name(&attacker), &content, 1 << 20).await?;
    let files = vec![file("attacker", &attacker, true)];
    let root = proto::Directory { files, ..proto::Directory::default() };
    let root = operator.put(root.encode_to_vec()).await?;
    let action = operator.bare_action(["./attacker", "sleep"]).without_programs().input_root(root);
    let action = action.timeout(Duration::from_secs(600)).do_not_cache();
    let mut stream = action.start().await?;
    let operation = loop {
        let operation = stream.message().await?.ok_or(Status::internal("the stream ended"))?;
        ensure!(!operation.done, "the action did not run: {operation:?}");
        if metadata(&operation)?.stage == proto::execution_stage::Value::Executing as i32 {
            break operation.name;
        }
    };
    let codes = look_and_cancel(&channel, "token-of-other", &operation).await;
    ensure!(codes == [Code::NotFound; 2], "another's operation: {codes:?}");
    let other = bearer("token-of-other");
    for (method, name) in [(METHODS[17], &operation), (METHODS[18], &operation)] {
        // WaitOperation and DeleteOperation both have the name as their first field.
        let request = testkit::google::longrunning::GetOperationRequest { name: name.clone() };
        let code = code(call(&channel, method, request, Some(&other)).await);
        ensure!(code == Code::NotFound, "{method}: {code:?}");
    }
    let wait = proto::WaitExecutionRequest { name: operation.clone() };
    let code = code(call(&channel, METHODS[12], wait, Some(&other)).await);
    ensure!(code == Code::NotFound, "WaitExecution: {code:?}");
    let mut list = tonic::Request::new(ListOperationsRequest::default());
    list.metadata_mut().insert("authorization", other.parse()?);
    let mut operations =
        testkit::google::longrunning::operations_client::OperationsClient::new(channel.clone());
    let listed = operations.list_operations(list).await?.into_inner().operations;
    ensure!(listed.is_empty(), "another's operation is listed: {listed:?}");
    // It runs on, for who may see it.
    let codes = look_and_cancel(&channel, "token-of-builder", &operation).await;
    ensure!(codes == [Code::Ok; 2], "the operation's own principal: {codes:?}");
    while stream.message().await?.is_some_and(|operation| !operation.done) {}
    Ok(())
}

/// Whether the server answers at all.
async fn is_let_in(channel: Result<Channel>) -> bool {
    let find = proto::FindMissingBlobsRequest::default();
    match channel {
        Ok(channel) => call(&channel, METHODS[1], find, None).await.is_ok(),
        Err(_) => false,
    }
}

async fn wrong_certificates(world: &World) -> Result<()> {
    let server = world.guarded().await?;
    let request = || Request::client("builder");
    let good = server.certificate(request()?)?;
    ensure!(is_let_in(server.connect_showing(Some(&good)).await).await, "the builder is refused");
    let wrong = [
        ("expired", server.certificate(request()?.expired())?),
        ("not yet valid", server.certificate(request()?.not_yet())?),
        ("of the servers' CA", server.certificate_of_servers(request()?)?),
        ("of a CA of the same name", Authority::new("clients")?.sign(request()?)?),
        ("a server's", server.certificate(Request::server(&["builder"])?)?),
    ];
    for (what, identity) in &wrong {
        let is_in = is_let_in(server.connect_showing(Some(identity)).await).await;
        ensure!(!is_in, "a certificate is accepted: {what}");
    }
    ensure!(!is_let_in(server.connect_showing(None).await).await, "no certificate is needed");
    ensure!(!is_let_in(server.connect_in_the_clear().await).await, "no TLS is needed");
    ensure!(is_let_in(server.connect_showing(Some(&good)).await).await, "the builder is refused");
    Ok(())
}

async fn an_unlisted_certificate(world: &World) -> Result<()> {
    let server = world.guarded().await?;
    for name in ["nobody", "Builder", "builder ", "certified-builder", ""] {
        let identity = server.certificate(Request::client(name)?)?;
        let channel = server.connect_showing(Some(&identity)).await?;
        refused(&channel, &METHODS, None, Code::Unauthenticated).await?;
    }
    Ok(())
}

async fn revoked(world: &World) -> Result<()> {
    let server: &Guarded = world.guarded().await?;
    let by_token = server.connect().await?;
    let identity = server.certificate(Request::client("leaver")?)?;
    let by_certificate = server.connect_showing(Some(&identity)).await?;
    let token = bearer("token-of-leaver");
    let find = || proto::FindMissingBlobsRequest::default();
    call(&by_token, METHODS[1], find(), Some(&token)).await?;
    call(&by_certificate, METHODS[1], find(), None).await?;
    server.revoke(&["leaver"])?;
    // Connections that were open before do not help.
    let is_out = async || {
        let by_token = code(call(&by_token, METHODS[1], find(), Some(&token)).await);
        let by_certificate = code(call(&by_certificate, METHODS[1], find(), None).await);
        Ok([by_token, by_certificate] == [Code::Unauthenticated; 2])
    };
    ensure!(eventually(is_out).await?, "a revoked principal is still let in");
    refused(&by_token, &METHODS, Some(&token), Code::Unauthenticated).await?;
    refused(&by_certificate, &METHODS, None, Code::Unauthenticated).await?;
    // The others are known as before.
    let builder = bearer("token-of-builder");
    Ok(call(&by_token, METHODS[1], find(), Some(&bearer("token-of-reader")))
        .await
        .and(call(&by_token, METHODS[0], (), Some(&builder)).await)?)
}
