//! Each kind of message at its worst, a hundred at once: what the server holds stays within its budget
//! and a fixed rest.
//!
//! A few bytes of a message can stand for much memory: an empty submessage takes two bytes on the wire
//! and some hundred once it is decoded, a digest of 70 bytes makes the server read 64 MiB, and a kept
//! result is held long after its call.

mod every_method;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http_body::{Body as _, Frame};
use prost::Message;
use testkit::google::bytestream::{ReadRequest, WriteRequest};
use testkit::google::longrunning::{ListOperationsRequest, WaitOperationRequest};
use testkit::proto::{self, batch_update_blobs_request, compressor};
use testkit::{Client, Compressor, Daemon, Digest, DigestFunction, Kit, Outcome};
use tokio::task::JoinSet;
use tonic::body::Body;
use tonic::codegen::{Service as _, http};
use tonic::{Code, Status};

testkit::cases! { env!("CARGO_BIN_EXE_linux-actiond") =>
    requests_that_grow_when_they_are_decoded,
    every_method_at_its_worst,
    batches_at_their_bounds,
    blobs_that_are_too_large_for_what_they_are_read_as,
    blobs_that_grow_when_they_are_parsed,
    results_that_are_kept,
}

use every_method::every_method_at_its_worst;

const MIB: usize = 1 << 20;

/// The data of one batch.
const BATCH_BYTES: usize = 4 * MIB - (64 << 10);

/// Calls at once.
const CALLS: usize = 100;
/// Connections that they come by.
const CONNECTIONS: usize = 4;

/// The memory that the server may hold beside its budget: its own, the guaranteed parts of connections, queued
/// and finished operations, and the blobs that it parses at a time.
const REST_BYTES: usize = 150 * MIB;

/// The largest message that the server takes.
const MESSAGE_BYTES: usize = 5 * MIB - 1000;

const CAS: &str = "/build.bazel.remote.execution.v2.ContentAddressableStorage";
const ACTION_CACHE: &str = "/build.bazel.remote.execution.v2.ActionCache";
const EXECUTION: &str = "/build.bazel.remote.execution.v2.Execution";
const OPERATIONS: &str = "/google.longrunning.Operations";
const BYTE_STREAM: &str = "/google.bytestream.ByteStream";

/// One message, and the end.
struct Sent(Option<Bytes>);

impl http_body::Body for Sent {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.take().map(|data| Ok(Frame::data(data))))
    }
}

fn framed(message: &[u8]) -> Bytes {
    [&[0], (message.len() as u32).to_be_bytes().as_slice(), message].concat().into()
}

/// The method whose answer has no end.
const ENDLESS: &str = "/FollowRecords";

/// Makes one call and reads its answer to the end, if it has one. Returns the code.
async fn call(client: Client, path: String, message: Bytes) -> anyhow::Result<Code> {
    let mut channel = client.channel();
    let request = http::Request::post(format!("http://server{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Body::new(Sent(Some(message))))?;
    poll_fn(|context| channel.poll_ready(context)).await?;
    let answer = channel.call(request).await?;
    if let Some(status) = Status::from_header_map(answer.headers()) {
        return Ok(status.code());
    }
    let mut body = answer.into_body();
    let mut code = Code::Unknown;
    while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        // A refused upload is reset once its answer is out.
        let Ok(frame) = frame else { break };
        if path.ends_with(ENDLESS) {
            return Ok(Code::Ok);
        }
        if let Some(trailers) = frame.trailers_ref() {
            code = Status::from_header_map(trailers).map_or(Code::Unknown, |s| s.code());
        }
    }
    Ok(code)
}

/// The memory that the server may hold for all clients.
fn budget_bytes() -> anyhow::Result<usize> {
    let memory = std::fs::read_to_string("/proc/meminfo")?;
    let line = memory.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.context("no MemTotal")?.trim().trim_end_matches(" kB");
    Ok((512 * MIB).min((kib.parse::<usize>()? << 10) / 8))
}

/// Has [`peak_resident_bytes`] begin anew (proc_pid_clear_refs(5)). Where that is refused, the peak is that of all calls so far.
fn forget_peak(daemon: &Daemon) {
    let _ = std::fs::write(format!("/proc/{}/clear_refs", daemon.pid()), "5");
}

/// The most memory that the daemon had so far, in bytes.
fn peak_resident_bytes(daemon: &Daemon) -> anyhow::Result<usize> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.context("no VmHWM")?.trim().trim_end_matches(" kB");
    Ok(kib.parse::<usize>()? << 10)
}

/// Makes the call a hundred times at once, waits for all answers, and looks at the server.
async fn flood(daemon: &Daemon, what: &str, path: &str, message: &[u8]) -> Outcome {
    flood_of(CALLS, daemon, what, path, message).await
}

async fn flood_of(
    calls_at_once: usize,
    daemon: &Daemon,
    what: &str,
    path: &str,
    message: &[u8],
) -> Outcome {
    let message = framed(message);
    let clients: Vec<Client> = (0..CONNECTIONS).map(|_| daemon.client()).collect();
    forget_peak(daemon);
    let mut calls = JoinSet::new();
    for number in 0..calls_at_once {
        let client = clients[number % CONNECTIONS].clone();
        calls.spawn(call(client, path.to_owned(), message.clone()));
    }
    let mut codes: BTreeMap<String, usize> = BTreeMap::new();
    while let Some(code) = calls.join_next().await {
        // A connection may be closed on a client that sends on after it was refused.
        let code = code?.map_or_else(|_| "closed".to_owned(), |code| format!("{code:?}"));
        *codes.entry(code).or_default() += 1;
    }
    let (resident, budget) = (peak_resident_bytes(daemon)?, budget_bytes()?);
    println!("{what}: {} MiB at most, {codes:?}", resident / MIB);
    ensure!(
        resident < budget + REST_BYTES,
        "{what}: {} MiB are resident, the budget is {} MiB: {codes:?}",
        resident / MIB,
        budget / MIB
    );
    let faults = ["Internal", "Unknown"].map(|code| codes.get(code));
    ensure!(faults == [None; 2], "{what}: a refusal says what is refused: {codes:?}");
    // Another client is served.
    let digest = daemon.client().put(what).await?;
    ensure!(daemon.client().get(&digest).await? == what.as_bytes());
    Ok(())
}

/// `field` again and again, up to `size_bytes`.
fn repeated(field: &[u8], size_bytes: usize) -> Vec<u8> {
    field.repeat(size_bytes / field.len())
}

/// A message with one field, of bytes.
fn nested(number: u8, content: &[u8]) -> Vec<u8> {
    let mut message = vec![number << 3 | 2];
    prost::encoding::encode_varint(content.len() as u64, &mut message);
    message.extend_from_slice(content);
    message
}

async fn requests_that_grow_when_they_are_decoded(kit: Kit) -> Outcome {
    kit.only_on_the_host("what a VM holds is bounded by its memory")?;
    let daemon = kit.daemon().start().await?;
    let update = format!("{ACTION_CACHE}/UpdateActionResult");
    let digest = daemon.client().digest(b"action").to_proto().encode_to_vec();
    let result = |fields: &[u8]| [nested(2, &digest), nested(3, fields)].concat();
    let empty_files = repeated(&[0x12, 0], MESSAGE_BYTES);
    flood(&daemon, "a result of empty files", &update, &result(&empty_files)).await?;
    let stream = nested(5, &vec![7; MESSAGE_BYTES]);
    flood(&daemon, "a result of one stream", &update, &result(&stream)).await?;
    let digest = nested(1, &[b'0'; 64]);
    let missing = repeated(&nested(2, &digest), MESSAGE_BYTES);
    flood(&daemon, "missing blobs", &format!("{CAS}/FindMissingBlobs"), &missing).await?;
    flood(&daemon, "absent blobs", &format!("{CAS}/BatchReadBlobs"), &missing).await?;
    let names: Vec<u8> = (0..1_000_000_u32)
        .flat_map(|number| nested(8, &[0, 7, 14].map(|bits| (number >> bits) as u8 & 0x7f)))
        .take(MESSAGE_BYTES)
        .collect();
    flood(&daemon, "wanted files", &format!("{EXECUTION}/Execute"), &names).await?;
    let name = nested(1, &vec![b'n'; MESSAGE_BYTES]);
    flood(&daemon, "a long name", "/grpc.health.v1.Health/Check", &name).await?;
    let symbol = nested(4, &vec![b'n'; MESSAGE_BYTES]);
    let reflection = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
    flood(&daemon, "a long symbol", reflection, &symbol).await
}

async fn batches_at_their_bounds(kit: Kit) -> Outcome {
    kit.only_on_the_host("what a VM holds is bounded by its memory")?;
    let daemon = kit.daemon().start().await?;
    let client = daemon.client();
    let item = |digest: Digest, data: Vec<u8>, compressor: compressor::Value| {
        batch_update_blobs_request::Request {
            digest: Some(digest.to_proto()),
            data: data.into(),
            compressor: compressor.into(),
        }
    };
    let batch = |requests| {
        proto::BatchUpdateBlobsRequest { requests, ..Default::default() }.encode_to_vec()
    };
    let update = format!("{CAS}/BatchUpdateBlobs");
    let content = vec![7; BATCH_BYTES];
    let whole = item(client.digest(&content), content.clone(), compressor::Value::Identity);
    flood(&daemon, "a full batch", &update, &batch(vec![whole])).await?;
    for (compressor, blobs) in
        [(Compressor::Zstd, 64), (Compressor::Deflate, 4), (Compressor::Brotli, 4)]
    {
        let packed = (0..blobs).map(|number: u8| vec![number; BATCH_BYTES]).map(|content| {
            let data = compressor.pack(&content);
            item(client.digest(&content), data, compressor.value())
        });
        let what = format!("a batch by {}", compressor.name());
        flood(&daemon, &what, &update, &batch(packed.collect())).await?;
    }
    let stored = client.digest(&content);
    let read =
        proto::BatchReadBlobsRequest { digests: vec![stored.to_proto()], ..Default::default() };
    flood(&daemon, "a batch read", &format!("{CAS}/BatchReadBlobs"), &read.encode_to_vec()).await?;
    let write = WriteRequest {
        resource_name: client.upload_name(&client.digest(&content[1..])),
        data: content[1..].to_vec().into(),
        finish_write: true,
        ..Default::default()
    };
    flood(&daemon, "an upload", &format!("{BYTE_STREAM}/Write"), &write.encode_to_vec()).await?;
    // Half a stream of the largest window, whose decoder has all of it.
    let zeroes = vec![0; 20 << 20];
    let parameters =
        brotli::enc::BrotliEncoderParams { quality: 1, lgwin: 24, ..Default::default() };
    let mut packed = Vec::new();
    brotli::BrotliCompress(&mut zeroes.as_slice(), &mut packed, &parameters)?;
    packed.truncate(packed.len() - 1);
    let digest = client.digest(&zeroes);
    let write = WriteRequest {
        resource_name: format!("uploads/u/compressed-blobs/brotli/{digest}"),
        data: packed.into(),
        finish_write: true,
        ..Default::default()
    };
    flood(&daemon, "a window", &format!("{BYTE_STREAM}/Write"), &write.encode_to_vec()).await?;
    let read = ReadRequest { resource_name: client.download_name(&stored), ..Default::default() };
    flood(&daemon, "a download", &format!("{BYTE_STREAM}/Read"), &read.encode_to_vec()).await
}

/// The request to run an action, of which all is uploaded but what is wrong with it.
async fn execute(client: &Client, action: &proto::Action) -> anyhow::Result<Vec<u8>> {
    let digest = client.put(action.encode_to_vec()).await?;
    Ok(execute_digest(&digest))
}

fn execute_digest(digest: &Digest) -> Vec<u8> {
    let request = proto::ExecuteRequest {
        action_digest: Some(digest.to_proto()),
        skip_cache_lookup: true,
        ..Default::default()
    };
    request.encode_to_vec()
}

/// Stores a blob by the ByteStream service, in pieces.
async fn upload(client: &Client, content: &[u8]) -> anyhow::Result<Digest> {
    let digest = client.digest(content);
    client.write(&client.upload_name(&digest), content, MIB).await?;
    Ok(digest)
}

async fn blobs_that_are_too_large_for_what_they_are_read_as(kit: Kit) -> Outcome {
    kit.only_on_the_host("what a VM holds is bounded by its memory")?;
    let daemon = kit.daemon().start().await?;
    let client = daemon.client();
    let large = upload(&client, &vec![0x1a; 64 * MIB]).await?;
    let path = format!("{EXECUTION}/Execute");
    flood(&daemon, "as an Action", &path, &execute_digest(&large)).await?;
    let empty = Digest::empty(DigestFunction::Sha256);
    let action = |command: Digest, root: Digest| proto::Action {
        command_digest: Some(command.to_proto()),
        input_root_digest: Some(root.to_proto()),
        do_not_cache: true,
        ..Default::default()
    };
    let request = execute(&client, &action(large, empty)).await?;
    flood(&daemon, "as a Command", &path, &request).await?;
    let command = proto::Command { arguments: vec!["true".into()], ..Default::default() };
    let command = client.put(command.encode_to_vec()).await?;
    let request = execute(&client, &action(command, large)).await?;
    flood(&daemon, "as a Directory", &path, &request).await?;
    let tree = proto::GetTreeRequest { root_digest: Some(large.to_proto()), ..Default::default() };
    flood(&daemon, "as a root", &format!("{CAS}/GetTree"), &tree.encode_to_vec()).await?;
    let directory = proto::OutputDirectory {
        path: "dir".into(),
        tree_digest: Some(large.to_proto()),
        ..Default::default()
    };
    let result = proto::ActionResult { output_directories: vec![directory], ..Default::default() };
    let cached = client.digest("an action with a large tree");
    let mut cache = client.action_cache();
    cache
        .update_action_result(proto::UpdateActionResultRequest {
            action_digest: Some(cached.to_proto()),
            action_result: Some(result),
            ..Default::default()
        })
        .await?;
    let lookup = proto::GetActionResultRequest {
        action_digest: Some(cached.to_proto()),
        ..Default::default()
    };
    let path = format!("{ACTION_CACHE}/GetActionResult");
    flood(&daemon, "as a Tree", &path, &lookup.encode_to_vec()).await
}

async fn blobs_that_grow_when_they_are_parsed(kit: Kit) -> Outcome {
    kit.only_on_the_host("what a VM holds is bounded by its memory")?;
    let daemon = kit.daemon().start().await?;
    let client = daemon.client();
    let path = format!("{EXECUTION}/Execute");
    let empty = Digest::empty(DigestFunction::Sha256);
    let command = proto::Command { arguments: vec!["true".into()], ..Default::default() };
    let command = client.put(command.encode_to_vec()).await?;
    let action = proto::Action {
        command_digest: Some(command.to_proto()),
        input_root_digest: Some(empty.to_proto()),
        do_not_cache: true,
        ..Default::default()
    };
    let properties = nested(10, &repeated(&[0x0a, 0], MIB - 1000));
    let grown = upload(&client, &[action.encode_to_vec(), properties].concat()).await?;
    flood(&daemon, "an Action of properties", &path, &execute_digest(&grown)).await?;
    // As many properties as an Action may have, in a hundred that wait.
    let properties = nested(10, &repeated(&[0x0a, 0], 4000));
    let most = upload(&client, &[action.encode_to_vec(), properties].concat()).await?;
    flood(&daemon, "Actions that wait", &path, &execute_digest(&most)).await?;
    let arguments = upload(&client, &repeated(&[0x0a, 0], 16 * MIB - 1000)).await?;
    let grown = proto::Action { command_digest: Some(arguments.to_proto()), ..action.clone() };
    flood(&daemon, "a Command of arguments", &path, &execute(&client, &grown).await?).await?;
    // 2^18 symlinks, the shortest entries.
    let symlinks: Vec<u8> = (0..1_u32 << 18)
        .flat_map(|number| nested(3, &nested(1, format!("{number:06}").as_bytes())))
        .collect();
    let directory = upload(&client, &symlinks).await?;
    let tree =
        proto::GetTreeRequest { root_digest: Some(directory.to_proto()), ..Default::default() };
    flood(&daemon, "a Directory of symlinks", &format!("{CAS}/GetTree"), &tree.encode_to_vec())
        .await
}

async fn results_that_are_kept(kit: Kit) -> Outcome {
    kit.only_on_the_host("what a VM holds is bounded by its memory")?;
    let daemon = kit.daemon().start().await?;
    let client = daemon.client();
    let action = client.digest("an action with a large result");
    // Symlinks with a path of one byte, at 5 bytes each.
    let result = repeated(&nested(12, &nested(1, b"a")), 4 * MIB);
    let digest = nested(2, &action.to_proto().encode_to_vec());
    let update = [digest, nested(3, &result)].concat();
    let code =
        call(client.clone(), format!("{ACTION_CACHE}/UpdateActionResult"), framed(&update)).await?;
    ensure!(code == Code::Ok, "{code:?}");
    let request =
        proto::ExecuteRequest { action_digest: Some(action.to_proto()), ..Default::default() };
    let hit = request.encode_to_vec();
    flood(&daemon, "cache hits", &format!("{EXECUTION}/Execute"), &hit).await?;
    let lookup = proto::GetActionResultRequest {
        action_digest: Some(action.to_proto()),
        inline_stdout: true,
        inline_output_files: vec!["a".into()],
        ..Default::default()
    };
    let lookup = lookup.encode_to_vec();
    flood(&daemon, "look-ups", &format!("{ACTION_CACHE}/GetActionResult"), &lookup).await?;
    let list = ListOperationsRequest { page_size: 100, ..Default::default() }.encode_to_vec();
    flood(&daemon, "all operations", &format!("{OPERATIONS}/ListOperations"), &list).await?;
    let mut operations = client.operations().max_decoding_message_size(usize::MAX);
    let answer = operations.list_operations(ListOperationsRequest::default()).await?;
    let kept = answer.into_inner().operations;
    ensure!(!kept.is_empty(), "finished operations are remembered");
    let wait = WaitOperationRequest { name: kept[0].name.clone(), ..Default::default() };
    let wait = wait.encode_to_vec();
    flood(&daemon, "one operation", &format!("{OPERATIONS}/WaitOperation"), &wait).await
}
