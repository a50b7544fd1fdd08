//! `ByteStream.Read`.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use proto::google::bytestream::ReadRequest;
use store::Store;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio_stream::Stream;
use tonic::{Code, Status};

use super::piece::piece_bytes;
use crate::compression::{Compression, packing, packing_bytes};
use crate::grpc::{Chunk, Chunks};
use crate::memory::{ConnectionQuota, Reservation};
use crate::offer::Offer;
use crate::resource_name::{self, Resource};
use crate::{below, blocking, status};

/// The one field of `google.bytestream.ReadResponse`.
const READ_RESPONSE_DATA: u32 = 10;

/// An error of a read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReadRefused {
    /// The offset is negative or beyond the end.
    #[error("offset {offset} is not within the blob's {size_bytes} bytes")]
    Offset {
        /// The offset asked for.
        offset: i64,
        /// The blob's size.
        size_bytes: u64,
    },
    /// The limit is negative, or there is one for a compressed read.
    #[error("read_limit {0} is not possible here")]
    Limit(i64),
}

impl From<ReadRefused> for Status {
    fn from(error: ReadRefused) -> Self {
        let code = match error {
            ReadRefused::Offset { .. } => Code::OutOfRange,
            ReadRefused::Limit(_) => Code::InvalidArgument,
        };
        status::of(code, &error)
    }
}

/// The status of a blob that could be opened, but not read to its end.
fn read_failed(error: io::Error) -> Status {
    status::of_act(Code::Internal, "reading a blob failed", &error)
}

/// Answers a read: the first piece comes with the opening of the blob, so that
/// small blobs take one visit to the disk.
pub(super) async fn read(
    store: Arc<Store>,
    quota: Arc<ConnectionQuota>,
    offer: Offer,
    caller: Bytes,
    request: ReadRequest,
) -> Result<Chunks<impl Stream<Item = Result<Chunk, Status>> + Send>, Status> {
    let resource = resource_name::parse_read(&request.resource_name, &offer)?;
    let range = range(&resource, &request)?;
    below::fetch(&store, &quota.reservation(), [resource.digest], caller).await?;
    let piece_bytes = piece_bytes(&quota);
    let ahead = quota.reserve_when_free(ahead_bytes(&resource, piece_bytes)).await?;
    let first = blocking::run(move || {
        let file = store.cas().open(&resource.digest).map_err(status::store)?;
        let file = file.ok_or_else(|| status::blob_not_found(&resource.digest))?;
        let source = Source::open(file, &resource, range, piece_bytes, ahead);
        let mut source = source.map_err(read_failed)?;
        let piece = source.next_piece().map_err(read_failed)?;
        Ok((source, piece))
    })
    .await?;
    let is_packed = resource.compression != Compression::Identity;
    Ok(Chunks { stream: pieces(first), is_packed })
}

/// The memory of a download beside HTTP/2's own: the piece that goes out next,
/// one that is read ahead, and what packing needs.
fn ahead_bytes(resource: &Resource, piece_bytes: usize) -> u64 {
    let pieces_bytes = 2 * piece_bytes as u64;
    match resource.compression {
        Compression::Identity => resource.digest.size_bytes().min(pieces_bytes),
        packed => pieces_bytes + packing_bytes(packed),
    }
}

/// The part of the blob that is asked for, in uncompressed bytes.
fn range(resource: &Resource, request: &ReadRequest) -> Result<Range<u64>, ReadRefused> {
    let size_bytes = resource.digest.size_bytes();
    let out_of_range = ReadRefused::Offset { offset: request.read_offset, size_bytes };
    let start = u64::try_from(request.read_offset).map_err(|_| out_of_range.clone())?;
    if start > size_bytes {
        return Err(out_of_range);
    }
    let limit = u64::try_from(request.read_limit);
    let limit = limit.map_err(|_| ReadRefused::Limit(request.read_limit))?;
    match (limit, resource.compression) {
        (0, _) => Ok(start..size_bytes),
        (_, Compression::Identity) => Ok(start..size_bytes.min(start.saturating_add(limit))),
        _ => Err(ReadRefused::Limit(request.read_limit)),
    }
}

/// The pieces of a blob, each read while the one before is being sent.
fn pieces(first: (Source, Bytes)) -> impl Stream<Item = Result<Chunk, Status>> + Send {
    futures_util::stream::unfold(Reading::Ready(first), |reading| async move {
        let (source, payload) = match reading {
            Reading::Ready(read) => read,
            Reading::Ahead(task) => match task.await {
                Ok(Ok(read)) => read,
                Ok(Err(error)) => return Some((Err(read_failed(error)), Reading::Over)),
                Err(error) => return Some((Err(status::lost(&error)), Reading::Over)),
            },
            Reading::Over => return None,
        };
        if payload.is_empty() {
            return None;
        }
        let next = if source.exhausted { Reading::Over } else { Reading::ahead(source) };
        Some((Ok(Chunk { tag: READ_RESPONSE_DATA, payload }), next))
    })
}

enum Reading {
    Ready((Source, Bytes)),
    Ahead(JoinHandle<io::Result<(Source, Bytes)>>),
    Over,
}

impl Reading {
    fn ahead(mut source: Source) -> Self {
        Self::Ahead(spawn_blocking(move || {
            let piece = source.next_piece()?;
            Ok((source, piece))
        }))
    }
}

/// A blob in the form in which it travels.
struct Source {
    bytes: Box<dyn Read + Send>,
    /// Bytes still to come, where that is known: the blob must have them.
    remaining: Option<u64>,
    exhausted: bool,
    piece_bytes: usize,
    _ahead: Reservation,
}

impl Source {
    fn open(
        mut file: File,
        resource: &Resource,
        range: Range<u64>,
        piece_bytes: usize,
        ahead: Reservation,
    ) -> io::Result<Self> {
        if range.start > 0 {
            file.seek(SeekFrom::Start(range.start))?;
        }
        let length = range.end - range.start;
        let (bytes, remaining): (Box<dyn Read + Send>, _) = match resource.compression {
            Compression::Identity => (Box::new(file.take(length)), Some(length)),
            packed => (packing(packed, BufReader::with_capacity(piece_bytes, file))?, None),
        };
        Ok(Self { bytes, remaining, exhausted: false, piece_bytes, _ahead: ahead })
    }

    /// The next piece; empty at the end.
    fn next_piece(&mut self) -> io::Result<Bytes> {
        let piece_bytes = self.piece_bytes as u64;
        let expected = self.remaining.map_or(piece_bytes, |left| left.min(piece_bytes));
        let mut piece = Vec::with_capacity(expected as usize);
        (&mut self.bytes).take(expected).read_to_end(&mut piece)?;
        match &mut self.remaining {
            Some(_) if (piece.len() as u64) < expected => {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the blob is cut short"));
            }
            Some(left) => {
                *left -= expected;
                self.exhausted = *left == 0;
            }
            None => self.exhausted = (piece.len() as u64) < expected,
        }
        Ok(piece.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Budget;
    use model::{Digest, DigestFunction};

    fn check(offset: i64, limit: i64, expected: Result<Range<u64>, ReadRefused>) {
        let digest = Digest::of(DigestFunction::Sha256, b"0123456789");
        let resource = Resource { digest, compression: Compression::Identity };
        let request = ReadRequest { read_offset: offset, read_limit: limit, ..Default::default() };
        assert_eq!(range(&resource, &request), expected);
    }

    #[test]
    fn ranges() {
        let beyond = |offset| Err(ReadRefused::Offset { offset, size_bytes: 10 });
        check(0, 0, Ok(0..10));
        check(3, 0, Ok(3..10));
        check(3, 4, Ok(3..7));
        check(3, i64::MAX, Ok(3..10));
        check(10, 0, Ok(10..10));
        check(11, 0, beyond(11));
        check(i64::MAX, 0, beyond(i64::MAX));
        check(-1, 0, beyond(-1));
        check(0, -1, Err(ReadRefused::Limit(-1)));
    }

    #[test]
    fn codes() {
        assert_eq!(Status::from(ReadRefused::Limit(-1)).code(), Code::InvalidArgument);
        let beyond = ReadRefused::Offset { offset: 4, size_bytes: 3 };
        assert_eq!(Status::from(beyond).code(), Code::OutOfRange);
    }

    #[test]
    fn a_compressed_read_has_no_limit() {
        let digest = Digest::of(DigestFunction::Sha256, b"0123456789");
        for compression in Compression::ANNOUNCED {
            let resource = Resource { digest, compression };
            let request = ReadRequest { read_limit: 1, ..Default::default() };
            assert_eq!(range(&resource, &request), Err(ReadRefused::Limit(1)));
        }
    }

    #[test]
    fn a_short_blob_is_an_error() {
        let file = tempfile::tempfile().unwrap();
        let digest = Digest::of(DigestFunction::Sha256, b"0123456789");
        let resource = Resource { digest, compression: Compression::Identity };
        let ahead = Budget::of_this_machine().quota().reservation();
        let mut source = Source::open(file, &resource, 0..10, 4, ahead).unwrap();
        assert_eq!(source.next_piece().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
