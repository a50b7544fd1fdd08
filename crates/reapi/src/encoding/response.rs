//! The larger messages of a response go out compressed.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tonic::Status;

use super::algorithm::Encoding;
use super::rewritten::Rewrite;
use super::run;
use crate::frame::{Frames, PREFIX_BYTES, Part, Prefix};
use crate::memory::{ConnectionQuota, Reservation, lent};

/// Shorter messages go out as they are: they fit into a packet.
const MIN_PACKED_BYTES: usize = 1 << 10;

/// A mark among the extensions of a response whose data is compressed already.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Incompressible;

/// See the module.
pub(super) struct Pack {
    encoding: Encoding,
    quota: Arc<ConnectionQuota>,
    frames: Frames,
    /// The message that is being gathered, with the memory for it and for what it becomes; `None` while one
    /// goes out as it is.
    message: Option<(BytesMut, Reservation)>,
}

impl Pack {
    pub(super) fn new(encoding: Encoding, quota: Arc<ConnectionQuota>) -> Self {
        Self { encoding, quota, frames: Frames::default(), message: None }
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

impl Rewrite for Pack {
    fn next(&mut self, given: &mut Bytes) -> Result<Option<Bytes>, Status> {
        while let Some(part) = self.frames.next(given) {
            match part {
                Part::Prefix(prefix) => match self.room(prefix) {
                    Some(room) => self.message = Some(room),
                    None => return Ok(Some(framed(prefix, &[]))),
                },
                Part::Content(bytes) => {
                    let content = given.split_to(bytes);
                    let Some((message, _)) = &mut self.message else { return Ok(Some(content)) };
                    message.extend_from_slice(&content);
                }
            }
            if self.frames.remaining_bytes() == 0
                && let Some((message, reservation)) = self.message.take()
            {
                return Ok(Some(lent(self.pack(&message), reservation)));
            }
        }
        Ok(None)
    }

    /// The service's own bodies end where they want.
    fn end(&self) -> Result<(), Status> {
        Ok(())
    }
}

fn framed(prefix: Prefix, content: &[u8]) -> Bytes {
    let mut framed = BytesMut::with_capacity(PREFIX_BYTES + content.len());
    prefix.put(&mut framed);
    framed.extend_from_slice(content);
    framed.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoding::rewritten::tests::rewritten;
    use crate::memory::{Budget, GUARANTEED_BYTES};

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
        let pack = Pack::new(encoding, Arc::clone(quota));
        let mut out = Bytes::from(rewritten(pack, &stream, piece_bytes).await.unwrap());
        let (mut frames, mut sent) = (Frames::default(), Vec::new());
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
