//! zstd, with bounds. In Rust, so that the host's binary needs no C compiler for any target.

use std::io::{self, Read, Write};

use ruzstd::decoding::StreamingDecoder;

const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Bytes that are decoded and written at a time.
const PORTION_BYTES: usize = 256 << 10;

/// Why something did not inflate.
#[derive(Debug, thiserror::Error)]
pub enum InflateError {
    /// Reading or writing failed, or what was read is not zstd.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The header of the frame is not zstd's.
    #[error("the zstd header: {0}")]
    Header(String),
    /// More than an artifact of this kind can have.
    #[error("it has more than {limit} bytes")]
    TooLarge {
        /// The bound, in bytes.
        limit: u64,
    },
    /// The content is not what was compressed.
    #[error("its checksum is {found:#010x}, the frame says {expected:#010x}")]
    Checksum {
        /// As the frame has it.
        expected: u32,
        /// As computed.
        found: u32,
    },
    /// Something follows the frame.
    #[error("bytes after the end of the zstd frame")]
    TrailingBytes,
}

/// Whether the bytes begin like a zstd frame.
pub(super) fn is_zstd(bytes: &mut impl Read) -> io::Result<bool> {
    let mut magic = [0; MAGIC.len()];
    match bytes.read_exact(&mut magic) {
        Ok(()) => Ok(magic == MAGIC),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// Writes what one zstd frame holds, at most `limit` bytes. Memory is bounded by the window, of
/// which the decoder allows 100 MB.
pub(super) fn inflate(
    from: impl Read,
    to: &mut impl Write,
    limit: u64,
) -> Result<(), InflateError> {
    let mut decoder =
        StreamingDecoder::new(from).map_err(|error| InflateError::Header(error.to_string()))?;
    let mut portion = vec![0; PORTION_BYTES];
    let mut written = 0;
    loop {
        let read = decoder.read(&mut portion)?;
        if read == 0 {
            break;
        }
        written += read as u64;
        if written > limit {
            return Err(InflateError::TooLarge { limit });
        }
        to.write_all(&portion[..read])?;
    }
    let (mut rest, frame) = decoder.into_parts();
    let checksums = (frame.get_checksum_from_data(), frame.get_calculated_checksum());
    if let (Some(expected), Some(found)) = checksums
        && expected != found
    {
        return Err(InflateError::Checksum { expected, found });
    }
    if rest.read(&mut [0])? != 0 {
        return Err(InflateError::TrailingBytes);
    }
    Ok(())
}
