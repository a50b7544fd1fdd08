//! Objects of a directory or of a service, in the same words.
//!
//! All of it is to be called on the threads of an object store, which a file system may make hang.

use std::fs::File;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt as _, PutPayload};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio_stream::wrappers::ReceiverStream;

use crate::call_error::{CallError, lost};
use crate::directory::{Directory, Staged};
use crate::object_error::{call_error, failed, written};
use crate::pieces::{PIECES_WAITING, next_piece};

/// Objects of one kind or the other.
#[derive(Clone)]
pub(crate) enum Objects {
    /// Those of a directory.
    Files(Arc<Directory>),
    /// Those of a service.
    Service(Arc<dyn ObjectStore>),
}

/// An object that was found.
pub(crate) struct Found {
    /// The size in bytes that the object has by its metadata.
    pub(crate) size: u64,
    /// The content, which may have another size.
    pub(crate) content: BoxStream<'static, Result<Bytes, CallError>>,
}

/// An upload in parts, one after the other.
pub(crate) enum Upload {
    /// To a file; `None` once a write has failed.
    File(Option<Staged>),
    /// To a service.
    Parts(Box<dyn MultipartUpload>),
}

impl Objects {
    /// Asks whether the directory or the bucket is there; `root` is the beginning of the names of objects.
    pub(crate) async fn probe(self, root: Path) -> Result<(), CallError> {
        match self {
            Self::Files(directory) => on_thread(move || directory.is_there()).await,
            Self::Service(store) => match store.list(Some(&root)).try_next().await {
                Ok(_) => Ok(()),
                Err(object_store::Error::NotFound { .. }) => Err(failed("there is no such bucket")),
                Err(error) => Err(call_error(&error)),
            },
        }
    }

    /// The size of an object in bytes.
    pub(crate) async fn size(self, name: Path) -> Result<u64, CallError> {
        match self {
            Self::Files(directory) => on_thread(move || directory.size(name.as_ref())).await,
            Self::Service(store) => {
                Ok(store.head(&name).await.map_err(|error| call_error(&error))?.size)
            }
        }
    }

    /// An object to read.
    pub(crate) async fn get(self, name: Path) -> Result<Found, CallError> {
        match self {
            Self::Files(directory) => {
                let (file, size) = on_thread(move || directory.read(name.as_ref())).await?;
                Ok(Found { size, content: read_file(file) })
            }
            Self::Service(store) => {
                let found = store.get(&name).await.map_err(|error| call_error(&error))?;
                let size = found.meta.size;
                let content = found.into_stream().map_err(|error| call_error(&error)).boxed();
                Ok(Found { size, content })
            }
        }
    }

    /// Writes an object that is one part.
    pub(crate) async fn put(self, name: Path, content: PutPayload) -> Result<(), CallError> {
        match self {
            Self::Files(directory) => {
                on_thread(move || {
                    let mut staged = directory.create(name.as_ref())?;
                    staged.write(content.as_ref())?;
                    staged.publish()
                })
                .await
            }
            Self::Service(store) => {
                store.put(&name, content).await.map(drop).map_err(|error| written(&error))
            }
        }
    }

    /// Begins an upload in parts.
    pub(crate) async fn upload(self, name: Path) -> Result<Upload, CallError> {
        match self {
            Self::Files(directory) => {
                let staged = on_thread(move || directory.create(name.as_ref())).await?;
                Ok(Upload::File(Some(staged)))
            }
            Self::Service(store) => {
                let upload = store.put_multipart(&name).await.map_err(|error| written(&error))?;
                Ok(Upload::Parts(upload))
            }
        }
    }
}

impl Found {
    /// The whole content, which the caller has found to be small by its size.
    ///
    /// # Errors
    /// [`CallError::Damaged`] if it has more bytes than the size says.
    pub(crate) async fn bytes(mut self) -> Result<Bytes, CallError> {
        let mut content = Vec::new();
        while let Some(piece) = self.content.try_next().await? {
            if (content.len() + piece.len()) as u64 > self.size {
                return Err(CallError::Damaged);
            }
            content.extend_from_slice(&piece);
        }
        Ok(content.into())
    }
}

impl Upload {
    /// Writes the next part.
    pub(crate) async fn put_part(&mut self, part: PutPayload) -> Result<(), CallError> {
        match self {
            Self::File(file) => {
                // A thread that hangs keeps it, and deletes it when it goes on.
                let mut staged = file.take().ok_or(CallError::Down)?;
                let write = move || staged.write(part.as_ref()).map(|()| staged);
                *file = Some(on_thread(write).await?);
                Ok(())
            }
            Self::Parts(upload) => upload.put_part(part).await.map_err(|error| written(&error)),
        }
    }

    /// Makes the parts an object.
    pub(crate) async fn complete(&mut self) -> Result<(), CallError> {
        match self {
            Self::File(file) => {
                let staged = file.take().ok_or(CallError::Down)?;
                on_thread(move || staged.publish()).await
            }
            Self::Parts(upload) => {
                upload.complete().await.map(drop).map_err(|error| written(&error))
            }
        }
    }

    /// Deletes the parts.
    pub(crate) async fn abort(&mut self) -> Result<(), CallError> {
        match self {
            Self::File(file) => {
                let staged = file.take();
                on_thread(move || {
                    drop(staged);
                    Ok(())
                })
                .await
            }
            Self::Parts(upload) => upload.abort().await.map_err(|error| call_error(&error)),
        }
    }
}

/// Work that a file system may make hang.
async fn on_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, CallError> + Send + 'static,
) -> Result<T, CallError> {
    spawn_blocking(work).await.map_err(lost)?
}

/// The content of a file, read by a thread that may hang.
fn read_file(mut file: File) -> BoxStream<'static, Result<Bytes, CallError>> {
    let (pieces, waiting) = mpsc::channel(PIECES_WAITING);
    spawn_blocking(move || {
        loop {
            // The file is the upstream's, and so is an error of it.
            let piece = next_piece(&mut file).map_err(|error| failed(&error.to_string()));
            if piece.as_ref().is_ok_and(Bytes::is_empty) {
                return;
            }
            let is_last = piece.is_err();
            let is_taken = pieces.blocking_send(piece).is_ok();
            if is_last || !is_taken {
                return;
            }
        }
    });
    ReceiverStream::new(waiting).boxed()
}
