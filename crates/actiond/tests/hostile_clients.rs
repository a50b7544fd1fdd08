//! Clients that make the server hold what it can: what it holds stays bounded, and
//! others are served.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bytes::Bytes;
use http_body::Frame;
use prost::Message as _;
use testkit::google::bytestream::ReadRequest;
use testkit::{Client, Daemon, Digest, Kit, Outcome, eventually, proto};
use tokio::task::JoinSet;
use tonic::body::Body;
use tonic::codegen::{Service as _, http};
use tonic::{Code, Status};

testkit::cases! { env!("CARGO_BIN_EXE_linux-actiond") =>
    half_messages_are_bounded,
    half_uploads_are_bounded,
    answers_that_nobody_reads_are_bounded,
    downloads_that_nobody_reads_are_bounded,
}

const MIB: usize = 1 << 20;

/// Connections of the hostile client.
const CONNECTIONS: usize = 4;
/// Calls on each of them: together they ask for several times the bound.
const CALLS: usize = 300;

/// The memory that the server may hold for clients: 512 MiB, and 8 MiB for each connection.
/// Beside it is what a debug build, buffers of sockets and the C library's
/// allocator take, and answers that are read before they are refused.
const RESIDENT_BYTES_MAX: usize = (512 + CONNECTIONS * 8 + 512) * MIB;

/// A server whose memory does not grow for this long has taken in what it will.
const SETTLING: Duration = Duration::from_secs(3);

/// A body with that data, which then ends, or does not.
struct Sent {
    data: Option<Bytes>,
    ends: bool,
}

impl http_body::Body for Sent {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.data.take() {
            Some(data) => Poll::Ready(Some(Ok(Frame::data(data)))),
            None if self.ends => Poll::Ready(None),
            None => Poll::Pending,
        }
    }
}

fn whole(data: &Bytes) -> Body {
    Body::new(Sent { data: Some(data.clone()), ends: true })
}

fn stuck(data: &Bytes) -> Body {
    Body::new(Sent { data: Some(data.clone()), ends: false })
}

/// A message with the length that it claims.
fn framed(claimed_bytes: usize, content: &[u8]) -> Bytes {
    [&[0], (claimed_bytes as u32).to_be_bytes().as_slice(), content].concat().into()
}

/// A call that sends `body`. Returns the code of a refusal; otherwise it stays open.
async fn call(client: Client, path: &'static str, body: Body) -> anyhow::Result<Code> {
    let mut channel = client.channel();
    let request = http::Request::post(format!("http://server{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(body)?;
    poll_fn(|context| channel.poll_ready(context)).await?;
    let answer = channel.call(request);
    let answer = answer.await?;
    let code = Status::from_header_map(answer.headers()).map(|status| status.code());
    match code {
        Some(code) => Ok(code),
        // The rest stays unread until the test drops this task.
        None => std::future::pending().await,
    }
}

/// The most memory that the daemon had so far, in bytes.
fn peak_resident_bytes(daemon: &Daemon) -> anyhow::Result<usize> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.context("no VmHWM")?.trim().trim_end_matches(" kB");
    Ok(kib.parse::<usize>()? << 10)
}

/// Waits until the server holds all that it will hold of what was sent.
async fn settled(daemon: &Daemon) -> Outcome {
    let mut peak = peak_resident_bytes(daemon)?;
    let mut grown = Instant::now();
    eventually("the server's memory grows no more", || {
        let now = peak_resident_bytes(daemon)?;
        if now > peak {
            (peak, grown) = (now, Instant::now());
        }
        Ok(grown.elapsed() >= SETTLING)
    })
    .await
}

/// Makes all calls, and looks at the server while they are open.
async fn attack(daemon: &Daemon, path: &'static str, body: impl Fn() -> Body) -> Outcome {
    let mut calls = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let client = daemon.client();
        for _ in 0..CALLS {
            calls.spawn(call(client.clone(), path, body()));
        }
    }
    settled(daemon).await?;
    serves_others(daemon).await?;
    let resident = peak_resident_bytes(daemon)?;
    anyhow::ensure!(resident < RESIDENT_BYTES_MAX, "{} MiB are resident", resident / MIB);
    let mut refused = 0;
    while let Some(answer) = calls.try_join_next() {
        anyhow::ensure!(answer?? == Code::ResourceExhausted, "a call has an answer");
        refused += 1;
    }
    println!("{path}: {refused} calls refused, {} MiB at most", resident / MIB);
    calls.shutdown().await;
    serves_others(daemon).await
}

/// Another client stores, asks, reads and runs.
async fn serves_others(daemon: &Daemon) -> Outcome {
    let client = daemon.client();
    let large = vec![7; 3 * MIB];
    let digest = client.put(large.clone()).await?;
    anyhow::ensure!(client.get(&digest).await? == large);
    let digest = client.digest(&large[1..]);
    client.write(&client.upload_name(&digest), &large[1..], MIB).await?;
    anyhow::ensure!(client.missing(&[digest]).await?.is_empty());
    Ok(())
}

async fn half_messages_are_bounded(kit: Kit) -> Outcome {
    kit.only_on_the_host("what a VM holds is bounded by its memory")?;
    let daemon = kit.daemon().start().await?;
    let body = framed(4 * MIB, &vec![0x12; 3 * MIB]);
    let path = "/build.bazel.remote.execution.v2.ContentAddressableStorage/BatchUpdateBlobs";
    attack(&daemon, path, || stuck(&body)).await?;
    let path = "/build.bazel.remote.execution.v2.ActionCache/UpdateActionResult";
    attack(&daemon, path, || stuck(&body)).await
}

async fn half_uploads_are_bounded(kit: Kit) -> Outcome {
    kit.only_on_the_host("what a VM holds is bounded by its memory")?;
    let daemon = kit.daemon().start().await?;
    let content = vec![7; 4 * MIB];
    let digest = Digest::of(testkit::DigestFunction::Sha256, &content);
    let message = testkit::google::bytestream::WriteRequest {
        resource_name: format!("uploads/u/blobs/{digest}"),
        data: content.into(),
        ..Default::default()
    };
    let message = message.encode_to_vec();
    let body = framed(message.len(), &message[..3 * MIB]);
    let path = "/google.bytestream.ByteStream/Write";
    attack(&daemon, path, || stuck(&body)).await
}

async fn answers_that_nobody_reads_are_bounded(kit: Kit) -> Outcome {
    kit.only_on_the_host("what a VM holds is bounded by its memory")?;
    let daemon = kit.daemon().start().await?;
    let digest = daemon.client().put(vec![1; 3 * MIB]).await?;
    let request =
        proto::BatchReadBlobsRequest { digests: vec![digest.to_proto()], ..Default::default() };
    let request = request.encode_to_vec();
    let body = framed(request.len(), &request);
    let path = "/build.bazel.remote.execution.v2.ContentAddressableStorage/BatchReadBlobs";
    attack(&daemon, path, || whole(&body)).await
}

async fn downloads_that_nobody_reads_are_bounded(kit: Kit) -> Outcome {
    kit.only_on_the_host("what a VM holds is bounded by its memory")?;
    let daemon = kit.daemon().start().await?;
    let client = daemon.client();
    let content = vec![1; 8 * MIB];
    let digest = client.digest(&content);
    client.write(&client.upload_name(&digest), &content, MIB).await?;
    let request =
        ReadRequest { resource_name: client.download_name(&digest), ..Default::default() };
    let request = request.encode_to_vec();
    let body = framed(request.len(), &request);
    attack(&daemon, "/google.bytestream.ByteStream/Read", || whole(&body)).await
}
