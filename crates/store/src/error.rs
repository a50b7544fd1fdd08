//! Errors of the store, by the operation that failed.

use std::io;

use model::Digest;
use rustix::io::Errno;

/// An error of an operation on the CAS or on the action cache.
///
/// That a blob or an entry is absent is no error; the operations have a value for it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A system call failed.
    #[error("can't {step} {what}")]
    Io {
        /// The act, as in "can't …".
        step: &'static str,
        /// The object of the call: a path below the root, or a digest.
        what: String,
        /// The errno.
        source: io::Error,
    },
    /// The content is not what the caller said it is.
    #[error("the content is {actual}, not {expected}")]
    DigestMismatch {
        /// The caller's error.
        expected: Digest,
        /// The actual value.
        actual: Digest,
    },
    /// More bytes arrived than the expected digest has; the rest was not looked at.
    #[error("more bytes arrived than {expected} has")]
    TooManyBytes {
        /// The caller's error.
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
    /// There is no room, and nothing that could be evicted.
    #[error("{0}")]
    Full(Shortage),
    /// A sync failed since the start, so that nothing is recorded as being on the disk.
    #[error("an earlier sync failed: the file system lost data")]
    SyncFailed,
    /// The answer is on a disk, and the caller must not wait for one: it asks again where it may.
    #[error("the answer is not in memory")]
    WouldWait,
    /// The store was closed: nothing may change any more, because it is recorded as whole.
    #[error("the store is closed")]
    Closed,
}

/// The bound that leaves no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Shortage {
    /// The store's own limit.
    #[error(
        "the store has reached its limit of {bytes} bytes, and running actions need what is in it; \
         raise --cas-size"
    )]
    Limit {
        /// The limit.
        bytes: u64,
    },
    /// The reserve of the file system.
    #[error(
        "less than the reserve of {bytes} bytes, or few inodes, are free on the file system of the \
         store, and nothing in the store can be evicted; free some space there"
    )]
    Reserve {
        /// The space that the store keeps free.
        bytes: u64,
    },
}

/// Whether an errno says that something has run out that may be there again later: space on a disk,
/// a quota, descriptors, memory, processes. Clients try again then; after any other errno the server
/// is at fault, and trying again does not help.
pub fn is_exhaustion(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::NOSPC | Errno::DQUOT | Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::AGAIN
    )
}

impl StoreError {
    pub(crate) fn io(
        step: &'static str,
        what: impl Into<String>,
        source: impl Into<io::Error>,
    ) -> Self {
        Self::Io { step, what: what.into(), source: source.into() }
    }

    /// Whether something has run out that may be there again later; see [`is_exhaustion`].
    pub fn is_exhausted(&self) -> bool {
        match self {
            Self::Full(_) => true,
            Self::Io { source, .. } => Errno::from_io_error(source).is_some_and(is_exhaustion),
            _ => false,
        }
    }
}
