//! The size of the pieces in which a blob is moved.

use crate::memory::ConnectionQuota;

/// The bytes that one visit to the disk reads or writes: large enough for the hand-over
/// between threads (about 10 µs) not to matter, small enough for a thousand
/// streams to fit in memory.
pub(super) const PIECE_BYTES: usize = 1 << 20;

/// The same when memory is scarce: slower, and room for eight times the streams.
const SMALL_PIECE_BYTES: usize = PIECE_BYTES / 8;

/// The size of the pieces of a stream that begins now.
pub(super) fn piece_bytes(quota: &ConnectionQuota) -> usize {
    if quota.is_scarce() { SMALL_PIECE_BYTES } else { PIECE_BYTES }
}
