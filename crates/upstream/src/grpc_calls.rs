//! The calls of a server of the Remote Execution API that move blobs and results.

use std::io;
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
use store::Cas;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tonic::Status;
use tonic::transport::Channel;

use crate::abilities::Abilities;
use crate::call_error::{CallError, lost};
use crate::grpc::Grpc;
use crate::link::Link;
use crate::pieces::{PIECES_WAITING, Sink, next_piece, unreadable};

/// Digests in one `FindMissingBlobs`: 150 KB, far below what any server takes, and few round trips for a large
/// tree.
const DIGESTS_MAX: usize = 2_000;

/// Such calls at the same time.
const QUESTIONS: usize = 4;

/// The largest answer: a batch, with what a server may add to it. It bounds what a server can make us hold.
const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// Compression level of uploads: the fastest.
const ZSTD_LEVEL: i32 = 1;

/// Smaller blobs are not worth compressing.
const COMPRESSED_BYTES_MIN: u64 = 4 << 10;

impl Grpc {
    fn blobs(&self) -> ContentAddressableStorageClient<Channel> {
        ContentAddressableStorageClient::new(self.channel())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Those of the blobs, all of one function, that are not upstream. Asking keeps the others there for longer.
    pub(crate) async fn missing(
        &self,
        link: &Link,
        digests: &[Digest],
        caller: &Bytes,
    ) -> Result<Vec<Digest>, CallError> {
        let Some(function) = digests.first().map(Digest::function) else { return Ok(Vec::new()) };
        let questions = digests.chunks(DIGESTS_MAX);
        let questions =
            questions.map(|chunk| self.missing_of(link, chunk, function, caller).boxed());
        let answers =
            futures_util::stream::iter(questions.collect::<Vec<_>>()).buffer_unordered(QUESTIONS);
        let missing: Vec<Vec<Digest>> = answers.try_collect().await?;
        Ok(missing.concat())
    }

    async fn missing_of(
        &self,
        link: &Link,
        digests: &[Digest],
        function: DigestFunction,
        caller: &Bytes,
    ) -> Result<Vec<Digest>, CallError> {
        let bound = link.bound(0);
        let answer = link.call(bound, || async {
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
        link: &Link,
        digests: &[Digest],
        abilities: &Abilities,
        cas: &Cas,
        caller: &Bytes,
    ) -> Result<(), CallError> {
        let Some(function) = digests.first().map(Digest::function) else { return Ok(()) };
        let bound = link.bound(digests.iter().map(Digest::size_bytes).sum());
        let zstd = abilities.has_zstd.then_some(compressor::Value::Zstd as i32);
        let answer = link.call(bound, || async {
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
        link.counters.hits.add(received.blobs);
        link.counters.received_bytes.add(received.bytes);
        link.counters.damaged.add(received.damaged.len() as u64);
        for digest in received.damaged {
            link.tell_damaged(&digest);
        }
        received.error.map_or(Ok(()), Err)
    }

    /// Stores a blob of any size, in pieces.
    pub(crate) async fn read(
        &self,
        link: &Link,
        digest: &Digest,
        abilities: &Abilities,
        cas: &Cas,
        caller: &Bytes,
    ) -> Result<(), CallError> {
        let bound = link.bound(digest.size_bytes());
        let is_packed = abilities.has_zstd && digest.size_bytes() >= COMPRESSED_BYTES_MIN;
        link.call(bound, || self.read_once(link, digest, is_packed, cas, caller, bound)).await
    }

    async fn read_once(
        &self,
        link: &Link,
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
        let piece_timeout = link.piece_timeout();
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
        link: &Link,
        blobs: &[(Digest, Bytes)],
        abilities: &Abilities,
        caller: &Bytes,
    ) -> Result<(), CallError> {
        let Some(function) = blobs.first().map(|(digest, _)| digest.function()) else {
            return Ok(());
        };
        let bound = link.bound(blobs.iter().map(|(digest, _)| digest.size_bytes()).sum());
        let request = |(digest, data): &(Digest, Bytes)| {
            let (data, compressor) = packed(data, abilities.has_batch_zstd);
            batch_update_blobs_request::Request {
                digest: Some(digest.to_proto()),
                data,
                compressor,
            }
        };
        let requests: Vec<_> = blobs.iter().map(request).collect();
        let answer = link.call(bound, || async {
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
        answer.await
    }

    /// Sends a blob of any size, in pieces.
    pub(crate) async fn write(
        &self,
        link: &Link,
        digest: &Digest,
        abilities: &Abilities,
        cas: &Cas,
        caller: &Bytes,
    ) -> Result<(), CallError> {
        let bound = link.bound(digest.size_bytes());
        let is_packed = abilities.has_zstd && digest.size_bytes() >= COMPRESSED_BYTES_MIN;
        link.call(bound, || self.write_once(digest, is_packed, cas, caller, bound)).await
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
        link: &Link,
        instance: &str,
        action: &Digest,
        caller: &Bytes,
    ) -> Result<ActionResult, CallError> {
        let bound = link.bound(0);
        let answer = link.call(bound, || async {
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
        link: &Link,
        instance: &str,
        action: &Digest,
        result: &ActionResult,
        caller: &Bytes,
    ) -> Result<(), CallError> {
        let bound = link.bound(0);
        let answer = link.call(bound, || async {
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
    let mut piece = next_piece(&mut source).map_err(unreadable)?;
    loop {
        let next = next_piece(&mut source).map_err(unreadable)?;
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
