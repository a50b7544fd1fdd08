//! How much of a blob is moved at a time.

use crate::memory::Account;

/// What one visit to the disk reads or writes: large enough for the hand-over
/// between threads (about 10 µs) not to matter, small enough for a thousand
/// streams to fit in memory.
pub(super) const PIECE_BYTES: usize = 1 << 20;

/// The same when memory is scarce: slower, and room for eight times the streams.
const SMALL_PIECE_BYTES: usize = PIECE_BYTES / 8;

/// How large the pieces of a stream are that begins now.
pub(super) fn piece_bytes(account: &Account) -> usize {
    if account.is_scarce() { SMALL_PIECE_BYTES } else { PIECE_BYTES }
}
