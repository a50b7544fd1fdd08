//! Which blobs are there: all of them, in memory.
//!
//! Filled from the directory at the start and kept in step by every operation of the CAS, so that
//! asking for a blob costs no system call. It knows only what it was told; when a file turns out
//! to be gone, the CAS tells it.

use std::sync::atomic::{AtomicU64, Ordering};

use model::{Digest, DigestFunction};
use parking_lot::Mutex;

use crate::table::Table;

/// Shards per digest function: so many that two threads hardly ever meet at one.
const SHARDS: usize = 256;

/// See the module.
pub(crate) struct Index {
    sha256: Box<[Mutex<Table>]>,
    blake3: Box<[Mutex<Table>]>,
    blobs: AtomicU64,
    bytes: AtomicU64,
}

impl Index {
    /// An empty index. The secret spreads the entries; see [`Table`].
    pub(crate) fn new(secret: u64) -> Self {
        let shards = || (0..SHARDS).map(|_| Mutex::new(Table::new(secret))).collect();
        Self {
            sha256: shards(),
            blake3: shards(),
            blobs: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        }
    }

    /// Whether a blob with that hash and that size is there.
    pub(crate) fn contains(&self, digest: &Digest) -> bool {
        self.shard(digest).lock().get(digest.hash()) == Some(digest.size_bytes())
    }

    /// Notes that the blob is there.
    pub(crate) fn insert(&self, digest: &Digest) {
        let before = self.shard(digest).lock().insert(digest.hash(), digest.size_bytes());
        self.count(before, Some(digest.size_bytes()));
    }

    /// Notes that no blob with that hash is there, and returns whether one was.
    pub(crate) fn remove(&self, digest: &Digest) -> bool {
        let before = self.shard(digest).lock().remove(digest.hash());
        self.count(before, None);
        before.is_some()
    }

    /// The number of blobs.
    pub(crate) fn blobs(&self) -> u64 {
        self.blobs.load(Ordering::Relaxed)
    }

    /// The sum of their sizes.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    fn shard(&self, digest: &Digest) -> &Mutex<Table> {
        let shards = match digest.function() {
            DigestFunction::Sha256 => &self.sha256,
            DigestFunction::Blake3 => &self.blake3,
        };
        // The last byte: the table takes its bits from the first ones.
        &shards[usize::from(digest.hash()[31])]
    }

    fn count(&self, before: Option<u64>, after: Option<u64>) {
        if let Some(size_bytes) = before {
            self.blobs.fetch_sub(1, Ordering::Relaxed);
            self.bytes.fetch_sub(size_bytes, Ordering::Relaxed);
        }
        if let Some(size_bytes) = after {
            self.blobs.fetch_add(1, Ordering::Relaxed);
            self.bytes.fetch_add(size_bytes, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presence_needs_function_hash_and_size() {
        let index = Index::new(1);
        let digest = Digest::of(DigestFunction::Sha256, b"abc");
        index.insert(&digest);
        assert!(index.contains(&digest));
        let other_size = Digest::new(DigestFunction::Sha256, *digest.hash(), 4);
        let other_function = Digest::new(DigestFunction::Blake3, *digest.hash(), 3);
        assert!(!index.contains(&other_size));
        assert!(!index.contains(&other_function));
        assert!(index.remove(&digest));
        assert!(!index.remove(&digest));
        assert!(!index.contains(&digest));
    }

    #[test]
    fn blobs_and_bytes_are_counted_once() {
        let index = Index::new(1);
        for content in [&b"a"[..], b"bb", b"bb"] {
            index.insert(&Digest::of(DigestFunction::Blake3, content));
        }
        assert_eq!((index.blobs(), index.bytes()), (2, 3));
        index.remove(&Digest::of(DigestFunction::Blake3, b"bb"));
        assert_eq!((index.blobs(), index.bytes()), (1, 1));
    }
}
