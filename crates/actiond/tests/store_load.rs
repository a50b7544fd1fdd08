//! Many clients with many streams each: the server's memory stays bounded, a light client is served
//! nearly as if it were alone, and the server ends in order while all of them are open.
//!
//! A quarter of the streams are slow writers, a quarter slow readers, a quarter uploads that stop after
//! their first message, and a quarter store a small blob and read it again and again, with pauses. The load comes in
//! rounds. Before each of them, and after the last, the light client is alone. The median of its p99s beside the load is compared
//! with the median of its p99s alone: on a machine that others use, one p99 is a figure of the machine.
//!
//! The whole test is 64 clients with 100 streams each for ten minutes in all; without these variables it is a short form:
//!
//! ```sh
//! ACTIOND_LOAD_CLIENTS=64 ACTIOND_LOAD_STREAMS=100 ACTIOND_LOAD_SECONDS=600 \
//!     cargo test -p actiond --test store_load -- --nocapture
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use testkit::google::bytestream::{ReadRequest, WriteRequest};
use testkit::{Client, Daemon, Digest, Kit, Outcome, eventually_async};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

testkit::cases! { env!("CARGO_BIN_EXE_linux-actiond") =>
    a_light_client_is_served_beside_thousands_of_slow_streams,
}

const MIB: usize = 1 << 20;
const CLIENTS: u64 = 16;
const STREAMS: u64 = 50;
const SECONDS: u64 = 6;
const ROUNDS: u32 = 3;
/// The pause of a slow stream between two pieces, and of an active one between two blobs.
const PAUSE: Duration = Duration::from_secs(1);
const SLOW_PIECE_BYTES: usize = 4 << 10;
/// More than a slow upload sends.
const UPLOAD_BYTES: u64 = 64 << 20;
/// More than the windows of a stream and the buffers between.
const DOWNLOAD_BYTES: usize = 12 * MIB;
/// How often the light client calls each time that it is alone, and at least in a round.
const SAMPLES: usize = 200;
/// The memory that the server may hold beside its budget for clients, as in the test `memory`, and the
/// tasks of the streams.
const REST_BYTES: usize = 200 * MIB;
const RATIO_MAX: f64 = 5.0;

/// The state that the streams share.
#[derive(Default)]
struct Load {
    stop: AtomicBool,
    /// The streams that did something at least once.
    begun: AtomicU64,
    next: AtomicU64,
    /// Blobs that active streams stored and read.
    blobs: AtomicU64,
    /// Blobs of active streams that the server refused because all memory for clients was held.
    refused: AtomicU64,
}

impl Load {
    fn is_running(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    fn begin(&self) {
        self.begun.fetch_add(1, Ordering::Relaxed);
    }

    /// Different content each time.
    fn content(&self, size: usize) -> Vec<u8> {
        let number = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        number.to_le_bytes().repeat(size / 8)
    }
}

/// An upload of pieces with pauses between; `pieces` is their number until it stops sending.
async fn slow_writer(client: Client, load: Arc<Load>, pieces: usize) -> anyhow::Result<()> {
    // It never ends, so that its digest need not be that of anything.
    let hash = client.digest(load.content(64));
    let mut name = client.upload_name(&Digest::new(hash.function(), *hash.hash(), UPLOAD_BYTES));
    let (sender, receiver) = mpsc::channel(1);
    let send = async {
        for number in 0.. {
            if number < pieces {
                let message = WriteRequest {
                    resource_name: std::mem::take(&mut name),
                    write_offset: (number * SLOW_PIECE_BYTES) as i64,
                    finish_write: false,
                    data: vec![7; SLOW_PIECE_BYTES].into(),
                };
                if sender.send(message).await.is_err() {
                    return;
                }
            }
            if number == 0 {
                load.begin();
            }
            tokio::time::sleep(PAUSE).await;
            if !load.is_running() {
                return;
            }
        }
    };
    let mut byte_stream = client.byte_stream();
    // The server may end an upload that does not go on: that is its right under load.
    tokio::select! {
        () = send => {}
        _ = byte_stream.write(ReceiverStream::new(receiver)) => {}
    }
    Ok(())
}

async fn slow_reader(client: Client, load: Arc<Load>, blob: Digest) -> anyhow::Result<()> {
    let request =
        ReadRequest { resource_name: client.download_name(&blob), ..ReadRequest::default() };
    let answer = client.byte_stream().read(request).await;
    load.begin();
    let mut stream = match answer {
        Ok(answer) => answer.into_inner(),
        // The server may refuse what would take it beyond its budget of memory.
        Err(status) if status.code() == Code::ResourceExhausted => return Ok(()),
        Err(status) => return Err(status.into()),
    };
    while load.is_running() {
        if !matches!(stream.message().await, Ok(Some(_))) {
            break;
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

async fn active(client: Client, load: Arc<Load>, number: u64) -> anyhow::Result<()> {
    // Not all at the same moment.
    tokio::time::sleep(PAUSE * (number % 16) as u32 / 16).await;
    load.begin();
    while load.is_running() {
        let content = load.content(16 << 10);
        let digest = client.digest(&content);
        let both = async {
            client.write(&client.upload_name(&digest), &content, 8 << 10).await?;
            ensure!(client.get(&digest).await? == content, "{digest} is false");
            Ok(())
        };
        match both.await {
            Ok(()) => load.blobs.fetch_add(1, Ordering::Relaxed),
            // The slow streams may have the whole budget of memory. A client tries again.
            Err(error) if is_refused(&error) => load.refused.fetch_add(1, Ordering::Relaxed),
            Err(error) => return Err(error),
        };
        tokio::time::sleep(4 * PAUSE).await;
    }
    Ok(())
}

/// The streams of all clients; each has begun.
async fn started(daemon: &Daemon, blob: Digest, load: &Arc<Load>) -> anyhow::Result<Streams> {
    let clients = variable("ACTIOND_LOAD_CLIENTS", CLIENTS)?;
    let streams = variable("ACTIOND_LOAD_STREAMS", STREAMS)?;
    let mut running = JoinSet::new();
    load.stop.store(false, Ordering::Relaxed);
    load.begun.store(0, Ordering::Relaxed);
    for _ in 0..clients {
        // Streams that are read slowly fill the window of their connection, so they have one of their own.
        let (client, reader) = (daemon.client(), daemon.client());
        for stream in 0..streams {
            let load = Arc::clone(load);
            match stream % 4 {
                0 => running.spawn(slow_writer(client.clone(), load, usize::MAX)),
                1 => running.spawn(slow_writer(client.clone(), load, 1)),
                2 => running.spawn(slow_reader(reader.clone(), load, blob)),
                _ => running.spawn(active(client.clone(), load, stream)),
            };
        }
    }
    let begun = async || Ok(load.begun.load(Ordering::Relaxed) == clients * streams);
    eventually_async("every stream has begun", begun).await?;
    Ok(running)
}

type Streams = JoinSet<anyhow::Result<()>>;

/// Ends the streams in order.
async fn stopped(mut running: Streams, load: &Load) -> anyhow::Result<()> {
    load.stop.store(true, Ordering::Relaxed);
    while let Some(ended) = running.join_next().await {
        ended?.context("a stream of the load")?;
    }
    Ok(())
}

/// Ends the server while all streams are open. Gives how long that took, and how long it took to remove its files.
async fn ended(mut daemon: Daemon, running: Streams) -> anyhow::Result<(Duration, Duration)> {
    let began = Instant::now();
    daemon.terminate()?;
    // On a thread of its own: the clients go on meanwhile, and so their streams stay open.
    let ended = tokio::task::spawn_blocking(move || daemon.wait().map(|status| (daemon, status)));
    let (daemon, status) = ended.await??;
    let took = began.elapsed();
    ensure!(status.success(), "the server ended with {status}; its log:\n{}", daemon.log());
    // The test `shutdown` looks at what becomes of calls to a server that ends.
    drop(running);
    let began = Instant::now();
    drop(daemon);
    Ok((took, began.elapsed()))
}

fn is_refused(error: &anyhow::Error) -> bool {
    let status = error.downcast_ref::<tonic::Status>();
    status.is_some_and(|status| status.code() == Code::ResourceExhausted)
}

/// A client that does what a small action needs, again and again.
struct Light {
    client: Client,
    number: usize,
}

impl Light {
    fn of(client: Client) -> Self {
        Self { client, number: 0 }
    }

    /// The times of its calls for that long, and of [`SAMPLES`] at least.
    async fn calls(&mut self, at_least: Duration) -> anyhow::Result<Vec<Duration>> {
        let (began, mut latencies) = (Instant::now(), Vec::new());
        while began.elapsed() < at_least || latencies.len() < SAMPLES {
            self.number += 1;
            latencies.push(light_call(&self.client, self.number).await?);
        }
        Ok(latencies)
    }
}

/// The time of what a small action needs: a question, an upload and a download.
async fn light_call(client: &Client, number: usize) -> anyhow::Result<Duration> {
    let content = format!("light {number}").into_bytes();
    let digest = client.digest(&content);
    let began = Instant::now();
    client.missing(&[digest]).await?;
    client.put(content.clone()).await?;
    ensure!(client.get(&digest).await? == content, "{digest} is false");
    Ok(began.elapsed())
}

fn percentile(latencies: &mut [Duration], percent: usize) -> Duration {
    latencies.sort_unstable();
    latencies[(latencies.len() * percent / 100).min(latencies.len() - 1)]
}

/// The median of the p99 of each.
fn median_p99(rounds: &mut [Vec<Duration>]) -> Duration {
    let mut p99s: Vec<_> = rounds.iter_mut().map(|latencies| percentile(latencies, 99)).collect();
    percentile(&mut p99s, 50)
}

fn variable(name: &str, default: u64) -> anyhow::Result<u64> {
    let text = std::env::var(name).ok();
    text.map_or(Ok(default), |text| text.parse().with_context(|| format!("{name} is a number")))
}

/// A line of `/proc/PID/status`, in bytes.
fn status_bytes(daemon: &Daemon, name: &str) -> anyhow::Result<usize> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid()))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)).context("no such line")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<usize>()? << 10)
}

/// The memory that the server may hold for all clients.
fn budget_bytes() -> anyhow::Result<usize> {
    let memory = std::fs::read_to_string("/proc/meminfo")?;
    let line = memory.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = line.context("no MemTotal")?.trim().trim_end_matches(" kB");
    Ok((512 * MIB).min((kib.parse::<usize>()? << 10) / 8))
}

async fn a_light_client_is_served_beside_thousands_of_slow_streams(kit: Kit) -> Outcome {
    kit.only_on_the_host("what a VM holds is bounded by its memory")?;
    let seconds = variable("ACTIOND_LOAD_SECONDS", SECONDS)?;
    let round = Duration::from_secs(seconds) / ROUNDS;
    let daemon = kit.daemon().start().await?;
    let download = vec![7; DOWNLOAD_BYTES];
    let blob = daemon.client().digest(&download);
    daemon.client().write(&daemon.client().upload_name(&blob), &download, MIB).await?;

    let mut light = Light::of(daemon.client());
    let load = Arc::new(Load::default());
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        alone.push(light.calls(Duration::ZERO).await?);
        let running = started(&daemon, blob, &load).await?;
        beside.push(light.calls(round).await?);
        stopped(running, &load).await?;
    }
    alone.push(light.calls(Duration::ZERO).await?);

    let (resident, budget) = (status_bytes(&daemon, "VmHWM:")?, budget_bytes()?);
    let (p99_alone, p99_beside) = (median_p99(&mut alone), median_p99(&mut beside));
    let ratio = p99_beside.as_secs_f64() / p99_alone.as_secs_f64();
    println!(
        "{} blobs stored and read, {} refused; {} MiB resident at most. A light client, alone: p99 {p99_alone:?}; beside the \
         streams: {} calls, p50 {:?}, p99 {p99_beside:?}, {ratio:.1} times",
        load.blobs.load(Ordering::Relaxed),
        load.refused.load(Ordering::Relaxed),
        resident / MIB,
        beside.iter().map(Vec::len).sum::<usize>(),
        percentile(&mut beside.concat(), 50),
    );
    ensure!(load.blobs.load(Ordering::Relaxed) > 0, "the active streams did nothing");
    ensure!(resident < budget + REST_BYTES, "{} MiB are resident", resident / MIB);
    ensure!(ratio <= RATIO_MAX, "a light client waits {ratio:.1} times as long");

    let running = started(&daemon, blob, &load).await?;
    let (end, removal) = ended(daemon, running).await?;
    println!(
        "with all streams open, the server ended in {end:?}; its files were removed in {removal:?}"
    );
    Ok(())
}
