//! The content, checked and into the store.

use asset::{Checker, Mismatch, OriginError, Wish};
use bytes::Bytes;
use model::Digest;
use reqwest::Response;
use store::BlobWriter;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout_at};

use crate::pace::Pace;
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
    let mut pace = Pace::new(Instant::now());
    while let Some(data) = next(&mut response, &host, &mut pace).await? {
        waiting_bytes += data.len();
        waiting.push(data);
        if waiting_bytes >= PIECE_BYTES {
            let pieces = std::mem::take(&mut waiting);
            waiting_bytes = 0;
            let before = Instant::now();
            sink = on_thread(&host, move || sink.take(&pieces)).await?;
            pace.leave_out(before.elapsed());
        }
    }
    on_thread(&host, move || sink.take(&waiting)?.commit()).await
}

/// The next bytes, from a host that sends enough of them.
async fn next(
    response: &mut Response,
    host: &str,
    pace: &mut Pace,
) -> Result<Option<Bytes>, OriginError> {
    loop {
        match timeout_at(pace.deadline(), response.chunk()).await {
            Ok(data) => {
                let data = data.map_err(|error| failed(host, &error))?;
                pace.count(data.as_ref().map_or(0, Bytes::len));
                return Ok(data);
            }
            Err(_) => pace.go_on(Instant::now()).map_err(|slow| OriginError::TooSlow {
                host: host.to_owned(),
                bytes: slow.bytes,
                seconds: slow.window.as_secs(),
            })?,
        }
    }
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

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::pin::Pin;
    use std::sync::Arc;
    use std::task::{Context, Poll, ready};
    use std::time::Duration;

    use asset::{Demands, Kind, Names};
    use http_body::{Body, Frame};
    use model::DigestFunction;
    use store::{Store, StoreOptions};
    use tokio::time::{Sleep, sleep};

    use super::*;

    /// A body of equal pieces, with the same time between them.
    struct Drip {
        piece: Bytes,
        left: usize,
        every: Duration,
        next: Pin<Box<Sleep>>,
    }

    impl Body for Drip {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            ready!(self.next.as_mut().poll(context));
            if self.left == 0 {
                return Poll::Ready(None);
            }
            self.left -= 1;
            let next = Instant::now() + self.every;
            self.next.as_mut().reset(next);
            Poll::Ready(Some(Ok(Frame::data(self.piece.clone()))))
        }
    }

    /// Receives that many pieces of that many bytes, each so many seconds after the one before.
    async fn received(pieces: usize, bytes: usize, seconds: u64) -> Result<Digest, OriginError> {
        let root = tempfile::tempdir().unwrap();
        let uri = "http://a.example/".to_owned();
        let names = Names::parse(Kind::Blob, vec![uri.clone()], Vec::new()).unwrap();
        let wish = Wish {
            uri,
            index: 0,
            function: DigestFunction::Sha256,
            demands: Arc::new(Demands::of(&names).unwrap()),
            store: Store::open(root.path(), StoreOptions::default()).unwrap(),
            timeout: Duration::MAX,
        };
        let body = Drip {
            piece: vec![7; bytes].into(),
            left: pieces,
            every: Duration::from_secs(seconds),
            next: Box::pin(sleep(Duration::ZERO)),
        };
        let response = http::Response::new(reqwest::Body::wrap(body)).into();
        receive(&wish, "a.example".to_owned(), response, 1 << 30).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_that_is_slow_but_goes_on_is_waited_for() {
        let digest = received(20, 64 << 10, 10).await.unwrap();
        assert_eq!(digest, Digest::of(DigestFunction::Sha256, &vec![7; 20 * (64 << 10)]));
        // The end of a small file may be late.
        received(1, 5, 29).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_that_sends_hardly_anything_is_not() {
        for (pieces, bytes, seconds, expected) in
            [(1000, 1, 7, 5), (1, 1 << 20, 1000, 0), (1, 1000, 31, 1000)]
        {
            match received(pieces, bytes, seconds).await {
                Err(OriginError::TooSlow { bytes, seconds: 30, .. }) => {
                    assert_eq!(bytes, expected);
                }
                other => panic!("{pieces} times {bytes} bytes each {seconds} s: {other:?}"),
            }
        }
    }
}
