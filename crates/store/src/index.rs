//! Which files are there, and when they were last used: all of it, in memory.
//!
//! Filled from the directory at the start and kept in step by every operation, so that asking for a
//! blob costs no system call. It knows only what it was told; when a file turns out to be gone, the
//! CAS tells it. One index holds the blobs; another one holds the cached results, under a key and a
//! size of theirs in place of a digest.

use std::sync::atomic::{AtomicU64, Ordering};

use model::{Digest, DigestFunction};
use parking_lot::Mutex;

use crate::recency::{RANKS, Tick, Usage};
use crate::table::{Slot, Table};

/// Shards per digest function: so many that two threads hardly ever meet at one.
const SHARDS: usize = 256;

/// The parts that a walk over everything takes one after the other: the shards of all functions.
pub(crate) const PARTS: usize = DigestFunction::ALL.len() * SHARDS;

/// The bytes that could be evicted, by rank.
pub(crate) type Histogram = [u64; RANKS];

/// See the module.
pub(crate) struct Index {
    sha256: Box<[Mutex<Table>]>,
    blake3: Box<[Mutex<Table>]>,
    files: AtomicU64,
    bytes: AtomicU64,
}

impl Index {
    /// An empty index. The secret spreads the entries; see [`Table`].
    pub(crate) fn new(secret: u64) -> Self {
        let shards = || (0..SHARDS).map(|_| Mutex::new(Table::new(secret))).collect();
        Self {
            sha256: shards(),
            blake3: shards(),
            files: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        }
    }

    /// Whether a file with that hash and that size is there. Asking for it is a use.
    pub(crate) fn touch(&self, digest: &Digest, now: Tick) -> bool {
        let mut shard = self.shard(digest).lock();
        let found = shard.get_mut(digest.hash());
        match found.filter(|slot| slot.size_bytes == digest.size_bytes()) {
            Some(slot) => {
                slot.usage.touch(now);
                true
            }
            None => false,
        }
    }

    /// As [`Index::touch`], whatever the size is.
    pub(crate) fn touch_any_size(&self, digest: &Digest, now: Tick) {
        if let Some(slot) = self.shard(digest).lock().get_mut(digest.hash()) {
            slot.usage.touch(now);
        }
    }

    /// Whether a file with that hash and that size is there, without using it.
    pub(crate) fn contains(&self, digest: &Digest) -> bool {
        let mut shard = self.shard(digest).lock();
        shard.get_mut(digest.hash()).is_some_and(|slot| slot.size_bytes == digest.size_bytes())
    }

    /// The size of the file with that hash, if it is there.
    pub(crate) fn size(&self, function: DigestFunction, hash: &[u8; 32]) -> Option<u64> {
        let mut shard = self.shards(function)[usize::from(hash[31])].lock();
        shard.get_mut(hash).map(|slot| slot.size_bytes)
    }

    /// Notes that the file is there; returns the size of the one that it replaced.
    pub(crate) fn insert(&self, digest: &Digest, usage: Usage) -> Option<u64> {
        let size_bytes = digest.size_bytes();
        let before = self.shard(digest).lock().insert(digest.hash(), size_bytes, usage);
        self.count(before, Some(size_bytes));
        before
    }

    /// Notes that no file with that hash is there; returns the size of the one that was.
    pub(crate) fn remove(&self, digest: &Digest) -> Option<u64> {
        let before = self.shard(digest).lock().remove(digest.hash());
        self.count(before, None);
        before
    }

    /// As [`Index::remove`], if the file was not used since then.
    pub(crate) fn remove_unused_since(&self, digest: &Digest, last_use: Tick) -> Option<u64> {
        let mut shard = self.shard(digest).lock();
        let slot = shard.get_mut(digest.hash())?;
        if slot.usage.last_use != last_use {
            return None;
        }
        let before = shard.remove(digest.hash());
        drop(shard);
        self.count(before, None);
        before
    }

    /// Adds what all files cost to the histogram.
    pub(crate) fn survey(
        &self,
        now: Tick,
        lease: Tick,
        cost: impl Fn(u64) -> u64,
        histogram: &mut Histogram,
    ) {
        for shard in self.sha256.iter().chain(&self.blake3) {
            for slot in shard.lock().iter() {
                histogram[slot.usage.rank(now, lease)] += cost(slot.size_bytes);
            }
        }
    }

    /// The files of a shard from that rank on, with their last use.
    pub(crate) fn idle(
        &self,
        (function, shard): (DigestFunction, u8),
        rank: usize,
        now: Tick,
        lease: Tick,
    ) -> Vec<(Digest, Tick)> {
        let table = self.shards(function)[usize::from(shard)].lock();
        let idle = table.iter().filter(|slot| slot.usage.rank(now, lease) >= rank);
        let found =
            |slot: &Slot| (Digest::new(function, slot.hash, slot.size_bytes), slot.usage.last_use);
        idle.map(found).collect()
    }

    /// The function and the shard of a part, of [`PARTS`].
    pub(crate) fn shard_of(part: usize) -> (DigestFunction, u8) {
        (DigestFunction::ALL[part / SHARDS], (part % SHARDS) as u8)
    }

    /// The files of a part, of [`PARTS`].
    pub(crate) fn part(&self, part: usize) -> Vec<Digest> {
        let (function, shard) = Self::shard_of(part);
        let table = self.shards(function)[usize::from(shard)].lock();
        table.iter().map(|slot| Digest::new(function, slot.hash, slot.size_bytes)).collect()
    }

    /// Calls with all files of a function, in no order; a shard is locked meanwhile.
    pub(crate) fn each(&self, function: DigestFunction, mut visit: impl FnMut(&Slot)) {
        for shard in self.shards(function) {
            shard.lock().iter().for_each(&mut visit);
        }
    }

    /// The number of files.
    pub(crate) fn files(&self) -> u64 {
        self.files.load(Ordering::Relaxed)
    }

    /// The sum of their sizes.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    fn shard(&self, digest: &Digest) -> &Mutex<Table> {
        // The last byte: the table takes its bits from the first ones.
        &self.shards(digest.function())[usize::from(digest.hash()[31])]
    }

    fn shards(&self, function: DigestFunction) -> &[Mutex<Table>] {
        match function {
            DigestFunction::Sha256 => &self.sha256,
            DigestFunction::Blake3 => &self.blake3,
        }
    }

    fn count(&self, before: Option<u64>, after: Option<u64>) {
        if let Some(size_bytes) = before {
            self.files.fetch_sub(1, Ordering::Relaxed);
            self.bytes.fetch_sub(size_bytes, Ordering::Relaxed);
        }
        if let Some(size_bytes) = after {
            self.files.fetch_add(1, Ordering::Relaxed);
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
        index.insert(&digest, Usage::first(1));
        assert!(index.contains(&digest));
        let other_size = Digest::new(DigestFunction::Sha256, *digest.hash(), 4);
        let other_function = Digest::new(DigestFunction::Blake3, *digest.hash(), 3);
        assert!(!index.contains(&other_size));
        assert!(!index.contains(&other_function));
        assert_eq!(index.remove(&digest), Some(3));
        assert_eq!(index.remove(&digest), None);
        assert!(!index.contains(&digest));
    }

    #[test]
    fn blobs_and_bytes_are_counted_once() {
        let index = Index::new(1);
        for content in [&b"a"[..], b"bb", b"bb"] {
            index.insert(&Digest::of(DigestFunction::Blake3, content), Usage::first(1));
        }
        assert_eq!((index.files(), index.bytes()), (2, 3));
        index.remove(&Digest::of(DigestFunction::Blake3, b"bb"));
        assert_eq!((index.files(), index.bytes()), (1, 1));
    }

    #[test]
    fn what_was_used_meanwhile_is_not_removed() {
        let index = Index::new(1);
        let digest = Digest::of(DigestFunction::Sha256, b"abc");
        index.insert(&digest, Usage::first(10));
        let found = index.idle((DigestFunction::Sha256, digest.hash()[31]), 0, 100, 0);
        assert_eq!(found, [(digest, 10)]);
        assert!(index.touch(&digest, 11));
        assert_eq!(index.remove_unused_since(&digest, 10), None);
        assert_eq!(index.remove_unused_since(&digest, 11), Some(3));
        assert!(!index.touch(&digest, 12));
    }
}
