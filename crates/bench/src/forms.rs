//! Blobs in other forms: compressed streams, and lists of chunks.
//!
//! The content is this program, which compresses as object files do. The server compresses it, and gets back
//! what it made: so this client needs no compressor, and its own work is small. A blob that is there would not be
//! taken in once more, so what was read by its SHA-256 digest is written by its BLAKE3 digest.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use model::proto::{self, chunking_function::Value as Chunking};
use model::{Digest, DigestFunction};

use crate::Load;
use crate::content::{Blob, random_bytes, unique};
use crate::report::Figure;
use crate::sample::per_second;

/// The compressors of the API, as resource names write them.
const COMPRESSORS: [&str; 3] = ["zstd", "deflate", "brotli"];
/// The bytes of this program that are sent, at most.
const PROGRAM_BYTES: usize = 64 << 20;
/// Blobs for each compressor.
const BLOBS: usize = 3;
/// The blob that is split.
const SPLIT_BYTES: usize = 256 << 20;

pub(crate) async fn run(load: &mut Load) -> Result<()> {
    compressed(load).await?;
    chunks(load).await
}

async fn compressed(load: &mut Load) -> Result<()> {
    if !load.wants("compressed") {
        return Ok(());
    }
    let program =
        std::env::current_exe().and_then(std::fs::read).context("reading this program")?;
    let program = &program[..program.len().min(PROGRAM_BYTES)];
    for compressor in COMPRESSORS {
        let (mut reading, mut writing, mut packed_bytes) = (0.0, 0.0, 0);
        for _ in 0..BLOBS {
            let blob = Blob::new([&unique().to_le_bytes()[..], program].concat());
            load.client.write(&blob).await?;
            let started = Instant::now();
            let packed = load.client.read_compressed(compressor, &blob.digest).await?;
            reading += started.elapsed().as_secs_f64();
            packed_bytes += packed.len();
            let other = Digest::of(DigestFunction::Blake3, &blob.bytes);
            let started = Instant::now();
            load.client.write_compressed(compressor, &other, packed.into()).await?;
            writing += started.elapsed().as_secs_f64();
        }
        let bytes = ((program.len() + 16) * BLOBS) as f64;
        let mut add = |name: &str, value, unit| {
            let figure = Figure::Rate { value, unit };
            load.report.add(format!("{name}, {compressor}"), figure, None);
        };
        add("compressed read", bytes / 1e6 / reading, "MB/s");
        add("compressed write", bytes / 1e6 / writing, "MB/s");
        add("compressed size", packed_bytes as f64 / bytes * 100.0, "%");
    }
    Ok(())
}

async fn chunks(load: &mut Load) -> Result<()> {
    if !load.wants("SplitBlob") {
        return Ok(());
    }
    for (name, function) in [("FastCDC", Chunking::FastCdc2020), ("RepMaxCDC", Chunking::RepMaxCdc)]
    {
        let blob = Blob::new(random_bytes(SPLIT_BYTES));
        load.client.write(&blob).await?;
        for when in ["first", "again"] {
            let request = proto::SplitBlobRequest {
                blob_digest: Some(blob.digest.to_proto()),
                chunking_function: function.into(),
                ..Default::default()
            };
            let started = Instant::now();
            let response = load.client.cas().split_blob(request).await?.into_inner();
            let value = per_second(SPLIT_BYTES as f64 / 1e6, started);
            let sum: i64 = response.chunk_digests.iter().map(|chunk| chunk.size_bytes).sum();
            ensure!(sum == SPLIT_BYTES as i64, "the chunks have {sum} bytes");
            let figure = Figure::Rate { value, unit: "MB/s" };
            load.report.add(format!("SplitBlob, {name}, {when}"), figure, None);
        }
    }
    Ok(())
}
