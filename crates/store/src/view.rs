//! Reading the store from threads that may wait for a disk and from threads that must not.
//!
//! Handing a lookup of microseconds to a thread that may block, and its answer back, costs more
//! than the lookup. So a caller first asks the [`Resident`] view, which knows only what the kernel
//! has in memory, and asks the [`Blocking`] view when that answers [`StoreError::WouldWait`]. All
//! code above the store is written once, against the trait.

use bytes::Bytes;
use model::Digest;

use crate::action_cache::ActionCache;
use crate::cas::Cas;
use crate::error::StoreError;
use crate::store::Store;

/// The store as one kind of thread may read it.
pub trait StoreView {
    /// Whether the thread may wait.
    const MAY_WAIT: bool;

    /// The content of a blob of up to [`READ_BYTES_MAX`](crate::READ_BYTES_MAX) bytes; `None` if it
    /// is not in the store.
    fn blob(&self, digest: &Digest) -> Result<Option<Bytes>, StoreError>;

    /// The value that was stored for an action; `None` if there is none, or a damaged one.
    fn cached_result(&self, instance: &str, action: &Digest) -> Result<Option<Bytes>, StoreError>;

    /// Removes the value of an action that names blobs which are gone, unless it was replaced since.
    fn remove_incomplete(
        &self,
        instance: &str,
        action: &Digest,
        value: &[u8],
    ) -> Result<(), StoreError>;

    /// The blobs, for questions that are answered from memory.
    fn cas(&self) -> &Cas;
}

/// A view that waits for the disk.
#[derive(Clone, Copy)]
pub struct Blocking<'a> {
    cas: &'a Cas,
    action_cache: &'a ActionCache,
}

/// A view that never waits for the disk: it reads small files that the kernel has in memory, and
/// answers [`StoreError::WouldWait`] for all others.
#[derive(Clone, Copy)]
pub struct Resident<'a> {
    cas: &'a Cas,
    action_cache: &'a ActionCache,
}

impl Store {
    /// The view for threads that may wait for a disk.
    pub fn blocking(&self) -> Blocking<'_> {
        Blocking { cas: self.cas(), action_cache: self.action_cache() }
    }

    /// The view for threads that must not wait for a disk.
    pub fn resident(&self) -> Resident<'_> {
        Resident { cas: self.cas(), action_cache: self.action_cache() }
    }
}

impl StoreView for Blocking<'_> {
    const MAY_WAIT: bool = true;

    fn blob(&self, digest: &Digest) -> Result<Option<Bytes>, StoreError> {
        self.cas.read(digest)
    }

    fn cached_result(&self, instance: &str, action: &Digest) -> Result<Option<Bytes>, StoreError> {
        let result = self.action_cache.get(instance, action)?;
        if result.is_some() {
            self.cas.make_durable()?;
        }
        Ok(result)
    }

    fn remove_incomplete(
        &self,
        instance: &str,
        action: &Digest,
        value: &[u8],
    ) -> Result<(), StoreError> {
        self.action_cache.remove_incomplete(instance, action, value)
    }

    fn cas(&self) -> &Cas {
        self.cas
    }
}

impl StoreView for Resident<'_> {
    const MAY_WAIT: bool = false;

    fn blob(&self, digest: &Digest) -> Result<Option<Bytes>, StoreError> {
        self.cas.read_resident(digest)
    }

    fn cached_result(&self, instance: &str, action: &Digest) -> Result<Option<Bytes>, StoreError> {
        // Whether the blobs are there that the result names is asked next.
        if !self.cas.is_settled() || !self.cas.is_told_durably() {
            return Err(StoreError::WouldWait);
        }
        self.action_cache.get_resident(instance, action)
    }

    fn remove_incomplete(&self, _: &str, _: &Digest, _: &[u8]) -> Result<(), StoreError> {
        Err(StoreError::WouldWait)
    }

    fn cas(&self) -> &Cas {
        self.cas
    }
}
