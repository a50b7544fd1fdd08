//! The calls that move blobs and results, each verified on its way into the store.

use std::io::{self, Read as _, Write as _};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use model::proto::action_cache_client::ActionCacheClient;
use model::proto::content_addressable_storage_client::ContentAddressableStorageClient;
use model::proto::google::bytestream::byte_stream_client::ByteStreamClient;
use model::proto::google::bytestream::{ReadRequest, WriteRequest};
use model::proto::{
    ActionResult, BatchReadBlobsRequest, BatchUpdateBlobsRequest, FindMissingBlobsRequest,
    GetActionResultRequest, UpdateActionResultRequest, batch_update_blobs_request, compressor,
};
use model::{Digest, DigestFunction};
use store::{BlobWriter, Cas};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tonic::Status;
use tonic::transport::Channel;

use crate::link::{Abilities, CallError, Link};

/// Digests in one `FindMissingBlobs`: 150 KB, far below what any server takes, and few round trips for a large
/// tree.
const DIGESTS_MAX: usize = 2_000;

/// Such calls at the same time.
const QUESTIONS: usize = 4;

/// The largest answer: a batch, with what a server may add to it. It bounds what a server can make us hold.
const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// Pieces of a download that wait for the disk.
const PIECES_WAITING: usize = 4;

/// The bytes of a piece of an upload.
const PIECE_BYTES: usize = 256 << 10;

/// The largest window of compressed downloads, as a power of two in bytes (RFC 8878, 3.1.1.1.2).
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// Compression level of uploads: the fastest.
const ZSTD_LEVEL: i32 = 1;

/// Smaller blobs are not worth compressing.
const COMPRESSED_BYTES_MIN: u64 = 4 << 10;

impl Link {
    fn blobs(&self) -> ContentAddressableStorageClient<Channel> {
        ContentAddressableStorageClient::new(self.channel())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    fn instance(&self) -> String {
        self.address.instance.as_str().to_owned()
    }

    /// Those of the blobs, all of one function, that are not upstream. Asking keeps the others there for longer.
    pub(crate) async fn missing(
        &self,
        digests: &[Digest],
        caller: &Bytes,
    ) -> Result<Vec<Digest>, CallError> {
        let Some(function) = digests.first().map(Digest::function) else { return Ok(Vec::new()) };
        let questions = digests.chunks(DIGESTS_MAX);
        let questions = questions.map(|chunk| self.missing_of(chunk, function, caller).boxed());
        let answers =
            futures_util::stream::iter(questions.collect::<Vec<_>>()).buffer_unordered(QUESTIONS);
        let missing: Vec<Vec<Digest>> = answers.try_collect().await?;
        Ok(missing.concat())
    }

    async fn missing_of(
        &self,
        digests: &[Digest],
        function: DigestFunction,
        caller: &Bytes,
    ) -> Result<Vec<Digest>, CallError> {
        let bound = self.bound(0);
        let answer = self.call(bound, || async {
            let message = FindMissingBlobsRequest {
                instance_name: self.instance(),
                blob_digests: digests.iter().map(Digest::to_proto).collect(),
                digest_function: function.to_proto(),
            };
            let answer =
                self.blobs().find_missing_blobs(self.request(message, caller, bound)).await;
            answer.map_err(CallError::from)
        });
        let answer = answer.await?.into_inner();
        // An entry that is not a digest was not asked for.
        let parse = |digest| Digest::from_proto(digest, function).ok();
        Ok(answer.missing_blob_digests.iter().filter_map(parse).collect())
    }

    /// Stores blobs that fit into one batch, as far as the server has them.
    pub(crate) async fn read_batch(
        &self,
        digests: &[Digest],
        abilities: &Abilities,
        cas: &Cas,
        caller: &Bytes,
    ) -> Result<(), CallError> {
        let Some(function) = digests.first().map(Digest::function) else { return Ok(()) };
        let bound = self.bound(digests.iter().map(Digest::size_bytes).sum());
        let zstd = abilities.has_zstd.then_some(compressor::Value::Zstd as i32);
        let answer = self.call(bound, || async {
            let message = BatchReadBlobsRequest {
                instance_name: self.instance(),
                digests: digests.iter().map(Digest::to_proto).collect(),
                acceptable_compressors: zstd.into_iter().collect(),
                digest_function: function.to_proto(),
            };
            let answer = self.blobs().batch_read_blobs(self.request(message, caller, bound)).await;
            answer.map_err(CallError::from)
        });
        let answer = answer.await?.into_inner();
        let asked = digests.to_vec();
        let cas = cas.clone();
        let store = move || {
            let mut received = Received::default();
            for item in answer.responses {
                let digest = item
                    .digest
                    .as_ref()
                    .and_then(|digest| Digest::from_proto(digest, function).ok());
                let Some(digest) = digest.filter(|digest| asked.contains(digest)) else { continue };
                let code = item.status.map_or(0, |status| status.code);
                received.take(&cas, &digest, code, &item.data, item.compressor);
            }
            received
        };
        let received = spawn_blocking(store).await.map_err(lost)?;
        self.counters.hits.add(received.blobs);
        self.counters.received_bytes.add(received.bytes);
        self.counters.damaged.add(received.damaged.len() as u64);
        for digest in received.damaged {
            self.tell_damaged(&digest);
        }
        received.error.map_or(Ok(()), Err)
    }

    /// Warns of a blob that is not what its digest says.
    fn tell_damaged(&self, digest: &Digest) {
        let address = &self.address;
        tracing::warn!(%address, %digest, "the upstream sent another content than was asked for; it is not used");
    }

    /// Stores a blob of any size, in pieces.
    pub(crate) async fn read(
        &self,
        digest: &Digest,
        abilities: &Abilities,
        cas: &Cas,
        caller: &Bytes,
    ) -> Result<(), CallError> {
        let bound = self.bound(digest.size_bytes());
        let is_packed = abilities.has_zstd && digest.size_bytes() >= COMPRESSED_BYTES_MIN;
        let read = self.call(bound, || self.read_once(digest, is_packed, cas, caller, bound)).await;
        if matches!(read, Err(CallError::Damaged)) {
            self.tell_damaged(digest);
        }
        read.map(|()| {
            self.counters.hits.add(1);
            self.counters.received_bytes.add(digest.size_bytes());
        })
    }

    async fn read_once(
        &self,
        digest: &Digest,
        is_packed: bool,
        cas: &Cas,
        caller: &Bytes,
        bound: Duration,
    ) -> Result<(), CallError> {
        let resource_name = resource(self.address.instance.as_str(), None, digest, is_packed);
        let message = ReadRequest { resource_name, ..Default::default() };
        let mut client =
            ByteStreamClient::new(self.channel()).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let piece_timeout = self.piece_timeout();
        let in_time = |waited: Result<_, _>| waited.map_err(|_| CallError::TimedOut(piece_timeout));
        let answer =
            timeout(piece_timeout, client.read(self.request(message, caller, bound))).await;
        let mut stream = in_time(answer)??.into_inner();
        let (pieces, mut waiting) = mpsc::channel::<Bytes>(PIECES_WAITING);
        let (cas, digest) = (cas.clone(), *digest);
        // Dropped before the end, the channel leaves a blob that is not whole, and nothing is stored.
        let store = spawn_blocking(move || {
            let mut sink = Sink::open(&cas, &digest, is_packed)?;
            while let Some(piece) = waiting.blocking_recv() {
                sink.write(&piece)?;
            }
            sink.commit()
        });
        while let Some(message) = timeout(piece_timeout, stream.message())
            .await
            .map_err(|_| CallError::TimedOut(piece_timeout))??
        {
            if pieces.send(message.data).await.is_err() {
                // The sink has refused what came before, and says why.
                break;
            }
        }
        drop(pieces);
        store.await.map_err(lost)?
    }

    /// Sends small blobs, which fit into one batch.
    pub(crate) async fn write_batch(
        &self,
        blobs: &[(Digest, Bytes)],
        abilities: &Abilities,
        caller: &Bytes,
    ) -> Result<(), CallError> {
        let Some(function) = blobs.first().map(|(digest, _)| digest.function()) else {
            return Ok(());
        };
        let bytes = blobs.iter().map(|(digest, _)| digest.size_bytes()).sum();
        let bound = self.bound(bytes);
        let request = |(digest, data): &(Digest, Bytes)| {
            let (data, compressor) = packed(data, abilities.has_batch_zstd);
            batch_update_blobs_request::Request {
                digest: Some(digest.to_proto()),
                data,
                compressor,
            }
        };
        let requests: Vec<_> = blobs.iter().map(request).collect();
        let answer = self.call(bound, || async {
            let message = BatchUpdateBlobsRequest {
                instance_name: self.instance(),
                requests: requests.clone(),
                digest_function: function.to_proto(),
            };
            let answer =
                self.blobs().batch_update_blobs(self.request(message, caller, bound)).await?;
            for response in answer.into_inner().responses {
                let status = response.status.unwrap_or_default();
                if status.code != 0 {
                    return Err(CallError::from(Status::new(status.code.into(), status.message)));
                }
            }
            Ok(())
        });
        answer.await?;
        self.counters.sent_bytes.add(bytes);
        Ok(())
    }

    /// Sends a blob of any size, in pieces.
    pub(crate) async fn write(
        &self,
        digest: &Digest,
        abilities: &Abilities,
        cas: &Cas,
        caller: &Bytes,
    ) -> Result<(), CallError> {
        let bound = self.bound(digest.size_bytes());
        let is_packed = abilities.has_zstd && digest.size_bytes() >= COMPRESSED_BYTES_MIN;
        self.call(bound, || self.write_once(digest, is_packed, cas, caller, bound)).await?;
        self.counters.sent_bytes.add(digest.size_bytes());
        Ok(())
    }

    async fn write_once(
        &self,
        digest: &Digest,
        is_packed: bool,
        cas: &Cas,
        caller: &Bytes,
        bound: Duration,
    ) -> Result<(), CallError> {
        let upload = uuid::Uuid::new_v4().to_string();
        let name = resource(self.address.instance.as_str(), Some(&upload), digest, is_packed);
        let (pieces, waiting) = mpsc::channel(PIECES_WAITING);
        let (cas, digest) = (cas.clone(), *digest);
        let reading = spawn_blocking(move || send_pieces(&cas, &digest, name, is_packed, &pieces));
        let messages = tokio_stream::wrappers::ReceiverStream::new(waiting);
        let mut client = ByteStreamClient::new(self.channel());
        let answer = client.write(self.request(messages, caller, bound)).await;
        // A server that has the blob answers early, and what is not read then is no error.
        reading.await.map_err(lost)??;
        let committed = answer?.into_inner().committed_size;
        let is_whole = committed == -1 || is_packed || committed == digest.size_bytes() as i64;
        if is_whole { Ok(()) } else { Err(CallError::Damaged) }
    }

    /// The result of an action.
    pub(crate) async fn result(
        &self,
        instance: &str,
        action: &Digest,
        caller: &Bytes,
    ) -> Result<ActionResult, CallError> {
        let bound = self.bound(0);
        let answer = self.call(bound, || async {
            let message = GetActionResultRequest {
                instance_name: instance.to_owned(),
                action_digest: Some(action.to_proto()),
                digest_function: action.function().to_proto(),
                ..Default::default()
            };
            let mut client =
                ActionCacheClient::new(self.channel()).max_decoding_message_size(MESSAGE_BYTES_MAX);
            let answer = client.get_action_result(self.request(message, caller, bound)).await;
            answer.map_err(CallError::from)
        });
        answer.await.map(tonic::Response::into_inner)
    }

    /// Sends the result of an action.
    pub(crate) async fn update_result(
        &self,
        instance: &str,
        action: &Digest,
        result: &ActionResult,
        caller: &Bytes,
    ) -> Result<(), CallError> {
        let bound = self.bound(0);
        let answer = self.call(bound, || async {
            let message = UpdateActionResultRequest {
                instance_name: instance.to_owned(),
                action_digest: Some(action.to_proto()),
                action_result: Some(result.clone()),
                digest_function: action.function().to_proto(),
                ..Default::default()
            };
            let mut client =
                ActionCacheClient::new(self.channel()).max_decoding_message_size(MESSAGE_BYTES_MAX);
            let answer = client.update_action_result(self.request(message, caller, bound)).await;
            answer.map_err(CallError::from)
        });
        answer.await.map(drop)
    }
}

impl From<Status> for CallError {
    fn from(status: Status) -> Self {
        Self::of(status)
    }
}

/// The error of a task that panicked.
fn lost(error: tokio::task::JoinError) -> CallError {
    CallError::Failed(Box::new(Status::internal(error.to_string())))
}

/// The name of a blob for `ByteStream`, of an upload where there is one.
fn resource(instance: &str, upload: Option<&str>, digest: &Digest, is_packed: bool) -> String {
    let mut parts = Vec::new();
    if !instance.is_empty() {
        parts.push(instance);
    }
    if let Some(upload) = upload {
        parts.extend(["uploads", upload]);
    }
    parts.extend(if is_packed { &["compressed-blobs", "zstd"][..] } else { &["blobs"] });
    if digest.function() == DigestFunction::Blake3 {
        parts.push("blake3");
    }
    let (hash, size) = (digest.hex(), digest.size_bytes().to_string());
    parts.extend([hash.as_str(), size.as_str()]);
    parts.join("/")
}

/// The content of a blob in the form that saves bytes.
fn packed(data: &Bytes, may_be_packed: bool) -> (Bytes, i32) {
    let identity = (data.clone(), compressor::Value::Identity as i32);
    if !may_be_packed || (data.len() as u64) < COMPRESSED_BYTES_MIN {
        return identity;
    }
    match zstd::bulk::compress(data, ZSTD_LEVEL) {
        Ok(packed) if packed.len() < data.len() => (packed.into(), compressor::Value::Zstd as i32),
        _ => identity,
    }
}

/// The result of a batch.
#[derive(Default)]
struct Received {
    blobs: u64,
    bytes: u64,
    damaged: Vec<Digest>,
    error: Option<CallError>,
}

impl Received {
    fn take(&mut self, cas: &Cas, digest: &Digest, code: i32, data: &[u8], compressor: i32) {
        if code != 0 {
            return;
        }
        let content = match compressor::Value::try_from(compressor) {
            Ok(compressor::Value::Identity) => Ok(data.to_vec()),
            // The size bounds what is unpacked: a batch was asked for that fits into memory.
            Ok(compressor::Value::Zstd) => {
                zstd::bulk::decompress(data, digest.size_bytes() as usize)
            }
            _ => Err(io::ErrorKind::Unsupported.into()),
        };
        let stored = content
            .map_err(|_| CallError::Damaged)
            .and_then(|content| cas.put_expected(digest, &content).map_err(CallError::from));
        match stored {
            Ok(()) => {
                self.blobs += 1;
                self.bytes += digest.size_bytes();
            }
            Err(CallError::Damaged) => self.damaged.push(*digest),
            Err(error) => self.error = Some(error),
        }
    }
}

/// The way of a blob into the store.
enum Sink {
    Plain(Box<BlobWriter>),
    Packed(Box<zstd::stream::write::Decoder<'static, Bounded>>),
}

/// Ends a decompression that goes beyond the size of the blob, and keeps what the store said.
struct Bounded {
    writer: BlobWriter,
    error: Option<CallError>,
}

impl io::Write for Bounded {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.writer.write(data).map_err(|error| {
            self.error = Some(error.into());
            io::ErrorKind::Other
        })?;
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink {
    fn open(cas: &Cas, digest: &Digest, is_packed: bool) -> Result<Self, CallError> {
        let writer = cas.writer(digest.function(), Some(*digest));
        if !is_packed {
            return Ok(Self::Plain(Box::new(writer)));
        }
        let decoder = zstd::stream::write::Decoder::new(Bounded { writer, error: None });
        let mut decoder = decoder.map_err(|_| CallError::Damaged)?;
        decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(|_| CallError::Damaged)?;
        Ok(Self::Packed(Box::new(decoder)))
    }

    fn write(&mut self, piece: &[u8]) -> Result<(), CallError> {
        match self {
            Self::Plain(writer) => Ok(writer.write(piece)?),
            Self::Packed(decoder) => {
                let written = decoder.write_all(piece);
                written.map_err(|_| decoder.get_mut().error.take().unwrap_or(CallError::Damaged))
            }
        }
    }

    fn commit(self) -> Result<(), CallError> {
        let writer = match self {
            Self::Plain(writer) => *writer,
            Self::Packed(mut decoder) => {
                if decoder.flush().is_err() {
                    return Err(decoder.get_mut().error.take().unwrap_or(CallError::Damaged));
                }
                decoder.into_inner().writer
            }
        };
        Ok(writer.commit().map(drop)?)
    }
}

/// Sends the messages of an upload, as long as somebody takes them.
fn send_pieces(
    cas: &Cas,
    digest: &Digest,
    name: String,
    is_packed: bool,
    pieces: &mpsc::Sender<WriteRequest>,
) -> Result<(), CallError> {
    let Some(file) = cas.open(digest)? else { return Err(CallError::Missing) };
    let mut source: Box<dyn io::Read> = match is_packed {
        true => Box::new(zstd::stream::read::Encoder::new(file, ZSTD_LEVEL).map_err(unreadable)?),
        false => Box::new(file),
    };
    let (mut name, mut offset) = (Some(name), 0);
    let mut piece = next_piece(&mut source)?;
    loop {
        let next = next_piece(&mut source)?;
        let is_last = next.is_empty();
        let size = piece.len() as i64;
        let message = WriteRequest {
            resource_name: name.take().unwrap_or_default(),
            write_offset: offset,
            finish_write: is_last,
            data: piece,
        };
        if pieces.blocking_send(message).is_err() || is_last {
            return Ok(());
        }
        offset += size;
        piece = next;
    }
}

fn next_piece(source: &mut dyn io::Read) -> Result<Bytes, CallError> {
    let mut piece = Vec::with_capacity(PIECE_BYTES);
    source.take(PIECE_BYTES as u64).read_to_end(&mut piece).map_err(unreadable)?;
    Ok(piece.into())
}

fn unreadable(error: io::Error) -> CallError {
    CallError::Unreadable(Arc::new(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_blobs() {
        let sha256 = Digest::of(DigestFunction::Sha256, b"x");
        let hash = sha256.hex();
        assert_eq!(resource("", None, &sha256, false), format!("blobs/{hash}/1"));
        assert_eq!(
            resource("a/b", None, &sha256, true),
            format!("a/b/compressed-blobs/zstd/{hash}/1")
        );
        let blake3 = Digest::of(DigestFunction::Blake3, b"x");
        let hash = blake3.hex();
        assert_eq!(
            resource("", Some("u"), &blake3, false),
            format!("uploads/u/blobs/blake3/{hash}/1")
        );
    }

    #[test]
    fn only_what_gets_smaller_is_packed() {
        let zeros = Bytes::from(vec![0; 100_000]);
        let (data, compressor) = packed(&zeros, true);
        assert!(data.len() < 1000 && compressor == compressor::Value::Zstd as i32);
        assert_eq!(packed(&zeros, false), (zeros, 0));
        let small = Bytes::from(vec![0; 100]);
        assert_eq!(packed(&small, true), (small, 0));
    }
}
