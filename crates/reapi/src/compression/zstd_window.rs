//! The memory that a Zstandard stream wants of its decoder.
//!
//! A frame says so in its header (RFC 8878, 3.1.1.1):
//!
//! ```text
//!  ┌───────┬────────────┬────────┬────────────┬──────────────┐
//!  │ magic │ descriptor │ window │ dictionary │ content size │
//!  │ (4)   │ (1)        │ (0, 1) │ (0, 1,2,4) │ (0, 1,2,4,8) │
//!  └───────┴────────────┴────────┴────────────┴──────────────┘
//! ```
//!
//! Decoders allocate it at the first block, so that a few bytes could take gigabytes.

use tonic::{Code, Status};

use crate::status;

/// The window that every decoder must have, as a power of two in bytes (RFC 8878, 3.1.1.1.2). The `zstd` tool
/// stays within it up to level 19.
const COMMON_LOG: u32 = 23;

/// The largest window, as a power of two in bytes: that of `zstd --ultra -22`, 128 MiB. Four such uploads
/// fill the memory that there is for all clients.
const MAX_LOG: u32 = 27;

/// The first bytes of a frame.
const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// A stream wants a larger window than it gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the zstd stream wants a window of {0} bytes, and the server takes 128 MiB (2^{MAX_LOG}) at most; compress it \
     without --long or with --long={MAX_LOG}"
)]
pub(crate) struct WindowTooLarge(u64);

impl From<WindowTooLarge> for Status {
    fn from(error: WindowTooLarge) -> Self {
        status::of(Code::InvalidArgument, &error)
    }
}

/// The power of two that the window of a stream fits into, which starts with these bytes. Streams that start with
/// something else than the header of a frame get the common one: the decoder says what is wrong with them.
pub(super) fn log(start: &[u8]) -> Result<u32, WindowTooLarge> {
    let bytes = window_bytes(start).unwrap_or(0);
    let log = bytes.max(1).checked_next_power_of_two().map_or(u64::BITS, u64::ilog2);
    if log > MAX_LOG { Err(WindowTooLarge(bytes)) } else { Ok(log.max(COMMON_LOG)) }
}

/// The memory of a decoder whose streams have windows of up to that power of two, for a blob of that size.
pub(super) fn decoder_bytes(log: u32, size_bytes: u64) -> u64 {
    if log > COMMON_LOG { 1 << log } else { size_bytes.min(1 << COMMON_LOG) }
}

fn window_bytes(start: &[u8]) -> Option<u64> {
    let (descriptor, rest) = start.strip_prefix(&MAGIC)?.split_first()?;
    let is_single_segment = descriptor & 0x20 != 0;
    if !is_single_segment {
        let window = rest.first()?;
        let base = 1_u64 << (10 + (window >> 3));
        return Some(base + base / 8 * u64::from(window & 7));
    }
    let dictionary_bytes = [0, 1, 2, 4][usize::from(descriptor & 3)];
    let size_bytes = [1, 2, 4, 8][usize::from(descriptor >> 6)];
    let field = rest.get(dictionary_bytes..dictionary_bytes + size_bytes)?;
    let mut content_bytes = [0; 8];
    content_bytes[..size_bytes].copy_from_slice(field);
    let content_bytes = u64::from_le_bytes(content_bytes);
    // Two bytes stand for sizes from 256 on.
    Some(if size_bytes == 2 { content_bytes + 256 } else { content_bytes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    /// A stream with that window, of unknown or known size.
    fn stream(window_log: u32, size_bytes: Option<u64>) -> Vec<u8> {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        encoder.long_distance_matching(true).unwrap();
        encoder.window_log(window_log).unwrap();
        encoder.set_pledged_src_size(size_bytes).unwrap();
        let content = vec![7; size_bytes.unwrap_or(1000) as usize];
        encoder.write_all(&content).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn windows_of_real_streams() {
        for window_log in [10, 20, COMMON_LOG] {
            assert_eq!(window_bytes(&stream(window_log, None)), Some(1 << window_log));
            assert_eq!(log(&stream(window_log, None)), Ok(COMMON_LOG));
        }
        for window_log in [24, MAX_LOG] {
            assert_eq!(log(&stream(window_log, None)), Ok(window_log));
        }
        for window_log in [28, 30, 31] {
            let refused = log(&stream(window_log, None)).unwrap_err();
            assert_eq!(refused, WindowTooLarge(1 << window_log));
            assert!(refused.to_string().contains("--long=27"), "{refused}");
        }
        // One that is smaller than the window is its own.
        for size_bytes in [1, 255, 256, 300, 65_791, 65_792, 100_000] {
            let stream = stream(MAX_LOG, Some(size_bytes));
            assert_eq!(window_bytes(&stream), Some(size_bytes), "{size_bytes}");
            assert_eq!(log(&stream), Ok(COMMON_LOG));
        }
    }

    #[test]
    fn what_is_no_header_is_left_to_the_decoder() {
        let good = stream(MAX_LOG, Some(100_000));
        for cut in 0..9 {
            assert_eq!(log(&good[..cut]), Ok(COMMON_LOG), "{cut} bytes");
        }
        assert_eq!(log(&[0x50, 0x2a, 0x4d, 0x18, 0xff, 0xff, 0xff, 0xff]), Ok(COMMON_LOG));
        let huge = [&MAGIC[..], &[0xe0], &[0xff; 8]].concat();
        assert_eq!(log(&huge), Err(WindowTooLarge(u64::MAX)));
        let widest = [&MAGIC[..], &[0, 0xff]].concat();
        assert_eq!(log(&widest), Err(WindowTooLarge((1 << 41) + 7 * (1 << 38))));
    }
}
