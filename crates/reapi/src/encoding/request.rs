//! The compressed messages of a request come out plain.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tonic::Status;

use super::algorithm::Encoding;
use super::rewritten::Rewrite;
use super::run;
use crate::frame::{FrameError, Frames, MAX_MESSAGE_BYTES, PREFIX_BYTES, Part, Prefix};
use crate::memory::{ConnectionQuota, Reservation};

/// See the module.
pub(super) struct Unpack {
    encoding: Encoding,
    quota: Arc<ConnectionQuota>,
    /// The memory that the call has reserved: for what handlers gather of the plain message.
    call: Arc<Reservation>,
    frames: Frames,
    /// The compressed message that is coming, as far as it is here; `None` while a plain one is coming. The
    /// body below has reserved for it.
    packed: Option<BytesMut>,
}

impl Unpack {
    pub(super) fn new(
        encoding: Encoding,
        quota: Arc<ConnectionQuota>,
        call: Arc<Reservation>,
    ) -> Self {
        Self { encoding, quota, call, frames: Frames::default(), packed: None }
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

impl Rewrite for Unpack {
    fn next(&mut self, received: &mut Bytes) -> Result<Option<Bytes>, Status> {
        while let Some(part) = self.frames.next(received) {
            let plain = match part {
                Part::Prefix(prefix) => self.begin(prefix)?,
                Part::Content(bytes) => self.go_on(received.split_to(bytes))?,
            };
            if plain.is_some() {
                return Ok(plain);
            }
        }
        Ok(None)
    }

    fn end(&self) -> Result<(), Status> {
        if self.frames.is_between_messages() { Ok(()) } else { Err(FrameError::CutShort.into()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoding::rewritten::tests::rewritten;
    use crate::memory::Budget;
    use tonic::Code;

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
        let unpack = Unpack::new(encoding, Arc::clone(&quota), Arc::new(quota.reservation()));
        rewritten(unpack, stream, piece_bytes).await.map_err(|status| status.code())
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
