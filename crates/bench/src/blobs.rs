//! The content-addressed store: large blobs by stream, small ones in batches,
//! and the question which are missing.

use std::time::Instant;

use anyhow::{Result, ensure};
use model::proto;

use crate::Load;
use crate::client::Client;
use crate::content::{Blob, random_bytes, unique};
use crate::report::Figure;
use crate::sample::per_second;

/// One blob of the stream loads.
const LARGE_BYTES: usize = 256 << 20;
/// The number of blobs.
const LARGE_BLOBS: usize = 4;
/// One blob of the batch loads.
const SMALL_BYTES: usize = 4 << 10;
/// Blobs of one batch: below 4 MiB with their framing.
const BATCH_BLOBS: usize = 900;
/// The number of batches.
const BATCHES: usize = 20;
/// Digests of one FindMissingBlobs.
const ASKED: usize = 4_000;
/// The number of those requests.
const QUESTIONS: usize = 250;
/// Requests on their way at the same time.
const AT_ONCE: usize = 4;

pub(crate) async fn run(load: &mut Load) -> Result<()> {
    streams(load).await?;
    batches(load).await?;
    missing(load).await
}

async fn streams(load: &mut Load) -> Result<()> {
    if !load.wants("ByteStream") {
        return Ok(());
    }
    let blobs: Vec<Blob> = (0..LARGE_BLOBS).map(|_| Blob::new(random_bytes(LARGE_BYTES))).collect();
    let megabytes = (LARGE_BYTES * LARGE_BLOBS) as f64 / 1e6;
    let started = Instant::now();
    for blob in &blobs {
        load.client.write(blob).await?;
    }
    rate(load, "ByteStream write, 256 MiB", per_second(megabytes, started), "MB/s");
    let started = Instant::now();
    for blob in &blobs {
        let length = load.client.read(&blob.digest).await?;
        ensure!(length == LARGE_BYTES, "read {length} bytes");
    }
    rate(load, "ByteStream read, 256 MiB", per_second(megabytes, started), "MB/s");
    Ok(())
}

async fn batches(load: &mut Load) -> Result<()> {
    if !load.wants("Batch") {
        return Ok(());
    }
    let batch = |_| (0..BATCH_BLOBS).map(|_| Blob::new(random_bytes(SMALL_BYTES))).collect();
    let batches: Vec<Vec<Blob>> = (0..BATCHES).map(batch).collect();
    let blobs = (BATCHES * BATCH_BLOBS) as f64;
    let started = Instant::now();
    in_parallel(&load.client, batches.clone(), |client, batch| async move {
        client.update(&batch).await
    })
    .await?;
    rate(load, "BatchUpdateBlobs, 4 KiB", per_second(blobs, started), "blobs/s");
    let started = Instant::now();
    in_parallel(&load.client, batches, |client, batch| async move {
        let request = proto::BatchReadBlobsRequest {
            digests: batch.iter().map(|blob| blob.digest.to_proto()).collect(),
            ..Default::default()
        };
        let response = client.cas().batch_read_blobs(request).await?.into_inner();
        let good = response.responses.iter().filter(|item| item.data.len() == SMALL_BYTES).count();
        ensure!(good == batch.len(), "{good} of {} blobs came", batch.len());
        Ok(())
    })
    .await?;
    rate(load, "BatchReadBlobs, 4 KiB", per_second(blobs, started), "blobs/s");
    Ok(())
}

async fn missing(load: &mut Load) -> Result<()> {
    if !load.wants("FindMissingBlobs") {
        return Ok(());
    }
    // Half are there: as in a build after a change.
    let present: Vec<Blob> = (0..ASKED / 2).map(|_| Blob::new(random_bytes(16))).collect();
    load.client.upload(&present).await?;
    let absent = (0..ASKED / 2).map(|_| Blob::new(unique().to_string()));
    let all: Vec<_> =
        present.iter().cloned().chain(absent).map(|blob| blob.digest.to_proto()).collect();
    let request = proto::FindMissingBlobsRequest { blob_digests: all, ..Default::default() };
    let requests = vec![request; QUESTIONS];
    let started = Instant::now();
    in_parallel(&load.client, requests, |client, request| async move {
        let response = client.cas().find_missing_blobs(request).await?.into_inner();
        let count = response.missing_blob_digests.len();
        ensure!(count == ASKED / 2, "{count} missing");
        Ok(())
    })
    .await?;
    let digests = (ASKED * QUESTIONS) as f64;
    rate(load, "FindMissingBlobs, 4,000 digests", per_second(digests, started), "digests/s");
    Ok(())
}

fn rate(load: &mut Load, name: &str, value: f64, unit: &'static str) {
    load.report.add(name, Figure::Rate { value, unit }, None);
}

/// Does `call` for every item, a few at a time.
pub(crate) async fn in_parallel<T, F>(
    client: &Client,
    items: Vec<T>,
    call: impl Fn(Client, T) -> F + Clone + Send + 'static,
) -> Result<()>
where
    T: Send + 'static,
    F: Future<Output = Result<()>> + Send,
{
    let items = std::sync::Arc::new(std::sync::Mutex::new(items));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..AT_ONCE {
        let (client, items, call) = (client.clone(), std::sync::Arc::clone(&items), call.clone());
        tasks.spawn(async move {
            loop {
                let next = items.lock().ok().and_then(|mut items| items.pop());
                let Some(item) = next else {
                    return anyhow::Ok(());
                };
                call(client.clone(), item).await?;
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}
