//! `ByteStream.Write`.

use std::io::{self, Write as _};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use model::DigestFunctions;
use proto::google::bytestream::WriteResponse;
use store::{BlobWriter, Store};
use tokio::task::{JoinHandle, spawn_blocking};
use tonic::{Response, Status};

use super::piece::piece_bytes;
use super::progress::{Progress, WriteRefused};
use super::upload_messages::UploadMessages;
use crate::memory::ConnectionQuota;
use crate::resource_name::{self, Compression, Resource};
use crate::{blocking, status};

/// Messages in one piece at most: a client may send single bytes, and each
/// message costs a descriptor of 32 bytes.
const PIECE_MESSAGES: usize = 1024;

/// The largest window of compressed uploads, as a power of two in bytes: the 8 MiB
/// that RFC 8878 (3.1.1.1.2) wants of every decoder. By default one message could
/// make the server allocate 128 MiB.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// The time for which the rest of an upload that was answered early is read off the wire.
const LINGER: Duration = Duration::from_secs(10);

/// Answers an upload.
pub(super) async fn write(
    store: Arc<Store>,
    quota: Arc<ConnectionQuota>,
    offered: DigestFunctions,
    mut messages: UploadMessages,
) -> Result<Response<WriteResponse>, Status> {
    let outcome = receive(store, &quota, &offered, &mut messages).await;
    linger(messages);
    outcome.map(|committed_size| Response::new(WriteResponse { committed_size }))
}

/// The answer when the blob exists: its size, or the -1 that REAPI
/// wants for a compressed upload whose length was never known.
fn committed_size(resource: &Resource) -> i64 {
    match resource.compression {
        Compression::Identity => resource.digest.size_bytes() as i64,
        Compression::Zstd => -1,
    }
}

/// The most memory that an upload holds: one piece that is taken in, one that
/// goes to the disk, and what unpacking needs.
fn held_bytes(resource: &Resource, piece_bytes: usize) -> u64 {
    let size_bytes = resource.digest.size_bytes();
    let pieces_bytes = 2 * piece_bytes as u64;
    match resource.compression {
        Compression::Identity => size_bytes.min(pieces_bytes),
        Compression::Zstd => pieces_bytes + size_bytes.min(1 << ZSTD_WINDOW_LOG_MAX),
    }
}

async fn receive(
    store: Arc<Store>,
    quota: &Arc<ConnectionQuota>,
    offered: &DigestFunctions,
    messages: &mut UploadMessages,
) -> Result<i64, Status> {
    let mut message = messages.message().await?.ok_or(WriteRefused::Empty)?;
    let resource = resource_name::parse_write(&message.resource_name, offered)?;
    if blocking::presence(&store, || store.cas().contains(&resource.digest)) {
        blocking::make_durable(&store).await?;
        return Ok(committed_size(&resource));
    }
    let piece_bytes = piece_bytes(quota);
    let _held = quota.reserve(held_bytes(&resource, piece_bytes))?;
    let name = std::mem::take(&mut message.resource_name);
    let mut progress = Progress::new(name, &resource);
    let mut upload = Upload::new(Arc::clone(&store), resource, piece_bytes);
    let mut sent_bytes = 0;
    loop {
        progress.accept(&message)?;
        sent_bytes += message.data.len() as i64;
        upload = upload.push(message.data).await?;
        if progress.finished() {
            break;
        }
        // The client may end its stream early, and is told that nothing is kept of it.
        let Some(next) = messages.message().await? else { return Ok(0) };
        message = next;
    }
    refuse_surplus(&mut progress, messages)?;
    upload.commit().await?;
    blocking::make_durable(&store).await?;
    Ok(sent_bytes)
}

/// Refuses messages behind the last one, as far as they are here already.
fn refuse_surplus(progress: &mut Progress, messages: &mut UploadMessages) -> Result<(), Status> {
    match messages.message().now_or_never().transpose()?.flatten() {
        Some(message) => Ok(progress.accept(&message)?),
        None => Ok(()),
    }
}

/// Takes what the client still sends off the wire.
///
/// Dropping a stream that is still being written resets it, and a connection on
/// which too many reset streams receive data is closed: the early answers for
/// blobs that are here would bring down a client with many uploads. The client
/// stops by itself when it sees the answer.
fn linger(messages: UploadMessages) {
    tokio::spawn(async move {
        // A client that does not stop in time is reset after all.
        let _ = tokio::time::timeout(LINGER, messages.discard()).await;
    });
}

/// A blob on its way into the store. Dropped before [`Upload::commit`], it
/// leaves no trace.
struct Upload {
    piece_bytes: usize,
    waiting: Piece,
    sink: Place,
}

/// Data that waits for the disk.
#[derive(Default)]
struct Piece {
    data: Vec<Bytes>,
    bytes: usize,
}

/// The place of the sink.
enum Place {
    Here(Box<Sink>),
    AtWork(JoinHandle<Result<Box<Sink>, Status>>),
}

impl Upload {
    fn new(store: Arc<Store>, resource: Resource, piece_bytes: usize) -> Self {
        let sink = Sink { store, resource, form: None };
        Self { piece_bytes, waiting: Piece::default(), sink: Place::Here(Box::new(sink)) }
    }

    /// Takes `data`; waits only when the disk is a whole piece behind.
    async fn push(self, data: Bytes) -> Result<Self, Status> {
        let Self { piece_bytes, mut waiting, sink } = self;
        if !data.is_empty() {
            waiting.bytes += data.len();
            waiting.data.push(data);
        }
        if waiting.bytes < piece_bytes && waiting.data.len() < PIECE_MESSAGES {
            return Ok(Self { piece_bytes, waiting, sink });
        }
        let mut sink = sink.settle().await?;
        let work = spawn_blocking(move || sink.write(&waiting).map(|()| sink));
        Ok(Self { piece_bytes, waiting: Piece::default(), sink: Place::AtWork(work) })
    }

    /// Verifies the blob and makes it visible.
    async fn commit(self) -> Result<(), Status> {
        let mut sink = self.sink.settle().await?;
        blocking::run(move || {
            sink.write(&self.waiting)?;
            sink.commit()
        })
        .await
    }
}

impl Place {
    async fn settle(self) -> Result<Box<Sink>, Status> {
        match self {
            Self::Here(sink) => Ok(sink),
            Self::AtWork(work) => work.await.unwrap_or_else(|error| Err(status::lost(&error))),
        }
    }
}

/// The way into the store. It is opened by the first write: a small blob then
/// takes one visit to the disk in all.
struct Sink {
    store: Arc<Store>,
    resource: Resource,
    form: Option<Form>,
}

enum Form {
    Identity(Box<BlobWriter>),
    Zstd(Box<zstd::stream::write::Decoder<'static, Bounded>>),
}

impl Sink {
    fn write(&mut self, piece: &Piece) -> Result<(), Status> {
        let form = match &mut self.form {
            Some(form) => form,
            unopened => unopened.insert(Form::open(&self.store, &self.resource)?),
        };
        form.write(&piece.data)
    }

    /// There is a form: every upload writes before it commits.
    fn commit(self) -> Result<(), Status> {
        match self.form {
            Some(form) => form.commit(),
            None => Ok(()),
        }
    }
}

impl Form {
    fn open(store: &Store, resource: &Resource) -> Result<Self, Status> {
        let digest = resource.digest;
        let writer = store.cas().writer(digest.function(), Some(digest));
        Ok(match resource.compression {
            Compression::Identity => Self::Identity(Box::new(writer)),
            Compression::Zstd => {
                let bounded = Bounded { writer, remaining: digest.size_bytes() };
                let decoder = zstd::stream::write::Decoder::new(bounded);
                let mut decoder = decoder.map_err(status::unpacking)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(status::unpacking)?;
                Self::Zstd(Box::new(decoder))
            }
        })
    }

    fn write(&mut self, data: &[Bytes]) -> Result<(), Status> {
        match self {
            Self::Identity(writer) => writer.write_pieces(data).map_err(status::store),
            Self::Zstd(decoder) => {
                data.iter().try_for_each(|data| decoder.write_all(data)).map_err(status::unpacking)
            }
        }
    }

    fn commit(self) -> Result<(), Status> {
        let writer = match self {
            Self::Identity(writer) => *writer,
            Self::Zstd(mut decoder) => {
                decoder.flush().map_err(status::unpacking)?;
                decoder.into_inner().writer
            }
        };
        writer.commit().map(|_| ()).map_err(status::store)
    }
}

/// Writes these pieces of a Zstandard stream as the blob `digest`; returns whether it was stored.
#[cfg(feature = "fuzzing")]
pub(super) fn upload_compressed(store: &Store, digest: model::Digest, pieces: &[Bytes]) -> bool {
    let resource = Resource { digest, compression: Compression::Zstd };
    let upload = || {
        let mut form = Form::open(store, &resource)?;
        form.write(pieces)?;
        form.commit()
    };
    upload().is_ok()
}

/// Ends a decompression that goes beyond the size of the resource name: a few
/// bytes can stand for terabytes.
struct Bounded {
    writer: BlobWriter,
    remaining: u64,
}

impl io::Write for Bounded {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let left = self.remaining.checked_sub(data.len() as u64);
        self.remaining = left.ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "more data than the resource name says")
        })?;
        self.writer.write(data).map_err(io::Error::other)?;
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
