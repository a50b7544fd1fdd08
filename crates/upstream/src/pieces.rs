//! Blobs in pieces, from the store and into it.

use std::io::{self, Read as _, Write as _};
use std::sync::Arc;

use bytes::Bytes;
use model::Digest;
use store::{BlobWriter, Cas};

use crate::call_error::CallError;

/// Pieces of a download that wait for the disk.
pub(crate) const PIECES_WAITING: usize = 4;

/// The bytes of a piece of an upload.
pub(crate) const PIECE_BYTES: usize = 256 << 10;

/// The largest window of compressed downloads, as a power of two in bytes (RFC 8878, 3.1.1.1.2).
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// The way of a blob into the store.
pub(crate) enum Sink {
    Plain(Box<BlobWriter>),
    Packed(Box<zstd::stream::write::Decoder<'static, Bounded>>),
}

/// Ends a decompression that goes beyond the size of the blob, and keeps what the store said.
pub(crate) struct Bounded {
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
    /// The way of this blob, which is packed or not.
    pub(crate) fn open(cas: &Cas, digest: &Digest, is_packed: bool) -> Result<Self, CallError> {
        let writer = cas.writer(digest.function(), Some(*digest));
        if !is_packed {
            return Ok(Self::Plain(Box::new(writer)));
        }
        let decoder = zstd::stream::write::Decoder::new(Bounded { writer, error: None });
        let mut decoder = decoder.map_err(|_| CallError::Damaged)?;
        decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(|_| CallError::Damaged)?;
        Ok(Self::Packed(Box::new(decoder)))
    }

    /// Takes the next piece.
    pub(crate) fn write(&mut self, piece: &[u8]) -> Result<(), CallError> {
        match self {
            Self::Plain(writer) => Ok(writer.write(piece)?),
            Self::Packed(decoder) => {
                let written = decoder.write_all(piece);
                written.map_err(|_| decoder.get_mut().error.take().unwrap_or(CallError::Damaged))
            }
        }
    }

    /// Stores the blob, if it is whole and what its digest says.
    pub(crate) fn commit(self) -> Result<(), CallError> {
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

/// The next piece of a blob; empty at its end.
pub(crate) fn next_piece(source: &mut dyn io::Read) -> io::Result<Bytes> {
    let mut piece = Vec::with_capacity(PIECE_BYTES);
    source.take(PIECE_BYTES as u64).read_to_end(&mut piece)?;
    Ok(piece.into())
}

/// The error of a blob of ours.
pub(crate) fn unreadable(error: io::Error) -> CallError {
    CallError::Unreadable(Arc::new(error))
}
