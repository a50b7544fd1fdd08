//! `ByteStream.Write`.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use proto::google::bytestream::WriteResponse;
use store::{BlobWriter, Store};
use tokio::runtime::Handle;
use tokio::task::{JoinHandle, spawn_blocking};
use tonic::{Response, Status};

use super::partial::{Key, PartialUploads, Resumed};
use super::piece::piece_bytes;
use super::progress::{Progress, WriteRefused};
use super::upload_messages::UploadMessages;
use crate::compression::{self, Bounded, Compression, Unpacker};
#[cfg(feature = "fuzzing")]
use crate::memory::Budget;
use crate::memory::{ConnectionQuota, Reservation};
use crate::offer::Offer;
use crate::resource_name::{self, Resource};
use crate::{blocking, status};

/// Messages in one piece at most: a client may send single bytes, and each
/// message costs a descriptor of 32 bytes.
const PIECE_MESSAGES: usize = 1024;

/// The time for which the rest of an upload that was answered early is read off the wire.
const LINGER: Duration = Duration::from_secs(10);

/// The parts of the server that an upload needs.
pub(super) struct Uploads {
    pub(super) store: Arc<Store>,
    pub(super) quota: Arc<ConnectionQuota>,
    pub(super) offer: Offer,
    /// The uploads that broke off.
    pub(super) partial: Arc<PartialUploads>,
    /// The caller.
    pub(super) principal: String,
}

/// Answers an upload.
pub(super) async fn write(
    uploads: Uploads,
    mut messages: UploadMessages,
) -> Result<Response<WriteResponse>, Status> {
    let outcome = uploads.receive(&mut messages).await;
    linger(messages);
    outcome.map(|committed_size| Response::new(WriteResponse { committed_size }))
}

/// The answer when the blob exists: its size, or the -1 that REAPI
/// wants for a compressed upload whose length was never known.
fn committed_size(resource: &Resource) -> i64 {
    match resource.compression {
        Compression::Identity => resource.digest.size_bytes() as i64,
        Compression::Zstd | Compression::Deflate | Compression::Brotli => -1,
    }
}

/// The most memory that an upload holds, one piece that is taken in and one that goes to the disk. The memory for
/// unpacking is reserved when its size is known.
fn held_bytes(resource: &Resource, piece_bytes: usize) -> u64 {
    let size_bytes = resource.digest.size_bytes();
    let pieces_bytes = 2 * piece_bytes as u64;
    match resource.compression {
        Compression::Identity => size_bytes.min(pieces_bytes),
        Compression::Zstd | Compression::Deflate | Compression::Brotli => pieces_bytes,
    }
}

impl Uploads {
    async fn receive(self, messages: &mut UploadMessages) -> Result<i64, Status> {
        let mut message = messages.message().await?.ok_or(WriteRefused::Empty)?;
        let resource = resource_name::parse_write(&message.resource_name, &self.offer)?;
        if blocking::presence(&self.store, || self.store.cas().contains(&resource.digest)) {
            blocking::make_durable(&self.store).await?;
            return Ok(committed_size(&resource));
        }
        let piece_bytes = piece_bytes(&self.quota);
        let held = self.quota.reserve(held_bytes(&resource, piece_bytes))?;
        let name = std::mem::take(&mut message.resource_name);
        let key = Key { principal: self.principal.clone(), name: name.clone() };
        let begun = self.begun(&key, message.write_offset).await?;
        let mut progress =
            Progress::from(name, &resource, begun.as_ref().map_or(0, BlobWriter::written));
        let mut sent_bytes = message.write_offset;
        let sink =
            Sink { store: Arc::clone(&self.store), resource, begun, quota: self.quota, form: None };
        let mut upload = Upload {
            piece_bytes,
            waiting: Piece::default(),
            sink: Place::Here(Box::new(sink)),
            keep: Some(Keep { partial: self.partial, key, _held: held }),
        };
        loop {
            if let Err(refused) = progress.accept(&message) {
                upload.abandon();
                return Err(refused.into());
            }
            sent_bytes += message.data.len() as i64;
            let at_disk = upload.push(message.data).await?;
            if progress.finished() {
                break;
            }
            if at_disk && self.store.cas().contains(&resource.digest) {
                // Another client was faster.
                upload.abandon();
                blocking::make_durable(&self.store).await?;
                return Ok(committed_size(&resource));
            }
            message = match messages.message().await {
                Ok(Some(next)) => next,
                // The client may end its stream early. It is told how much of the blob is here.
                Ok(None) => return upload.park().await,
                Err(broken) => {
                    upload.park().await?;
                    return Err(broken);
                }
            };
        }
        if let Err(refused) = refuse_surplus(&mut progress, messages) {
            upload.abandon();
            return Err(refused);
        }
        upload.commit().await?;
        blocking::make_durable(&self.store).await?;
        Ok(sent_bytes)
    }

    /// The upload of that name that broke off, if the client goes on with it; one that it starts anew is forgotten.
    async fn begun(&self, key: &Key, offset: i64) -> Result<Option<BlobWriter>, WriteRefused> {
        if offset == 0 {
            if let Some(old) = self.partial.forget(key) {
                // Another thread, for dropping it deletes a file; nobody needs to know when.
                drop(spawn_blocking(move || drop(old)));
            }
            return Ok(None);
        }
        let start = u64::try_from(offset).map_err(|_| WriteRefused::Start(offset))?;
        match self.partial.resume(key, start) {
            Resumed::Here(writer) => Ok(Some(writer)),
            Resumed::Elsewhere(committed) => Err(WriteRefused::Resume { found: offset, committed }),
            Resumed::Unknown => Err(WriteRefused::Start(offset)),
        }
    }
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

/// A blob on its way into the store. Dropped before [`Upload::commit`], as when the client's connection
/// breaks, it is kept for when the client comes back.
struct Upload {
    piece_bytes: usize,
    waiting: Piece,
    sink: Place,
    /// There until it is decided what becomes of the upload.
    keep: Option<Keep>,
}

/// The place where an upload that breaks off is kept.
struct Keep {
    partial: Arc<PartialUploads>,
    key: Key,
    _held: Reservation,
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
    /// It failed, or became something else.
    Gone,
}

impl Upload {
    /// Takes `data`; waits only when the disk is a whole piece behind. Returns whether a piece went to the disk. An
    /// upload that is dropped while this waits is whole.
    async fn push(&mut self, data: Bytes) -> Result<bool, Status> {
        if !data.is_empty() {
            self.waiting.bytes += data.len();
            self.waiting.data.push(data);
        }
        if self.waiting.bytes < self.piece_bytes && self.waiting.data.len() < PIECE_MESSAGES {
            return Ok(false);
        }
        let mut sink = self.sink.settle().await?;
        let piece = std::mem::take(&mut self.waiting);
        let work = spawn_blocking(move || sink.write(&piece).map(|()| sink));
        self.sink = Place::AtWork(work);
        Ok(true)
    }

    /// Verifies the blob and makes it visible.
    async fn commit(mut self) -> Result<(), Status> {
        let _held = self.keep.take();
        let mut sink = self.sink.settle().await?;
        let last = std::mem::take(&mut self.waiting);
        blocking::run(move || {
            sink.write(&last)?;
            sink.commit()
        })
        .await
    }

    /// Keeps the upload, and returns how much of the blob is here.
    async fn park(mut self) -> Result<i64, Status> {
        let Some(keep) = self.keep.take() else { return Ok(0) };
        // A task, for this call may end while it waits: its connection broke.
        let parked = park(self.take_sink(), std::mem::take(&mut self.waiting), keep);
        tokio::spawn(parked).await.unwrap_or_else(|error| Err(status::lost(&error)))
    }

    /// Leaves no trace of the upload.
    fn abandon(mut self) {
        self.keep = None;
    }

    fn take_sink(&mut self) -> Place {
        std::mem::replace(&mut self.sink, Place::Gone)
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let Some(keep) = self.keep.take() else { return };
        let (sink, waiting) = (self.take_sink(), std::mem::take(&mut self.waiting));
        if let (false, Ok(runtime)) = (matches!(sink, Place::Gone), Handle::try_current()) {
            // Its client has left: nobody is told of an error.
            runtime.spawn(async move { park(sink, waiting, keep).await.ok() });
        }
    }
}

async fn park(mut sink: Place, waiting: Piece, keep: Keep) -> Result<i64, Status> {
    let mut sink = sink.settle().await?;
    blocking::run(move || {
        sink.write(&waiting)?;
        let Some(writer) = sink.into_writer() else { return Ok(0) };
        let committed_bytes = writer.written();
        if committed_bytes > 0 {
            keep.partial.keep(keep.key, writer, committed_bytes);
        }
        Ok(committed_bytes as i64)
    })
    .await
}

impl Place {
    /// Takes the sink when it is here. Dropped while it waits, it changes nothing.
    async fn settle(&mut self) -> Result<Box<Sink>, Status> {
        let at_work = match self {
            Self::AtWork(work) => Some(work.await),
            Self::Here(_) | Self::Gone => None,
        };
        match (std::mem::replace(self, Self::Gone), at_work) {
            (_, Some(ended)) => ended.unwrap_or_else(|error| Err(status::lost(&error))),
            (Self::Here(sink), None) => Ok(sink),
            (_, None) => Err(Status::internal("an upload went on after it had failed")),
        }
    }
}

/// The way into the store. It is opened by the first write: a small blob then
/// takes one visit to the disk in all.
struct Sink {
    store: Arc<Store>,
    resource: Resource,
    /// The part that is here from an earlier stream.
    begun: Option<BlobWriter>,
    /// For the memory of an unpacker.
    quota: Arc<ConnectionQuota>,
    form: Option<Form>,
}

enum Form {
    Identity(Box<BlobWriter>),
    Packed(Box<Unpacker<Bounded<IntoStore>>>),
}

/// A blob of the store as a sink. An error of the store is inside of the error.
struct IntoStore(BlobWriter);

impl io::Write for IntoStore {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.0.write(data).map_err(io::Error::other)?;
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink {
    fn write(&mut self, piece: &Piece) -> Result<(), Status> {
        let form = match &mut self.form {
            Some(form) => form,
            unopened => {
                let begun = self.begun.take();
                let start = piece.data.first().map_or(&[][..], |first| first);
                let form = Form::open(&self.store, &self.resource, begun, start, &self.quota)?;
                unopened.insert(form)
            }
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

    /// The part of the blob that is here. Of a compressed one this is what could be unpacked: its client goes on
    /// with another stream, of the rest.
    fn into_writer(self) -> Option<BlobWriter> {
        match self.form? {
            Form::Identity(writer) => Some(*writer),
            Form::Packed(unpacker) => Some(unpacker.into_inner().ok()?.into_inner().0),
        }
    }
}

impl Form {
    /// Opens the form of a resource whose data begins with `start`.
    fn open(
        store: &Store,
        resource: &Resource,
        begun: Option<BlobWriter>,
        start: &[u8],
        quota: &Arc<ConnectionQuota>,
    ) -> Result<Self, Status> {
        let digest = resource.digest;
        let writer = begun.unwrap_or_else(|| store.cas().writer(digest.function(), Some(digest)));
        Ok(match resource.compression {
            Compression::Identity => Self::Identity(Box::new(writer)),
            packed => {
                let remaining = digest.size_bytes().saturating_sub(writer.written());
                let sink = Bounded::new(IntoStore(writer), remaining);
                let memory = quota.reservation();
                let size_bytes = digest.size_bytes();
                let unpacker = Unpacker::open(packed, start, size_bytes, memory, sink)?;
                Self::Packed(Box::new(unpacker))
            }
        })
    }

    fn write(&mut self, data: &[Bytes]) -> Result<(), Status> {
        match self {
            Self::Identity(writer) => writer.write_pieces(data).map_err(status::store),
            Self::Packed(unpacker) => {
                data.iter().try_for_each(|data| unpacker.write(data)).map_err(compression::failed)
            }
        }
    }

    fn commit(self) -> Result<(), Status> {
        let writer = match self {
            Self::Identity(writer) => *writer,
            Self::Packed(unpacker) => {
                unpacker.finish().map_err(compression::failed)?.into_inner().0
            }
        };
        writer.commit().map(|_| ()).map_err(status::store)
    }
}

/// Writes these pieces of a compressed stream as the blob of `resource`; returns whether it was stored.
#[cfg(feature = "fuzzing")]
pub(super) fn upload_compressed(store: &Store, resource: Resource, pieces: &[Bytes]) -> bool {
    let quota = Budget::of_this_machine().quota();
    let start = pieces.first().map_or(&[][..], |first| first);
    let upload = || {
        let mut form = Form::open(store, &resource, None, start, &quota)?;
        form.write(pieces)?;
        form.commit()
    };
    upload().is_ok()
}
