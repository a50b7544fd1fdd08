//! Damaged blobs that can be neither moved nor deleted: they are not in the index and still take disk space.
//!
//! Without this, a store on a disk with such files takes more than its limit until the next start, which counts them
//! as blobs of their names again.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use model::Digest;
use parking_lot::Mutex;

/// The number of files that are remembered, at about 100 bytes each. A disk with more of them is broken: the space of
/// those beyond stays charged until the next start, also when an upload has replaced the file.
const FILES_MAX: usize = 4096;

/// The files and the disk space that was charged for each, in bytes.
#[derive(Default)]
pub(crate) struct Stuck {
    files: Mutex<HashMap<Digest, u64>>,
    /// Their number, read without the lock: almost always 0.
    count: AtomicUsize,
}

impl Stuck {
    /// Remembers that the file of a blob stays at its name. Returns whether `cost` is to be charged for it: once.
    pub(crate) fn add(&self, digest: &Digest, cost: u64) -> bool {
        let mut files = self.files.lock();
        if files.contains_key(digest) {
            return false;
        }
        if files.len() < FILES_MAX {
            files.insert(*digest, cost);
            self.count.store(files.len(), Ordering::Release);
        }
        true
    }

    /// The file is gone from the name, or another one took its place. Returns the bytes to give back.
    pub(crate) fn remove(&self, digest: &Digest) -> u64 {
        if self.count.load(Ordering::Acquire) == 0 {
            return 0;
        }
        let mut files = self.files.lock();
        let cost = files.remove(digest);
        self.count.store(files.len(), Ordering::Release);
        cost.unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use model::DigestFunction;

    use super::*;
    use crate::disk::faults::{Counted, Fault, arm};
    use crate::{Store, StoreOptions};

    #[test]
    fn a_damaged_blob_that_stays_on_the_disk_stays_in_the_account() {
        let root = tempfile::tempdir().expect("a directory");
        let options = StoreOptions {
            checkpoint_interval: std::time::Duration::from_secs(3600),
            ..StoreOptions::default()
        };
        let store = Store::open(root.path(), options).expect("the store opens");
        let content = vec![7; 100_000];
        let digest = store.cas().put(DigestFunction::Sha256, &content).expect("stored");
        let used = store.stats().used_bytes;
        let broken = arm(root.path(), Counted::OfThisThread, 0, Fault::Dies, Box::new(|| ()));
        for _ in 0..2 {
            store.cas().quarantine(&digest, rustix::io::Errno::IO).expect("told");
            assert!(!store.cas().contains(&digest), "it is not served");
            assert_eq!(store.stats().used_bytes, used, "it takes its space, once");
        }
        drop(broken);
        // The upload takes the place of the file.
        store.cas().put(DigestFunction::Sha256, &content).expect("stored");
        assert_eq!(store.stats().used_bytes, used);
        store.cas().delete(&digest).expect("deleted");
        assert!(store.stats().used_bytes + 100_000 <= used);
    }

    #[test]
    fn what_is_remembered_is_bounded_and_all_is_charged() {
        let stuck = Stuck::default();
        let digest = |number: usize| Digest::of(DigestFunction::Sha256, &number.to_le_bytes());
        assert!((0..=FILES_MAX).all(|number| stuck.add(&digest(number), 5)));
        assert_eq!(stuck.files.lock().len(), FILES_MAX);
        assert!(!stuck.add(&digest(0), 5));
        assert_eq!([stuck.remove(&digest(0)), stuck.remove(&digest(0))], [5, 0]);
    }
}
