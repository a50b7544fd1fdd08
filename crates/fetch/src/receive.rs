//! The content, checked and into the store.

use asset::{Checker, Mismatch, OriginError, Wish};
use bytes::Bytes;
use model::Digest;
use reqwest::Response;
use store::BlobWriter;
use tokio::task::spawn_blocking;

use crate::request::failed;

/// Bytes that wait for the disk at a time: few visits to it, and little memory.
const PIECE_BYTES: usize = 256 << 10;

/// Content on its way into the store.
struct Sink {
    host: String,
    writer: BlobWriter,
    checker: Checker,
    max_bytes: u64,
}

/// Takes in the body of an answer; what is not what the wish demands leaves no trace.
pub(crate) async fn receive(
    wish: &Wish,
    host: String,
    mut response: Response,
    max_bytes: u64,
) -> Result<Digest, OriginError> {
    let too_large = |host: &str| OriginError::TooLarge { host: host.to_owned(), max_bytes };
    let expected = response.content_length();
    if expected.is_some_and(|bytes| bytes > max_bytes) {
        return Err(too_large(&host));
    }
    let mut sink = Sink {
        writer: wish.store.cas().writer(wish.function, None),
        checker: wish.demands.checker(),
        host: host.clone(),
        max_bytes,
    };
    let (mut waiting, mut waiting_bytes) = (Vec::new(), 0);
    while let Some(data) = response.chunk().await.map_err(|error| failed(&host, &error))? {
        waiting_bytes += data.len();
        waiting.push(data);
        if waiting_bytes >= PIECE_BYTES {
            let pieces = std::mem::take(&mut waiting);
            waiting_bytes = 0;
            sink = on_thread(&host, move || sink.take(&pieces)).await?;
        }
    }
    on_thread(&host, move || sink.take(&waiting)?.commit()).await
}

/// Work that waits for the disk.
async fn on_thread<T: Send + 'static>(
    host: &str,
    work: impl FnOnce() -> Result<T, OriginError> + Send + 'static,
) -> Result<T, OriginError> {
    spawn_blocking(work).await.unwrap_or_else(|error| {
        Err(OriginError::Failed { host: host.to_owned(), problem: error.to_string() })
    })
}

impl Sink {
    fn take(mut self, pieces: &[Bytes]) -> Result<Self, OriginError> {
        let size_bytes: u64 = pieces.iter().map(|piece| piece.len() as u64).sum();
        if self.writer.written() + size_bytes > self.max_bytes {
            return Err(OriginError::TooLarge { host: self.host, max_bytes: self.max_bytes });
        }
        pieces.iter().for_each(|piece| self.checker.update(piece));
        match self.writer.write_pieces(pieces) {
            Ok(()) => Ok(self),
            Err(source) => Err(OriginError::Store { host: self.host, source }),
        }
    }

    fn commit(self) -> Result<Digest, OriginError> {
        let Self { host, writer, checker, .. } = self;
        match checker.finish() {
            Ok(()) => writer.commit().map_err(|source| OriginError::Store { host, source }),
            Err(Mismatch { function, found, expected }) => {
                Err(OriginError::Mismatch { host, function, found, expected })
            }
        }
    }
}
