//! Blobs whose files are gone, or are not what they should be.

use std::os::fd::OwnedFd;

use model::Digest;
use rustix::fs::{Advice, fadvise, fstat};
use rustix::io::Errno;

use super::Cas;
use crate::error::StoreError;
use crate::quarantine::Quarantine;

impl Cas {
    /// Takes a blob out of the index whose file somebody else deleted.
    pub(crate) fn forget_if_gone(&self, digest: &Digest) {
        let _name = self.inner.names.lock(digest.hash());
        // Looked for again under the lock: it may have been stored anew.
        if self.stat(digest) == Err(Errno::NOENT) && self.inner.index.contains(digest) {
            tracing::warn!(%digest, "a blob was deleted behind the store's back");
            self.inner.losses.add(digest);
            self.forget(digest);
        }
    }

    /// The files that stood in the place of blobs.
    pub(crate) fn quarantine_state(&self) -> &Quarantine {
        &self.inner.quarantine
    }

    /// Takes away what stands in the place of a blob and has another kind or size.
    pub(crate) fn quarantine_damaged(&self, digest: &Digest) -> Result<(), StoreError> {
        // Looked at again: somebody may have removed it and stored it anew.
        let is_damaged = || self.stat(digest) != Ok(digest.size_bytes());
        self.quarantine_if(digest, Errno::IO, is_damaged).map(drop)
    }

    /// Takes away a file that can't be read as the blob that it should be, so that the blob is
    /// missing and the next upload brings it back.
    pub(crate) fn quarantine(&self, digest: &Digest, error: Errno) -> Result<(), StoreError> {
        self.quarantine_if(digest, error, || true).map(drop)
    }

    /// The same if it is so, which is asked when nobody else can store or remove it. Returns the answer.
    pub(crate) fn quarantine_if(
        &self,
        digest: &Digest,
        error: Errno,
        is_so: impl FnOnce() -> bool,
    ) -> Result<bool, StoreError> {
        let inner = &*self.inner;
        let _change = inner.checkpoints.begin_change()?;
        let _name = inner.names.lock(digest.hash());
        if !is_so() {
            return Ok(false);
        }
        tracing::error!(%digest, %error, "a blob is damaged and goes to quarantine");
        inner.losses.add(digest);
        self.forget(digest);
        let cost = inner.space.cost(digest.size_bytes());
        match inner.quarantine.take(inner.files.directory(), digest, cost) {
            Ok(is_kept) => {
                inner.space.release(inner.stuck.remove(digest));
                inner.space.add(if is_kept { cost } else { 0 });
            }
            // It is not in the index any more, and an upload replaces it.
            Err(error) => {
                tracing::error!(%digest, %error, "the damaged blob could not be moved");
                inner.space.add(if inner.stuck.add(digest, cost) { cost } else { 0 });
            }
        }
        Ok(true)
    }

    /// Whether a blob may have been lost by a failed sync; if so, the kernel is asked to forget what
    /// it has of it in memory, which may be better than what is on the disk.
    pub(super) fn is_suspect(&self, file: &OwnedFd, digest: &Digest) -> Result<bool, StoreError> {
        let Some(since) = self.inner.checkpoints.suspect_since() else { return Ok(false) };
        let stat = fstat(file).map_err(|e| StoreError::io("stat blob", digest.to_string(), e))?;
        let is_suspect = stat.st_ctime as i64 >= since;
        if is_suspect {
            // A failing hint costs nothing.
            let _ = fadvise(file, 0, None, Advice::DontNeed);
        }
        Ok(is_suspect)
    }
}
