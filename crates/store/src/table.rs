//! A compact hash table from a blob's hash to its size and last use.
//!
//! The index holds every blob of the store in memory, so a byte per blob counts: this table keeps an
//! entry (the hash, and 16 bytes), nothing else, and grows by an eighth at a time. For the hashes of 32
//! bytes that nearly all clients use these are 60 to 68 bytes per blob (a table that doubles needs 56
//! to 113); 40 to 46 for MD5, 100 to 114 for SHA-512. Each digest function has tables of its own. Open
//! addressing with linear probing; an entry that is removed is filled by shifting its successors back,
//! so there are no tombstones.
//!
//! Hashes are uniform already, but clients choose the blobs. A secret per process is mixed in, so
//! that nobody can prepare blobs that all want the same slot.

use model::{HASH_BYTES_MAX, HashBytes};

use crate::recency::{Tick, Usage};

/// The size that marks a free slot; no blob has it, sizes fit in an `i64`.
const VACANT: u64 = u64::MAX;
/// A table has this many slots at least, once it holds something.
const SLOTS_MIN: usize = 8;

/// The index's record of a blob.
#[derive(Clone, Copy)]
pub(crate) struct Record {
    pub(crate) hash: HashBytes,
    pub(crate) size_bytes: u64,
    pub(crate) usage: Usage,
}

/// The words of a slot before its hash: the size of the blob, and its usage.
const SIZE: usize = 0;
const USAGE: usize = 1;
const HASH: usize = 2;

/// See the module. A slot is a row of words: size, usage, and the hash, whose last word is filled up
/// with zeros.
pub(crate) struct Table {
    words: Box<[u64]>,
    slots: usize,
    hash_bytes: usize,
    occupied: usize,
    secret: u64,
}

/// The words of a hash, as in a slot.
#[derive(Clone, Copy)]
struct Key {
    words: [u64; HASH_BYTES_MAX / 8],
    length: usize,
}

impl Key {
    fn new(hash: &[u8]) -> Self {
        let mut words = [0; HASH_BYTES_MAX / 8];
        let length = hash.len().div_ceil(8).min(words.len());
        for (word, bytes) in words.iter_mut().zip(hash.chunks(8)) {
            let mut padded = [0; 8];
            padded[..bytes.len()].copy_from_slice(bytes);
            *word = u64::from_le_bytes(padded);
        }
        Self { words, length }
    }

    fn words(&self) -> &[u64] {
        &self.words[..self.length]
    }
}

impl Table {
    /// An empty table of hashes of that many bytes, which has no memory yet.
    pub(crate) fn new(secret: u64, hash_bytes: usize) -> Self {
        Self { words: Box::default(), slots: 0, hash_bytes, occupied: 0, secret }
    }

    /// The size and the usage of the blob with that hash.
    pub(crate) fn get(&self, hash: &[u8]) -> Option<(u64, Usage)> {
        let at = self.find_occupied(hash)?;
        let row = self.row(at);
        Some((row[SIZE], Usage::from_bits(row[USAGE])))
    }

    /// Notes a use of the blob with that hash, if it has that size where one is given. Returns whether
    /// it is there.
    pub(crate) fn touch(&mut self, hash: &[u8], size_bytes: Option<u64>, now: Tick) -> bool {
        let Some(at) = self.find_occupied(hash) else { return false };
        let row = self.row_mut(at);
        if size_bytes.is_some_and(|size_bytes| size_bytes != row[SIZE]) {
            return false;
        }
        let mut usage = Usage::from_bits(row[USAGE]);
        usage.touch(now);
        row[USAGE] = usage.to_bits();
        true
    }

    /// All blobs, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Record> {
        let rows = self.words.chunks_exact(self.row_words());
        let occupied = rows.filter(|row| row[SIZE] != VACANT);
        occupied.map(|row| {
            let mut bytes = [0; HASH_BYTES_MAX];
            for (chunk, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(&row[HASH..]) {
                *chunk = word.to_le_bytes();
            }
            Record {
                hash: HashBytes::of(&bytes[..self.hash_bytes]),
                size_bytes: row[SIZE],
                usage: Usage::from_bits(row[USAGE]),
            }
        })
    }

    /// Puts in a blob, and returns the size that its hash had before.
    pub(crate) fn insert(&mut self, hash: &[u8], size_bytes: u64, usage: Usage) -> Option<u64> {
        debug_assert!(size_bytes != VACANT && hash.len() == self.hash_bytes);
        if self.occupied + 1 > self.slots / 5 * 4 {
            self.resize(self.slots + self.slots / 8 + SLOTS_MIN);
        }
        let key = Key::new(hash);
        let at = self.find(key.words());
        let row = self.row_mut(at);
        let before = row[SIZE];
        row[SIZE] = size_bytes;
        row[USAGE] = usage.to_bits();
        row[HASH..].copy_from_slice(key.words());
        if before == VACANT {
            self.occupied += 1;
            return None;
        }
        Some(before)
    }

    /// Makes room for that many more blobs at once.
    pub(crate) fn reserve(&mut self, additional: usize) {
        let slots = (self.occupied + additional).div_ceil(4) * 5 + 5;
        if slots > self.slots {
            self.resize(slots);
        }
    }

    /// Takes a blob out, and returns the size that it had.
    pub(crate) fn remove(&mut self, hash: &[u8]) -> Option<u64> {
        let at = self.find_occupied(hash)?;
        let size_bytes = self.row(at)[SIZE];
        self.close_gap(at);
        self.occupied -= 1;
        if self.slots > SLOTS_MIN && self.occupied < self.slots / 4 {
            self.resize(self.slots / 2);
        }
        Some(size_bytes)
    }

    /// The memory that the table takes, in bytes.
    #[cfg(test)]
    pub(crate) fn memory_bytes(&self) -> usize {
        size_of_val(&*self.words)
    }

    fn row_words(&self) -> usize {
        HASH + self.hash_bytes.div_ceil(8)
    }

    fn row(&self, at: usize) -> &[u64] {
        let words = self.row_words();
        &self.words[at * words..][..words]
    }

    fn row_mut(&mut self, at: usize) -> &mut [u64] {
        let words = self.row_words();
        &mut self.words[at * words..][..words]
    }

    fn is_vacant(&self, at: usize) -> bool {
        self.words[at * self.row_words() + SIZE] == VACANT
    }

    /// Frees a slot and moves back what follows it, so that probing meets no gap.
    fn close_gap(&mut self, freed: usize) {
        let words = self.row_words();
        let mut gap = freed;
        let mut at = freed;
        loop {
            at = self.next(at);
            if self.is_vacant(at) {
                break;
            }
            let home = self.home(&self.row(at)[HASH..]);
            if self.distance(home, at) >= self.distance(gap, at) {
                self.words.copy_within(at * words..(at + 1) * words, gap * words);
                gap = at;
            }
        }
        self.row_mut(gap)[SIZE] = VACANT;
    }

    fn find_occupied(&self, hash: &[u8]) -> Option<usize> {
        if self.slots == 0 {
            return None;
        }
        let at = self.find(Key::new(hash).words());
        (!self.is_vacant(at)).then_some(at)
    }

    /// The slot of that hash, or the free one where it would go. There must be a free one.
    fn find(&self, key: &[u64]) -> usize {
        let mut at = self.home(key);
        loop {
            let row = self.row(at);
            if row[SIZE] == VACANT || row[HASH..] == *key {
                return at;
            }
            at = self.next(at);
        }
    }

    fn home(&self, key: &[u64]) -> usize {
        // Not the first word: the first byte is the same in all of a table.
        let word = key.get(1).copied().unwrap_or_default();
        // An odd constant with no pattern in its bits spreads the low bits to the high ones.
        let mixed = (word ^ self.secret).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        // Scales the 64 bits to the number of slots, which need be no power of two.
        ((u128::from(mixed) * self.slots as u128) >> 64) as usize
    }

    fn next(&self, at: usize) -> usize {
        if at + 1 == self.slots { 0 } else { at + 1 }
    }

    fn distance(&self, from: usize, to: usize) -> usize {
        if to >= from { to - from } else { to + self.slots - from }
    }

    fn resize(&mut self, slots: usize) {
        let words = self.row_words();
        let old = std::mem::replace(&mut self.words, vec![VACANT; slots * words].into());
        self.slots = slots;
        for row in old.chunks_exact(words).filter(|row| row[SIZE] != VACANT) {
            let at = self.find(&row[HASH..]);
            self.row_mut(at).copy_from_slice(row);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    const USAGE: Usage = Usage::recorded(7, false);

    /// A small generator of numbers, the same on every run.
    fn numbers(mut state: u64) -> impl FnMut() -> u64 {
        move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        }
    }

    /// Few different hashes, so that a run meets each of them many times.
    fn hash(number: u64) -> [u8; 64] {
        let mut hash = [0; 64];
        hash[8..16].copy_from_slice(&number.wrapping_mul(0x1234_5678_9abc_def1).to_le_bytes());
        hash[63] = number as u8;
        hash
    }

    fn check_like_a_map<const HASH: usize>() {
        let cut = |number| -> [u8; HASH] { *hash(number).first_chunk().expect("64 bytes") };
        for seed in 1..20 {
            let mut next = numbers(seed * 7919);
            let mut table = Table::new(next(), HASH);
            let mut map = HashMap::new();
            let different = 1 << (seed % 12);
            for step in 0..5000_u64 {
                let key = cut(next() % different);
                // Grows first, shrinks later, so that both directions of resizing are met.
                if next() % 10 < if step < 3000 { 6 } else { 2 } {
                    assert_eq!(table.insert(&key, step, USAGE), map.insert(key, step));
                } else {
                    assert_eq!(table.remove(&key), map.remove(&key));
                }
                assert_eq!(table.occupied, map.len());
                let other = cut(next() % different);
                assert_eq!(table.get(&other), map.get(&other).map(|size| (*size, USAGE)));
                let size = map.get(&other).copied();
                assert_eq!(table.touch(&other, None, 3), size.is_some());
                assert_eq!(table.touch(&other, size, 3), size.is_some());
                assert!(!table.touch(&other, Some(u64::MAX >> 1), 3));
            }
            let found: HashMap<Vec<u8>, u64> =
                table.iter().map(|slot| (slot.hash.to_vec(), slot.size_bytes)).collect();
            assert_eq!(found, map.into_iter().map(|(key, size)| (key.to_vec(), size)).collect());
        }
    }

    #[test]
    fn it_does_what_a_plain_map_does() {
        check_like_a_map::<16>();
        check_like_a_map::<20>();
        check_like_a_map::<32>();
        check_like_a_map::<48>();
        check_like_a_map::<64>();
    }

    #[test]
    fn a_blob_costs_little_memory() {
        for (hash_bytes, most) in [(16, 47), (20, 58), (32, 70), (48, 93), (64, 116)] {
            let mut table = Table::new(42, hash_bytes);
            let mut next = numbers(99);
            for count in 1..50_000_usize {
                table.insert(&hash(next())[..hash_bytes], 1, USAGE);
                if count > 1000 {
                    let bytes = table.memory_bytes();
                    assert!(bytes < count * most, "{bytes} bytes for {count} blobs");
                }
            }
        }
    }

    #[test]
    fn a_table_that_is_filled_at_once_takes_no_more_memory() {
        for count in [1, 7, 4000] {
            let mut table = Table::new(3, 64);
            table.reserve(count);
            let slots = table.slots;
            for number in 0..count as u64 {
                table.insert(&hash(number), 1, USAGE);
            }
            assert_eq!(table.slots, slots);
            assert!(slots <= count * 5 / 4 + 10, "{slots} for {count}");
        }
    }

    #[test]
    fn an_emptied_table_gives_its_memory_back() {
        let mut table = Table::new(7, 64);
        for number in 0..10_000 {
            table.insert(&hash(number), number, USAGE);
        }
        for number in 0..10_000 {
            assert_eq!(table.remove(&hash(number)), Some(number));
        }
        assert!(table.slots <= 2 * SLOTS_MIN);
    }
}
