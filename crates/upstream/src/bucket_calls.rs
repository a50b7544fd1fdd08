//! The calls of an object store that move blobs and results: an object each, and a request each.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _};
use model::Digest;
use model::proto::ActionResult;
use object_store::PutPayload;
use object_store::path::Path;
use prost::Message as _;
use store::Cas;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::bucket::Bucket;
use crate::call_error::{CallError, lost};
use crate::link::Link;
use crate::objects::{Found, Objects, Upload};
use crate::pieces::{PIECE_BYTES, PIECES_WAITING, Sink, next_piece, unreadable};

/// Requests of one question or batch at the same time. There are up to eight batches.
const REQUESTS: usize = 16;

/// The largest result that is read.
const RESULT_BYTES_MAX: u64 = 16 << 20;

/// The least bytes of a part: S3 takes no less but for the last. Smaller blobs are one request.
const PART_BYTES: u64 = 5 << 20;

/// The time after which giving up an upload in parts is given up.
const ABORT_TIMEOUT: Duration = Duration::from_secs(10);

/// Parts of one upload: S3 takes 10,000.
const PARTS_MAX: u64 = 9_000;

impl Bucket {
    /// Those of the blobs without an object, or with one that was found to be damaged.
    pub(crate) async fn missing(
        &self,
        link: &Link,
        digests: &[Digest],
    ) -> Result<Vec<Digest>, CallError> {
        let ask = digests.iter().map(|digest| self.is_missing(link, digest).boxed());
        let mut answers = futures_util::stream::iter(ask.collect::<Vec<_>>()).buffered(REQUESTS);
        let mut missing = Vec::new();
        for digest in digests {
            match answers.next().await {
                Some(Ok(true)) => missing.push(*digest),
                Some(Ok(false)) | None => {}
                Some(Err(error)) => return Err(error),
            }
        }
        Ok(missing)
    }

    async fn is_missing(&self, link: &Link, digest: &Digest) -> Result<bool, CallError> {
        if self.is_damaged(digest) {
            return Ok(true);
        }
        let name = self.blob(digest);
        let size = link.call(link.bound(0), || {
            let name = name.clone();
            self.run(|objects| objects.size(name))
        });
        match size.await {
            Ok(size) => Ok(size != digest.size_bytes()),
            // An object that is no file is replaced.
            Err(CallError::Missing | CallError::Damaged) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Stores small blobs, as far as they are there.
    pub(crate) async fn read_batch(
        &self,
        link: &Link,
        digests: &[Digest],
        cas: &Cas,
    ) -> Result<(), CallError> {
        let read = digests.iter().map(|digest| self.read_small(link, digest, cas).boxed());
        let mut answers =
            futures_util::stream::iter(read.collect::<Vec<_>>()).buffer_unordered(REQUESTS);
        let mut first = Ok(());
        while let Some(outcome) = answers.next().await {
            first = first.and(outcome);
        }
        first
    }

    async fn read_small(&self, link: &Link, digest: &Digest, cas: &Cas) -> Result<(), CallError> {
        let bound = link.bound(digest.size_bytes());
        match link.call(bound, || self.read_small_once(digest, cas)).await {
            Ok(()) => {
                link.counters.hits.add(1);
                link.counters.received_bytes.add(digest.size_bytes());
                Ok(())
            }
            Err(CallError::Missing) => Ok(()),
            Err(CallError::Damaged) => {
                link.tell_damaged(digest);
                self.mark_damaged(digest);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    async fn read_small_once(&self, digest: &Digest, cas: &Cas) -> Result<(), CallError> {
        let (name, size) = (self.blob(digest), digest.size_bytes());
        let content = self.run(move |objects| async move {
            let found = objects.get(name).await?;
            if found.size != size {
                return Err(CallError::Damaged);
            }
            found.bytes().await
        });
        let content = content.await?;
        let (cas, digest) = (cas.clone(), *digest);
        let store = move || -> Result<(), CallError> { Ok(cas.put_expected(&digest, &content)?) };
        spawn_blocking(store).await.map_err(lost)?
    }

    /// Stores a blob of any size, in pieces.
    pub(crate) async fn read(
        &self,
        link: &Link,
        digest: &Digest,
        cas: &Cas,
    ) -> Result<(), CallError> {
        let read = link.call(link.bound(digest.size_bytes()), || self.read_once(link, digest, cas));
        let read = read.await;
        if matches!(read, Err(CallError::Damaged)) {
            self.mark_damaged(digest);
        }
        read
    }

    async fn read_once(&self, link: &Link, digest: &Digest, cas: &Cas) -> Result<(), CallError> {
        let (name, size) = (self.blob(digest), digest.size_bytes());
        let (pieces, mut waiting) = mpsc::channel::<Bytes>(PIECES_WAITING);
        let (cas, digest) = (cas.clone(), *digest);
        // Dropped before the end, the channel leaves a blob that is not whole, and nothing is stored.
        let stored = spawn_blocking(move || {
            let mut sink = Sink::open(&cas, &digest, false)?;
            while let Some(piece) = waiting.blocking_recv() {
                sink.write(&piece)?;
            }
            sink.commit()
        });
        let piece_timeout = link.piece_timeout();
        let read = self.run(move |objects| async move {
            let found = timeout(piece_timeout, objects.get(name)).await;
            let found = found.map_err(|_| CallError::TimedOut(piece_timeout))??;
            if found.size != size {
                return Err(CallError::Damaged);
            }
            send(found, &pieces, piece_timeout).await
        });
        read.await?;
        stored.await.map_err(lost)?
    }

    /// Sends small blobs.
    pub(crate) async fn write_batch(
        &self,
        link: &Link,
        blobs: &[(Digest, Bytes)],
    ) -> Result<(), CallError> {
        let write = |(digest, content): &(Digest, Bytes)| {
            let (digest, content) = (*digest, content.clone());
            async move {
                self.put(link, self.blob(&digest), content).await?;
                self.mark_whole(&digest);
                Ok::<(), CallError>(())
            }
            .boxed()
        };
        let writes: Vec<_> = blobs.iter().map(write).collect();
        let mut written = futures_util::stream::iter(writes).buffer_unordered(REQUESTS);
        while let Some(outcome) = written.next().await {
            outcome?;
        }
        Ok(())
    }

    async fn put(&self, link: &Link, name: Path, content: Bytes) -> Result<(), CallError> {
        let put = link.call(link.bound(content.len() as u64), || {
            let (name, content) = (name.clone(), content.clone());
            self.run(|objects| objects.put(name, content.into()))
        });
        put.await
    }

    /// Sends a blob of any size, in parts.
    pub(crate) async fn write(
        &self,
        link: &Link,
        digest: &Digest,
        cas: &Cas,
    ) -> Result<(), CallError> {
        let _turn = self.uploads.acquire().await.map_err(|_| CallError::Down)?;
        let bound = link.bound(digest.size_bytes());
        link.call(bound, || self.write_once(digest, cas)).await?;
        self.mark_whole(digest);
        Ok(())
    }

    async fn write_once(&self, digest: &Digest, cas: &Cas) -> Result<(), CallError> {
        let (pieces, waiting) = mpsc::channel(PIECES_WAITING);
        let (cas, of) = (cas.clone(), *digest);
        let reading = spawn_blocking(move || {
            let Some(mut file) = cas.open(&of)? else { return Err(CallError::Missing) };
            loop {
                let piece = next_piece(&mut file).map_err(unreadable)?;
                if piece.is_empty() || pieces.blocking_send(piece).is_err() {
                    return Ok(());
                }
            }
        });
        let (name, size) = (self.blob(digest), digest.size_bytes());
        let put = self.run(move |objects| put_pieces(objects, name, size, waiting)).await;
        match (reading.await.map_err(lost)?, put) {
            // A piece that could not be read was not sent, and the second error comes of the first.
            (Err(error), _) | (Ok(()), Err(error)) => Err(error),
            (Ok(()), Ok(())) => Ok(()),
        }
    }

    /// The result of an action.
    pub(crate) async fn result(
        &self,
        link: &Link,
        instance: &str,
        action: &Digest,
    ) -> Result<ActionResult, CallError> {
        let name = self.result_object(instance, action);
        let content = link.call(link.bound(0), || {
            let name = name.clone();
            self.run(|objects| async move {
                let found = objects.get(name).await?;
                if found.size > RESULT_BYTES_MAX {
                    return Err(CallError::Damaged);
                }
                found.bytes().await
            })
        });
        let decoded = ActionResult::decode(content.await?);
        let damaged = |_| {
            link.counters.damaged.add(1);
            tracing::warn!(address = %link.place, %action, "the upstream's result of it is not one");
            CallError::Missing
        };
        decoded.map_err(damaged)
    }

    /// Sends the result of an action.
    pub(crate) async fn update_result(
        &self,
        link: &Link,
        instance: &str,
        action: &Digest,
        result: &ActionResult,
    ) -> Result<(), CallError> {
        self.put(link, self.result_object(instance, action), result.encode_to_vec().into()).await
    }
}

/// Sends the content of an object into a channel, as long as somebody takes it.
async fn send(
    mut found: Found,
    pieces: &mpsc::Sender<Bytes>,
    piece_timeout: Duration,
) -> Result<(), CallError> {
    while let Some(piece) = timeout(piece_timeout, found.content.next())
        .await
        .map_err(|_| CallError::TimedOut(piece_timeout))?
    {
        if pieces.send(piece?).await.is_err() {
            // The sink has refused what came before, and says why.
            break;
        }
    }
    Ok(())
}

/// Writes an object of that size from its pieces, and none if they are fewer.
async fn put_pieces(
    objects: Objects,
    name: Path,
    size: u64,
    mut pieces: mpsc::Receiver<Bytes>,
) -> Result<(), CallError> {
    let part_bytes = part_bytes(size);
    if size <= part_bytes {
        let part = next_part(&mut pieces, size).await?;
        return objects.put(name, part).await;
    }
    let mut upload = Unfinished(Some(objects.upload(name).await?));
    let Some(parts) = &mut upload.0 else { return Err(CallError::Down) };
    let mut left = size;
    while left > 0 {
        let part = next_part(&mut pieces, left.min(part_bytes)).await?;
        left -= part.content_length() as u64;
        parts.put_part(part).await?;
    }
    parts.complete().await?;
    upload.0 = None;
    Ok(())
}

/// The bytes of each part but the last, a multiple of those of a piece.
fn part_bytes(size: u64) -> u64 {
    let least = size.div_ceil(PARTS_MAX).max(PART_BYTES);
    least.next_multiple_of(PIECE_BYTES as u64)
}

/// The next pieces with so many bytes together.
async fn next_part(
    pieces: &mut mpsc::Receiver<Bytes>,
    bytes: u64,
) -> Result<PutPayload, CallError> {
    let (mut part, mut left) = (Vec::new(), bytes);
    while left > 0 {
        // The one who reads our blob says why there are no more.
        let piece = pieces.recv().await.ok_or(CallError::Down)?;
        left = left.checked_sub(piece.len() as u64).ok_or(CallError::Down)?;
        part.push(piece);
    }
    Ok(PutPayload::from_iter(part))
}

/// An upload in parts; given up when dropped, so that the service does not keep its parts for ever.
struct Unfinished(Option<Upload>);

impl Drop for Unfinished {
    fn drop(&mut self) {
        let Some(mut upload) = self.0.take() else { return };
        // Without a runtime the daemon ends.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                // It was tried. A rule of the bucket is to delete what is left.
                let _ = timeout(ABORT_TIMEOUT, upload.abort()).await;
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_not_too_many_and_not_too_small() {
        for size in [PART_BYTES + 1, 1 << 30, 50 << 30, 1 << 42] {
            let part = part_bytes(size);
            assert!(part >= PART_BYTES && part.is_multiple_of(PIECE_BYTES as u64), "{size}");
            assert!(size.div_ceil(part) <= 10_000, "{size}");
        }
        assert_eq!(part_bytes(1 << 30), PART_BYTES);
    }
}
