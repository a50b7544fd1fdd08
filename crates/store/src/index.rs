//! The index of all files and of their last uses, in memory.
//!
//! Filled from the directories at the start and kept in step by every operation, so that asking for a
//! blob costs no system call. It knows only what it was told; when a file turns out to be gone, the
//! CAS tells it. One index holds the blobs; another one holds the cached results, under a key and a
//! size of theirs in place of a digest.
//!
//! Each part of the index is one directory of files, and is filled when it is first asked for, or
//! by the threads that open the store. So answers are right from the first moment, and whoever asks
//! early waits for one directory, not for all of them.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use model::{Digest, DigestFunction, HashBytes};
use parking_lot::{Mutex, MutexGuard};

use crate::recency::{RANKS, Tick, Usage};
use crate::table::{Record, Table};

/// Directories, and parts, per digest function: one for each first byte of a hash. They are so many that
/// two threads hardly ever meet at one.
const SHARDS: usize = 256;

/// The number of parts: the directories of all functions.
pub(crate) const PARTS: usize = DigestFunction::ALL.len() * SHARDS;

/// The bytes that could be evicted, by rank.
pub(crate) type Histogram = [u64; RANKS];

/// Puts the files of a part into its table, when they are first asked for.
pub(crate) type Fill = dyn Fn(usize, &mut Table) + Send + Sync;

/// See the module.
pub(crate) struct Index {
    parts: Box<[Mutex<Part>]>,
    /// The parts that were not filled yet.
    pending: AtomicUsize,
    fill: Box<Fill>,
    files: AtomicU64,
    bytes: AtomicU64,
}

struct Part {
    table: Table,
    is_pending: bool,
}

impl Index {
    /// An index whose parts are filled by `fill`, those of `functions`: no others have directories yet.
    /// The secret spreads the entries; see [`Table`].
    pub(crate) fn new(secret: u64, functions: &[DigestFunction], fill: Box<Fill>) -> Self {
        let part = |number| {
            let (function, _) = Self::shard_of(number);
            let table = Table::new(secret, function.hash_bytes());
            Mutex::new(Part { table, is_pending: functions.contains(&function) })
        };
        Self {
            parts: (0..PARTS).map(part).collect(),
            pending: AtomicUsize::new(functions.len() * SHARDS),
            fill,
            files: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        }
    }

    /// An index that knows that there is nothing.
    #[cfg(test)]
    pub(crate) fn empty(secret: u64) -> Self {
        let index = Self::new(secret, &DigestFunction::ALL, Box::new(|_, _| {}));
        (0..PARTS).for_each(|part| index.settle(part));
        index
    }

    /// Whether all parts were filled.
    pub(crate) fn is_settled(&self) -> bool {
        self.pending.load(Ordering::Acquire) == 0
    }

    /// Fills a part, unless that was done.
    pub(crate) fn settle(&self, part: usize) {
        drop(self.part_of(part));
    }

    /// Fills a part by another way than it would be when it is asked for, if that succeeds.
    pub(crate) fn load(&self, part: usize, load: impl FnOnce(&mut Table) -> bool) {
        let mut part = self.parts[part].lock();
        if part.is_pending && load(&mut part.table) {
            self.filled(&mut part);
        }
    }

    /// Whether a file with that hash and that size is there. Asking for it is a use.
    pub(crate) fn touch(&self, digest: &Digest, now: Tick) -> bool {
        self.part(digest).table.touch(digest.hash(), Some(digest.size_bytes()), now)
    }

    /// As [`Index::touch`], whatever the size is. A part that was not filled stays so.
    pub(crate) fn touch_any_size(&self, digest: &Digest, now: Tick) {
        let mut part = self.parts[number(digest.function(), digest.hash()[0])].lock();
        part.table.touch(digest.hash(), None, now);
    }

    /// Whether a file with that hash and that size is there, without using it.
    pub(crate) fn contains(&self, digest: &Digest) -> bool {
        let found = self.part(digest).table.get(digest.hash());
        found.is_some_and(|(size_bytes, _)| size_bytes == digest.size_bytes())
    }

    /// The size of the file with that hash, if it is known to be there.
    pub(crate) fn size(&self, function: DigestFunction, hash: &HashBytes) -> Option<u64> {
        let part = self.parts[number(function, hash[0])].lock();
        part.table.get(hash).map(|(size_bytes, _)| size_bytes)
    }

    /// Notes that the file is there; returns the size of the one that it replaced.
    pub(crate) fn insert(&self, digest: &Digest, usage: Usage) -> Option<u64> {
        let size_bytes = digest.size_bytes();
        let before = self.part(digest).table.insert(digest.hash(), size_bytes, usage);
        self.count(before, Some(size_bytes));
        before
    }

    /// Notes that no file with that hash is there; returns the size of the one that was.
    pub(crate) fn remove(&self, digest: &Digest) -> Option<u64> {
        let before = self.part(digest).table.remove(digest.hash());
        self.count(before, None);
        before
    }

    /// As [`Index::remove`], if the file was not used since then.
    pub(crate) fn remove_unused_since(&self, digest: &Digest, last_use: Tick) -> Option<u64> {
        let mut part = self.part(digest);
        if part.table.get(digest.hash())?.1.last_use != last_use {
            return None;
        }
        let before = part.table.remove(digest.hash());
        drop(part);
        self.count(before, None);
        before
    }

    /// Adds what all known files cost to the histogram.
    pub(crate) fn survey(
        &self,
        now: Tick,
        lease: Tick,
        cost: impl Fn(u64) -> u64,
        histogram: &mut Histogram,
    ) {
        for part in &self.parts {
            for slot in part.lock().table.iter() {
                histogram[slot.usage.rank(now, lease)] += cost(slot.size_bytes);
            }
        }
    }

    /// The known files of a directory from that rank on, with their last use.
    pub(crate) fn idle(
        &self,
        (function, first_byte): (DigestFunction, u8),
        rank: usize,
        now: Tick,
        lease: Tick,
    ) -> Vec<(Digest, Tick)> {
        let part = self.parts[number(function, first_byte)].lock();
        let idle = part.table.iter().filter(|slot| slot.usage.rank(now, lease) >= rank);
        let found =
            |slot: Record| (Digest::new(function, slot.hash, slot.size_bytes), slot.usage.last_use);
        idle.map(found).collect()
    }

    /// The function and the first byte of the hashes of a part, of [`PARTS`].
    pub(crate) fn shard_of(part: usize) -> (DigestFunction, u8) {
        let functions = DigestFunction::ALL.len();
        (DigestFunction::ALL[part % functions], (part / functions) as u8)
    }

    /// The files of a part, of [`PARTS`].
    pub(crate) fn files_of(&self, part: usize) -> Vec<Digest> {
        let (function, _) = Self::shard_of(part);
        let part = self.part_of(part);
        part.table.iter().map(|slot| Digest::new(function, slot.hash, slot.size_bytes)).collect()
    }

    /// The records of a part, of [`PARTS`], unless it was not filled yet.
    pub(crate) fn records_of(&self, part: usize, into: &mut Vec<Record>) -> bool {
        let part = self.parts[part].lock();
        into.extend(part.table.iter());
        !part.is_pending
    }

    /// Calls with all known files of a function, in no order; a part is locked meanwhile.
    pub(crate) fn each(&self, function: DigestFunction, mut visit: impl FnMut(Record)) {
        for first_byte in 0..=u8::MAX {
            let part = self.parts[number(function, first_byte)].lock();
            part.table.iter().for_each(&mut visit);
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

    fn part(&self, digest: &Digest) -> MutexGuard<'_, Part> {
        self.part_of(number(digest.function(), digest.hash()[0]))
    }

    fn part_of(&self, number: usize) -> MutexGuard<'_, Part> {
        let mut part = self.parts[number].lock();
        if part.is_pending {
            (self.fill)(number, &mut part.table);
            self.filled(&mut part);
        }
        part
    }

    fn filled(&self, part: &mut Part) {
        part.is_pending = false;
        for slot in part.table.iter() {
            self.count(None, Some(slot.size_bytes));
        }
        self.pending.fetch_sub(1, Ordering::Release);
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

/// The part of the files whose hashes begin with that byte. The functions take turns, so that a walk in
/// even steps is even where only one of them is in use.
fn number(function: DigestFunction, first_byte: u8) -> usize {
    usize::from(first_byte) * DigestFunction::ALL.len() + function as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presence_needs_function_hash_and_size() {
        let index = Index::empty(1);
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
    fn every_function_has_files_of_its_own() {
        let index = Index::empty(1);
        for (at, function) in DigestFunction::ALL.into_iter().enumerate() {
            assert_eq!(DigestFunction::ALL[function as usize], function);
            let digest = Digest::of(function, b"abc");
            assert!(!index.contains(&digest));
            index.insert(&digest, Usage::first(1));
            assert!(index.touch(&digest, 2));
            assert_eq!(index.files(), at as u64 + 1);
            let mut found = Vec::new();
            index.each(function, |slot| found.push((slot.hash, slot.size_bytes)));
            assert_eq!(found, [(*digest.hash(), 3)]);
            let parts = (0..PARTS).filter(|part| !index.files_of(*part).is_empty());
            assert_eq!(parts.count(), at + 1);
            let part = number(function, digest.hash()[0]);
            assert_eq!(Index::shard_of(part), (function, digest.hash()[0]));
            assert_eq!(index.files_of(part), [digest]);
        }
        for function in DigestFunction::ALL {
            assert_eq!(index.remove(&Digest::of(function, b"abc")), Some(3));
        }
        assert_eq!((index.files(), index.bytes()), (0, 0));
    }

    #[test]
    fn a_function_without_directories_has_nothing_to_be_filled() {
        let fill = Box::new(|part: usize, _: &mut Table| {
            assert_eq!(Index::shard_of(part).0, DigestFunction::Sha512);
        });
        let index = Index::new(1, &[DigestFunction::Sha512], fill);
        assert!(!index.contains(&Digest::of(DigestFunction::Md5, b"abc")));
        assert!(!index.is_settled());
        (0..PARTS).for_each(|part| index.settle(part));
        assert!(index.is_settled());
    }

    #[test]
    fn blobs_and_bytes_are_counted_once() {
        let index = Index::empty(1);
        for content in [&b"a"[..], b"bb", b"bb"] {
            index.insert(&Digest::of(DigestFunction::Blake3, content), Usage::first(1));
        }
        assert_eq!((index.files(), index.bytes()), (2, 3));
        index.remove(&Digest::of(DigestFunction::Blake3, b"bb"));
        assert_eq!((index.files(), index.bytes()), (1, 1));
    }

    #[test]
    fn what_was_used_meanwhile_is_not_removed() {
        let index = Index::empty(1);
        let digest = Digest::of(DigestFunction::Sha256, b"abc");
        index.insert(&digest, Usage::first(10));
        let found = index.idle((DigestFunction::Sha256, digest.hash()[0]), 0, 100, 0);
        assert_eq!(found, [(digest, 10)]);
        assert!(index.touch(&digest, 11));
        assert_eq!(index.remove_unused_since(&digest, 10), None);
        assert_eq!(index.remove_unused_since(&digest, 11), Some(3));
        assert!(!index.touch(&digest, 12));
    }

    #[test]
    fn a_part_is_filled_when_it_is_first_asked_for() {
        let digest = Digest::of(DigestFunction::Blake3, b"abc");
        let part = number(DigestFunction::Blake3, digest.hash()[0]);
        let index = Index::new(
            1,
            &DigestFunction::ALL,
            Box::new(move |number, table| {
                if number == part {
                    table.insert(digest.hash(), 3, Usage::first(7));
                }
            }),
        );
        assert_eq!(index.size(DigestFunction::Blake3, digest.hash()), None, "not asked for yet");
        assert!(!index.records_of(part, &mut Vec::new()));
        assert_eq!((index.files(), index.is_settled()), (0, false));
        assert!(index.contains(&digest));
        assert_eq!((index.files(), index.bytes()), (1, 3));
        index.load(part, |_| unreachable!("it is filled"));
        index.load(0, |_| false);
        (0..PARTS).for_each(|part| index.settle(part));
        assert!(index.is_settled());
        assert_eq!(index.files(), 1);
    }
}
