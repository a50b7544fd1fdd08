//! A body whose messages are rewritten while they pass: the part that [`request`](super::request) and
//! [`response`](super::response) share.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;

/// Rewrites the messages of a body.
pub(super) trait Rewrite: Unpin {
    /// Takes bytes from `data`, the last that came, and returns the next bytes that go on; `None` when all of
    /// `data` is taken and more must come first.
    fn next(&mut self, data: &mut Bytes) -> Result<Option<Bytes>, Status>;

    /// Fails if the body must not end where it is.
    fn end(&self) -> Result<(), Status>;
}

/// See the module.
pub(super) struct RewrittenBody<R> {
    body: Body,
    rewrite: R,
    /// The last data of `body`, as far as it is not rewritten yet.
    data: Bytes,
}

impl<R: Rewrite> RewrittenBody<R> {
    pub(super) fn new(body: Body, rewrite: R) -> Self {
        Self { body, rewrite, data: Bytes::new() }
    }
}

impl<R: Rewrite> http_body::Body for RewrittenBody<R> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Self { body, rewrite, data } = &mut *self;
        loop {
            if let Some(bytes) = rewrite.next(data).transpose() {
                return Poll::Ready(Some(bytes.map(Frame::data)));
            }
            let frame = ready!(Pin::new(&mut *body).poll_frame(context)).transpose()?;
            match frame.map(Frame::into_data) {
                Some(Ok(next)) => *data = next,
                Some(Err(trailers)) => return Poll::Ready(Some(Ok(trailers))),
                None => return Poll::Ready(rewrite.end().err().map(Err)),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.data.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        // Not that of the body below: rewritten messages have other sizes.
        SizeHint::default()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::convert::Infallible;

    use http_body_util::BodyExt as _;

    use super::*;

    /// A body of `stream` in pieces of `piece_bytes`.
    fn pieces(stream: &[u8], piece_bytes: usize) -> Body {
        let pieces = stream.chunks(piece_bytes).map(Bytes::copy_from_slice).map(Frame::data);
        let pieces: Vec<_> = pieces.map(Ok::<_, Infallible>).collect();
        Body::new(http_body_util::StreamBody::new(tokio_stream::iter(pieces)))
    }

    /// The bytes that `rewrite` makes of `stream` when it comes in pieces of `piece_bytes`.
    pub(in crate::encoding) async fn rewritten(
        rewrite: impl Rewrite,
        stream: &[u8],
        piece_bytes: usize,
    ) -> Result<Vec<u8>, Status> {
        let body = RewrittenBody::new(pieces(stream, piece_bytes), rewrite);
        Ok(body.collect().await?.to_bytes().to_vec())
    }
}
