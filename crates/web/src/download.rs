//! A blob as a download.

use std::fs::File;
use std::io::{self, Read as _};
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::{self, Receiver};

/// Bytes that are read at a time.
const PIECE_BYTES: usize = 256 << 10;

/// Pieces that wait for a slow reader.
const PIECES_WAITING: usize = 2;

/// A file that is read on a thread of its own while it is sent.
pub(crate) struct FileBody {
    pieces: Receiver<io::Result<Bytes>>,
    left: u64,
}

impl FileBody {
    /// The first `size_bytes` of `file`. The thread, and with it `permit`, ends with the reader.
    pub(crate) fn of(mut file: File, size_bytes: u64, permit: OwnedSemaphorePermit) -> Body {
        let (sender, pieces) = mpsc::channel(PIECES_WAITING);
        tokio::task::spawn_blocking(move || {
            let _permit = permit;
            loop {
                let mut piece = vec![0; PIECE_BYTES];
                let read = file.read(&mut piece);
                let (is_end, sent) = match read {
                    Ok(0) => return,
                    Ok(count) => {
                        piece.truncate(count);
                        (false, Ok(piece.into()))
                    }
                    Err(error) => (true, Err(error)),
                };
                // An error means that the reader is gone.
                if sender.blocking_send(sent).is_err() || is_end {
                    return;
                }
            }
        });
        Body::new(Self { pieces, left: size_bytes })
    }
}

impl HttpBody for FileBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        self.pieces.poll_recv(context).map(|piece| {
            piece.map(|piece| {
                piece.map(|piece| {
                    self.left = self.left.saturating_sub(piece.len() as u64);
                    Frame::data(piece)
                })
            })
        })
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
