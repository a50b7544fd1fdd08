//! The pins: who needs which blobs now.
//!
//! A running action needs thousands of blobs, so pins are not counted per blob: whoever needs a set
//! of blobs registers the set, in constant time, and a deletion asks every registered set.
//!
//! The reason why that is free of races: a pin is registered under the lock that a deletion holds from before
//! it asks the sets until the blob is out of the index. Whoever **first pins and then checks
//! presence** therefore either was seen by the deletion, which then refuses, or finds the blob
//! absent.

use std::collections::HashMap;
use std::sync::Arc;

use model::{Digest, InputTree};
use parking_lot::{Mutex, MutexGuard};

/// A set of blobs that must not be deleted.
pub trait PinSet: Send + Sync {
    /// Whether the blob is in the set. Called with a lock held: must be quick and must not call
    /// the store. The set must not change while it is registered.
    fn contains(&self, digest: &Digest) -> bool;
}

/// An input tree needs its files.
impl PinSet for InputTree {
    fn contains(&self, digest: &Digest) -> bool {
        self.blobs().binary_search(digest).is_ok()
    }
}

/// The sets that are registered now.
#[derive(Default)]
pub(crate) struct Pins {
    registered: Mutex<Registered>,
}

#[derive(Default)]
pub(crate) struct Registered {
    sets: HashMap<u64, Arc<dyn PinSet>>,
    next: u64,
}

impl Registered {
    /// Whether any set has the blob.
    pub(crate) fn contain(&self, digest: &Digest) -> bool {
        self.sets.values().any(|set| set.contains(digest))
    }
}

impl Pins {
    /// Registers a set until the guard is dropped.
    pub(crate) fn register(self: &Arc<Self>, set: Arc<dyn PinSet>) -> Pin {
        let mut registered = self.registered.lock();
        let number = registered.next;
        registered.next += 1;
        registered.sets.insert(number, set);
        Pin { pins: Arc::clone(self), number }
    }

    /// Keeps new sets out until the guard is dropped.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Registered> {
        self.registered.lock()
    }
}

/// Keeps the blobs of a set from being deleted until it is dropped.
#[must_use = "the blobs are pinned only as long as this lives"]
pub struct Pin {
    pins: Arc<Pins>,
    number: u64,
}

impl Drop for Pin {
    fn drop(&mut self) {
        // The set is dropped after the lock: its own drop may take long.
        let _set = self.pins.lock().sets.remove(&self.number);
    }
}
