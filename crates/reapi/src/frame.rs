//! gRPC's frames: what stands before each message, and what can be wrong with one.
//!
//! ```text
//!  ┌───────────┬────────────────────┬─────────┐
//!  │compressed?│ length, big endian │ message │
//!  │ (1 byte)  │ (4)                │         │
//!  └───────────┴────────────────────┴─────────┘
//! ```
//!
//! <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>

use tonic::{Code, Status};

use crate::status;

/// Bytes before a message: a flag, and the length.
pub(crate) const PREFIX_BYTES: usize = 5;

/// The largest request message. A batch holds at most 4 MiB of data; the rest is room for its
/// digests and for clients that fill their ByteStream messages to 4 MiB.
pub(crate) const MAX_MESSAGE_BYTES: usize = 5 << 20;

/// Why a message cannot be taken off the wire.
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
            FrameError::TooLarge { .. } => Code::OutOfRange,
            FrameError::Malformed(_) => Code::InvalidArgument,
        };
        status::of(code, &error)
    }
}
