//! What can go wrong in the store, by the act that failed.

use std::io;

use model::Digest;

/// Why an operation on the CAS or on the action cache failed.
///
/// That a blob or an entry is absent is no error; the operations have a value for it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A system call failed.
    #[error("can't {step} {what}")]
    Io {
        /// The act, as in "can't …".
        step: &'static str,
        /// What it was done to: a path below the root, or a digest.
        what: String,
        /// The errno.
        source: io::Error,
    },
    /// The content is not what the caller said it is.
    #[error("the content is {actual}, not {expected}")]
    DigestMismatch {
        /// What the caller said.
        expected: Digest,
        /// What arrived.
        actual: Digest,
    },
    /// More bytes arrived than the expected digest has; the rest was not looked at.
    #[error("more bytes arrived than {expected} has")]
    TooManyBytes {
        /// What the caller said.
        expected: Digest,
    },
    /// The blob is larger than what is read into memory at once.
    #[error("{digest} is larger than the {max_bytes} bytes that are read at once")]
    TooLargeToRead {
        /// The blob.
        digest: Digest,
        /// The bound.
        max_bytes: u64,
    },
    /// The value is larger than an entry of the action cache may be.
    #[error("a cached result of {size_bytes} bytes is over the limit of {max_bytes}")]
    EntryTooLarge {
        /// The size of the value.
        size_bytes: u64,
        /// The bound.
        max_bytes: u64,
    },
    /// The answer is on a disk, and the caller must not wait for one: it asks again where it may.
    #[error("the answer is not in memory")]
    WouldWait,
    /// The store was closed: nothing may change any more, because it is recorded as whole.
    #[error("the store is closed")]
    Closed,
}

impl StoreError {
    pub(crate) fn io(
        step: &'static str,
        what: impl Into<String>,
        source: impl Into<io::Error>,
    ) -> Self {
        Self::Io { step, what: what.into(), source: source.into() }
    }

    /// Whether the disk, or what of it we may use, is full.
    pub fn is_out_of_space(&self) -> bool {
        matches!(self, Self::Io { source, .. }
            if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
    }
}
