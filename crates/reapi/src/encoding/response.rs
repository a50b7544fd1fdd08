//! A response's body, whose larger messages go out compressed.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http_body::{Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;

use super::algorithm::Encoding;
use super::run;
use crate::frame::{Frames, PREFIX_BYTES, Part, Prefix};
use crate::memory::{ConnectionQuota, Reservation, lent};

/// Shorter messages go out as they are: they fit into a packet.
const MIN_PACKED_BYTES: usize = 1 << 10;

/// A mark among the extensions of a response whose data is compressed already.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Incompressible;

/// See the module.
pub(super) struct PackedBody {
    body: Body,
    encoding: Encoding,
    quota: Arc<ConnectionQuota>,
    /// The last of what the service gave.
    given: Bytes,
    frames: Frames,
    /// The message that is being gathered, with the memory for it and for what it becomes; `None` while one
    /// goes out as it is.
    message: Option<(BytesMut, Reservation)>,
}

impl PackedBody {
    pub(super) fn new(body: Body, encoding: Encoding, quota: Arc<ConnectionQuota>) -> Self {
        let frames = Frames::default();
        Self { body, encoding, quota, given: Bytes::new(), frames, message: None }
    }

    /// The next bytes that go out; `None` until the service gives more.
    fn next(&mut self) -> Option<Bytes> {
        while let Some(part) = self.frames.next(&mut self.given) {
            match part {
                Part::Prefix(prefix) => match self.room(prefix) {
                    Some(room) => self.message = Some(room),
                    None => return Some(framed(prefix, &[])),
                },
                Part::Content(bytes) => {
                    let content = self.given.split_to(bytes);
                    let Some((message, _)) = &mut self.message else { return Some(content) };
                    message.extend_from_slice(&content);
                }
            }
            if self.frames.remaining_bytes() == 0
                && let Some((message, reservation)) = self.message.take()
            {
                return Some(lent(self.pack(&message), reservation));
            }
        }
        None
    }

    /// The room for a message that is worth packing. Where there is no memory for it, the message goes out
    /// as it is.
    fn room(&self, prefix: Prefix) -> Option<(BytesMut, Reservation)> {
        if prefix.is_compressed || prefix.size_bytes < MIN_PACKED_BYTES {
            return None;
        }
        let reservation = self.quota.reserve(2 * (PREFIX_BYTES + prefix.size_bytes) as u64).ok()?;
        Some((BytesMut::with_capacity(prefix.size_bytes), reservation))
    }

    fn pack(&self, message: &[u8]) -> Bytes {
        match run(message.len(), || self.encoding.pack(message)) {
            Some(packed) => framed(Prefix::of_compressed(packed.len()), &packed),
            None => framed(Prefix::of(message.len()), message),
        }
    }
}

fn framed(prefix: Prefix, content: &[u8]) -> Bytes {
    let mut framed = BytesMut::with_capacity(PREFIX_BYTES + content.len());
    prefix.put(&mut framed);
    framed.extend_from_slice(content);
    framed.freeze()
}

impl http_body::Body for PackedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        loop {
            if let Some(bytes) = self.next() {
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
            let frame = ready!(Pin::new(&mut self.body).poll_frame(context)).transpose()?;
            match frame.map(Frame::into_data) {
                // All of what came before it went out.
                Some(Ok(data)) => self.given = data,
                Some(Err(trailers)) => return Poll::Ready(Some(Ok(trailers))),
                None => return Poll::Ready(None),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.given.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        // Not that of the body: the messages are smaller.
        SizeHint::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{Budget, GUARANTEED_BYTES};
    use http_body::Body as _;
    use std::collections::VecDeque;
    use std::convert::Infallible;

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

    /// The flag and the content, once unpacked, of each message that goes out when these are answered in
    /// pieces of that size.
    async fn sent(
        quota: &Arc<ConnectionQuota>,
        encoding: Encoding,
        messages: &[&[u8]],
        piece_bytes: usize,
    ) -> Vec<(bool, Vec<u8>)> {
        let stream: Vec<u8> =
            messages.iter().flat_map(|it| framed(Prefix::of(it.len()), it)).collect();
        let pieces = stream.chunks(piece_bytes).map(Bytes::copy_from_slice).collect();
        let body = Body::new(Pieces(pieces));
        let mut body = PackedBody::new(body, encoding, Arc::clone(quota));
        let mut out = BytesMut::new();
        while let Some(frame) =
            std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await
        {
            out.extend_from_slice(&frame.unwrap().into_data().unwrap());
        }
        let (mut out, mut frames, mut sent) = (out.freeze(), Frames::default(), Vec::new());
        while let Some(part) = frames.next(&mut out) {
            match part {
                Part::Prefix(prefix) => sent.push((prefix.is_compressed, Vec::new())),
                Part::Content(bytes) => {
                    let content = out.split_to(bytes);
                    let (is_compressed, message) = sent.last_mut().unwrap();
                    *message = if *is_compressed {
                        encoding.unpack(&content, quota.reservation()).unwrap()[5..].to_vec()
                    } else {
                        content.to_vec()
                    };
                }
            }
        }
        assert!(frames.is_between_messages());
        sent
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_becomes_smaller_goes_out_compressed() {
        let quota = Budget::new(64 << 20).quota();
        let mut noise = vec![0; 5000];
        let mut state = 7_u64;
        for byte in &mut noise {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            *byte = state as u8;
        }
        let messages: [&[u8]; 5] = [&[7; 2000], b"", &[7; 100], &noise, &[3; 300_000]];
        for encoding in [Encoding::Gzip, Encoding::Zstd] {
            for piece_bytes in [1, 4096, 1 << 20] {
                let sent = sent(&quota, encoding, &messages, piece_bytes).await;
                let contents: Vec<&[u8]> = sent.iter().map(|it| it.1.as_slice()).collect();
                assert!(contents == messages, "{encoding:?} in {piece_bytes}");
                let flags: Vec<bool> = sent.iter().map(|it| it.0).collect();
                assert_eq!(flags, [true, false, false, false, true]);
            }
        }
        assert!(quota.reserve(64 << 20).is_ok());
    }

    #[tokio::test]
    async fn without_memory_messages_go_out_as_they_are() {
        let quota = Budget::new(0).quota();
        let _held = quota.reserve(GUARANTEED_BYTES).unwrap();
        let sent = sent(&quota, Encoding::Zstd, &[&[7; 2000]], 4096).await;
        assert_eq!(sent, [(false, vec![7; 2000])]);
    }
}
