//! Disk space that the limit includes, and that is not the store's own.
//!
//! The history of actions is such: it is no blob and never evicted, and the operator's one number bounds both. Its
//! owner tells how much it takes, after it was taken. So blobs make room for it, within a second.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::space::Space;

/// The sum of what others keep below the root, in bytes.
#[derive(Clone, Default)]
pub(crate) struct Total(Arc<AtomicU64>);

impl Total {
    pub(crate) fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The account of one of them. What it has charged is given back when this is dropped.
pub struct Beside {
    space: Arc<Space>,
    total: Total,
    bytes: Mutex<u64>,
}

impl Beside {
    pub(crate) fn new(space: Arc<Space>, total: Total) -> Self {
        Self { space, total, bytes: Mutex::new(0) }
    }

    /// Charges that many bytes in place of what was charged before. Never waits and never fails, also beyond the limit:
    /// the store evicts for it.
    pub fn set(&self, bytes: u64) {
        let mut charged = self.bytes.lock();
        // In this order: the sum is never more than what the space has been charged for it.
        self.space.add(bytes.saturating_sub(*charged));
        self.total.0.fetch_add(bytes, Ordering::Relaxed);
        self.total.0.fetch_sub(*charged, Ordering::Relaxed);
        self.space.release(charged.saturating_sub(bytes));
        *charged = bytes;
    }

    /// The limit of the store in bytes; `None` when it is not bounded.
    pub fn limit_bytes(&self) -> Option<u64> {
        self.space.limit()
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use model::DigestFunction;

    use crate::size::StoreSize;
    use crate::store::{Store, StoreOptions};

    const LIMIT: u64 = 32 << 20;

    fn options() -> StoreOptions {
        StoreOptions {
            size: StoreSize::Bytes(LIMIT),
            opens_in_background: true,
            ..StoreOptions::default()
        }
    }

    #[test]
    fn blobs_make_room_for_what_others_take_and_an_upload_waits_for_it() {
        let root = tempfile::tempdir().expect("a directory");
        let store = Store::open(root.path(), options()).expect("the store opens");
        let beside = store.charge_beside();
        assert_eq!(beside.limit_bytes(), Some(LIMIT));
        let mut number = 0_u32;
        let mut put = || {
            number += 1;
            store.cas().put(DigestFunction::Sha256, &number.to_le_bytes().repeat(64 << 10))
        };
        while store.stats().evicted_blobs == 0 {
            put().expect("stored");
        }
        let blobs = store.stats().blobs;
        beside.set(LIMIT / 2);
        let end = Instant::now() + Duration::from_secs(300);
        while store.stats().used_bytes > LIMIT {
            assert!(Instant::now() < end, "{:?}", store.stats());
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(store.stats().blobs < blobs, "{:?}", store.stats());
        for _ in 0..200 {
            put().expect("an older one makes room");
            assert!(store.stats().used_bytes <= LIMIT, "{:?}", store.stats());
        }
        let bytes = store.stats().bytes;
        assert!(bytes < LIMIT / 2, "the other half is taken: {bytes}");
        beside.set(2 * LIMIT);
        assert!(put().is_err(), "there is no room at all");
        drop(beside);
        put().expect("it is given back");
    }

    #[test]
    fn a_restart_does_not_charge_it_twice() {
        let root = tempfile::tempdir().expect("a directory");
        let store = Store::open(root.path(), options()).expect("the store opens");
        store.cas().put(DigestFunction::Sha256, &[1; 1 << 20]).expect("stored");
        let used = store.stats().used_bytes;
        let beside = store.charge_beside();
        beside.set(8 << 20);
        assert_eq!(store.stats().used_bytes, used + (8 << 20));
        store.close().expect("closed");
        drop((beside, store));
        let noted = std::fs::read_to_string(root.path().join("used")).expect("the account");
        assert_eq!(noted, format!("actiond used 1\nbytes {used:020}\n"));
        let store = Store::open(root.path(), options()).expect("the store opens");
        assert_eq!(store.stats().used_bytes, used);
    }
}
