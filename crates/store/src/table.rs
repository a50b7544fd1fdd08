//! A compact hash table from a blob's hash to its size and last use.
//!
//! The index holds every blob of the store in memory, so a byte per blob counts: this table keeps
//! the 48 bytes of an entry, nothing else, and grows by an eighth at a time, which is 60 to 68
//! bytes per blob (a table that doubles needs 56 to 113). Open addressing with linear probing; an
//! entry that is removed is filled by shifting its successors back, so there are no tombstones.
//!
//! Hashes are uniform already, but clients choose the blobs. A secret per process is mixed in, so
//! that nobody can prepare blobs that all want the same slot.

use crate::recency::Usage;

/// The size that marks a free slot; no blob has it, sizes fit in an `i64`.
const VACANT: u64 = u64::MAX;
/// A table has this many slots at least, once it holds something.
const SLOTS_MIN: usize = 8;

/// The index's record of a blob.
#[derive(Clone, Copy)]
pub(crate) struct Slot {
    pub(crate) hash: [u8; 32],
    pub(crate) size_bytes: u64,
    pub(crate) usage: Usage,
}

const FREE: Slot = Slot { hash: [0; 32], size_bytes: VACANT, usage: Usage::recorded(0, false) };

/// See the module.
pub(crate) struct Table {
    slots: Box<[Slot]>,
    occupied: usize,
    secret: u64,
}

impl Table {
    /// An empty table, which has no memory yet.
    pub(crate) fn new(secret: u64) -> Self {
        Self { slots: Box::default(), occupied: 0, secret }
    }

    /// The blob with that hash.
    pub(crate) fn get_mut(&mut self, hash: &[u8; 32]) -> Option<&mut Slot> {
        if self.slots.is_empty() {
            return None;
        }
        let at = self.find(hash);
        Some(&mut self.slots[at]).filter(|slot| slot.size_bytes != VACANT)
    }

    /// All blobs, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Slot> {
        self.slots.iter().filter(|slot| slot.size_bytes != VACANT)
    }

    /// Puts in a blob, and returns the size that its hash had before.
    pub(crate) fn insert(&mut self, hash: &[u8; 32], size_bytes: u64, usage: Usage) -> Option<u64> {
        debug_assert_ne!(size_bytes, VACANT);
        if self.occupied + 1 > self.slots.len() / 5 * 4 {
            self.resize(self.slots.len() + self.slots.len() / 8 + SLOTS_MIN);
        }
        let at = self.find(hash);
        let before =
            std::mem::replace(&mut self.slots[at], Slot { hash: *hash, size_bytes, usage });
        if before.size_bytes == VACANT {
            self.occupied += 1;
            return None;
        }
        Some(before.size_bytes)
    }

    /// Makes room for that many more blobs at once.
    pub(crate) fn reserve(&mut self, additional: usize) {
        let slots = (self.occupied + additional).div_ceil(4) * 5 + 5;
        if slots > self.slots.len() {
            self.resize(slots);
        }
    }

    /// Takes a blob out, and returns the size that it had.
    pub(crate) fn remove(&mut self, hash: &[u8; 32]) -> Option<u64> {
        if self.slots.is_empty() {
            return None;
        }
        let at = self.find(hash);
        let size_bytes = self.slots[at].size_bytes;
        if size_bytes == VACANT {
            return None;
        }
        self.close_gap(at);
        self.occupied -= 1;
        if self.slots.len() > SLOTS_MIN && self.occupied < self.slots.len() / 4 {
            self.resize(self.slots.len() / 2);
        }
        Some(size_bytes)
    }

    /// Frees a slot and moves back what follows it, so that probing meets no gap.
    fn close_gap(&mut self, freed: usize) {
        let mut gap = freed;
        let mut at = freed;
        loop {
            at = self.next(at);
            if self.slots[at].size_bytes == VACANT {
                break;
            }
            let home = self.home(&self.slots[at].hash);
            if self.distance(home, at) >= self.distance(gap, at) {
                self.slots[gap] = self.slots[at];
                gap = at;
            }
        }
        self.slots[gap] = FREE;
    }

    /// The slot of that hash, or the free one where it would go. There must be a free one.
    fn find(&self, hash: &[u8; 32]) -> usize {
        let mut at = self.home(hash);
        while self.slots[at].size_bytes != VACANT && self.slots[at].hash != *hash {
            at = self.next(at);
        }
        at
    }

    fn home(&self, hash: &[u8; 32]) -> usize {
        // Not the first word: the first byte is the same in all of a table.
        let [_, word, ..] = hash.as_chunks::<8>().0 else { unreachable!("a hash has 32 bytes") };
        // An odd constant with no pattern in its bits spreads the low bits to the high ones.
        let mixed = (u64::from_le_bytes(*word) ^ self.secret).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        // Scales the 64 bits to the number of slots, which need be no power of two.
        ((u128::from(mixed) * self.slots.len() as u128) >> 64) as usize
    }

    fn next(&self, at: usize) -> usize {
        if at + 1 == self.slots.len() { 0 } else { at + 1 }
    }

    fn distance(&self, from: usize, to: usize) -> usize {
        if to >= from { to - from } else { to + self.slots.len() - from }
    }

    fn resize(&mut self, slots: usize) {
        let old = std::mem::replace(&mut self.slots, vec![FREE; slots].into());
        for slot in old {
            if slot.size_bytes != VACANT {
                let at = self.find(&slot.hash);
                self.slots[at] = slot;
            }
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
    fn hash(number: u64) -> [u8; 32] {
        let mut hash = [0; 32];
        hash[8..16].copy_from_slice(&number.wrapping_mul(0x1234_5678_9abc_def1).to_le_bytes());
        hash[31] = number as u8;
        hash
    }

    #[test]
    fn it_does_what_a_plain_map_does() {
        for seed in 1..20 {
            let mut next = numbers(seed * 7919);
            let mut table = Table::new(next());
            let mut map = HashMap::new();
            let different = 1 << (seed % 12);
            for step in 0..5000_u64 {
                let key = hash(next() % different);
                // Grows first, shrinks later, so that both directions of resizing are met.
                if next() % 10 < if step < 3000 { 6 } else { 2 } {
                    assert_eq!(table.insert(&key, step, USAGE), map.insert(key, step));
                } else {
                    assert_eq!(table.remove(&key), map.remove(&key));
                }
                assert_eq!(table.occupied, map.len());
                let other = hash(next() % different);
                let found = table.get_mut(&other).map(|slot| slot.size_bytes);
                assert_eq!(found, map.get(&other).copied());
            }
            assert_eq!(table.iter().count(), map.len());
            for (key, size) in &map {
                assert_eq!(table.get_mut(key).map(|slot| slot.size_bytes), Some(*size));
            }
        }
    }

    #[test]
    fn a_blob_costs_little_memory() {
        let mut table = Table::new(42);
        let mut next = numbers(99);
        for count in 1..50_000_usize {
            table.insert(&hash(next()), 1, USAGE);
            if count > 1000 {
                let bytes = table.slots.len() * size_of::<Slot>();
                assert!(bytes < count * 70, "{bytes} bytes for {count} blobs");
            }
        }
    }

    #[test]
    fn a_table_that_is_filled_at_once_takes_no_more_memory() {
        for count in [1, 7, 4000] {
            let mut table = Table::new(3);
            table.reserve(count);
            let slots = table.slots.len();
            for number in 0..count as u64 {
                table.insert(&hash(number), 1, USAGE);
            }
            assert_eq!(table.slots.len(), slots);
            assert!(slots <= count * 5 / 4 + 10, "{slots} for {count}");
        }
    }

    #[test]
    fn an_emptied_table_gives_its_memory_back() {
        let mut table = Table::new(7);
        for number in 0..10_000 {
            table.insert(&hash(number), number, USAGE);
        }
        for number in 0..10_000 {
            assert_eq!(table.remove(&hash(number)), Some(number));
        }
        assert!(table.slots.len() <= 2 * SLOTS_MIN);
    }
}
