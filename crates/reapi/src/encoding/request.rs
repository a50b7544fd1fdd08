//! A request's body, whose compressed messages come out plain.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http_body::{Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;

use super::algorithm::Encoding;
use super::run;
use crate::frame::{FrameError, Frames, MAX_MESSAGE_BYTES, PREFIX_BYTES, Part, Prefix};
use crate::memory::{ConnectionQuota, Reservation};

/// See the module.
pub(super) struct UnpackedBody {
    body: Body,
    encoding: Encoding,
    quota: Arc<ConnectionQuota>,
    /// The memory that the call has reserved: for what handlers gather of the plain message.
    call: Arc<Reservation>,
    /// The last of what was received.
    received: Bytes,
    frames: Frames,
    /// The compressed message that is coming, as far as it is here; `None` while a plain one is coming. The
    /// body below has reserved for it.
    packed: Option<BytesMut>,
}

impl UnpackedBody {
    pub(super) fn new(
        body: Body,
        encoding: Encoding,
        quota: Arc<ConnectionQuota>,
        call: Arc<Reservation>,
    ) -> Self {
        let frames = Frames::default();
        Self { body, encoding, quota, call, received: Bytes::new(), frames, packed: None }
    }

    /// The next plain bytes; `None` until more was received.
    fn next(&mut self) -> Result<Option<Bytes>, Status> {
        while let Some(part) = self.frames.next(&mut self.received) {
            let plain = match part {
                Part::Prefix(prefix) => self.begin(prefix)?,
                Part::Content(bytes) => {
                    let content = self.received.split_to(bytes);
                    self.go_on(content)?
                }
            };
            if plain.is_some() {
                return Ok(plain);
            }
        }
        Ok(None)
    }

    fn begin(&mut self, prefix: Prefix) -> Result<Option<Bytes>, Status> {
        self.packed = None;
        if !prefix.is_compressed {
            let mut plain = BytesMut::with_capacity(PREFIX_BYTES);
            prefix.put(&mut plain);
            return Ok(Some(plain.freeze()));
        }
        if prefix.size_bytes > MAX_MESSAGE_BYTES {
            return Err(FrameError::TooLarge { size_bytes: prefix.size_bytes }.into());
        }
        self.packed = Some(BytesMut::with_capacity(prefix.size_bytes));
        if prefix.size_bytes == 0 { self.go_on(Bytes::new()) } else { Ok(None) }
    }

    fn go_on(&mut self, content: Bytes) -> Result<Option<Bytes>, Status> {
        let Some(packed) = &mut self.packed else { return Ok(Some(content)) };
        packed.extend_from_slice(&content);
        if self.frames.remaining_bytes() > 0 {
            return Ok(None);
        }
        let packed = self.packed.take().unwrap_or_default();
        let reservation = self.quota.reservation();
        let encoding = self.encoding;
        let message = run(packed.len(), || encoding.unpack(&packed, reservation))?;
        self.call.grow_to(message.len() as u64)?;
        Ok(Some(message))
    }
}

impl http_body::Body for UnpackedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        loop {
            if let Some(plain) = self.next().transpose() {
                return Poll::Ready(Some(plain.map(Frame::data)));
            }
            let frame = ready!(Pin::new(&mut self.body).poll_frame(context)).transpose()?;
            match frame.map(Frame::into_data) {
                // All of what came before it is read.
                Some(Ok(data)) => self.received = data,
                Some(Err(trailers)) => return Poll::Ready(Some(Ok(trailers))),
                None if self.frames.is_between_messages() => return Poll::Ready(None),
                None => return Poll::Ready(Some(Err(FrameError::CutShort.into()))),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.received.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        // Not that of the body: the messages are larger.
        SizeHint::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Budget;
    use http_body::Body as _;
    use std::collections::VecDeque;
    use std::convert::Infallible;
    use tonic::Code;

    struct Pieces(VecDeque<Bytes>);

    impl http_body::Body for Pieces {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _context: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(self.0.pop_front().map(|data| Ok(Frame::data(data))))
        }
    }

    fn framed(flag: u8, message: &[u8]) -> Vec<u8> {
        [&[flag], (message.len() as u32).to_be_bytes().as_slice(), message].concat()
    }

    /// The output for a stream that comes in pieces of that size.
    async fn unpacked(
        encoding: Encoding,
        stream: &[u8],
        piece_bytes: usize,
    ) -> Result<Vec<u8>, Code> {
        let quota = Budget::new(64 << 20).quota();
        let pieces = stream.chunks(piece_bytes).map(Bytes::copy_from_slice).collect();
        let call = Arc::new(quota.reservation());
        let mut body = UnpackedBody::new(Body::new(Pieces(pieces)), encoding, quota, call);
        let mut plain = Vec::new();
        loop {
            let next = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context));
            match next.await {
                Some(Ok(frame)) => plain.extend_from_slice(&frame.into_data().unwrap()),
                Some(Err(status)) => return Err(status.code()),
                None => return Ok(plain),
            }
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn compressed_and_plain_messages_come_out_plain() {
        let noise: Vec<u8> = (0..200_000_u32).map(|i| (i.wrapping_mul(i) >> 7) as u8).collect();
        let messages: [&[u8]; 4] = [&[7; 1000], b"plain", b"", &noise];
        for encoding in [Encoding::Gzip, Encoding::Zstd] {
            let stream: Vec<u8> = messages
                .iter()
                .flat_map(|message| match encoding.pack(message) {
                    Some(packed) => framed(1, &packed),
                    None => framed(0, message),
                })
                .collect();
            let expected = messages.iter().flat_map(|message| framed(0, message));
            let expected: Vec<u8> = expected.collect();
            for piece_bytes in [1, 7, 1000, stream.len()] {
                let plain = unpacked(encoding, &stream, piece_bytes).await;
                assert!(plain == Ok(expected.clone()), "{encoding:?} in {piece_bytes}");
            }
            let within = &framed(1, &encoding.pack(&[7; 1000]).unwrap())[..12];
            assert_eq!(unpacked(encoding, within, 100).await, Err(Code::Internal));
        }
    }

    #[tokio::test]
    async fn a_message_that_can_not_be_unpacked_ends_the_stream() {
        for encoding in [Encoding::Gzip, Encoding::Zstd] {
            assert_eq!(unpacked(encoding, &framed(1, b""), 9).await, Err(Code::Internal));
            assert_eq!(unpacked(encoding, &framed(1, b"plain"), 9).await, Err(Code::Internal));
            let huge = [1, 0xff, 0xff, 0xff, 0xff];
            assert_eq!(unpacked(encoding, &huge, 9).await, Err(Code::InvalidArgument));
            let bomb = framed(1, &encoding.pack(&vec![0; MAX_MESSAGE_BYTES + 1]).unwrap());
            assert_eq!(unpacked(encoding, &bomb, 900).await, Err(Code::InvalidArgument));
        }
    }
}
