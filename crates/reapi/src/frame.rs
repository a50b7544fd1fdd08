//! gRPC's frames: where the messages of a stream begin and end, and what can be wrong with one.
//!
//! ```text
//!  ┌───────────┬────────────────────┬─────────┐
//!  │compressed?│ length, big endian │ message │
//!  │ (1 byte)  │ (4)                │         │
//!  └───────────┴────────────────────┴─────────┘
//! ```
//!
//! <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>

use bytes::{Buf, BufMut};
use tonic::{Code, Status};

use crate::status;

/// Bytes before a message: a flag, and the length.
pub(crate) const PREFIX_BYTES: usize = 5;

/// The largest request message. A batch holds at most 4 MiB of data; the rest is room for the digests
/// of 25,000 blobs, and for clients that fill their ByteStream messages to 4 MiB.
pub(crate) const MAX_MESSAGE_BYTES: usize = 6 << 20;

/// An error of reading a message off the wire.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(crate) enum FrameError {
    /// The flag says that the message is compressed.
    #[error("a message is compressed, but no grpc-encoding was named")]
    Compressed,
    /// The message is longer than [`MAX_MESSAGE_BYTES`].
    #[error("a message of {size_bytes} bytes; {MAX_MESSAGE_BYTES} is the most")]
    TooLarge {
        /// Its length.
        size_bytes: usize,
    },
    /// The stream ended before the message did.
    #[error("the stream ended within a message")]
    CutShort,
    /// The bytes are no message of the expected type.
    #[error("not the expected message")]
    Malformed(#[source] prost::DecodeError),
}

impl From<FrameError> for Status {
    fn from(error: FrameError) -> Self {
        let code = match error {
            FrameError::Compressed | FrameError::CutShort => Code::Internal,
            // As REAPI has it for batches over the limit.
            FrameError::TooLarge { .. } | FrameError::Malformed(_) => Code::InvalidArgument,
        };
        status::of(code, &error)
    }
}

/// The prefix of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Prefix {
    /// Whether the message is compressed by the encoding that the call names.
    pub(crate) is_compressed: bool,
    /// The length of the message, as the client says it.
    pub(crate) size_bytes: usize,
}

impl Prefix {
    /// The prefix of a message that is not compressed, far below 4 GiB.
    pub(crate) fn of(size_bytes: usize) -> Self {
        Self { is_compressed: false, size_bytes }
    }

    /// The prefix of a message of that length that is compressed.
    pub(crate) fn of_compressed(size_bytes: usize) -> Self {
        Self { is_compressed: true, size_bytes }
    }

    /// The length of the message, if it is plain and this server takes it.
    pub(crate) fn check(self) -> Result<usize, FrameError> {
        if self.is_compressed {
            return Err(FrameError::Compressed);
        }
        if self.size_bytes > MAX_MESSAGE_BYTES {
            return Err(FrameError::TooLarge { size_bytes: self.size_bytes });
        }
        Ok(self.size_bytes)
    }

    /// Appends the prefix to what goes out.
    pub(crate) fn put(self, buffer: &mut impl BufMut) {
        buffer.put_u8(self.is_compressed.into());
        buffer.put_u32(self.size_bytes as u32);
    }

    fn parse([flag, length @ ..]: [u8; PREFIX_BYTES]) -> Self {
        Self { is_compressed: flag != 0, size_bytes: u32::from_be_bytes(length) as usize }
    }
}

/// The next part of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// A message begins.
    Prefix(Prefix),
    /// So many of the bytes that come next belong to the message that began last.
    Content(usize),
}

/// Finds the messages in a stream that comes in pieces of any size. Holds nothing but a part of a
/// prefix, and copies nothing else.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    prefix: [u8; PREFIX_BYTES],
    prefix_bytes: usize,
    remaining_bytes: usize,
}

impl Frames {
    /// The next part of the stream; `None` until there is more of it.
    ///
    /// A prefix is taken off `received`. Content is left there: the caller takes as many bytes off
    /// as the answer says.
    pub(crate) fn next(&mut self, received: &mut impl Buf) -> Option<Part> {
        if !received.has_remaining() {
            return None;
        }
        if self.remaining_bytes > 0 {
            let content = self.remaining_bytes.min(received.remaining());
            self.remaining_bytes -= content;
            return Some(Part::Content(content));
        }
        let missing = &mut self.prefix[self.prefix_bytes..];
        let here = missing.len().min(received.remaining());
        received.copy_to_slice(&mut missing[..here]);
        self.prefix_bytes += here;
        if self.prefix_bytes < PREFIX_BYTES {
            return None;
        }
        let prefix = Prefix::parse(self.prefix);
        self.prefix_bytes = 0;
        self.remaining_bytes = prefix.size_bytes;
        Some(Part::Prefix(prefix))
    }

    /// The bytes still to come of the message that began last.
    pub(crate) fn remaining_bytes(&self) -> usize {
        self.remaining_bytes
    }

    /// Whether the stream may end here.
    pub(crate) fn is_between_messages(&self) -> bool {
        self.prefix_bytes == 0 && self.remaining_bytes == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(flag: u8, message: &[u8]) -> Vec<u8> {
        [&[flag], (message.len() as u32).to_be_bytes().as_slice(), message].concat()
    }

    /// The messages of a stream that comes in pieces of that size, and whether it may end there.
    fn messages(stream: &[u8], piece_bytes: usize) -> (Vec<(Prefix, Vec<u8>)>, bool) {
        let mut frames = Frames::default();
        let mut messages: Vec<(Prefix, Vec<u8>)> = Vec::new();
        for mut piece in stream.chunks(piece_bytes) {
            while let Some(part) = frames.next(&mut piece) {
                match part {
                    Part::Prefix(prefix) => messages.push((prefix, Vec::new())),
                    Part::Content(bytes) => {
                        let (content, rest) = piece.split_at(bytes);
                        messages.last_mut().expect("a prefix came first").1.extend(content);
                        piece = rest;
                    }
                }
            }
            assert!(piece.is_empty(), "a piece of {piece_bytes} is read to its end");
        }
        (messages, frames.is_between_messages())
    }

    #[test]
    fn messages_are_found_however_the_bytes_come() {
        let sent: Vec<Vec<u8>> = [3, 0, 700, 20].map(|length| vec![0xff; length]).into();
        let stream: Vec<u8> = sent.iter().flat_map(|message| framed(0, message)).collect();
        for piece_bytes in [1, 2, 4, 5, 6, 7, 100, 10_000] {
            let (found, may_end) = messages(&stream, piece_bytes);
            let contents: Vec<&Vec<u8>> = found.iter().map(|(_, content)| content).collect();
            assert_eq!(contents, sent.iter().collect::<Vec<_>>(), "pieces of {piece_bytes}");
            assert!(found.iter().all(|(prefix, content)| prefix.check() == Ok(content.len())));
            assert!(may_end);
            assert!(!messages(&stream[..stream.len() - 1], piece_bytes).1);
            assert!(!messages(&[stream.as_slice(), &[0]].concat(), piece_bytes).1);
        }
    }

    #[test]
    fn prefixes_that_are_refused() {
        let check = |stream: &[u8], expected: Result<usize, FrameError>, code: Code| {
            let (found, _) = messages(stream, 3);
            let outcome = found[0].0.check();
            assert_eq!(outcome, expected);
            assert!(outcome.is_ok() || Status::from(outcome.unwrap_err()).code() == code);
        };
        check(&framed(1, b"x"), Err(FrameError::Compressed), Code::Internal);
        let huge = FrameError::TooLarge { size_bytes: 0xffff_ffff };
        check(&[0, 0xff, 0xff, 0xff, 0xff], Err(huge), Code::InvalidArgument);
        let over = FrameError::TooLarge { size_bytes: MAX_MESSAGE_BYTES + 1 };
        check(&[0, 0, 0x60, 0, 1], Err(over), Code::InvalidArgument);
        check(&[0, 0, 0x60, 0, 0], Ok(MAX_MESSAGE_BYTES), Code::Ok);
    }
}
