//! The memory that a guest can do without.
//!
//! A guest's free memory is the host's only when the balloon takes it: the host can't see which
//! pages the guest has stopped using. The balloon is therefore filled and emptied again, which
//! leaves the guest its size and gives the host the pages until the guest touches them. It never
//! stays filled: an action that wants memory then would be killed for it.

use std::ops::RangeInclusive;

const MIB: u64 = 1 << 20;

/// The part of its free memory that the guest keeps, so that what runs can go on.
const KEPT_PART: u64 = 4;

/// The host's memory pressure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pressure {
    /// There is enough.
    Normal,
    /// It is short: what can be given should be.
    Short,
}

/// The size in bytes that a guest of `memory_bytes` is squeezed to when `free_bytes` of it are free
/// and the framework allows sizes in `allowed`; `None` when it is not worth the work.
pub fn squeezed_bytes(
    memory_bytes: u64,
    free_bytes: u64,
    allowed: &RangeInclusive<u64>,
) -> Option<u64> {
    let taken = free_bytes.min(memory_bytes) / KEPT_PART * (KEPT_PART - 1);
    let target = (memory_bytes - taken).max(*allowed.start()).next_multiple_of(MIB);
    (target < memory_bytes).then_some(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The target in MiB for a guest of 512 MiB.
    fn check(free_mib: u64) -> Option<u64> {
        let target = squeezed_bytes(512 * MIB, free_mib * MIB, &(128 * MIB..=1024 * MIB));
        target.map(|bytes| {
            assert!(bytes.is_multiple_of(MIB));
            bytes / MIB
        })
    }

    #[test]
    fn a_part_of_what_is_free_is_taken() {
        assert_eq!(check(400), Some(212));
        assert_eq!(check(4), Some(509));
    }

    #[test]
    fn nothing_free_is_nothing_taken() {
        assert_eq!(check(0), None);
        assert_eq!(check(1), None);
    }

    #[test]
    fn a_guest_that_lies_keeps_the_least_size() {
        assert_eq!(check(512), Some(128));
        assert_eq!(check(u64::MAX / MIB), Some(128));
    }
}
