//! Streams of messages whose payload goes to the socket as it is.
//!
//! tonic encodes each message into a buffer of its own: one allocation and one
//! copy of every byte that is downloaded. Here the payload is handed to HTTP/2 as
//! a frame by itself, behind a frame with what comes before it:
//!
//! ```text
//!  ┌────────┬────────────────────────────┐ ┌─────────┐
//!  │ prefix │ the message's fields up to │ │ payload │  ... trailers
//!  │        │ the payload's key, length  │ │         │
//!  └────────┴────────────────────────────┘ └─────────┘
//! ```

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http_body::Frame;
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};
use proto::shape::Shaped;
use tokio_stream::Stream;
use tonic::body::Body;
use tonic::codegen::http::{self, HeaderMap, header};
use tonic::metadata::GRPC_CONTENT_TYPE;
use tonic::{Status, Streaming};

use super::codec::ExactDecoder;
use crate::encoding::Incompressible;
use crate::frame::{MAX_MESSAGE_BYTES, PREFIX_BYTES, Prefix};
use crate::memory::Reservation;

/// The answer to a call, chunk by chunk.
pub(crate) struct Chunks<S> {
    /// The chunks.
    pub(crate) stream: S,
    /// Whether their payload is compressed, so that nobody needs to try it again.
    pub(crate) is_packed: bool,
}

/// A message with one field, of bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chunk {
    /// The field's number.
    pub(crate) tag: u32,
    /// Its content.
    pub(crate) payload: Bytes,
}

impl Chunk {
    /// The bytes that go out before the payload.
    fn head(&self) -> Bytes {
        let payload_bytes = self.payload.len();
        let fields_bytes = key_len(self.tag) + encoded_len_varint(payload_bytes as u64);
        let mut head = BytesMut::with_capacity(PREFIX_BYTES + fields_bytes);
        // A payload is one visit to the disk.
        Prefix::of(fields_bytes + payload_bytes).put(&mut head);
        encode_key(self.tag, WireType::LengthDelimited, &mut head);
        encode_varint(payload_bytes as u64, &mut head);
        head.freeze()
    }
}

/// The one message of a call.
pub(super) async fn only_message<Req>(
    reservation: Arc<Reservation>,
    request: http::Request<Body>,
) -> Result<Req, Status>
where
    Req: Message + Default + Shaped + 'static,
{
    let decoder = ExactDecoder::new(reservation);
    let body = request.into_body();
    let mut messages = Streaming::new_request(decoder, body, None, Some(MAX_MESSAGE_BYTES));
    let message = messages.message().await?;
    let message = message.ok_or_else(|| Status::internal("the request's message is missing"))?;
    messages.trailers().await?;
    Ok(message)
}

/// The answer that sends `chunks`, and then how they ended.
pub(super) fn response<S>(chunks: Chunks<S>) -> http::Response<Body>
where
    S: Stream<Item = Result<Chunk, Status>> + Send + 'static,
{
    let body = ChunkedBody { chunks: Box::pin(chunks.stream), payload: None, is_over: false };
    let mut response = http::Response::new(Body::new(body));
    if chunks.is_packed {
        response.extensions_mut().insert(Incompressible);
    }
    response.headers_mut().insert(header::CONTENT_TYPE, GRPC_CONTENT_TYPE);
    response
}

struct ChunkedBody<S> {
    chunks: Pin<Box<S>>,
    /// The second half of the message whose first half went out.
    payload: Option<Bytes>,
    is_over: bool,
}

impl<S> http_body::Body for ChunkedBody<S>
where
    S: Stream<Item = Result<Chunk, Status>>,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Some(payload) = self.payload.take() {
            return Poll::Ready(Some(Ok(Frame::data(payload))));
        }
        if self.is_over {
            return Poll::Ready(None);
        }
        Poll::Ready(Some(match ready!(self.chunks.as_mut().poll_next(context)) {
            Some(Ok(chunk)) => {
                let head = chunk.head();
                self.payload = Some(chunk.payload);
                Ok(Frame::data(head))
            }
            Some(Err(status)) => self.end(&status),
            None => self.end(&Status::ok("")),
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.is_over
    }
}

impl<S> ChunkedBody<S> {
    fn end(&mut self, status: &Status) -> Result<Frame<Bytes>, Status> {
        self.is_over = true;
        let mut trailers = HeaderMap::new();
        status.add_header(&mut trailers)?;
        Ok(Frame::trailers(trailers))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::google::bytestream::ReadResponse;

    #[test]
    fn a_chunk_is_the_message_that_it_stands_for() {
        for length in [0, 1, 127, 128, 16_383, 16_384, 1 << 20] {
            let payload = Bytes::from(vec![7; length]);
            let chunk = Chunk { tag: 10, payload: payload.clone() };
            let message = [chunk.head(), chunk.payload].concat();
            let (prefix, message) = message.split_at(PREFIX_BYTES);
            let length = (message.len() as u32).to_be_bytes();
            assert_eq!(prefix, [&[0], length.as_slice()].concat());
            let decoded = ReadResponse::decode(message).unwrap();
            assert_eq!(decoded.data, payload);
        }
    }
}
